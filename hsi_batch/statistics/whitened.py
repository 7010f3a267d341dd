"""The two visits to pixels around the product of a quadratic score, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.counting import compiled

__all__ = ["shifted", "squared_norms"]


@compiled
def _shift(pixels: Any, centre: Any, out: Any) -> None:  # pragma: no cover - machine code
    for i in range(pixels.shape[0]):
        for c in range(pixels.shape[1]):
            out[i, c] = out.dtype.type(pixels[i, c]) - centre[c]


def _norms(vectors: Any, offset: Any, out: Any) -> None:  # pragma: no cover - machine code
    for i in range(vectors.shape[0]):
        total = vectors.dtype.type(0)
        for c in range(vectors.shape[1]):
            value = vectors[i, c] + offset[c]
            total += value * value
        out[i] = total


# Squares may be summed in lanes: no bound of errors needs their order, which is always the same.
_norms = compiled(_norms, fastmath=("reassoc", "contract"))


def shifted(pixels: NDArray[Any], centre: NDArray[Any]) -> NDArray[Any]:
    """``pixels - centre`` in the arithmetic of ``centre``, ``(n, C)``: thrice numpy's speed.

    Examples
    --------
    >>> shifted(np.array([[3, 1]], dtype=np.uint16), np.array([4, 0], dtype=np.float32))
    array([[-1.,  1.]], dtype=float32)
    """
    out = np.empty(pixels.shape, dtype=centre.dtype)
    plain = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    _shift(plain, centre, out)
    return out


def squared_norms(vectors: NDArray[Any], offset: NDArray[Any]) -> NDArray[np.float64]:
    """``sum over c of (vectors + offset)**2`` of ``(n, C)`` vectors, ``(n,)``, in their arithmetic.

    Examples
    --------
    >>> squared_norms(np.array([[1.0, 2.0]]), np.array([2.0, 2.0]))
    array([25.])
    """
    out = np.empty(len(vectors))
    _norms(vectors, offset, out)
    return out
