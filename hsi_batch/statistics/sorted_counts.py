"""Sorted keys and how often each came, compiled; imported where it is needed, as numba is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hsi_batch.statistics.counting import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["added", "bits_to_drop", "counted_floats", "merged"]

_DIGIT = 11
_DIGITS = 3
#: Bits that values are counted without at first, where more of them differ than are told apart.
_COARSE_BITS = 8
#: Bins that are counted one by one, at most: they fit the second-level cache.
_CELLS = 2**18


@compiled
def _keys(bits: Any, keys: Any) -> int:  # pragma: no cover - machine code
    """As ``float_keys``, of bit patterns; NaN is left out."""
    found = 0
    for pattern in bits:
        size = pattern & np.uint32(0x7FFFFFFF)
        negative = pattern > np.uint32(0x80000000)
        keys[found] = ~pattern if negative else size | np.uint32(0x80000000)
        found += int(size <= np.uint32(0x7F800000))
    return found


@compiled
def _sort(keys: Any, other: Any) -> None:  # pragma: no cover - machine code
    """Radix sort by digits of 11 bits; the result is in ``other``, whose content is lost."""
    size = 1 << _DIGIT
    counts = np.zeros((_DIGITS, size), dtype=np.int64)
    for key in keys:
        for digit in range(_DIGITS):
            counts[digit, (key >> np.uint32(_DIGIT * digit)) & np.uint32(size - 1)] += 1
    for digit in range(_DIGITS):
        place = 0
        for value in range(size):
            count = counts[digit, value]
            counts[digit, value] = place
            place += count
        for key in keys:
            value = (key >> np.uint32(_DIGIT * digit)) & np.uint32(size - 1)
            other[counts[digit, value]] = key
            counts[digit, value] += 1
        keys, other = other, keys


@compiled
def _ends(keys: Any) -> tuple[int, int]:  # pragma: no cover - machine code
    low, high = keys[0], keys[0]
    for key in keys:
        low, high = min(low, key), max(high, key)
    return low, high


@compiled
def _tally(keys: Any, bits: Any, base: Any, cells: Any) -> int:  # pragma: no cover - machine code
    """Count keys in cells of their own; returns how many are used."""
    for key in keys:
        cells[(key >> bits) - base] += 1
    found = np.int64(0)
    for times in cells:
        found += np.int64(times > 0)
    return int(found)


@compiled
def _used(cells: Any, base: Any, keys: Any, counts: Any) -> None:  # pragma: no cover - machine code
    found = np.int64(0)
    for cell in range(cells.size):
        if cells[cell] > 0:
            keys[found], counts[found] = base + np.uint32(cell), cells[cell]
            found += 1


@compiled
def _runs(ordered: Any, keys: Any, counts: Any) -> int:  # pragma: no cover - machine code
    found = 0
    for key in ordered:
        if found and keys[found - 1] == key:
            counts[found - 1] += 1
        else:
            keys[found] = key
            counts[found] = 1
            found += 1
    return found


@compiled
def _merge(
    keys_a: Any, counts_a: Any, keys_b: Any, counts_b: Any, keys: Any, counts: Any
) -> int:  # pragma: no cover - machine code
    a, b, found = np.int64(0), np.int64(0), 0
    while a < keys_a.size and b < keys_b.size:
        key_a, key_b = keys_a[a], keys_b[b]
        # No branches: which is next cannot be foretold.
        from_a, from_b = np.int64(key_a <= key_b), np.int64(key_b <= key_a)
        keys[found] = min(key_a, key_b)
        counts[found] = from_a * counts_a[a] + from_b * counts_b[b]
        a += from_a
        b += from_b
        found += 1
    for i in range(a, keys_a.size):
        keys[found], counts[found] = keys_a[i], counts_a[i]
        found += 1
    for i in range(b, keys_b.size):
        keys[found], counts[found] = keys_b[i], counts_b[i]
        found += 1
    return found


@compiled
def _add(
    keys: Any, counts: Any, bits: Any, found: Any, sums: Any
) -> int:  # pragma: no cover - machine code
    size = np.int64(0)
    last, total = np.uint32(0), np.int64(0)
    for i in range(keys.size):
        key = keys[i] >> bits
        same = np.int64(size > 0 and key == last)
        total = same * total + counts[i]
        size += 1 - same
        found[size - 1], sums[size - 1] = key, total
        last = key
    return int(size)


@compiled
def _distinct(keys: Any, bits: Any) -> int:  # pragma: no cover - machine code
    found = np.int64(keys.size > 0)
    for i in range(1, keys.size):
        found += np.int64((keys[i] >> bits) != (keys[i - 1] >> bits))
    return int(found)


def bits_to_drop(keys: NDArray[np.uint32], most: int) -> int:
    """How many of the lowest bits of sorted keys must go for at most so many to differ.

    Examples
    --------
    >>> bits_to_drop(np.array([3, 6, 7, 9], dtype=np.uint32), 3)
    1
    """
    bits = 0
    while _distinct(keys, np.uint32(bits)) > most:
        bits += 1
    return bits


def counted_floats(
    values: NDArray[Any], dropped: int = 0, capacity: int = 2**32
) -> tuple[NDArray[np.uint32], NDArray[np.int64], int]:
    """Sorted keys of values as float32 (:func:`.float_keys`) with their counts; NaN is left out.

    Parameters
    ----------
    values : numpy.ndarray of a real dtype, shape (n,)
    dropped : int
        Lowest bits of the keys that count no more.
    capacity : int
        Different keys that are told apart. Where there are more, lowest bits may be dropped, fewer
        than it takes; no sorting is needed then.

    Returns
    -------
    keys : numpy.ndarray of uint32
    counts : numpy.ndarray of int64
    dropped : int
        Bits that the keys are without.

    Examples
    --------
    >>> keys, counts, _ = counted_floats(np.array([0.5, np.nan, -0.0, 0.0]))
    >>> [hex(key) for key in keys], counts
    (['0x80000000', '0xbf000000'], array([2, 1]))
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    keys = np.empty_like(bits)
    keys = keys[: _keys(bits, keys)]
    tried = dropped or _COARSE_BITS
    if dropped or keys.size > capacity:
        found = _tallied(keys, tried)
        # Of fewer the bits may all be needed.
        if found is not None and (dropped or found[0].size > capacity):
            return *found, tried
    found = _counted(keys)
    return (*found, 0) if dropped == 0 else (*added(*found, dropped), dropped)


