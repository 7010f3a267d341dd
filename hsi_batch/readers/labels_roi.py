"""Regions of interest of ENVI: as text (``; ENVI Output of ROIs``), and as XML of ENVI 5.

Each region is a class, in the order of the file; one called background or normal is 0. Pixels of no
region are unlabelled. In text, X and Y count from 1. In XML, coordinates are those of the map that
the region names, or, without one, of pixels: the corner of the first one is (0, 0).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.geography import Geography
from hsi_batch.readers.labels_border import numbered
from hsi_batch.readers.painting import Shape, painted, to_pixels

__all__ = ["ROI_SUFFIXES", "RoiLabels", "is_roi"]

ROI_SUFFIXES = (".xml", ".roi", ".txt")
_TEXT, _XML = b"; ENVI Output of ROIs", b"<RegionsOfInterest"
_HINT = (
    "Save the regions as XML (ENVI 5), or as text with the columns X and Y (Output ROIs to ASCII)."
)
_NO_SYSTEM = ("", "none", "unknown")


class RoiLabels:
    """The labels that regions of interest make.

    Parameters
    ----------
    path : str
    shape : tuple of int
        ``(y, x)`` of the frames.
    frames : int
        Frames of the recording; it must have one.
    geography : Geography, optional
        Of the recording, for regions in map coordinates.

    Raises
    ------
    hsi_batch.errors.SourceError
        Another kind of file, regions of another frame, or in map coordinates without a map.
    """

    def __init__(
        self,
        path: str,
        shape: tuple[int, int],
        frames: int,
        geography: Geography | None = None,
    ) -> None:
        self.path = path
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise SourceError(
                f"cannot be read: {error.strerror}.",
                path=path,
                hint="Check the permissions of the file.",
            ) from error
        if frames != 1:
            raise SourceError(
                f"regions say nothing of frames, and the recording has {frames}.",
                path=path,
                hint="Use a COCO file, which names them.",
            )
        self.digest = hashlib.sha256(content).hexdigest()
        head = content[:4096].lstrip(b"\xef\xbb\xbf \r\n")
        if head.startswith(_TEXT):
            names, self._raster = _from_text(path, content.decode("utf-8", "replace"), shape)
        elif _XML in head:
            names, self._raster = _from_xml(path, content, shape, geography)
        else:
            raise SourceError("these are no regions that can be read.", path=path, hint=_HINT)
        self.classes = {0: "background"} | {n: name for name, n in numbered(names).items() if n}

    def raster(self, frame: int) -> NDArray[np.int16] | None:  # noqa: ARG002
        """Labels of the one frame; None if no region touches it."""
        return self._raster

    def close(self) -> None:
        """Nothing is held open."""


def is_roi(path: str) -> bool:
    """Whether a file is meant to hold regions; one ending in ``.txt`` says so in its first line."""
    suffix = Path(path).suffix.lower()
    if suffix != ".txt":
        return suffix in ROI_SUFFIXES
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_TEXT)) == _TEXT
    except OSError:
        return False


def _from_text(
    path: str, text: str, shape: tuple[int, int]
) -> tuple[list[str], NDArray[np.int16] | None]:
    names: list[str] = []
    counts: list[int] = []
    columns: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith(";"):
            rows += [(number, line.split())] if line.strip() else []
            continue
        key, _, value = line.lstrip("; ").partition(":")
        key, value = key.strip().casefold(), value.strip()
        if key == "roi name":
            names.append(value)
        elif key == "roi npts":
            counts.append(_whole(path, number, value))
        elif key == "file dimension":
            said = [_whole(path, number, part) for part in re.split(r"\s*x\s*", value)]
            if said != [shape[1], shape[0]]:
                raise SourceError(
                    f"its regions are of a file of {value} samples x lines; the frame has"
                    f" {shape[1]} x {shape[0]}.",
                    path=path,
                    line=number,
                    hint="Use the regions of this recording, uncropped.",
                )
        else:
            found = re.sub(r"(?i)map +(?=[xy]\b)", "map_", line.strip("; \t")).split()
            columns = found if {"X", "Y"} <= set(found) else columns
    if not columns or len(counts) != len(names) or sum(counts) != len(rows):
        raise SourceError(
            f"it names {len(names)} regions of {sum(counts)} pixels"
            f" {'' if columns else 'without the columns X and Y '}and lists {len(rows)}.",
            path=path,
            hint=_HINT,
        )
    raster = np.full(shape, -1, dtype=np.int16)
    numbers = numbered(names)
    x, y = columns.index("X"), columns.index("Y")
    left = iter(rows)
    for name, count in zip(names, counts, strict=True):
        for _ in range(count):
            line_number, cells = next(left)
            if len(cells) <= max(x, y):
                raise SourceError(
                    "this line has too few columns.",
                    path=path,
                    line=line_number,
                    hint="Save the regions again, with the columns X and Y.",
                )
            place = _whole(path, line_number, cells[y]) - 1, _whole(path, line_number, cells[x]) - 1
            if not (0 <= place[0] < shape[0] and 0 <= place[1] < shape[1]):
                raise SourceError(
                    f"X {cells[x]}, Y {cells[y]} is outside the frame of {shape[1]} samples x"
                    f" {shape[0]} lines.",
                    path=path,
                    line=line_number,
                    hint="Use the regions of this recording, uncropped.",
                )
            raster[place] = numbers[name]
    return names, raster if rows else None


def _whole(path: str, line: int, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SourceError(
            f"{text!r} is no whole number.", path=path, line=line, hint=_HINT
        ) from None


def _from_xml(
    path: str, content: bytes, shape: tuple[int, int], geography: Geography | None
) -> tuple[list[str], NDArray[np.int16] | None]:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        # Entities can grow to gigabytes; ENVI writes none.
        raise SourceError(
            "it declares a document type, which ENVI does not.",
            path=path,
            hint="Save the regions again.",
        )
    try:
        root = ET.fromstring(content)  # noqa: S314 - without entities, see above
    except ET.ParseError as error:
        raise SourceError(
            f"not valid XML: {error}.", path=path, hint="Save the regions again."
        ) from None
    regions = list(root.iter("Region"))
    names = [region.get("name") or f"region {i}" for i, region in enumerate(regions, start=1)]
    numbers = numbered(names)
    shapes: list[Shape] = []
    for region, name in zip(regions, names, strict=True):
        for definition in region.iter("GeometryDef"):
            system = (definition.findtext("CoordSysStr") or "").strip()
            found = [_polygon(path, polygon) for polygon in definition.iter("Polygon")]
            others = {e.tag for e in definition} - {"CoordSysStr", "Polygon"}
            if others or not found:
                raise SourceError(
                    f"region {name!r} is made of {', '.join(sorted(others)) or 'nothing'}; expected"
                    " polygons.",
                    path=path,
                    hint="Convert the region to polygons, or save it as text (ASCII).",
                )
            if system.casefold() not in _NO_SYSTEM:
                found = to_pixels(found, system, geography, path)
            shapes += [(polygon, numbers[name]) for polygon in found]
    return names, painted(shapes, shape)


def _polygon(path: str, element: ET.Element) -> dict[str, Any]:
    rings = [
        _ring(path, ring)
        for kind in ("Exterior", "Interior")
        for part in element.iter(kind)
        for ring in part.iter("Coordinates")
    ]
    return {"type": "Polygon", "coordinates": rings}


def _ring(path: str, element: ET.Element) -> list[tuple[float, float]]:
    try:
        values = np.array((element.text or "").split(), dtype=np.float64).reshape(-1, 2)
    except ValueError:
        values = np.zeros((0, 2))
    if len(values) < 3 or not np.isfinite(values).all():
        raise SourceError(
            "a polygon does not list pairs of numbers, three or more.",
            path=path,
            hint="Save the regions again.",
        )
    ring = [(float(x), float(y)) for x, y in values]
    return ring if ring[0] == ring[-1] else [*ring, ring[0]]
