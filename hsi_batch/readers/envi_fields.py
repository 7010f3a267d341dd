"""The text of an ENVI header: ``name = value`` pairs, each with its line.

The text is parsed by the `spectral` package. What that parser does not expect is smoothed out
before: byte-order marks, Latin-1 bytes, CR and CRLF line ends, comments behind a closing brace,
upper-case names.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError

__all__ = ["EnviFields", "foreign_format", "read_fields"]

_MAX_BYTES = 64 << 20
_COMMENT = re.compile(r"\}\s*;.*$")


class EnviFields:
    """The ``name = value`` pairs of a header, and the line each stands on.

    Attributes
    ----------
    path : str
        The header file.
    values : dict
        Lower-case name -> text, or list of texts for a value in braces; verbatim.
    """

    def __init__(
        self, path: str, values: dict[str, str | list[str]], places: dict[str, int]
    ) -> None:
        self.path = path
        self.values = values
        self._places = places

    def error(self, message: str, name: str | None = None, hint: str | None = None) -> SourceError:
        """An error about the field ``name``, with its line if it has one."""
        line = None if name is None else self._places.get(name)
        return SourceError(message, path=self.path, line=line, hint=hint)

    def text(self, name: str) -> str | None:
        """The value as one text; None if the field is missing or empty."""
        value = self.values.get(name)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else ", ".join(value)
        return value or None

    def integer(self, name: str, default: int | None = None, least: int = 0) -> int:
        """A whole number not below ``least``; an error if missing without a default."""
        text = self.text(name)
        if text is None:
            if default is not None:
                return default
            raise self.error(
                f"the header has no {name!r}.", hint=f"Add a line '{name} = <whole number>'."
            )
        digits = text.split(";")[0].strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", digits):
            raise self.error(f"{name!r} is {text[:40]!r}, which is not a whole number.", name)
        if int(digits) < least:
            raise self.error(f"{name!r} is {digits}; it must be {least} or more.", name)
        return int(digits)

    def numbers(self, name: str, count: int | None = None) -> NDArray[np.float64] | None:
        """A list of numbers, ``count`` of them if given; None if the field is missing or empty."""
        value = self.values.get(name) or []
        joined = value.split(";")[0] if isinstance(value, str) else " ".join(value)
        words = joined.replace(",", " ").split()
        if not words:
            return None
        numbers = np.empty(len(words))
        for i, word in enumerate(words):
            try:
                numbers[i] = float(word)
            except ValueError:
                raise self.error(
                    f"value {i + 1} of {name!r} is {word[:40]!r}, which is not a number.", name
                ) from None
        if count is not None and len(numbers) != count:
            raise self.error(
                f"{name!r} has {len(numbers)} values for {count} bands.",
                name,
                hint=f"Give one value for each band, or delete {name!r}.",
            )
        return numbers


def read_fields(path: str) -> EnviFields:
    """Parse the text of a header; raises :class:`SourceError` if it is not one."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(512)
            if not re.match(r"ENVI\b", _first_line(content)):
                found, hint = foreign_format(content) or _unknown_format(content)
                raise SourceError(f"not an ENVI header: {found}.", path=path, hint=hint)
            content += file.read(_MAX_BYTES)
    except OSError as error:
        raise SourceError(
            f"the header cannot be read: {error.strerror}.",
            path=path,
            hint="Check the permissions of the file.",
        ) from error
    if len(content) > _MAX_BYTES:
        raise SourceError(
            f"the header is larger than {_MAX_BYTES >> 20} MB.",
            path=path,
            hint="Name the header, not the data file.",
        )
    text, places, opened = _normalised(_decoded(content))
    if opened is not None:
        raise SourceError(
            f"the '{{' of {opened!r} is never closed.",
            path=path,
            line=places[opened],
            hint="The header may be cut off; copy it again.",
        )
    return EnviFields(path, _parsed(text, path), places)


def foreign_format(head: bytes) -> tuple[str, str] | None:
    """Which other format, if one is known, begins with these bytes: what it is, and what to do."""
    if head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00"):
        return "it is an Analyze or NIfTI header", "Convert the volume to ENVI or npz."
    if head.startswith((b"#?RADIANCE", b"#?RGBE")):
        return "it is a Radiance high-dynamic-range picture", "It holds no spectra; leave it out."
    words = {line.split()[0].upper() for line in head.splitlines() if line.split()}
    if len(words & {b"BYTEORDER", b"LAYOUT", b"NROWS", b"NCOLS", b"NBANDS", b"NBITS"}) >= 2:
        return (
            "it looks like an Esri (ArcGIS) BIL/BIP/BSQ header (BYTEORDER, LAYOUT, NROWS, ...)",
            "Convert it with 'gdal_translate -of ENVI', or write an ENVI header for its data file.",
        )
    return None


def _unknown_format(head: bytes) -> tuple[str, str]:
    if not head:
        return "the file is empty", "Copy it again."
    if b"\0" in head:
        return "it is a binary file", "Name the text header, not the data file."
    if b"samples" in head.lower() or b"interleave" in head.lower():
        return "its first line is not 'ENVI'", "Insert a first line that reads ENVI."
    return f"it begins with {_first_line(head)[:40]!r}", "The first line must read ENVI."


def _first_line(head: bytes) -> str:
    lines = head.decode("utf-8-sig", errors="replace").strip().splitlines()
    return lines[0].strip() if lines else ""


def _decoded(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _normalised(text: str) -> tuple[str, dict[str, int], str | None]:
    """The text as the parser likes it, the line of each field, and a field left open at the end."""
    lines = ["ENVI"]
    places: dict[str, int] = {}
    opened = None
    for number, raw in enumerate(text.split("\n"), 1):
        line = _COMMENT.sub("}", raw.strip())
        if not line or line.startswith(";"):
            continue
        if opened is not None:
            lines.append(line)
            opened = None if line.endswith("}") else opened
            continue
        if line.startswith("{") and lines[-1].endswith("="):
            line = f"{lines.pop()} {line}"
        name, equals, value = line.partition("=")
        name = " ".join(name.lower().split())
        if equals and name.islower():
            lines.append(f"{name} = {value.strip()}".strip())
            places.setdefault(name, number)
            if value.strip().startswith("{") and not line.endswith("}"):
                opened = name
    return "\n".join(lines) + "\n", places, opened


def _parsed(text: str, path: str) -> dict[str, str | list[str]]:
    from spectral.io.envi import EnviException, read_envi_header

    # Written with the encoding that the parser will open it with, whatever that is here.
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        file.write(text)
        file.seek(0)
        try:
            values: dict[str, str | list[str]] = read_envi_header(os.dup(file.fileno()))
        except EnviException as error:
            raise SourceError(
                f"the header cannot be parsed: {error}",
                path=path,
                hint="Mend that line, or write the header again.",
            ) from error
    return {
        name: [v for v in value if v] if isinstance(value, list) else value
        for name, value in values.items()
    }
