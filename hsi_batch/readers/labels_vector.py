"""GeoJSON and GeoPackages: polygons on the ground, by the coordinate systems of both sides.

The class is the field ``class``, ``label``, ``category``, ``class_name`` or ``name``, whichever is
the first of these: text, numbered in the order of the file, or whole numbers as they are. Without
such a field every feature is an anomaly. What no feature covers is unlabelled.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.geography import Geography
from hsi_batch.readers.labels_border import numbered
from hsi_batch.readers.painting import library, painted, to_pixels

__all__ = ["VECTOR_SUFFIXES", "VectorLabels", "is_vector"]

VECTOR_SUFFIXES = (".geojson", ".gpkg")
_FIELDS = ("class", "label", "category", "class_name", "name")
_MAX_CLASS = 32767  # labels are int16
_HEAD = 2**20


class VectorLabels:
    """The labels that polygons on the ground make.

    Parameters
    ----------
    path : str
    shape : tuple of int
        ``(y, x)`` of the frames.
    geography : Geography, optional
        Of the recording.

    Raises
    ------
    hsi_batch.errors.SourceError
        Unreadable, a feature without class, or a recording that is not georeferenced.
    """

    def __init__(
        self, path: str, shape: tuple[int, int], geography: Geography | None = None
    ) -> None:
        self.path = path
        stat = Path(path).stat()
        layers, self.digest = _read(path, stat.st_mtime_ns, stat.st_size)
        names = [name for _, classes, _ in layers for name in classes]
        numbers = _numbers(path, names)
        shapes = []
        for geometries, classes, system in layers:
            moved = to_pixels(geometries, system, geography, path)
            shapes += [(g, numbers[c]) for g, c in zip(moved, classes, strict=True)]
        self._raster = painted(shapes, shape)
        self.classes = {0: "background"} | {
            number: name if isinstance(name, str) else f"class {name}"
            for name, number in sorted(numbers.items(), key=lambda item: item[1])
            if number
        }

    def raster(self, frame: int) -> NDArray[np.int16] | None:  # noqa: ARG002
        """Labels of a frame, the same for all; None if no feature touches it."""
        return self._raster

    def close(self) -> None:
        """Nothing is held open."""


def is_vector(path: str) -> bool:
    """Whether a file is GeoJSON or a GeoPackage, by its suffix or its first words."""
    suffix = Path(path).suffix.lower()
    if suffix in VECTOR_SUFFIXES:
        return True
    if suffix != ".json":
        return False
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD).split()
    except OSError:
        return False
    return b'"type":"FeatureCollection"' in b"".join(head)


def _numbers(path: str, names: list[Any]) -> dict[Any, int]:
    if all(isinstance(name, str) for name in names):
        return numbered(names)
    numbers = {name: name for name in names if isinstance(name, int) and 0 <= name <= _MAX_CLASS}
    wrong = [name for name in names if name not in numbers]
    if wrong:
        raise SourceError(
            f"the class {wrong[0]!r} of a feature is neither a name nor a whole number 0 to"
            f" {_MAX_CLASS}.",
            path=path,
            hint="Give each feature a class.",
        )
    return numbers


# Many sessions may look at one file.
@lru_cache(maxsize=4)
def _read(path: str, changed: int, size: int) -> tuple[list[tuple[Any, list[Any], Any]], str]:  # noqa: ARG001
    """Geometries, classes and coordinate system of each layer, and the digest of the file."""
    pyogrio, raw = library("pyogrio"), library("pyogrio.raw")
    shapely = library("shapely")
    layers = []
    try:
        if Path(path).suffix.lower() != ".gpkg":
            json.loads(Path(path).read_bytes())  # GDAL says little of what is wrong
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for layer, kind in pyogrio.list_layers(path):
                if kind is None:
                    continue
                meta, _, geometries, columns = raw.read(path, layer=layer)
                classes = _classes(path, list(meta["fields"]), columns, len(geometries))
                layers.append((list(shapely.from_wkb(geometries)), classes, meta["crs"]))
    except (OSError, ValueError, RuntimeError, pyogrio.errors.DataSourceError) as error:
        raise SourceError(
            f"its features cannot be read: {error}.", path=path, hint="Save it again."
        ) from None
    return layers, hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _classes(path: str, fields: list[str], columns: Any, count: int) -> list[Any]:
    held = {name.casefold(): column for name, column in zip(fields, columns, strict=True)}
    column = next((held[name] for name in _FIELDS if name in held), None)
    if column is None:
        return ["anomaly"] * count
    values = [v.item() if isinstance(v, np.generic) else v for v in column]
    values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    lacking = [i for i, v in enumerate(values) if v in (None, "") or str(v) == "nan"]
    if lacking:
        raise SourceError(
            f"feature {lacking[0]} (counted from 0) has no class.",
            path=path,
            hint="Give each feature a class; what is not labelled is left out, not marked.",
        )
    return values
