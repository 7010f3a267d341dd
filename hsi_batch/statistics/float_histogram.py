"""Histograms of float32 values on the grid of their own bit patterns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.histogram import Histogram

__all__ = ["FloatHistogram", "float_keys", "key_floats"]

#: Different values of a channel that are told apart before bins are widened.
CAPACITY = 2**20
_SIGN = np.uint32(0x80000000)
#: Keys of minus and plus infinity; beyond them are those of NaN.
_LOWEST, _HIGHEST = np.uint32(0x007FFFFF), np.uint32(0xFF800000)


def float_keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Map float32 to uint32 so that the order of keys is the order of values.

    Examples
    --------
    >>> keys = float_keys(np.array([-2.0, -0.0, 0.0, 1.5], dtype=np.float32))
    >>> bool((np.diff(keys.astype(np.int64)) >= 0).all()), key_floats(keys)
    (True, array([-2. ,  0. ,  0. ,  1.5], dtype=float32))
    """
    positive_zero = np.asarray(values, dtype=np.float32) + np.float32(0.0)
    bits = positive_zero.view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def key_floats(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Invert :func:`float_keys`."""
    return np.where(keys & _SIGN, keys & ~_SIGN, ~keys).astype(np.uint32).view(np.float32)


class FloatHistogram(Histogram):
    """Sparse counts of float32 values, exact until a channel holds 2**20 different ones.

    Beyond that, the lowest bit of the bit patterns is dropped for all channels, again and again,
    until the bins fit: bins have a constant relative width, :attr:`relative_error` states it. The
    final width depends on the values alone, not on the order of merging. NaN is not counted.

    Parameters
    ----------
    keys : sequence of numpy.ndarray of uint32
        Per channel, the sorted keys (see :func:`float_keys`) with the low ``shift`` bits dropped.
    counts : sequence of numpy.ndarray of int64
        Per channel, how often.
    shift : int
        Dropped bits.

    Examples
    --------
    >>> h = FloatHistogram.zero(1).update(np.array([[0.5], [0.5], [2.0]], dtype=np.float32))
    >>> h.bins(0), h.relative_error
    ((array([0.5, 2. ]), array([2, 1])), 0.0)
    """

    __slots__ = ("capacity", "counts", "keys", "shift")

    def __init__(
        self,
        keys: list[NDArray[np.uint32]],
        counts: list[NDArray[np.int64]],
        shift: int = 0,
        capacity: int = CAPACITY,
    ) -> None:
        self.keys = keys
        self.counts = counts
        self.shift = shift
        self.capacity = capacity

    @classmethod
    def zero(cls, channels: int, capacity: int = CAPACITY) -> FloatHistogram:
        """No values; ``capacity`` bounds the bins of a channel."""
        none_k, none_c = np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.int64)
        return cls([none_k] * channels, [none_c] * channels, 0, capacity)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.keys)

    @property
    def count(self) -> int:  # type: ignore[override]
        """Values absorbed in the first channel."""
        return int(self.counts[0].sum()) if self.channels else 0

    @property
    def relative_error(self) -> float:
        """Half the relative width of a bin, 0 while every float32 value has its own.

        Values below the smallest normal float32 (1.2e-38) err by at most this part of that number.
        """
        return 0.0 if self.shift == 0 else 2.0 ** (self.shift - 24)

    def update(self, pixels: NDArray[Any]) -> FloatHistogram:
        """Absorb ``(n, C)`` values, rounded to float32."""
        from hsi_batch.statistics.sorted_counts import counted_floats

        found = FloatHistogram.zero(0, self.capacity)
        for channel in range(self.channels):
            # Bits that were dropped before stay so, however the rest is counted.
            keys, counts, shift = counted_floats(pixels[:, channel], self.shift, self.capacity)
            one = FloatHistogram([keys], [counts], shift, self.capacity)
            found = found.beside(one)
        return self.merge(found)

    def merge(self, other: FloatHistogram) -> FloatHistogram:
        """Sum of both, on the wider bins of the two or wider."""
        from hsi_batch.statistics.sorted_counts import merged

        for one, rest in ((self, other), (other, self)):
            if rest.shift <= one.shift and not any(k.size for k in rest.keys):
                return _within(one, self.capacity)
        shift = max(self.shift, other.shift)
        a, b = self.coarsened(shift), other.coarsened(shift)
        keys, counts = [], []
        for ka, ca, kb, cb in zip(a.keys, a.counts, b.keys, b.counts, strict=True):
            k, c = merged(ka, ca, kb, cb)
            keys.append(k)
            counts.append(c)
        return _within(FloatHistogram(keys, counts, shift, self.capacity), self.capacity)

    def beside(self, other: FloatHistogram) -> FloatHistogram:
        """The channels of both, on the wider bins of the two."""
        shift = max(self.shift, other.shift)
        a, b = self.coarsened(shift), other.coarsened(shift)
        return FloatHistogram(a.keys + b.keys, a.counts + b.counts, shift, self.capacity)

    def coarsened(self, shift: int) -> FloatHistogram:
        """The same counts on bins that drop ``shift`` bits (at least as many as now)."""
        from hsi_batch.statistics.sorted_counts import added

        more = shift - self.shift
        if more == 0:
            return self
        pairs = [added(k, c, more) for k, c in zip(self.keys, self.counts, strict=True)]
        return FloatHistogram([k for k, _ in pairs], [c for _, c in pairs], shift, self.capacity)

    def bins(self, channel: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Values (the middle of each bin) and counts."""
        keys = self.keys[channel] << np.uint32(self.shift)
        if self.shift:
            keys = np.clip(keys | np.uint32(1 << (self.shift - 1)), _LOWEST, _HIGHEST)
        return key_floats(keys).astype(np.float64), self.counts[channel]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Keys and counts of all channels, one after the other, with their lengths."""
        return {
            "keys": np.concatenate([*self.keys, np.zeros(0, dtype=np.uint32)]),
            "counts": np.concatenate([*self.counts, np.zeros(0, dtype=np.int64)]),
            "lengths": np.array([k.size for k in self.keys], dtype=np.int64),
            "shift": np.array([self.shift, self.capacity], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FloatHistogram:
        """Inverse of :meth:`to_arrays`."""
        ends = np.cumsum(arrays["lengths"])[:-1]
        shift, capacity = (int(v) for v in arrays["shift"])
        return cls(
            np.split(arrays["keys"], ends), np.split(arrays["counts"], ends), shift, capacity
        )


def _within(histogram: FloatHistogram, capacity: int) -> FloatHistogram:
    """On bins as wide as the capacity asks for."""
    whole = FloatHistogram(histogram.keys, histogram.counts, histogram.shift, capacity)
    if all(keys.size <= capacity for keys in whole.keys):
        return whole
    from hsi_batch.statistics.sorted_counts import bits_to_drop

    return whole.coarsened(whole.shift + max(bits_to_drop(k, capacity) for k in whole.keys))