def _tallied(
    keys: NDArray[np.uint32], bits: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]] | None:
    """Keys without their lowest bits, and counts, without sorting; None if they lie too far."""
    if keys.size == 0:
        return None
    low, high = (int(end) >> bits for end in _ends(keys))
    if high - low >= min(_CELLS, 8 * keys.size):
        return None
    cells, base = np.zeros(high - low + 1, dtype=np.int32), np.uint32(low)
    used = _tally(keys, np.uint32(bits), base, cells)
    found, counts = np.empty(used, dtype=np.uint32), np.empty(used, dtype=np.int64)
    _used(cells, base, found, counts)
    return found, counts


def _counted(keys: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """As ``numpy.unique(keys, return_counts=True)``, in a third of the time; ``keys`` is lost."""
    ordered = np.empty_like(keys)
    _sort(keys, ordered)
    counts = np.empty(keys.size, dtype=np.int64)
    return _filled(keys, counts, _runs(ordered, keys, counts))


def _filled(
    keys: NDArray[np.uint32], counts: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The part of arrays that is filled; they are not kept for a small one."""
    if 2 * size > keys.size:
        return keys[:size], counts[:size]
    return keys[:size].copy(), counts[:size].copy()


def merged(
    keys_a: NDArray[np.uint32],
    counts_a: NDArray[np.int64],
    keys_b: NDArray[np.uint32],
    counts_b: NDArray[np.int64],
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The keys of both, sorted, with the sums of their counts; both must be sorted, without twins.

    Examples
    --------
    >>> one = np.array([1, 1])
    >>> merged(np.array([3, 7], dtype=np.uint32), one, np.array([7], dtype=np.uint32), one[:1])
    (array([3, 7], dtype=uint32), array([1, 2]))
    """
    most = keys_a.size + keys_b.size
    keys, counts = np.empty(most, dtype=np.uint32), np.empty(most, dtype=np.int64)
    return _filled(keys, counts, _merge(keys_a, counts_a, keys_b, counts_b, keys, counts))


def added(
    keys: NDArray[np.uint32], counts: NDArray[np.int64], bits: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Sorted keys without their lowest bits, each once, with the sum of its counts.

    Examples
    --------
    >>> added(np.array([6, 7, 9], dtype=np.uint32), np.array([1, 1, 5]), 1)
    (array([3, 4], dtype=uint32), array([2, 5]))
    """
    found, sums = np.empty_like(keys), np.empty_like(counts)
    return _filled(found, sums, _add(keys, counts, np.uint32(bits), found, sums))
