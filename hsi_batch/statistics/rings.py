"""Mean and covariance of the ring around every pixel, from sliding sums.

Imported where it is needed, since numba takes a while to load.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.counting import compiled
from hsi_batch.statistics.packed import packed_size

__all__ = ["RingMoments", "ring_moments"]

#: Numbers of a stack of covariances; 16 MiB.
_STACK = 2**21


class RingMoments(NamedTuple):
    """Backgrounds of some pixels of a line.

    Attributes
    ----------
    line : int
    first : int
        First pixel.
    pixels : numpy.ndarray of float64, shape (n, C)
        Their values less those of ``mean``; NaN where a pixel is.
    counts : numpy.ndarray of int64, shape (n,)
        Finite pixels of the ring.
    covariance : numpy.ndarray of float64, shape (n, C, C)
        Sample covariance, lower triangle; the rest is undefined, as are rings of one pixel.
    """

    line: int
    first: int
    pixels: NDArray[np.float64]
    counts: NDArray[np.int64]
    covariance: NDArray[np.float64]


@compiled
def _add(columns: Any, line: Any, sign: float) -> None:  # pragma: no cover - machine code
    # columns[t] += sign z z^T, lower triangle row by row, with z = line[t].
    for t in range(columns.shape[0]):
        k = 0
        for i in range(line.shape[1]):
            scaled = sign * line[t, i]
            for j in range(i + 1):
                columns[t, k] += scaled * line[t, j]
                k += 1


@compiled
def _take(ring: Any, columns: Any, c: Any, sign: float) -> None:  # pragma: no cover - machine code
    if 0 <= c < columns.shape[0]:
        for k in range(ring.shape[0]):
            ring[k] += sign * columns[c, k]


@compiled
def _finish(ring: Any, mean: Any, covariance: Any) -> None:  # pragma: no cover - machine code
    # The last row of the packed sums is that of the 1: sum x, and the count.
    channels = mean.shape[0]
    first = ring.shape[0] - channels - 1
    count = ring[ring.shape[0] - 1]
    for i in range(channels):
        mean[i] = ring[first + i] / count if count > 0 else np.nan
    k = 0
    for i in range(channels):
        for j in range(i + 1):
            scatter = ring[k] - ring[first + i] * mean[j]
            covariance[i, j] = scatter / (count - 1) if count > 1 else 0.0
            k += 1


@compiled
def _slide(  # pragma: no cover - machine code
    outer: Any, guard: Any, radii: Any, start: int, ring: Any, out: Any
) -> None:
    # Pixel t of the tile is column start + t; out = (means, counts, covariances) of the tile.
    wide, narrow = radii
    means, counts, covariances = out
    ring[:] = 0.0
    for c in range(start - wide, start + wide + 1):
        _take(ring, outer, c, 1.0)
    for c in range(start - narrow, start + narrow + 1):
        _take(ring, guard, c, -1.0)
    for t in range(means.shape[0]):
        c = start + t
        if t > 0:
            _take(ring, outer, c + wide, 1.0)
            _take(ring, outer, c - wide - 1, -1.0)
            _take(ring, guard, c + narrow, -1.0)
            _take(ring, guard, c - narrow - 1, 1.0)
        counts[t] = np.int64(ring[ring.shape[0] - 1])
        _finish(ring, means[t], covariances[t])


def ring_moments(
    lines: NDArray[Any], guard: int, outer: int, start: int, stop: int
) -> Iterator[RingMoments]:
    """Background of every pixel: the outer window less the guard window around it.

    At the edges of ``lines`` it is the part of the ring that is inside. Pixels that are not finite
    in all channels are left out. The sums are of ``x``, ``x x^T`` and 1 per column of the windows;
    a step down adds a line and takes one away, a step to the right a column: the work per pixel is
    a few times ``C^2``, whatever the size of the windows. Sums of whole numbers are exact.

    Parameters
    ----------
    lines : numpy.ndarray, shape (y, x, C)
    guard, outer : int
        Radii in pixels: the windows are ``2 guard + 1`` and ``2 outer + 1`` wide.
    start, stop : int
        Lines that are asked for.

    Yields
    ------
    RingMoments
        In a fixed order; its arrays are used again.
    """
    height, width, channels = lines.shape
    tile = max(16, min(256, _STACK // channels**2))
    size = packed_size(channels + 1)
    ring = np.empty(size)
    covariances = np.zeros((tile, channels, channels))
    means, counts = np.empty((tile, channels)), np.empty(tile, dtype=np.int64)
    for first in range(0, width, tile):
        last = min(first + tile, width)
        low, high = max(0, first - outer), min(width, last + outer)
        windows = [(outer, np.zeros((high - low, size))), (guard, np.zeros((high - low, size)))]
        near, finite = _augmented(lines[:, low:high])
        for y in range(start, stop):
            for radius, columns in windows:
                if y == start:
                    for line in near[max(0, y - radius) : min(height, y + radius + 1)]:
                        _add(columns, line, 1.0)
                    continue
                if y + radius < height:
                    _add(columns, near[y + radius], 1.0)
                if y - radius - 1 >= 0:
                    _add(columns, near[y - radius - 1], -1.0)
            here = last - first
            out = (means[:here], counts[:here], covariances[:here])
            _slide(windows[0][1], windows[1][1], (outer, guard), first - low, ring, out)
            inside = slice(first - low, last - low)
            pixels = near[y, inside, :channels] - means[:here]
            pixels[~finite[y, inside]] = np.nan
            yield RingMoments(y, first, pixels, counts[:here], covariances[:here])


def _augmented(lines: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pixels about their median with a 1 behind; all zero where they are not finite."""
    finite = np.isfinite(lines).all(axis=2)
    values = np.zeros((*lines.shape[:2], lines.shape[2] + 1))
    if finite.any():
        chosen = lines[finite].astype(np.float64)
        centre = np.median(chosen, axis=0)
        if np.array_equal(chosen, np.rint(chosen)):
            centre = np.rint(centre)
        values[finite, :-1] = chosen - centre
        values[finite, -1] = 1.0
    return values, finite
