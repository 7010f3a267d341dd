"""Exact Gram products of integer pixels, from a small registry.

A Gram kernel takes ``(n, C)`` integer pixels and returns ``X^T X`` as int64, exact to the last bit.
Kernels differ in speed only, so any of them may run anywhere; :func:`check` proves it on the spot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GramKernel", "check", "gram", "gram_float64", "kernel_name", "register"]

GramKernel = Callable[[NDArray[Any]], NDArray[np.int64]]

#: Rows of one product: 2**10 rows of 16-bit values stay below 2**42, exact in float64; they fit
#: the second-level cache.
_ROWS = 1024
#: Products that may be added in float64 before 2**53 is reached.
_FLUSH = 2**53 // (_ROWS * 2**32)

_kernels: dict[str, GramKernel] = {}


def gram_float64(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """``X^T X`` by float64 products on groups of rows that are small enough to be exact.

    Parameters
    ----------
    pixels : numpy.ndarray of an 8 or 16-bit integer, shape (n, C)

    Returns
    -------
    numpy.ndarray of int64, shape (C, C)

    Examples
    --------
    >>> gram_float64(np.array([[1, 2], [3, 4]], dtype=np.uint16))
    array([[10, 14],
           [14, 20]])
    """
    rows, channels = pixels.shape
    total = np.zeros((channels, channels), dtype=np.int64)
    if rows == 0:
        return total
    buffer = np.empty((min(rows, _ROWS), channels), dtype=np.float64)
    product = np.empty((channels, channels), dtype=np.float64)
    partial = np.zeros((channels, channels), dtype=np.float64)
    for group, start in enumerate(range(0, rows, _ROWS), start=1):
        block = buffer[: min(_ROWS, rows - start)]
        np.copyto(block, pixels[start : start + _ROWS])
        partial += np.matmul(block.T, block, out=product)
        if group % _FLUSH == 0:
            total += partial.astype(np.int64)
            partial[:] = 0.0
    total += partial.astype(np.int64)
    return total


def register(name: str, kernel: GramKernel) -> None:
    """Add a kernel; the one registered last is used.

    A kernel that does not agree with :func:`gram_float64` on the test block of :func:`check` is
    refused with ``ValueError``.
    """
    check(kernel)
    _kernels.pop(name, None)
    _kernels[name] = kernel


def check(kernel: GramKernel) -> None:
    """Compare a kernel with :func:`gram_float64` on extreme and random values.

    Raises
    ------
    ValueError
        The kernel is not exact on this machine.
    """
    rng = np.random.default_rng(20260101)
    for dtype in (np.uint8, np.int8, np.uint16, np.int16):
        info = np.iinfo(dtype)
        block = rng.integers(info.min, info.max, (513, 21), dtype=dtype, endpoint=True)
        block[:40] = info.min
        block[40:80] = info.max
        if not np.array_equal(kernel(block), gram_float64(block)):
            raise ValueError(f"Gram kernel {kernel!r} is not exact for {np.dtype(dtype)}")


def kernel_name() -> str:
    """Name of the kernel in use."""
    return next(reversed(_kernels))


def gram(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """``X^T X`` of ``(n, C)`` 8 or 16-bit integers by the kernel in use, int64."""
    return _kernels[kernel_name()](pixels)


_kernels["float64"] = gram_float64
