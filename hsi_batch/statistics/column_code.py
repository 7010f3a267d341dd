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


#: Values of a strip, whose sums stay in the nearest cache.
_STRIP = 2048
#: Lines whose sum of 16-bit integers fits 32 bits.
_LINES = 16384


@compiled
def _every(rows: Any, first: Any, second: Any) -> None:  # pragma: no cover - machine code
    """Sums of the columns of ``rows`` (lines, n), 8 or 16-bit integers; all lines count.

    By strips and four lines at a time, three times as fast as value by value.
    """
    lines, n = rows.shape
    sums, squares = np.empty(_STRIP, np.int32), np.empty(_STRIP, np.uint64)
    for top in range(0, lines, _LINES):
        bottom = min(top + _LINES, lines)
        fours = top + (bottom - top) // 4 * 4
        for left in range(0, n, _STRIP):
            width = min(_STRIP, n - left)
            for i in range(width):
                sums[i] = 0
                squares[i] = 0
            for y in range(top, fours, 4):
                a, b = rows[y, left : left + width], rows[y + 1, left : left + width]
                c, d = rows[y + 2, left : left + width], rows[y + 3, left : left + width]
                for i in range(width):
                    sums[i] += (np.int32(a[i]) + np.int32(b[i])) + (np.int32(c[i]) + np.int32(d[i]))
                    # A square is below 2**32, also of a negative number that wrapped.
                    p, q = np.uint32(a[i]), np.uint32(b[i])
                    r, s = np.uint32(c[i]), np.uint32(d[i])
                    low = np.uint64(np.uint32(p * p)) + np.uint64(np.uint32(q * q))
                    high = np.uint64(np.uint32(r * r)) + np.uint64(np.uint32(s * s))
                    squares[i] += low + high
            for y in range(fours, bottom):
                a = rows[y, left : left + width]
                for i in range(width):
                    p = np.uint32(a[i])
                    sums[i] += np.int32(a[i])
                    squares[i] += np.uint64(np.uint32(p * p))
            for i in range(width):
                first[left + i] += sums[i]
                second[left + i] += np.int64(squares[i])


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
    if exact and every and lines.itemsize <= 2 and lines.flags.c_contiguous:
        count += len(lines)
        rows = lines.reshape(len(lines), width * channels)
        _every(rows, first.reshape(-1), second.reshape(-1))
        return count, first, second
    run = _whole if exact else _means
    run(lines, np.ascontiguousarray(valid), every, count, first, second)
    return count, first, second
