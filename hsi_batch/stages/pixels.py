"""Which pixels a fit counts: whether that is known, and whether the sessions have them."""

from __future__ import annotations

from collections.abc import Mapping

from hsi_batch.archive.session import PixelChoice, Session, variant_of
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.wording import some

__all__ = ["arrays_of", "check_pixels", "need_pixels"]

_KNOWN = ("valid", "labelled-normal", "mask:NAME")


def check_pixels(pixels: PixelChoice) -> None:
    """Refuse a choice that is not known.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is none of ``valid``, ``labelled-normal`` and ``mask:NAME``.
    """
    if pixels in _KNOWN[:2] or (pixels.startswith("mask:") and pixels != "mask:"):
        return
    raise ConfigError(
        f"pixels {pixels!r} is not one of {', '.join(_KNOWN)}."
        f"{did_you_mean(pixels, [*_KNOWN[:2], 'mask:'])}"
    )


def arrays_of(pixels: PixelChoice) -> tuple[str, ...]:
    """Arrays of a session that tell which pixels count, and what their statistics are."""
    variant = variant_of(pixels)
    own = {"": (), "_normal": ("label",)}.get(variant, (variant[1:],))
    return (f"moments{variant}", f"extrema{variant}", *own)


def need_pixels(sessions: Mapping[str, Session], pixels: PixelChoice) -> None:
    """Refuse sessions that cannot say which of their pixels are meant.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No session has labels, or some lack the mask.
    """
    if pixels == "labelled-normal" and not any(s.labelled for s in sessions.values()):
        raise ConfigError(
            f"none of the selected sessions ({some(list(sessions))}) has labels, and what is not"
            " labelled is not normal.",
            hint="Convert with annotations (convert --annotations FILE), or fit on all valid"
            " pixels (--pixels valid).",
        )
    if not pixels.startswith("mask:"):
        return
    name = pixels.removeprefix("mask:")
    lacking = [n for n, session in sessions.items() if name not in session.masks]
    if lacking:
        there = sorted({mask for session in sessions.values() for mask in session.masks})
        raise ConfigError(
            f"{some(lacking)} of {len(sessions)} sessions have no mask {name!r}."
            f"{did_you_mean(name, there)}",
            hint=f"Make it: hsi-batch mask STORE --name {name} --from 'b(800)/b(650) > 1.2'.",
        )
