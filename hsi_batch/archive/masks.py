"""Arrays of named masks, and what becomes of them when blocks are converted again."""

from __future__ import annotations

import warnings

from hsi_batch.archive.packing import row_array
from hsi_batch.archive.session import Session
from hsi_batch.errors import DataWarning

__all__ = ["forget_masks", "mask_statistics"]


def mask_statistics(name: str) -> tuple[str, str]:
    """Arrays that hold moments and extrema of the pixels of a mask.

    Examples
    --------
    >>> mask_statistics("product")
    ('moments_mask_product', 'extrema_mask_product')
    """
    return f"moments_mask_{name}", f"extrema_mask_{name}"


def forget_masks(session: Session) -> None:
    """Take masks out of a session some blocks of which are converted again; warns of each.

    A mask says nothing of pixels that were not there when it was made.
    """
    held = session.masks
    for name, made in held.items():
        kinds = mask_statistics(name)
        for array in (f"mask_{name}", *kinds, *map(row_array, kinds)):
            if session.optional(array) is not None:
                del session.group[array]
        warnings.warn(
            f"mask {name} of session {session.name} was taken out, because blocks are converted"
            f" again. Make it again: hsi-batch mask STORE --name {name} --from"
            f" '{made.get('from', '')}' --frames {session.name}.",
            DataWarning,
            stacklevel=3,
        )
    if held:
        session.group.attrs["masks"] = {}
