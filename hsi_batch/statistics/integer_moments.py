"""Moments of integer pixels as exact integer sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics import kernels
from hsi_batch.statistics.moments import Moments, is_exact
from hsi_batch.statistics.packed import channels_of, packed_size, triangle

__all__ = ["IntegerMoments"]

_LIMB = 32
_MASK = np.int64(2**_LIMB - 1)


class IntegerMoments(Moments):
    """``n``, ``sum x`` and ``sum x x^T`` about zero, exact for 8 and 16-bit integers.

    The sums of products are kept in two limbs, ``high * 2**32 + low`` with ``0 <= low < 2**32``, so
    they cannot overflow below 2**63 pixels (``sum x`` not below 2**47). All results are rounded
    once, at the end. Exact sums also subtract: :meth:`subtract` takes away pixels that were
    absorbed before.

    Parameters
    ----------
    count : int
        Pixels.
    total : numpy.ndarray of int64, shape (C,)
        ``sum x``.
    high, low : numpy.ndarray of int64, shape (C (C + 1) / 2,)
        Packed upper triangle of ``sum x x^T``.

    Examples
    --------
    >>> x = np.array([[1, 65535], [2, 0], [3, 7]], dtype=np.uint16)
    >>> a, b = (IntegerMoments.zero(2).update(part) for part in (x[:1], x[1:]))
    >>> a.merge(b) == IntegerMoments.zero(2).update(x)
    True
    >>> a.merge(b).subtract(b) == a
    True
    """

    __slots__ = ("count", "high", "low", "total")

    def __init__(
        self,
        count: int,
        total: NDArray[np.int64],
        high: NDArray[np.int64],
        low: NDArray[np.int64],
    ) -> None:
        self.count = int(count)
        self.total = total
        self.high = high + (low >> _LIMB)
        self.low = low & _MASK

    @classmethod
    def zero(cls, channels: int) -> IntegerMoments:
        """No pixels."""
        size = packed_size(channels)
        zeros = np.zeros(size, dtype=np.int64)
        return cls(0, np.zeros(channels, dtype=np.int64), zeros, zeros)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.total)

    def update(self, pixels: NDArray[Any]) -> IntegerMoments:
        """Absorb ``(n, C)`` 8 or 16-bit integers.

        At most 2**31 rows at once, so that the product of one call fits int64.

        Raises
        ------
        TypeError
            Pixels of another dtype, whose sums would not be exact.
        """
        if not is_exact(pixels.dtype):
            raise TypeError(f"exact sums need 8 or 16-bit integers, got {pixels.dtype}")
        return self.add(pixels.shape[0], kernels.sums(pixels))

    def add(self, count: int, sums: kernels.IntegerSums) -> IntegerMoments:
        """Add the sums of ``count`` pixels."""
        return IntegerMoments(
            self.count + count,
            self.total + sums.total,
            self.high + (sums.products >> _LIMB),
            self.low + (sums.products & _MASK),
        )

    def merge(self, other: IntegerMoments) -> IntegerMoments:
        """Sum of both."""
        return IntegerMoments(
            self.count + other.count,
            self.total + other.total,
            self.high + other.high,
            self.low + other.low,
        )

    def subtract(self, other: IntegerMoments) -> IntegerMoments:
        """Take away pixels that are part of this sum; exact.

        Raises
        ------
        ValueError
            ``other`` counts more pixels than there are.
        """
        if other.count > self.count:
            raise ValueError(f"cannot take {other.count} pixels from {self.count}")
        return IntegerMoments(
            self.count - other.count,
            self.total - other.total,
            self.high - other.high,
            self.low - other.low,
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean spectrum, each entry the correctly rounded quotient."""
        self._need(1)
        return np.array([int(s) / self.count for s in self.total], dtype=np.float64)

    def _scatter_times_count(self) -> NDArray[np.object_]:
        # n * sum x_i x_j - sum x_i sum x_j in Python integers: no rounding, no overflow.
        rows, columns = triangle(self.channels)
        products = self.high.astype(object) * (1 << _LIMB) + self.low.astype(object)
        total = self.total.astype(object)
        exact: NDArray[np.object_] = products * self.count - total[rows] * total[columns]
        return exact

    @property
    def packed_scatter(self) -> NDArray[np.float64]:
        """Upper triangle of the scatter, each entry correctly rounded."""
        self._need(1)
        return np.asarray(self._scatter_times_count() / self.count, dtype=np.float64)

    def packed_covariance(self, ddof: int = 1) -> NDArray[np.float64]:
        """Upper triangle of the covariance, each entry correctly rounded."""
        self._need(ddof + 1)
        divisor = self.count * (self.count - ddof)
        return np.asarray(self._scatter_times_count() / divisor, dtype=np.float64)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """``count``, ``sum``, ``gram_high``, ``gram_low``, all int64."""
        return {
            "count": np.array(self.count, dtype=np.int64),
            "sum": self.total,
            "gram_high": self.high,
            "gram_low": self.low,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> IntegerMoments:
        """Inverse of :meth:`to_arrays`."""
        return cls(int(arrays["count"]), arrays["sum"], arrays["gram_high"], arrays["gram_low"])

    @property
    def row(self) -> NDArray[np.int64]:
        """Count, sum and packed products as one int64 vector, the archive's ``moments`` row.

        Raises
        ------
        OverflowError
            A sum does not fit int64 (more than about 2**31 full-range 16-bit pixels).
        """
        if np.any(self.high >= 2**31) or np.any(self.high < -(2**31)):
            raise OverflowError("sums of products beyond int64; split the row")
        products = (self.high << _LIMB) + self.low
        return np.concatenate([[self.count], self.total, products]).astype(np.int64)

    @classmethod
    def from_rows(cls, rows: NDArray[np.int64]) -> IntegerMoments:
        """The sum of ``(n, terms)`` rows, n below 2**31."""
        channels = channels_of(rows.shape[1]) - 1
        count, total = rows[:, 0].sum(), rows[:, 1 : 1 + channels].sum(axis=0)
        products = rows[:, 1 + channels :]
        high = (products >> _LIMB).sum(axis=0)
        return cls(int(count), total, high, (products & _MASK).sum(axis=0))

    @classmethod
    def from_row(cls, row: NDArray[np.int64]) -> IntegerMoments:
        """Inverse of :attr:`row`."""
        # terms = 1 + C + C (C + 1) / 2 = packed_size(C + 1)
        channels = channels_of(row.shape[0]) - 1
        products = row[1 + channels :]
        return cls(int(row[0]), row[1 : 1 + channels], products >> _LIMB, products & _MASK)
