"""Moments and extrema together, from one visit of the pixels."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike, NDArray

from hsi_batch.statistics import kernels
from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.integer_moments import IntegerMoments
from hsi_batch.statistics.moments import Moments

__all__ = ["Summary"]


class Summary:
    """Moments and extrema of the same pixels, a mergeable statistic.

    Exact sums of integers find the extrema on the way, so that both cost what moments do alone.

    Examples
    --------
    >>> import numpy as np
    >>> s = Summary.empty(1, "uint8").update(np.array([[3], [5]], dtype=np.uint8))
    >>> s.moments.mean, s.extrema.maximum
    (array([4.]), array([5], dtype=uint8))
    """

    __slots__ = ("extrema", "moments")

    def __init__(self, moments: Moments, extrema: Extrema) -> None:
        self.moments = moments
        self.extrema = extrema

    @classmethod
    def empty(cls, channels: int, dtype: DTypeLike) -> Summary:
        """The identity of merging for pixels of ``dtype``."""
        return cls(Moments.empty(channels, dtype), Extrema.empty(channels, dtype))

    @property
    def ordered(self) -> bool:
        """Whether the order of merging shows in the last bits."""
        return self.moments.ordered

    def update(self, pixels: NDArray[Any]) -> Summary:
        """Absorb ``(n, C)`` pixels."""
        if not isinstance(self.moments, IntegerMoments):
            return Summary(self.moments.update(pixels), self.extrema.update(pixels))
        found = kernels.sums(pixels)
        here = Extrema(len(pixels), found.low, found.high)
        return Summary(self.moments.add(len(pixels), found), self.extrema.merge(here))

    def merge(self, other: Summary) -> Summary:
        """Union of both."""
        return Summary(self.moments.merge(other.moments), self.extrema.merge(other.extrema))
