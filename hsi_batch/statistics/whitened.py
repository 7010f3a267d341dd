"""Squared lengths of whitened pixels, compiled: one visit from stored numbers to scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.counting import compiled
from hsi_batch.statistics.machine_code import LANES
from hsi_batch.statistics.norm_code import TILES, add_squares, sum_lanes

__all__ = ["WhitenedNorms"]


@compiled
def _norms(
    pixels: Any,
    centre: Any,
    matrix: Any,
    offset: Any,
    bounds: Any,
    moved: Any,
    squares: Any,
    sums: Any,
    out: Any,
) -> None:  # pragma: no cover - machine code
    tile, channels = moved.shape[0], pixels.shape[1]
    for first in range(0, pixels.shape[0], tile):
        count = min(tile, pixels.shape[0] - first)
        for m in range(count):
            for c in range(channels):
                moved[m, c] = moved.dtype.type(pixels[first + m, c]) - centre[c]
        squares[:] = 0
        for part in range(bounds.shape[0]):
            add_squares(
                moved, matrix, offset, squares, part * LANES, (bounds[part, 0], bounds[part, 1])
            )
        sum_lanes(squares, sums)
        for m in range(count):
            out[first + m] = sums[m]


class WhitenedNorms:
    """``|W (x - c) + t|^2`` of pixels ``x``.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (k, C)
        ``W``. What it has of zeros outside of a triangle is not multiplied.
    centre : numpy.ndarray, shape (C,)
    offset : numpy.ndarray, shape (k,)
    dtype : numpy.dtype
        Of all arithmetic, float32 or float64. The products of a pixel are added in the order of
        the channels, with one rounding each, and the squares in sixteen lanes: it has the same
        bits whatever comes with it, on any CPU.

    Examples
    --------
    >>> norms = WhitenedNorms(np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([4.0, 0.0]), np.ones(2))
    >>> norms(np.array([[3, 1], [4, 0]], dtype=np.uint16))
    array([4., 2.])
    """

    def __init__(
        self,
        matrix: NDArray[Any],
        centre: NDArray[Any],
        offset: NDArray[Any],
        dtype: Any = np.float64,
    ) -> None:
        kind = np.dtype(dtype)
        size, channels = matrix.shape
        width = -(-size // LANES) * LANES
        self._centre = centre.astype(kind)
        self._matrix = np.zeros((max(channels, 1), width), dtype=kind)
        self._matrix[:channels, :size] = matrix.T
        self._offset = np.zeros(width, dtype=kind)
        self._offset[:size] = offset
        ends = [_ends(self._matrix[:, at : at + LANES]) for at in range(0, width, LANES)]
        self._bounds = np.array(ends, dtype=np.int64).reshape(-1, 2)
        #: Products of numbers for each pixel.
        self.products = int((self._bounds[:, 1] - self._bounds[:, 0]).sum()) * LANES

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Of ``(n, C)`` pixels in any real dtype, ``(n,)`` in float64."""
        plain = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
        kind, out = self._matrix.dtype, np.empty(len(pixels))
        tile = TILES[kind.itemsize]
        moved = np.zeros((tile, len(self._matrix)), dtype=kind)
        squares, sums = np.zeros((tile, LANES), dtype=kind), np.zeros(tile, dtype=kind)
        _norms(
            plain,
            self._centre,
            self._matrix,
            self._offset,
            self._bounds,
            moved,
            squares,
            sums,
            out,
        )
        return out


def _ends(columns: NDArray[Any]) -> tuple[int, int]:
    """The first row that is not zero and the one after the last; one row where all are."""
    found = np.flatnonzero(columns.any(axis=1))
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 1)
