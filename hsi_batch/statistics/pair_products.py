"""Exact sums of integer pixels by 16-bit multiply-add instructions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.counting import compiled
from hsi_batch.statistics.kernels import IntegerSums
from hsi_batch.statistics.machine_code import LANES
from hsi_batch.statistics.packed import triangle
from hsi_batch.statistics.vector_code import TILE, add_products, add_wide_products, pack_pairs

__all__ = ["pair_products"]

#: Pairs of pixels of a panel, which stays in the first-level cache. `add_wide_products` is exact
#: up to this.
_STEPS = 64
#: Pixels that are looked at to find where their middle is.
_SOME = 64
#: Pixels of another dtype that are moved to uint16 at once.
_GROUP = 4096
#: Fewer pairs between two additions to 64-bit sums are slower than `add_wide_products`.
_FEWEST = 8


@compiled
def _pack(
    pixels: Any,
    first: Any,
    count: Any,
    shift: Any,
    panel: Any,
    here: Any,
    sums: Any,
) -> None:  # pragma: no cover - machine code
    """Pixels relative to ``shift`` as pairs, with their extrema and sums."""
    channels, width = pixels.shape[1], panel.shape[1]
    stride = pixels.strides[0]
    address = pixels.ctypes.data + first * stride
    steps = count // 2
    start = channels if steps == 0 or channels < LANES else 0
    while start < channels:
        # The last vector overlaps the one before.
        c = min(start, channels - LANES)
        pack_pairs(
            address + 2 * c,
            stride,
            steps,
            shift.ctypes.data + 2 * c,
            panel.ctypes.data + 4 * c,
            width,
            here.ctypes.data + 2 * c,
            sums.ctypes.data + 4 * c,
        )
        start += LANES
    done = 2 * steps
    if steps == 0 or channels < LANES:
        for c in range(channels):
            here[0, c] = here[1, c] = pixels[first, c]
            sums[c] = 0
        done = 0
    for p in range(done, count):
        for c in range(channels):
            value = pixels[first + p, c]
            here[0, c], here[1, c] = min(here[0, c], value), max(here[1, c], value)
            away = np.int16(np.int32(value) - np.int32(shift[c]))
            panel[p // 2, c, p % 2] = away
            sums[c] += np.int32(away)
    if count % 2:
        for c in range(channels):
            panel[steps, c, 1] = 0


@compiled
def _multiply(
    panel: Any, high: Any, steps: Any, farthest: Any, products: Any
) -> None:  # pragma: no cover - machine code
    """Add the products of all pairs of channels of a panel, of numbers up to ``farthest``."""
    width = panel.shape[1]
    at, high_at, out = panel.ctypes.data, high.ctypes.data, products.ctypes.data
    # Two products per step, each at most the square.
    fitting = _STEPS
    while fitting >= _FEWEST and 2 * fitting * farthest * farthest >= 2**31:
        fitting //= 2
    if fitting >= _FEWEST:
        done = 0
        while done < steps:
            part = min(fitting, steps - done)
            for column in range(0, width, LANES):
                for row in range(0, column + LANES, TILE):
                    add_products(at + done * width * 4, width, part, row, column, out)
            done += part
        return
    for p in range(steps):
        for c in range(width):
            for side in range(2):
                value = panel[p, c, side]
                high[p, c, side] = (value >> 8) + ((value >> 7) & 1)
    for column in range(0, width, LANES):
        for row in range(0, column + LANES, TILE):
            add_wide_products(at, high_at, width, steps, row, column, out)


@compiled
def _absorb(
    pixels: Any,
    first: Any,
    shift: Any,
    bounds: Any,
    total: Any,
    products: Any,
    panel: Any,
    high: Any,
    here: Any,
    sums: Any,
) -> Any:  # pragma: no cover - machine code
    """Absorb pixels from ``first`` on; returns where one is too far from ``shift``, or n."""
    pixels_left, channels = pixels.shape[0] - first, pixels.shape[1]
    while pixels_left > 0:
        count = min(2 * _STEPS, pixels_left)
        _pack(pixels, first, count, shift, panel, here, sums)
        farthest = np.int64(0)
        for c in range(channels):
            middle = np.int64(shift[c])
            below, above = middle - np.int64(here[0, c]), np.int64(here[1, c]) - middle
            if below > 32768 or above > 32767:
                return first
            farthest = max(farthest, below, above)
        for c in range(channels):
            bounds[0, c] = min(bounds[0, c], here[0, c])
            bounds[1, c] = max(bounds[1, c], here[1, c])
            total[c] += sums[c]
        _multiply(panel, high, (count + 1) // 2, farthest, products)
        first += count
        pixels_left -= count
    return first


class _Sums:
    """Sums of uint16 about a shift."""

    def __init__(self, shift: NDArray[np.uint16]) -> None:
        channels = len(shift)
        width = -(-channels // LANES) * LANES
        self.shift, self.count = shift, 0
        self.bounds = np.zeros((2, channels), dtype=np.uint16)
        self.bounds[0] = np.iinfo(np.uint16).max
        self.total = np.zeros(channels, dtype=np.int64)
        self.products = np.zeros((width, width), dtype=np.int64)
        panel = np.zeros((_STEPS, width, 2), dtype=np.int16)
        here, sums = np.zeros((2, width), dtype=np.uint16), np.zeros(width, dtype=np.int32)
        self._scratch = (panel, np.zeros_like(panel), here, sums)

    def absorb(self, pixels: NDArray[np.uint16], first: int = 0) -> int:
        """Take pixels from ``first`` on, as far as they are near the shift; returns how far."""
        stop: int = _absorb(
            pixels, first, self.shift, self.bounds, self.total, self.products, *self._scratch
        )
        self.count += stop - first
        return stop

    def about(self, origin: int) -> IntegerSums:
        """The sums of ``x - origin``.

        With ``d = x - s`` and ``a = s - origin``,
        ``sum (d + a)(d + a)^T = sum d d^T + a (sum d)^T + (sum d) a^T + n a a^T``.
        """
        rows, columns = triangle(len(self.total))
        away = self.shift.astype(np.int64) - origin
        total = self.total + self.count * away
        cross = self.total[rows] * away[columns] + away[rows] * total[columns]
        low, high = self.bounds.astype(np.int64) - origin
        return IntegerSums(total, self.products[rows, columns] + cross, low, high)


def pair_products(pixels: NDArray[Any]) -> IntegerSums:
    """Sums and extrema of 8 or 16-bit integers in one visit.

    Pixels are taken relative to whole numbers in the middle of some of them, so that the products
    of most fit few bits; what 16-bit numbers relative to that cannot hold is taken about the middle
    of all. Other dtypes are moved to uint16 first. All sums are exact for up to 2**31 pixels.

    Parameters
    ----------
    pixels : numpy.ndarray of an 8 or 16-bit integer, shape (n, C)

    Examples
    --------
    >>> pair_products(np.array([[1, 2], [3, 4]], dtype=np.uint16)).products
    array([10, 14, 20])
    """
    kind = pixels.dtype.newbyteorder("=")
    origin = -int(np.iinfo(kind).min)
    groups = _as_uint16(pixels, origin)
    first = next(groups)
    some = first[:: max(len(first) // _SOME, 1)].astype(np.int64)
    near = _Sums(
        ((some.min(axis=0, initial=0xFFFF) + some.max(axis=0, initial=0)) // 2).astype("u2")
    )
    far = None
    for group in chain((first,), groups):
        # What is far from the others seldom is alone.
        if (stop := near.absorb(group)) < len(group):
            far = far or _Sums(np.full(pixels.shape[1], 0x8000, dtype=np.uint16))
            far.absorb(group, stop)
    total, products, low, high = near.about(origin)
    if far is not None:
        rest = far.about(origin)
        total, products = total + rest.total, products + rest.products
        low, high = np.minimum(low, rest.low), np.maximum(high, rest.high)
    if len(pixels) == 0:
        low[:], high[:] = np.iinfo(kind).max, np.iinfo(kind).min
    return IntegerSums(total, products, low.astype(kind), high.astype(kind))


def _as_uint16(pixels: NDArray[Any], origin: int) -> Iterator[NDArray[np.uint16]]:
    """The pixels plus ``origin``: all at once if they are so, else in groups."""
    if pixels.dtype == np.uint16 and pixels.dtype.isnative:
        yield np.ascontiguousarray(pixels)
        return
    yield (pixels[:_GROUP].astype(np.int32) + origin).astype(np.uint16)
    for start in range(_GROUP, len(pixels), _GROUP):
        yield (pixels[start : start + _GROUP].astype(np.int32) + origin).astype(np.uint16)
