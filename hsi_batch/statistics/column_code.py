"""Sums along columns, compiled; imported where they are needed, since numba takes a while."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.counting import compiled

__all__ = ["sums"]


@compiled
def _whole(
    lines: Any, valid: Any, every: Any, count: Any, first: Any, second: Any
) -> None:  # pragma: no cover - machine code
    for y in range(lines.shape[0]):
        for x in range(lines.shape[1]):
            if every or valid[y, x]:
                count[x] += 1
                for c in range(lines.shape[2]):
                    value = np.int64(lines[y, x, c])
                    first[x, c] += value
                    second[x, c] += value * value


@compiled
def _means(
    lines: Any, valid: Any, every: Any, count: Any, first: Any, second: Any
) -> None:  # pragma: no cover - machine code
    for y in range(lines.shape[0]):
        for x in range(lines.shape[1]):
            if every or valid[y, x]:
                count[x] += 1
                for c in range(lines.shape[2]):
                    first[x, c] += np.float64(lines[y, x, c])
    for x in range(lines.shape[1]):
        if count[x] > 0:
            for c in range(lines.shape[2]):
                first[x, c] /= count[x]
    for y in range(lines.shape[0]):
        for x in range(lines.shape[1]):
            if every or valid[y, x]:
                for c in range(lines.shape[2]):
                    apart = np.float64(lines[y, x, c]) - first[x, c]
                    second[x, c] += apart * apart


def sums(
    lines: NDArray[Any], valid: NDArray[np.bool_], *, exact: bool
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Counts, and sums and sums of squares (``exact``), or means and scatters, along the lines.

    ``valid`` of shape ``(1, 1)`` stands for all.

    Examples
    --------
    >>> lines = np.array([[[1, 2]], [[3, 2]]], dtype=np.uint8)
    >>> [a.tolist() for a in sums(lines, np.ones((1, 1), bool), exact=True)]
    [[2], [[4, 4]], [[10, 8]]]
    """
    width, channels = lines.shape[1:]
    every = valid.shape != lines.shape[:2]
    kind = np.int64 if exact else np.float64
    count = np.zeros(width, np.int64)
    first, second = np.zeros((width, channels), kind), np.zeros((width, channels), kind)
    run = _whole if exact else _means
    run(lines, np.ascontiguousarray(valid), every, count, first, second)
    return count, first, second
