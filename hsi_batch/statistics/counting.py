"""Counting values, compiled; imported where it is needed, since numba takes a while to load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["compiled", "count_values"]


def compiled(function: Callable[..., Any], *, fastmath: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Compile a loop to machine code that other threads run beside; kept on disk if it may be.

    ``fastmath`` names what LLVM may do beyond IEEE 754.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": set(fastmath)}
    try:
        return numba.njit(function, cache=True, **options)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(function, **options)  # type: ignore[no-any-return]


@compiled
def _count(pixels: Any, lowest: Any, counts: Any) -> None:  # pragma: no cover - machine code
    for i in range(pixels.shape[0]):
        for c in range(pixels.shape[1]):
            counts[c, np.int64(pixels[i, c]) - lowest] += 1


def count_values(pixels: NDArray[Any], lowest: int, counts: NDArray[np.int64]) -> None:
    """Add the values of ``(n, C)`` pixels to ``counts[c, value - lowest]``.

    Unlike :func:`numpy.bincount` it copies no pixels, and reads them once and in their order.

    Examples
    --------
    >>> counts = np.zeros((2, 256), dtype=np.int64)
    >>> count_values(np.array([[3, 0], [3, 9]], dtype=np.uint8), 0, counts)
    >>> counts[:, [0, 3, 9]]
    array([[0, 2, 0],
           [1, 0, 1]])
    """
    _count(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), np.int64(lowest), counts)
