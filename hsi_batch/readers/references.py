"""White and dark references of a scan: named by the user, or paired by how cameras name them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hsi_batch.errors import SourceError
from hsi_batch.readers.folders import once_per_folder
from hsi_batch.readers.reference_names import reference_reason

__all__ = ["FoundReferences", "Reference", "find_references"]

_MARK = re.compile(
    r"(?:white|dark)[ _.-]?(?:ref(?:erences?)?|cal(?:ib(?:ration)?)?|current|frame|panel|tile|"
    r"target|board|standard|noise)?",
    re.IGNORECASE,
)
_SEPARATORS = " _.-"
# What is left of the name of a reference that serves every scan of its folder.
_ANONYMOUS = re.compile(
    r"[0-9 _.\-]*(?:(?:raw|before|after|start|end|pre|post)[0-9 _.\-]*)?", re.IGNORECASE
)


class Reference(NamedTuple):
    """A file of a reference, and which of its frames; all of them if None."""

    path: str
    frame: int | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """``FILE`` or ``FILE:FRAME``, the path made absolute.

        Examples
        --------
        >>> Reference.parse("/data/white.cu3s:3")
        Reference(path='/data/white.cu3s', frame=3)
        """
        head, colon, tail = text.rpartition(":")
        if colon and tail.isdigit() and not Path(text).exists():
            return cls(str(Path(head).absolute()), int(tail))
        return cls(str(Path(text).absolute()))

    def __str__(self) -> str:
        return self.path if self.frame is None else f"{self.path}:{self.frame}"


class FoundReferences(NamedTuple):
    """What lies beside a scan; None for what does not."""

    white: str | None = None
    dark: str | None = None


def find_references(recording: str) -> FoundReferences:
    """The white and the dark reference of a scan, by their names.

    A reference that bears the name of the scan is its own (Specim: ``WHITEREF_scan.hdr`` and
    ``DARKREF_scan.hdr`` beside ``scan.hdr``; also ``scan_white.hdr``). One without any other name
    serves all scans of its folder (Headwall: ``whiteReference.hdr`` and ``darkReference.hdr``
    beside ``raw_0.hdr``).

    Parameters
    ----------
    recording : str
        The file that names the scan.

    Raises
    ------
    hsi_batch.errors.SourceError
        Several references of one kind could be meant.
    """
    path = Path(recording)
    if not path.parent.is_dir():
        return FoundReferences()
    stem, suffix = os.path.splitext(path.name)  # noqa: PTH122 - as those beside it
    own, shared = _references_in(path.parent)
    found = []
    for kind in ("white", "dark"):
        of_scan = own.get((kind, suffix.lower(), _plain(stem)), [])
        of_folder = shared.get((kind, suffix.lower()), [])
        names = [[n for n in held if n != path.name] for held in (of_scan, of_folder)]
        found.append(_one(recording, kind, names[0] or names[1]))
    return FoundReferences(*found)


@once_per_folder
def _references_in(
    names: Sequence[str],
) -> tuple[dict[tuple[str, str, str], list[str]], dict[tuple[str, str], list[str]]]:
    """References by kind, suffix and the scan that they name, and those that name none."""
    own: dict[tuple[str, str, str], list[str]] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, of many
        reason = reference_reason(stem)
        kind = None if reason is None else reason.split()[1]
        if kind not in ("white", "dark") or "white and dark" in str(reason):
            continue
        rest = _MARK.sub("", stem, count=1)
        own.setdefault((kind, suffix.lower(), _plain(rest)), []).append(name)
        if _ANONYMOUS.fullmatch(rest):
            shared.setdefault((kind, suffix.lower()), []).append(name)
    return own, shared


def _plain(name: str) -> str:
    return name.casefold().strip(_SEPARATORS)


def _one(recording: str, kind: str, found: list[str]) -> str | None:
    if len(found) > 1:
        raise SourceError(
            f"several {kind} references could be its own: {', '.join(found)}.",
            path=recording,
            hint=f"Name the one to use with --{kind} FILE, or leave it raw with --white none.",
        )
    return str(Path(recording).with_name(found[0])) if found else None
