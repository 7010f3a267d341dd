"""Numbers of frames, as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hsi_batch.errors import ConfigError

__all__ = ["FrameIds", "frame_numbers"]

#: Numbers, and ranges ``"5-9"`` and ``"10-20:2"`` with both ends.
FrameIds = Sequence[int | str]

_RANGE = re.compile(r"^\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*(?::\s*(\d{1,9})\s*)?)?$")
#: No recording has more frames; a range beyond is a slip.
_MOST = 10_000_000


def frame_numbers(ids: FrameIds | None, what: str) -> tuple[int, ...] | None:
    """Frame numbers in the order given, each once; None stays None.

    Raises
    ------
    hsi_batch.errors.ConfigError
        An entry is neither a number from 0 nor a range.

    Examples
    --------
    >>> frame_numbers([0, "5-9", "10-20:5"], "train_ids")
    (0, 5, 6, 7, 8, 9, 10, 15, 20)
    """
    if ids is None:
        return None
    entries = [ids] if isinstance(ids, (str, int)) else list(ids)
    found: dict[int, None] = {}
    for entry in entries:
        match = _RANGE.match(str(entry))
        if match is None or isinstance(entry, (bool, float)):
            raise ConfigError(
                f"{what}: {entry!r} is no frame number.",
                hint='Write numbers from 0, or ranges such as "5-9" or "10-20:2".',
            )
        first, last, step = match.groups()
        start, stop = int(first), int(first if last is None else last)
        if stop < start or stop > _MOST or step == "0":
            raise ConfigError(
                f"{what}: the range {entry!r} holds nothing or too much.",
                hint="Give numbers from 0 on, the first of a range below the last.",
            )
        found.update(dict.fromkeys(range(start, stop + 1, int(step or 1))))
    return tuple(found)
