"""Exact sums of integer pixels, from a small registry.

A kernel takes ``(n, C)`` 8 or 16-bit integers and returns their :class:`IntegerSums`, exact to the
last bit. Kernels differ in speed only, so any of them may run anywhere; :func:`check` proves it on
the spot, once per process and dtype.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.packed import pack

__all__ = ["IntegerSums", "SumsKernel", "check", "kernel_name", "register", "sums", "sums_float64"]


class IntegerSums(NamedTuple):
    """Sums and extrema of integer pixels.

    Attributes
    ----------
    total : numpy.ndarray of int64, shape (C,)
        ``sum x``.
    products : numpy.ndarray of int64, shape (C (C + 1) / 2,)
        Packed upper triangle of ``sum x x^T``.
    low, high : numpy.ndarray, shape (C,)
        Extrema in the dtype of the pixels; of no pixels, the largest and the smallest value of it.
    """

    total: NDArray[np.int64]
    products: NDArray[np.int64]
    low: NDArray[Any]
    high: NDArray[Any]


SumsKernel = Callable[[NDArray[Any]], IntegerSums]

#: Rows of one product: 2**10 rows of 16-bit values stay below 2**42, exact in float64; they fit
#: the second-level cache.
_ROWS = 1024
#: Products that may be added in float64 before 2**53 is reached.
_FLUSH = 2**53 // (_ROWS * 2**32)
#: Rows whose extrema are taken one by one.
_FEW = 16

_kernels: dict[str, SumsKernel] = {}


def sums_float64(pixels: NDArray[Any]) -> IntegerSums:
    """Sums by float64 products on groups of rows that are small enough to be exact.

    Parameters
    ----------
    pixels : numpy.ndarray of an 8 or 16-bit integer, shape (n, C)

    Examples
    --------
    >>> sums_float64(np.array([[1, 2], [3, 4]], dtype=np.uint16)).products
    array([10, 14, 20])
    """
    rows, channels = pixels.shape
    info = np.iinfo(pixels.dtype)
    low = np.full(channels, info.max, dtype=pixels.dtype.newbyteorder("="))
    high = np.full(channels, info.min, dtype=low.dtype)
    # A channel of ones, whose products are the sums.
    buffer = np.ones((min(rows, _ROWS), channels + 1))
    product = np.empty((channels + 1, channels + 1))
    partial, whole = np.zeros_like(product), np.zeros((channels + 1, channels + 1), dtype=np.int64)
    for group, start in enumerate(range(0, rows, _ROWS), start=1):
        part = pixels[start : start + _ROWS]
        block = buffer[: len(part)]
        np.copyto(block[:, :channels], part)
        partial += np.matmul(block.T, block, out=product)
        _extrema(part, low, np.minimum)
        _extrema(part, high, np.maximum)
        if group % _FLUSH == 0:
            whole += partial.astype(np.int64)
            partial[:] = 0.0
    whole += partial.astype(np.int64)
    return IntegerSums(whole[channels, :channels], pack(whole[:channels, :channels]), low, high)


def _extrema(part: NDArray[Any], bounds: NDArray[Any], choose: Any) -> None:
    """Extrema of rows, half of them with the other half, which numpy does faster than by rows."""
    while len(part) > _FEW:
        half = len(part) // 2
        if len(part) % 2:
            choose(bounds, part[-1], out=bounds)
        part = choose(part[:half], part[half : 2 * half])
    choose(bounds, choose.reduce(part, axis=0), out=bounds)


def register(name: str, kernel: SumsKernel) -> None:
    """Add a kernel; the one registered last is used.

    A kernel that does not agree with :func:`sums_float64` on the test block of :func:`check` is
    refused with ``ValueError``.
    """
    check(kernel)
    _kernels.pop(name, None)
    _kernels[name] = kernel


def check(kernel: SumsKernel, *dtypes: str) -> None:
    """Compare a kernel with :func:`sums_float64` on extreme and random values.

    Parameters
    ----------
    kernel : callable
    *dtypes : str
        All four by default.

    Raises
    ------
    ValueError
        The kernel is not exact on this machine.
    """
    rng = np.random.default_rng(20260101)
    for dtype in dtypes or ("uint8", "int8", "uint16", "int16"):
        info = np.iinfo(dtype)
        block = rng.integers(info.min, info.max, (513, 21), dtype=dtype, endpoint=True)
        block[:40] = info.min
        block[40:80] = info.max
        # And values of which most fit fewer bits, as those of sensors do.
        for pixels in (block, block // 16, block[100:] // 16):
            found, expected = kernel(pixels), sums_float64(pixels)
            if not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
                raise ValueError(f"kernel {kernel!r} is not exact for {dtype}")


@cache
def _compiled(dtype: str) -> SumsKernel | None:
    """The compiled kernel, if it can be compiled here and is exact for the dtype."""
    try:
        from hsi_batch.statistics.pair_products import pair_products

        check(pair_products, dtype)
    except Exception as error:  # noqa: BLE001 - whatever a compiler says, there is another way
        logging.getLogger(__name__).warning(
            "The compiled sums of %s are not used (%s: %s); those in float64 give the same bits"
            " and take longer.",
            dtype,
            type(error).__name__,
            error,
        )
        return None
    return pair_products


def _kernel(dtype: np.dtype[Any]) -> tuple[str, SumsKernel]:
    if _kernels:
        return next(reversed(_kernels.items()))
    compiled = _compiled(dtype.newbyteorder("=").name)
    return ("float64", sums_float64) if compiled is None else ("pairs", compiled)


def kernel_name(dtype: str = "uint16") -> str:
    """Name of the kernel in use for a dtype: ``pairs`` (compiled), ``float64``, or registered."""
    return _kernel(np.dtype(dtype))[0]


def sums(pixels: NDArray[Any]) -> IntegerSums:
    """Sums of ``(n, C)`` 8 or 16-bit integers by the kernel in use, n below 2**31."""
    return _kernel(pixels.dtype)[1](pixels)
