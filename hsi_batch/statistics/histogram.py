"""Counts per value: :class:`Histogram`, exact for integers, float-bit bins for floats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hsi_batch.errors import DataError

__all__ = ["Histogram", "IntegerHistogram", "counted_quantile"]


class Histogram(ABC):
    """Counts of values per channel, a mergeable statistic; counts add, so merges are exact.

    :meth:`empty` gives an :class:`IntegerHistogram` (one bin per value) for 8 and 16-bit integers
    and a :class:`.FloatHistogram` (exact up to 2**20 different float32 values, then bins of a
    stated relative width) for all else.

    Attributes
    ----------
    count : int
        Pixels absorbed.

    Examples
    --------
    >>> pixels = np.array([[1], [2], [2], [7]], dtype=np.uint8)
    >>> histogram = Histogram.empty(1, "uint8").update(pixels)
    >>> histogram.count, histogram.quantile([0.5]).tolist()
    (4, [[2.0]])
    """

    __slots__ = ()

    count: int

    @staticmethod
    def empty(channels: int, dtype: DTypeLike) -> Histogram:
        """The identity of merging for pixels of ``dtype``."""
        from hsi_batch.statistics.float_histogram import FloatHistogram
        from hsi_batch.statistics.moments import is_exact

        kind = np.dtype(dtype)
        return (
            IntegerHistogram.zero(channels, kind)
            if is_exact(kind)
            else FloatHistogram.zero(channels)
        )

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of channels."""

    @abstractmethod
    def update(self, pixels: NDArray[Any]) -> Self:
        """Absorb ``(n, C)`` pixels."""

    @abstractmethod
    def merge(self, other: Self, /) -> Self:
        """Sum of both."""

    @abstractmethod
    def bins(self, channel: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Values (ascending) and counts of the bins of a channel that are not empty."""

    @property
    @abstractmethod
    def relative_error(self) -> float:
        """Largest relative distance of a value from its bin's value; 0 if bins are exact."""

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """Quantiles per channel, ``(len(q), C)``, as ``numpy.quantile`` (linear) defines them.

        Exact up to :attr:`relative_error` of each value.

        Raises
        ------
        ValueError
            A level outside 0 to 1.
        hsi_batch.errors.DataError
            A channel without values.

        Examples
        --------
        >>> h = Histogram.empty(1, "uint8").update(np.array([[1], [2], [4]], dtype=np.uint8))
        >>> h.quantile([0.5, 0.75])
        array([[2.],
               [3.]])
        """
        levels = np.atleast_1d(np.asarray(q, dtype=np.float64))
        if not np.all((levels >= 0) & (levels <= 1)):
            raise ValueError(f"quantiles lie between 0 and 1, got {levels.tolist()}")
        result = np.empty((levels.size, self.channels))
        for channel in range(self.channels):
            result[:, channel] = counted_quantile(levels, *self.bins(channel))
        return result


def counted_quantile(
    levels: NDArray[np.float64], values: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Quantiles (linear) of ascending ``values`` that occur ``counts`` times."""
    if counts.size == 0:
        raise DataError(
            "a quantile of no valid pixels was asked for.",
            hint="Select more frames, or check the quality flags (hsi-batch show).",
        )
    last = np.cumsum(counts) - 1
    position = levels * last[-1]
    below = np.floor(position)
    t = position - below
    a = values[np.searchsorted(last, below)]
    b = values[np.searchsorted(last, np.minimum(below + 1, last[-1]))]
    with np.errstate(invalid="ignore"):
        # numpy's own interpolation, so that the bits agree with numpy.quantile
        between = np.where(t >= 0.5, b - (b - a) * (1 - t), a + (b - a) * t)
    # An infinite value is itself; what lies strictly between it and another is not known.
    result: NDArray[np.float64] = np.where((t == 0) | (a == b), a, between)
    return result


class IntegerHistogram(Histogram):
    """One bin for every value of an 8 or 16-bit integer dtype.

    Parameters
    ----------
    counts : numpy.ndarray of int64, shape (C, 2**bits)
        ``counts[c, v - dtype.min]`` is how often channel ``c`` had value ``v``.
    dtype : numpy.dtype
        Of the pixels.

    Examples
    --------
    >>> pixels = np.array([[1], [2], [2]], dtype=np.uint8)
    >>> IntegerHistogram.zero(1, "uint8").update(pixels).counts[0, :4].tolist()
    [0, 1, 2, 0]
    """

    __slots__ = ("counts", "dtype")

    def __init__(self, counts: NDArray[np.int64], dtype: DTypeLike) -> None:
        self.counts = counts
        self.dtype = np.dtype(dtype).newbyteorder("=")

    @classmethod
    def zero(cls, channels: int, dtype: DTypeLike) -> IntegerHistogram:
        """No pixels."""
        bits = np.dtype(dtype).itemsize * 8
        return cls(np.zeros((channels, 1 << bits), dtype=np.int64), dtype)

    @property
    def count(self) -> int:  # type: ignore[override]
        """Pixels absorbed."""
        return int(self.counts[0].sum()) if self.channels else 0

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.counts)

    @property
    def relative_error(self) -> float:
        """Always 0: every value has its bin."""
        return 0.0

    def update(self, pixels: NDArray[Any]) -> IntegerHistogram:
        """Absorb ``(n, C)`` pixels of the dtype of this histogram."""
        from hsi_batch.statistics.counting import count_values

        if pixels.dtype.newbyteorder("=") != self.dtype:
            raise ValueError(f"pixels of dtype {pixels.dtype} in a histogram of {self.dtype}")
        counts = self.counts.copy()
        count_values(pixels, int(np.iinfo(self.dtype).min), counts)
        return IntegerHistogram(counts, self.dtype)

    def merge(self, other: IntegerHistogram) -> IntegerHistogram:
        """Sum of both."""
        return IntegerHistogram(self.counts + other.counts, self.dtype)

    def subtract(self, other: IntegerHistogram) -> IntegerHistogram:
        """Take away pixels that were absorbed before."""
        counts = self.counts - other.counts
        if counts.min(initial=0) < 0:
            raise ValueError("cannot take away pixels that were never counted")
        return IntegerHistogram(counts, self.dtype)

    def bins(self, channel: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Values and counts of the bins that are not empty."""
        filled = np.flatnonzero(self.counts[channel])
        values = filled.astype(np.float64) + np.iinfo(self.dtype).min
        return values, self.counts[channel, filled]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """``counts`` and the dtype's name in ``dtype``."""
        return {"counts": self.counts, "dtype": np.array(self.dtype.str)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> IntegerHistogram:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["counts"], np.dtype(str(arrays["dtype"])))
