"""ENVI classification images: a class per pixel, with names in the header.

Class 0 is what ENVI calls unclassified: unlabelled here, unless the header names it otherwise. A
class that is called background or normal is 0 here, the others keep their numbers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.envi import find_data_file
from hsi_batch.readers.envi_fields import read_fields
from hsi_batch.readers.envi_header import dtype_of
from hsi_batch.readers.labels_border import numbered

__all__ = ["EnviClassLabels"]

_MAX_CLASS = 32767  # labels are int16
_UNLABELLED = ("unclassified", "unlabelled", "unlabeled", "masked pixels")


class EnviClassLabels:
    """The labels of an ENVI classification image.

    Parameters
    ----------
    path : str
        Its header.
    shape : tuple of int
        ``(y, x)`` of the frames; another size is an error.
    frames : int
        Frames of the recording; it must have one.

    Raises
    ------
    hsi_batch.errors.SourceError
        Another kind of file, another size, or values that are no classes.
    """

    def __init__(self, path: str, shape: tuple[int, int], frames: int) -> None:
        self.path = path
        fields = read_fields(path)
        kind = fields.text("file type") or "unknown"
        if "classification" not in kind.casefold():
            raise fields.error(
                f"the file type is {kind!r}, which holds no labels.",
                "file type",
                hint="Name a header whose file type is ENVI Classification.",
            )
        found = (fields.integer("lines", least=1), fields.integer("samples", least=1))
        if found != shape or fields.integer("bands", default=1) != 1 or frames != 1:
            raise fields.error(
                f"it has {found[0]} lines x {found[1]} samples, the recording {frames} frame(s) of"
                f" {shape[0]} x {shape[1]}.",
                "lines",
                hint="Use the classification of this recording, uncropped and not scaled; for"
                " several frames, a COCO file.",
            )
        data = find_data_file(path)
        dtype = dtype_of(fields)
        offset = fields.integer("header offset", default=0)
        stored = np.fromfile(data, dtype=dtype, offset=offset, count=shape[0] * shape[1])
        if stored.size != shape[0] * shape[1] or dtype.kind not in "iu":
            raise SourceError(
                f"it holds {stored.size} values of type {dtype.name}, the frame has"
                f" {shape[0] * shape[1]} pixels.",
                path=data,
                hint="Save it again as whole numbers (data type 1).",
            )
        values = sorted(np.unique(stored).tolist())
        if values[0] < 0 or values[-1] > _MAX_CLASS:
            raise SourceError(
                f"it has values {values[0]} to {values[-1]}; classes are 0 to {_MAX_CLASS}.",
                path=data,
                hint="Save it again with class numbers of this range.",
            )
        given = fields.values.get("class names")
        names = [str(n).strip() for n in (given if isinstance(given, list) else [])]
        self.classes, becomes = _classes(values, names)
        table = np.zeros(values[-1] + 1, dtype=np.int16)
        table[list(becomes)] = list(becomes.values())
        self._raster: NDArray[np.int16] = table[stored.reshape(shape).astype(np.int64)]
        self.digest = hashlib.sha256(Path(path).read_bytes() + stored.tobytes()).hexdigest()

    def raster(self, frame: int) -> NDArray[np.int16]:  # noqa: ARG002
        """Labels of the one frame."""
        return self._raster

    def close(self) -> None:
        """Nothing is held open."""


def _classes(values: list[int], names: list[str]) -> tuple[dict[int, str], dict[int, int]]:
    """Names of our classes, and what each stored value becomes."""
    named = dict(enumerate(names)) | {v: f"class {v}" for v in values if v >= len(names)}
    if not names:
        named[0] = "unclassified"
    becomes: dict[int, int] = {}
    classes = {0: "background"}
    free = max([*named, 0]) + 1
    for value, name in sorted(named.items()):
        if name.casefold() in _UNLABELLED:
            becomes[value] = -1
        elif numbered([name])[name] == 0:
            becomes[value] = 0
        else:
            # 0 is background here; a class that has this number gets one of its own.
            becomes[value] = value or free
            classes[becomes[value]] = name
    return dict(sorted(classes.items())), {v: becomes[v] for v in values}
