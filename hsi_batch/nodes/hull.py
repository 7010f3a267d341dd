"""Upper convex hulls of spectra, compiled; imported where needed, since numba takes a while."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.counting import compiled

__all__ = ["hull_brackets"]


@compiled
def _brackets(x: Any, spectra: Any, left: Any, right: Any) -> None:  # pragma: no cover - compiled
    pixels, channels = spectra.shape
    stack = np.empty(channels, dtype=np.int64)
    for i in range(pixels):
        size = 0
        for j in range(channels):
            y = np.float64(spectra[i, j])
            while size >= 2:
                a, b = stack[size - 2], stack[size - 1]
                start = np.float64(spectra[i, a])
                # b stays while it is above the line from a to j.
                if (np.float64(spectra[i, b]) - start) * (x[j] - x[a]) > (y - start) * (
                    x[b] - x[a]
                ):
                    break
                size -= 1
            stack[size] = j
            size += 1
        for k in range(size - 1):
            for j in range(stack[k], stack[k + 1]):
                left[i, j] = stack[k]
                right[i, j] = stack[k + 1]
        left[i, stack[size - 1]] = stack[size - 1]
        right[i, stack[size - 1]] = stack[size - 1]


def hull_brackets(
    x: NDArray[np.float64], spectra: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The corners of the upper convex hull on either side of every channel.

    Monotone chain (Andrew, 1979), in time proportional to the number of channels.

    Parameters
    ----------
    x : numpy.ndarray of float64, shape (C,)
        Places of the channels, ascending.
    spectra : numpy.ndarray of float32, shape (n, C)

    Returns
    -------
    left, right : numpy.ndarray of int64, shape (n, C)
        Channels of the corners; a corner that another follows is its own left one.

    Examples
    --------
    >>> left, right = hull_brackets(np.arange(4.0), np.array([[1, 0, 2, 1]], dtype=np.float32))
    >>> left, right
    (array([[0, 0, 2, 3]]), array([[2, 2, 3, 3]]))
    """
    left = np.empty(spectra.shape, dtype=np.int64)
    right = np.empty(spectra.shape, dtype=np.int64)
    _brackets(x, spectra, left, right)
    return left, right
