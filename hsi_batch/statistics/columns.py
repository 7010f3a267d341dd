"""Count, mean and scatter of every channel in every column: what a line scanner's detector does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hsi_batch.errors import DataError
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.leaves import aligned_ranges, leaf_count, leaf_lines
from hsi_batch.statistics.measure import Measure
from hsi_batch.statistics.moments import is_exact
from hsi_batch.statistics.tree import Forest, Path

__all__ = ["COLUMNS", "ColumnMoments", "Columns", "column_forest"]


class ColumnMoments:
    """Moments of each column and channel along the lines, a mergeable statistic.

    Of 8 and 16-bit integers ``sum x`` and ``sum x^2`` are kept exactly (int64: up to 2**31 lines);
    of all else mean and ``sum (x - mean)^2`` in float64, merged by the rule of Chan, Golub and
    LeVeque (The American Statistician 37 (1983) 242-247).

    Parameters
    ----------
    count : numpy.ndarray of int64, shape (x,)
        Pixels that counted in each column.
    first, second : numpy.ndarray of int64 or float64, shape (x, channel)
        Sums and sums of squares, or means and scatters.

    Examples
    --------
    >>> lines = np.array([[[1], [5]], [[3], [5]]], dtype=np.uint8)
    >>> found = ColumnMoments.empty(2, 1, "uint8").update(lines)
    >>> found.mean.ravel(), found.variance().ravel()
    (array([2., 5.]), array([2., 0.]))
    """

    __slots__ = ("columns", "first", "second")

    def __init__(self, count: NDArray[np.int64], first: NDArray[Any], second: NDArray[Any]) -> None:
        self.columns = count
        self.first = first
        self.second = second

    @classmethod
    def empty(cls, width: int, channels: int, dtype: DTypeLike) -> Self:
        """The identity of merging for ``width`` columns of values of ``dtype``."""
        kind = np.int64 if is_exact(dtype) else np.float64
        shape = (width, channels)
        return cls(np.zeros(width, np.int64), np.zeros(shape, kind), np.zeros(shape, kind))

    @property
    def exact(self) -> bool:
        """Whether sums are kept, which no order of merging can change."""
        return self.first.dtype.kind == "i"

    @property
    def count(self) -> int:
        """Pixels in all."""
        return int(self.columns.sum())

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and channels."""
        return self.first.shape[0], self.first.shape[1]

    def update(self, lines: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> ColumnMoments:
        """Absorb lines ``(lines, x, channel)``; pixels that are not ``valid`` do not count."""
        from hsi_batch.statistics import column_code

        values = lines.astype(lines.dtype.newbyteorder("="), copy=False)
        marks = np.ones((1, 1), bool) if valid is None else valid
        count, first, second = column_code.sums(values, marks, exact=self.exact)
        return self.merge(ColumnMoments(count, first, second))

    def merge(self, other: ColumnMoments) -> ColumnMoments:
        """Union of both.

        Raises
        ------
        hsi_batch.errors.DataError
            They are of frames of different width.
        """
        if self.shape != other.shape:
            raise DataError(
                f"columns of frames of {self.shape[0]} and of {other.shape[0]} samples have no"
                " common statistics.",
                hint="Fit one background per sensor or session (--background sensor), or select"
                " recordings of one width.",
            )
        count = self.columns + other.columns
        if self.exact and other.exact:
            return ColumnMoments(count, self.first + other.first, self.second + other.second)
        one, two = self.as_float(), other.as_float()
        if not one.columns.any() or not two.columns.any():
            return two if not one.columns.any() else one
        total = np.maximum(count, 1)[:, None]
        share = two.columns[:, None] / total
        apart = two.first - one.first
        cross = apart * apart * (one.columns[:, None] * share)
        mean = np.where(one.columns[:, None] == 0, two.first, one.first + apart * share)
        mean = np.where(two.columns[:, None] == 0, one.first, mean)
        return ColumnMoments(count, mean, one.second + two.second + cross)

    def as_float(self) -> ColumnMoments:
        """Means and scatters; of exact sums rounded once."""
        if not self.exact:
            return self
        count = np.maximum(self.columns, 1)[:, None]
        # About a whole number close to the mean; differences are exact, whatever wraps between.
        about = np.rint(self.first / count).astype(np.int64)
        lower = self.first - about * self.columns[:, None]
        square = self.second - 2 * about * self.first + about * about * self.columns[:, None]
        rest = lower / count
        return ColumnMoments(self.columns, about + rest, np.maximum(square - lower * rest, 0.0))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean per column and channel, ``(x, channel)``; NaN for columns without pixels."""
        return np.where(self.columns[:, None] > 0, self.as_float().first, np.nan)

    def variance(self, ddof: int = 1) -> NDArray[np.float64]:
        """Variance per column and channel, ``(x, channel)``; NaN without ``ddof + 1`` pixels."""
        left = self.columns - ddof
        scatter = self.as_float().second
        return np.where(left[:, None] > 0, scatter / np.maximum(left, 1)[:, None], np.nan)

    def mapped(self, map_: Affine) -> ColumnMoments:
        """Of ``A x + b``, where every output channel comes from one input channel.

        Raises
        ------
        ValueError
            The map mixes channels, so the moments of columns do not follow.
        """
        if map_.monomial is None:
            raise ValueError("moments of columns do not follow through a map that mixes channels")
        source, factor = map_.monomial
        held = self.as_float()
        mean = held.first[:, source] * factor + map_.offset
        return ColumnMoments(self.columns, mean, held.second[:, source] * factor**2)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays for the disk."""
        return {"columns": self.columns, "first": self.first, "second": self.second}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["columns"], arrays["first"], arrays["second"])

    @property
    def stored(self) -> NDArray[Any]:
        """As one array ``(term, x, channel)``: count, first, second."""
        count = np.broadcast_to(self.columns[:, None], self.first.shape)
        return np.stack([count.astype(self.first.dtype), self.first, self.second])

    @classmethod
    def from_stored(cls, stored: NDArray[Any]) -> Self:
        """Inverse of :attr:`stored`."""
        return cls(stored[0, :, 0].astype(np.int64), stored[1], stored[2])

    def __repr__(self) -> str:
        return f"ColumnMoments(columns={self.shape[0]}, channels={self.shape[1]})"


