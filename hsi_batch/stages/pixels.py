"""Which pixels a fit counts: whether that is known, and whether the sessions have them."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote

from hsi_batch.archive.labels import label_versions
from hsi_batch.archive.session import PixelChoice, Session, variant_of
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.wording import some

__all__ = ["arrays_of", "check_pixels", "need_pixels"]

_KNOWN = ("valid", "labelled-normal", "class:NAME", "mask:NAME")
#: So many sessions that lack a mask are named in the command that makes it; else it is for all.
_NAMED = 5


def check_pixels(pixels: PixelChoice) -> None:
    """Refuse a choice that is not known.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is none of ``valid``, ``labelled-normal``, ``class:NAME`` and ``mask:NAME``.
    """
    kind, _, name = pixels.partition(":")
    if pixels in _KNOWN[:2] or (kind in ("class", "mask") and name):
        return
    raise ConfigError(
        f"pixels {pixels!r} is not one of {', '.join(_KNOWN)}."
        f"{did_you_mean(pixels, [*_KNOWN[:2], 'class:', 'mask:'])}"
    )


def arrays_of(pixels: PixelChoice) -> tuple[str, ...]:
    """Arrays of a session that tell which pixels count, and what their statistics are."""
    variant = variant_of(pixels)
    own = {"": ("columns",), "_normal": ("label",), "_class": ("label",)}.get(variant)
    return (f"moments{variant}", f"extrema{variant}", *(own or (variant[1:],)))


def _need_normal(sessions: Mapping[str, Session]) -> None:
    """Refuse labels that are known to mark anomalies only: what is not marked is not normal."""
    held = [label_versions(s).get(s.label_version, {}) for s in sessions.values() if s.labelled]
    counts = [(entry.get("labelled"), entry.get("anomalous")) for entry in held]
    if counts and all(labelled is not None and labelled == other for labelled, other in counts):
        raise ConfigError(
            f"the labels of {some(list(sessions))} mark no background, and what is not labelled is"
            " not normal.",
            hint="Mark background, say that all else is background (hsi-batch label STORE"
            " --annotations FILE --rest background), or fit on all valid pixels (--pixels valid).",
        )


def need_pixels(sessions: Mapping[str, Session], pixels: PixelChoice) -> None:
    """Refuse sessions that cannot say which of their pixels are meant.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No session has labels, or the class; or some lack the mask.
    """
    if pixels == "labelled-normal":
        _need_normal(sessions)
    by_label = pixels == "labelled-normal" or pixels.startswith("class:")
    if by_label and not any(s.labelled for s in sessions.values()):
        raise ConfigError(
            f"none of the selected sessions ({some(list(sessions))}) has labels, and what is not"
            " labelled is not normal.",
            hint="Add labels (hsi-batch label STORE --annotations FILE, or convert --annotations"
            " FILE), or fit on all valid pixels (--pixels valid).",
        )
    if pixels.startswith("class:"):
        _need_class(sessions, pixels)
    if not pixels.startswith("mask:"):
        return
    name = pixels.removeprefix("mask:")
    lacking = [n for n, session in sessions.items() if name not in session.masks]
    if lacking:
        there = {mask: made for s in sessions.values() for mask, made in s.masks.items()}
        source = there.get(name, {}).get("from", "b(800)/b(650) > 1.2")
        few = "".join(f" --frames {quote(n)}" for n in lacking) if name in there else ""
        raise ConfigError(
            f"{some(lacking)} of {len(sessions)} sessions have no mask {name!r}."
            f"{'' if name in there else did_you_mean(name, sorted(there))}",
            hint=f"Make it: hsi-batch mask STORE --name {name} --from '{source}'"
            f"{few if len(lacking) <= _NAMED else ''}.",
        )


def _need_class(sessions: Mapping[str, Session], pixels: PixelChoice) -> None:
    labelled = [s for s in sessions.values() if s.labelled]
    if any(session.class_number(pixels) is not None for session in labelled):
        return
    there = sorted({name for session in labelled for name in session.classes})
    name = pixels.removeprefix("class:")
    raise ConfigError(
        f"none of the {len(labelled)} labelled sessions has a class {name!r}."
        f"{did_you_mean(name, there)}",
        hint=f"There are {', '.join(there) or 'no named classes'}; a number stands for itself.",
    )
