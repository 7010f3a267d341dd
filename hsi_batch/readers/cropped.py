"""A recording without its outermost lines and columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.files import Closing
from hsi_batch.readers.annotations import Annotation
from hsi_batch.readers.geography import Geography
from hsi_batch.readers.protocol import Frame, FrameInfo, Source, SourceInfo
from hsi_batch.readers.raw import check_lines

__all__ = ["Crop", "CroppedSource", "cropped_labels"]


class Crop(NamedTuple):
    """How many lines and columns are cut off."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def parse(cls, text: str) -> Crop:
        """``T,B,L,R``: lines cut off at the top and bottom, columns at the left and right.

        Raises
        ------
        hsi_batch.errors.ConfigError
            Not four whole numbers from 0 on.

        Examples
        --------
        >>> Crop.parse("0,2,10,10")
        Crop(top=0, bottom=2, left=10, right=10)
        """
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 4 or not all(part.isdigit() for part in parts):
            raise ConfigError(
                f"crop {text!r} is not four whole numbers.",
                hint="Write T,B,L,R: lines cut off at the top and at the bottom, columns at the"
                " left and at the right, for example 0,0,10,10.",
            )
        return cls(*map(int, parts))

    def shape(self, shape: tuple[int, int, int], path: str) -> tuple[int, int, int]:
        """What is left of a frame.

        Raises
        ------
        hsi_batch.errors.SourceError
            Nothing is left.
        """
        height = shape[0] - self.top - self.bottom
        width = shape[1] - self.left - self.right
        if height < 1 or width < 1:
            raise SourceError(
                f"nothing is left of {shape[0]} lines x {shape[1]} columns after a crop of"
                f" {','.join(map(str, self))}.",
                path=path,
                hint="Cut off less (--crop T,B,L,R).",
            )
        return height, width, shape[2]

    def info(self, info: SourceInfo) -> SourceInfo:
        """What is known of the recording once it is cropped."""
        place = Geography.of_attrs(info.geography)
        moved = None if place is None else place.shifted(self.left, self.top).to_attrs()
        return replace(info, shape=self.shape(info.shape, info.path), geography=moved)

    def columns(self, width: int) -> slice:
        """What is left of the columns."""
        return slice(self.left, width - self.right)


class CroppedSource(Closing):
    """A source whose frames are smaller.

    Parameters
    ----------
    source : Source
    crop : Crop
    """

    def __init__(self, source: Source, crop: Crop) -> None:
        self._source = source
        self._crop = crop
        info = source.info
        self.info = crop.info(info)

    def frame(self, index: int) -> Frame:
        """A frame without what is cut off."""
        return _CroppedFrame(self._source.frame(index), self._crop, self._source.info.shape)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class _CroppedFrame:
    def __init__(self, frame: Frame, crop: Crop, shape: tuple[int, int, int]) -> None:
        self.info: FrameInfo = frame.info
        self._frame = frame
        self._crop = crop
        self._shape = shape

    def read(self, start: int, stop: int) -> NDArray[Any]:
        crop = self._crop
        check_lines(start, stop, self._shape[0] - crop.top - crop.bottom)
        lines = self._frame.read(start + crop.top, stop + crop.top)
        return np.ascontiguousarray(lines[:, crop.columns(self._shape[1])])


def cropped_labels(
    annotation: Annotation, crop: Crop | None, frame: int, start: int, stop: int
) -> NDArray[np.int16] | None:
    """Labels of lines of a frame that may be cropped; those of the annotation are not."""
    if crop is None:
        return annotation.labels(frame, start, stop)
    found = annotation.labels(frame, start + crop.top, stop + crop.top)
    return None if found is None else found[:, crop.columns(found.shape[1])]