class Columns(Measure):
    """The :class:`ColumnMoments` of a port."""

    @property
    def name(self) -> str:
        """``columns``."""
        return "columns"

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> ColumnMoments:
        """Of a leaf, which holds whole lines."""
        return ColumnMoments.empty(lines.shape[1], lines.shape[2], lines.dtype).update(lines, valid)


#: What nodes ask for.
COLUMNS = Columns()


def column_forest(
    lines: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    *,
    start: int,
    height: int,
    prefix: Path = (),
) -> Forest[ColumnMoments]:
    """Moments of columns of lines ``start:start + len(lines)`` at their place in the frame's tree.

    Exact ones take whole subtrees at once, others one leaf after the other.
    """
    identity = ColumnMoments.empty(lines.shape[1], lines.shape[2], lines.dtype)
    step, leaves = leaf_lines(lines.shape[1]), leaf_count(height, lines.shape[1])
    first, last = start // step, -(-(start + len(lines)) // step)
    each = ((0, leaf) for leaf in range(first, last))
    forest: Forest[ColumnMoments] = Forest()
    for level, index in aligned_ranges(first, last) if identity.exact else each:
        top = max((index << level) * step - start, 0)
        bottom = min(((index + 1) << level) * step - start, len(lines))
        part = identity.update(lines[top:bottom], None if valid is None else valid[top:bottom])
        forest = forest.merge(Forest.of((*prefix, (index, leaves)), part, level))
    return forest
