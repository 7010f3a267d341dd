"""Statistics of labelled pixels, of both classes apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hsi_batch.statistics.float_histogram import FloatHistogram
from hsi_batch.statistics.measure import Measure, chosen_pixels
from hsi_batch.statistics.moments import Moments

__all__ = ["ClassMeasure", "ClassStatistics"]

#: Different values of a channel and class that are told apart: all of a 16-bit recording.
VALUES = 2**16


@dataclass(frozen=True)
class ClassStatistics:
    """Moments and value counts of normal and anomalous pixels, a mergeable statistic.

    Attributes
    ----------
    normal, anomalous : Moments
    normal_values, anomalous_values : FloatHistogram
        Exact for 8 and 16-bit integers; wider ones and floats have bins of a stated relative width
        from ``capacity`` different values on.

    Examples
    --------
    >>> s = ClassStatistics.zero(1, "uint8")
    >>> s = s.update(np.array([[1], [2], [9]], np.uint8), np.array([0, 0, 1]))
    >>> s.normal.mean, s.anomalous.mean
    (array([1.5]), array([9.]))
    """

    normal: Moments
    anomalous: Moments
    normal_values: FloatHistogram
    anomalous_values: FloatHistogram

    @classmethod
    def zero(cls, channels: int, dtype: DTypeLike, capacity: int = VALUES) -> ClassStatistics:
        """No pixels."""
        none = FloatHistogram.zero(channels, capacity)
        empty = Moments.empty(channels, dtype)
        return cls(empty, empty, none, none)

    def update(self, pixels: NDArray[Any], classes: NDArray[np.integer]) -> ClassStatistics:
        """Absorb ``(n, C)`` pixels of the classes 0 (normal), 1 (anomalous); others are left."""
        normal, anomalous = pixels[classes == 0], pixels[classes == 1]
        return ClassStatistics(
            self.normal.update(normal),
            self.anomalous.update(anomalous),
            self.normal_values.update(normal),
            self.anomalous_values.update(anomalous),
        )

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """Union of both."""
        return ClassStatistics(
            self.normal.merge(other.normal),
            self.anomalous.merge(other.anomalous),
            self.normal_values.merge(other.normal_values),
            self.anomalous_values.merge(other.anomalous_values),
        )

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.normal.channels


class ClassMeasure(Measure):
    """Takes :class:`ClassStatistics` of the labelled, valid pixels of a port.

    Parameters
    ----------
    capacity : int
        Different values per channel and class before bins are widened. A statistic holds 12 bytes
        for each.
    """

    labelled = True

    def __init__(self, capacity: int = VALUES) -> None:
        self.capacity = int(capacity)

    @property
    def name(self) -> str:
        """``classes``, and the capacity."""
        return f"classes-{self.capacity}"

    def nbytes(self, channels: int) -> int:
        """Moments and value counts of both classes."""
        return 2 * (super().nbytes(channels) + 12 * self.capacity * channels)

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,
    ) -> ClassStatistics:
        """The statistic of a leaf."""
        nothing = ClassStatistics.zero(lines.shape[-1], lines.dtype, self.capacity)
        if classes is None:
            return nothing
        chosen = classes.ravel() if valid is None else classes.ravel()[np.asarray(valid).ravel()]
        return nothing.update(chosen_pixels(lines, valid), chosen)
