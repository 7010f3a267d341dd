"""Labels inside an ``.npz`` recording: ``class_mask`` or ``mask``, (y, x) or (frame, y, x).

``class_mask`` is used if it labels anything; if it is all zero, which is how converters fill it
when they know no classes, or missing, ``mask`` is. Values are the classes as they are; only a mask
whose single value besides 0 is 255, the usual way to write "true" in 8 bits, becomes class 1.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.labels_image import class_names, distinct
from hsi_batch.readers.npz_file import Member, MemberStream, NpzFile
from hsi_batch.readers.raw import bytes_of, native, reading

__all__ = ["LABEL_KEYS", "NpzLabels"]

LABEL_KEYS = ("class_mask", "mask")
_MAX_CLASS = 32767  # labels are int16


class NpzLabels:
    """The labels of an ``.npz`` file, read frame by frame.

    Parameters
    ----------
    path : str
        The file.
    shape : tuple of int
        ``(y, x)`` of the frames; a mask of another shape is an error.
    frames : int
        Frames of the recording.

    Raises
    ------
    hsi_batch.errors.SourceError
        Neither key is there, or the mask has another shape or values that are not classes.
    """

    def __init__(self, path: str, shape: tuple[int, int], frames: int) -> None:
        self.path = path
        self._shape = shape
        self._npz = NpzFile(path)
        self._stream: MemberStream | None = None
        self._next = 0  # the frame that the stream is at
        try:
            values = self._chosen(frames)
        except BaseException:
            self.close()
            raise
        self._binary = values - {0} == {255}
        self.classes = class_names({1} if self._binary else values)

    def _chosen(self, frames: int) -> set[int]:
        """Settle on one of the two masks; returns the values in it."""
        keys = [key for key in LABEL_KEYS if key in self._npz.names]
        if not keys:
            raise self._error("no 'mask' and no 'class_mask' in it", "Add one of them.")
        values = {0}
        for key in keys:
            self._rewind()
            self._member = self._checked(key, frames)
            values, self.digest = self._scanned(frames)
            if values != {0}:
                break
        return values

    def raster(self, frame: int) -> NDArray[np.int16]:
        """Labels of a frame, int16 ``(y, x)``."""
        with reading(self.path, frame, 0, self._shape[0]):
            values = self._values(frame)
        return (values != 0).astype(np.int16) if self._binary else values.astype(np.int16)

    def _checked(self, key: str, frames: int) -> Member:
        member = self._npz.member(key)
        assert member is not None
        shapes = [(frames, *self._shape)] + [self._shape] * (frames == 1)
        if member.shape not in shapes:
            raise self._error(
                f"{key!r} has shape {member.shape}, the recording needs "
                + " or ".join(str(s) for s in reversed(shapes)),
                "Save it with a value for each pixel.",
            )
        if member.dtype.kind not in "biuf":
            raise self._error(f"{key!r} is {member.dtype.name}", "Save it as whole numbers.")
        return member

    def _scanned(self, frames: int) -> tuple[set[int], str]:
        """The values in the mask, and its digest, in one reading."""
        key = self._member.name
        digest = hashlib.sha256(f"{key} {self._member.shape} {self._member.dtype.str}".encode())
        found: set[int] = set()
        for frame in range(frames):
            with reading(self.path, frame, 0, self._shape[0]):
                values = self._values(frame)
            digest.update(bytes_of(np.ascontiguousarray(values)))
            if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
                raise self._error(f"{key!r} has values that are not whole", "Save whole numbers.")
            found |= {int(value) for value in distinct(values)}
        if min(found) < 0 or max(found) > _MAX_CLASS:
            raise self._error(
                f"{key!r} has values {min(found)} to {max(found)}; classes are 0 to {_MAX_CLASS}",
                "Correct it.",
            )
        return found, digest.hexdigest()

    def _values(self, frame: int) -> NDArray[Any]:
        member = self._member
        if member.fortran:
            whole = self._npz.array(member.name)
            assert whole is not None
            values: NDArray[Any] = whole.reshape(-1, *self._shape)[frame]
            return values
        out = np.empty(self._shape, member.dtype)
        if self._stream is None or self._next > frame:
            self._rewind()
            self._stream = self._npz.stream(member.name)
        try:
            self._stream.skip((frame - self._next) * math.prod(self._shape) * member.dtype.itemsize)
            self._stream.read_into(bytes_of(out))
        except BaseException:
            self._rewind()
            raise
        self._next = frame + 1
        return native(out)

    def _rewind(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._next = None, 0

    def close(self) -> None:
        """Close the file."""
        self._rewind()
        self._npz.close()

    def _error(self, message: str, hint: str) -> SourceError:
        return SourceError(f"{message}.", path=self.path, hint=hint)
