"""Mask images: one grey, palette or two-colour picture of the frame's size.

* 1-bit, 8-bit grey, palette or 16-bit. One value besides 0 becomes class 1; several are the classes
  as they are.
* Colour pictures may hold one colour besides black, which becomes class 1. Pixels that are fully
  transparent are background.
* A TIFF with one page per frame labels a recording of several frames.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageLabels", "class_names", "distinct"]

_MAX_CLASS = 32767  # labels are int16
_PIECE = 1 << 20
#: What decoders raise of damaged pictures.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
_limit = Lock()


class ImageLabels:
    """The labels of a mask image.

    Parameters
    ----------
    path : str
        The picture.
    shape : tuple of int
        ``(y, x)`` of the frames; a picture of another size is an error.
    frames : int
        Frames of the recording, and pages of the picture.

    Raises
    ------
    hsi_batch.errors.SourceError
        Unreadable, of another size, or in colours that do not say what the classes are.
    """

    def __init__(self, path: str, shape: tuple[int, int], frames: int) -> None:
        self.path = path
        self._shape = shape
        with self._opened() as image:
            pages = int(getattr(image, "n_frames", 1))
            if pages != frames:
                raise self._error(
                    f"it has {pages} page(s), the recording has {frames} frames.",
                    "Use a COCO file or a TIFF with one page for each frame.",
                )
            values = set().union(*(distinct(self._page(image, i)) for i in range(pages)))
            colour = image.mode in ("RGB", "RGBA")
        values -= {0}
        self._binary = len(values) <= 1
        if colour and not self._binary:
            some = ", ".join(f"#{value:06x}" for value in sorted(values)[:5])
            raise self._error(
                f"it has {len(values)} colours besides black ({some}); which classes they mean is "
                "not said.",
                "Save it as a grey or palette picture whose values are the classes.",
            )
        if not self._binary and not 0 <= min(values) <= max(values) <= _MAX_CLASS:
            raise self._error(
                f"it has values {min(values)} to {max(values)}; classes are 0 to {_MAX_CLASS}.",
                "Save it with smaller values.",
            )
        self.classes = class_names({1} if self._binary else values)
        self.digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def raster(self, frame: int) -> NDArray[np.int16]:
        """Labels of a frame, int16 ``(y, x)``."""
        with self._opened() as image:
            page = self._page(image, frame)
        return (page != 0).astype(np.int16) if self._binary else page.astype(np.int16)

    def close(self) -> None:
        """Nothing is held open."""

    @contextmanager
    def _opened(self) -> Iterator[Image]:
        try:
            with _open_image(self.path) as image:
                y, x = self._shape
                if image.size != (x, y):
                    raise self._error(
                        f"it has {image.size[1]} lines x {image.size[0]} samples, the frame has "
                        f"{y} x {x}.",
                        "Use the mask of this recording, uncropped and not scaled.",
                    )
                yield image
        except _DAMAGED as error:
            raise self._error(f"the picture cannot be read: {error}.", "Save it again.") from error

    def _page(self, image: Image, page: int) -> NDArray[Any]:
        """Values of a page as integers ``(y, x)``; colours packed as 0xRRGGBB."""
        if page:
            image.seek(page)
        encoding = str(getattr(image, "tile", ""))
        if "L;2" in encoding or "L;4" in encoding:  # Pillow would stretch the values to 0..255
            raise self._error("it is grey with 2 or 4 bits.", "Save it with 8 bits.")
        array: NDArray[Any] = np.asarray(image)
        if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
            return array.astype(np.uint8) if array.dtype == bool else array
        if image.mode == "F" and (array == np.rint(array)).all():
            return array.astype(np.int64)
        if image.mode == "LA":
            return np.where(array[..., 1] > 0, array[..., 0], 0)
        if image.mode in ("RGB", "RGBA"):
            packed = np.zeros(array.shape[:2], np.uint32)
            for c in range(3):
                packed = packed << 8 | array[..., c]
            return packed if image.mode == "RGB" else np.where(array[..., 3] > 0, packed, 0)
        raise self._error(
            f"its pixels are of kind {image.mode!r}.",
            "Save it as 1-bit, 8-bit grey, palette or 16-bit.",
        )

    def _error(self, message: str, hint: str) -> SourceError:
        return SourceError(message, path=self.path, hint=hint)


def distinct(values: NDArray[Any]) -> set[int]:
    """The different values of an array of whole numbers, found piece by piece.

    Examples
    --------
    >>> sorted(distinct(np.array([[3, 0], [3, 7]])))
    [0, 3, 7]
    """
    flat = values.reshape(-1)
    found: set[int] = set()
    for first in range(0, flat.size, _PIECE):
        found.update(np.unique(flat[first : first + _PIECE]).tolist())
    return found


def class_names(values: set[int]) -> dict[int, str]:
    """Names for classes that have none: ``anomaly`` if 1 is the only one.

    Examples
    --------
    >>> class_names({1}), class_names({2, 5})
    ({0: 'background', 1: 'anomaly'}, {0: 'background', 2: 'class 2', 5: 'class 5'})
    """
    if values <= {0, 1}:
        return {0: "background", 1: "anomaly"}
    return {0: "background"} | {value: f"class {value}" for value in sorted(values - {0})}


def _open_image(path: str) -> Image:
    import PIL.Image

    # The mask of a long line scan is larger than what Pillow takes for an attack; the size is
    # checked against the frame before any pixel is decoded.
    with _limit:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            return PIL.Image.open(path)
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
