"""Symmetric matrices as their packed upper triangle, row by row."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["channels_of", "pack", "packed_size", "triangle", "unpack"]

_T = TypeVar("_T", bound=np.generic)


def packed_size(channels: int) -> int:
    """Entries of the upper triangle with its diagonal: ``C (C + 1) / 2``."""
    return channels * (channels + 1) // 2


def channels_of(size: int) -> int:
    """Invert :func:`packed_size`.

    Examples
    --------
    >>> channels_of(packed_size(61))
    61
    """
    channels = (int((8 * size + 1) ** 0.5) - 1) // 2
    if packed_size(channels) != size:
        raise ValueError(f"{size} is not the size of a packed triangle")
    return channels


@lru_cache(maxsize=32)
def triangle(channels: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column indices of the packed entries."""
    return np.triu_indices(channels)


def pack(matrix: NDArray[_T]) -> NDArray[_T]:
    """Upper triangle of a ``(C, C)`` matrix as ``(C (C + 1) / 2,)``."""
    packed: NDArray[_T] = matrix[triangle(matrix.shape[0])]
    return packed


def unpack(packed: NDArray[_T]) -> NDArray[_T]:
    """Symmetric ``(C, C)`` matrix of a packed triangle."""
    channels = channels_of(packed.shape[0])
    matrix: NDArray[Any] = np.empty((channels, channels), dtype=packed.dtype)
    rows, columns = triangle(channels)
    matrix[rows, columns] = packed
    matrix[columns, rows] = packed
    return matrix
