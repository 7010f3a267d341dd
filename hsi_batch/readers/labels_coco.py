"""COCO files: polygons and run-length masks by frame.

* The image id is the frame index, the category id the class value, 0 the background.
* Images that are listed without annotations are all background; frames that are not listed are
  unlabelled.
* Annotations are painted in the order of the file; later ones cover earlier ones.
* ``segmentation`` is a list of polygons (drawn by pycocotools) or a run-length mask, compressed or
  not, whether or not ``iscrowd`` is set; a run-length mask under the older key ``mask`` counts too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError

__all__ = ["CocoLabels"]

_MAX_CLASS = 32767  # labels are int16


class CocoLabels:
    """The labels of a COCO file.

    Parameters
    ----------
    path : str
        The file.
    shape : tuple of int
        ``(y, x)`` of the frames; images of another size are an error.
    frames : int
        Frames of the recording.

    Raises
    ------
    hsi_batch.errors.SourceError
        Malformed JSON, ids that are missing, double or out of range, sizes that disagree.
    """

    def __init__(self, path: str, shape: tuple[int, int], frames: int) -> None:
        self.path = path
        self._shape = shape
        try:
            content = Path(path).read_bytes()
            document = json.loads(content)
        except OSError as error:
            raise SourceError(
                f"cannot be read: {error.strerror}.",
                path=path,
                hint="Check the permissions of the file.",
            ) from error
        except json.JSONDecodeError as error:
            raise SourceError(
                f"not valid JSON: {error.msg} (column {error.colno}).",
                path=path,
                line=error.lineno,
                hint="Export the annotations again.",
            ) from error
        except (UnicodeDecodeError, RecursionError) as error:
            raise SourceError(
                f"not valid JSON: {error}.", path=path, hint="Write it again as COCO JSON."
            ) from error
        if not isinstance(document, dict):
            raise self._error(f"it holds a {type(document).__name__}; expected a COCO object")
        self.digest = hashlib.sha256(content).hexdigest()
        self.classes = self._classes(self._entries(document, "categories"))
        self._marks = self._images(self._entries(document, "images"), frames)
        for index, mark in enumerate(self._entries(document, "annotations")):
            image, category = mark.get("image_id"), mark.get("category_id")
            name = _name(mark, index)
            if not _is_id(image) or image not in self._marks:
                raise self._error(f"{name} belongs to image {image!r}, which is not listed")
            if not _is_id(category) or category not in self.classes:
                raise self._error(f"{name} has category {category!r}, which is not listed")
            self._marks[image].append({"name": name, **mark})

    def raster(self, frame: int) -> NDArray[np.int16] | None:
        """Labels of a frame, int16 ``(y, x)``; None if it is not listed."""
        if frame not in self._marks:
            return None
        labels = np.zeros(self._shape, np.int16)
        for mark in self._marks[frame]:
            labels[self._mask(mark, frame)] = mark["category_id"]
        return labels

    def close(self) -> None:
        """Nothing is held open."""

    def _entries(self, document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
        entries = document.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise self._error(f"{key!r} is not a list of objects")
        return entries

    def _classes(self, categories: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        classes: dict[int, str] = {}
        for category in categories:
            value = category.get("id")
            if not _is_id(value) or not 0 <= value <= _MAX_CLASS:
                raise self._error(f"category id {value!r} is not a whole number 0 to {_MAX_CLASS}")
            if value in classes:
                raise self._error(f"category id {value} is listed twice")
            classes[value] = str(category.get("name") or f"class {value}")
        return {0: "background"} | classes

    def _images(
        self, images: Sequence[Mapping[str, Any]], frames: int
    ) -> dict[int, list[Mapping[str, Any]]]:
        listed: dict[int, list[Mapping[str, Any]]] = {}
        y, x = self._shape
        for image in images:
            value = image.get("id")
            if not _is_id(value) or not 0 <= value < frames:
                raise self._error(
                    f"image id {value!r} is not a frame of the recording, which has {frames}; "
                    f"image ids are frame indices, 0 to {frames - 1}"
                )
            if value in listed:
                raise self._error(f"image id {value} is listed twice")
            for key, expected in (("height", y), ("width", x)):
                found = image.get(key) or expected
                if found != expected:
                    raise self._error(
                        f"image {value} has {key} {found!r}, the frame has {expected} "
                        f"({y} lines x {x} samples)"
                    )
            listed[value] = []
        return listed

    def _mask(self, mark: Mapping[str, Any], frame: int) -> NDArray[np.bool_]:
        shape = mark.get("segmentation") or mark.get("mask")
        try:
            if isinstance(shape, dict):
                return _run_length_mask(shape, self._shape)
            if isinstance(shape, list):
                return _polygon_mask(shape, self._shape)
        except ValueError as error:
            raise self._error(f"{mark['name']}: {error}", frame) from error
        raise self._error(f"{mark['name']} has no segmentation (only {_keys(mark)})", frame)

    def _error(self, message: str, frame: int | None = None) -> SourceError:
        return SourceError(
            f"{message}.", path=self.path, frame=frame, hint="Correct the annotation file."
        )


def _polygon_mask(polygons: Sequence[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    from pycocotools import mask as coco

    y, x = shape
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon is not a list x1, y1, x2, y2, ... of 3 or more points")
        if not all(_is_number(v) and math.isfinite(v) for v in polygon):
            raise ValueError("a polygon has a coordinate that is not a finite number")
        # The rasteriser needs memory in proportion to the length of the outline.
        if not all(abs(v - size / 2) <= 1.5 * size + 1 for v, size in _sized(polygon, x, y)):
            raise ValueError(f"a polygon reaches far outside the frame of {y} x {x}")
    runs = coco.merge(coco.frPyObjects(polygons, y, x))
    return _run_length_mask({**runs, "counts": runs["counts"].decode()}, shape)


def _run_length_mask(runs: Mapping[str, Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Alternate runs of 0 and 1 down the columns.

    Decoded here because pycocotools returns memory it never wrote where the runs are too short,
    and its decoder warns with NumPy 2.
    """
    y, x = shape
    if list(runs.get("size") or ()) != [y, x]:
        raise ValueError(f"its run-length mask has size {runs.get('size')}, the frame {[y, x]}")
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = _decompressed(counts)
    if not isinstance(counts, list) or not all(_is_id(n) and n >= 0 for n in counts):
        raise ValueError("its run lengths are not whole numbers of zero or more")
    if sum(counts) != y * x:
        raise ValueError(f"its run lengths add up to {sum(counts)}, the frame has {y * x} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(x, y).T


def _decompressed(text: str) -> list[int]:
    """Run lengths from COCO's text form: 5 bits a character, differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its run-length text is malformed")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its run-length text is cut off")
    return counts


def _sized(polygon: Sequence[float], x: int, y: int) -> list[tuple[float, int]]:
    return [(v, (x, y)[i % 2]) for i, v in enumerate(polygon)]


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(mark: Mapping[str, Any], index: int) -> str:
    return f"annotation {mark['id']}" if "id" in mark else f"annotation number {index}"


def _keys(mark: Mapping[str, Any]) -> str:
    return ", ".join(sorted(k for k in mark if k != "name"))
