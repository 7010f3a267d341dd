"""Moments of floating-point pixels: centred leaves, Chan's merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.leaves import LEAF_PIXELS
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.packed import channels_of, pack, packed_size, triangle
from hsi_batch.statistics.tree import Forest

__all__ = ["FloatMoments"]


class FloatMoments(Moments):
    """``n``, mean and scatter in float64.

    A group of at most 4096 pixels is centred on its own mean and multiplied; groups merge by the
    pairwise rule of Chan, Golub and LeVeque (1983), with ``d = mean_b - mean_a``::

        mean = mean_a + d n_b / n
        M2   = M2_a + M2_b + d d^T n_a n_b / n

    Merging is associative up to rounding; :class:`.Forest` fixes the order, hence the bits.

    Parameters
    ----------
    count : int
        Pixels.
    mean : numpy.ndarray of float64, shape (C,)
        Mean of each channel.
    packed_scatter : numpy.ndarray of float64, shape (C (C + 1) / 2,)
        Sum of outer products of deviations, its upper triangle by rows.

    Examples
    --------
    >>> m = FloatMoments.zero(1).update(np.array([[1.0], [2.0], [6.0]]))
    >>> m.mean, m.scatter
    (array([3.]), array([[14.]]))
    """

    __slots__ = ("_mean", "_scatter", "count")

    ordered = True

    def __init__(
        self, count: int, mean: NDArray[np.float64], packed_scatter: NDArray[np.float64]
    ) -> None:
        self.count = int(count)
        self._mean = mean
        self._scatter = packed_scatter

    @classmethod
    def zero(cls, channels: int) -> FloatMoments:
        """No pixels."""
        return cls(0, np.zeros(channels), np.zeros(packed_size(channels)))

    @classmethod
    def _of_leaf(cls, pixels: NDArray[Any]) -> FloatMoments:
        # A copy in C order, so that the bits do not depend on the layout of the source.
        x = np.array(pixels, dtype=np.float64, order="C")
        count = x.shape[0]
        mean = np.add.reduce(x, axis=0) / count
        x -= mean
        # The mean was rounded: the residual sum moves it and corrects the scatter.
        residual = np.add.reduce(x, axis=0) / count
        scatter = pack(np.matmul(x.T, x))
        rows, columns = triangle(x.shape[1])
        scatter -= residual[rows] * residual[columns] * count
        return cls(count, mean + residual, scatter)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self._mean)

    def update(self, pixels: NDArray[Any]) -> FloatMoments:
        """Absorb ``(n, C)`` finite pixels, in leaves of 4096 merged in a fixed tree."""
        size = -(-pixels.shape[0] // LEAF_PIXELS)
        forest: Forest[FloatMoments] = Forest()
        for index in range(size):
            leaf = pixels[index * LEAF_PIXELS : (index + 1) * LEAF_PIXELS]
            forest = forest.merge(Forest.of(((index, size),), self._of_leaf(leaf)))
        absorbed = forest.result()
        return self if absorbed is None else self.merge(absorbed)

    def merge(self, other: FloatMoments) -> FloatMoments:
        """Union of both by Chan's rule; merging with no pixels changes no bit."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        count = self.count + other.count
        delta = other._mean - self._mean
        rows, columns = triangle(self.channels)
        weight = self.count * other.count / count
        return FloatMoments(
            count,
            self._mean + delta * (other.count / count),
            self._scatter + other._scatter + delta[rows] * delta[columns] * weight,
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean spectrum."""
        self._need(1)
        return self._mean

    @property
    def packed_scatter(self) -> NDArray[np.float64]:
        """Upper triangle of the scatter."""
        self._need(1)
        return self._scatter

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """``count`` (int64), ``mean`` and ``scatter`` (float64)."""
        return {
            "count": np.array(self.count, dtype=np.int64),
            "mean": self._mean,
            "scatter": self._scatter,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FloatMoments:
        """Inverse of :meth:`to_arrays`."""
        return cls(int(arrays["count"]), arrays["mean"], arrays["scatter"])

    @property
    def row(self) -> NDArray[np.float64]:
        """Count, mean and packed scatter as one float64 vector, the archive's ``moments`` row."""
        return np.concatenate([[float(self.count)], self._mean, self._scatter])

    @classmethod
    def from_row(cls, row: NDArray[np.float64]) -> FloatMoments:
        """Inverse of :attr:`row`."""
        channels = channels_of(row.shape[0]) - 1
        return cls(int(row[0]), row[1 : 1 + channels], row[1 + channels :])
