"""Smallest and largest value per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hsi_batch.errors import DataError

__all__ = ["Extrema"]


class Extrema:
    """Per-channel minimum and maximum in the dtype of the pixels, a mergeable statistic.

    Parameters
    ----------
    count : int
        Pixels absorbed.
    low, high : numpy.ndarray, shape (C,)
        Bounds; meaningless (the identity of min and max) while ``count`` is 0.

    Examples
    --------
    >>> e = Extrema.empty(2, "uint8").update(np.array([[3, 9], [5, 1]], dtype=np.uint8))
    >>> e.minimum, e.maximum
    (array([3, 1], dtype=uint8), array([5, 9], dtype=uint8))
    """

    __slots__ = ("count", "high", "low")

    def __init__(self, count: int, low: NDArray[Any], high: NDArray[Any]) -> None:
        self.count = int(count)
        self.low = low
        self.high = high

    @classmethod
    def empty(cls, channels: int, dtype: DTypeLike) -> Extrema:
        """The identity of merging for pixels of ``dtype``."""
        kind = np.dtype(dtype)
        if kind.kind == "f":
            top, bottom = np.inf, -np.inf
        else:
            top, bottom = np.iinfo(kind).max, np.iinfo(kind).min
        return cls(0, np.full(channels, top, dtype=kind), np.full(channels, bottom, dtype=kind))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.low)

    def update(self, pixels: NDArray[Any]) -> Extrema:
        """Absorb ``(n, C)`` pixels."""
        if pixels.shape[0] == 0:
            return self
        return Extrema(
            self.count + pixels.shape[0],
            np.minimum(self.low, pixels.min(axis=0)),
            np.maximum(self.high, pixels.max(axis=0)),
        )

    def merge(self, other: Extrema) -> Extrema:
        """Union of both."""
        return Extrema(
            self.count + other.count,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def minimum(self) -> NDArray[Any]:
        """Smallest value per channel; :class:`~hsi_batch.errors.DataError` without pixels."""
        self._need()
        return self.low

    @property
    def maximum(self) -> NDArray[Any]:
        """Largest value per channel; :class:`~hsi_batch.errors.DataError` without pixels."""
        self._need()
        return self.high

    def _need(self) -> None:
        if self.count == 0:
            raise DataError(
                "no valid pixel was counted, so there is no minimum and maximum.",
                hint="Select more frames, or check the quality flags (hsi-batch show).",
            )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """``count`` (int64) and ``bounds`` ``(2, C)``."""
        return {"count": np.array(self.count, dtype=np.int64), "bounds": self.bounds}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Extrema:
        """Inverse of :meth:`to_arrays`."""
        low, high = arrays["bounds"]
        return cls(int(arrays["count"]), low, high)

    @property
    def bounds(self) -> NDArray[Any]:
        """``(2, C)``: lower and upper bounds, the archive's ``extrema`` row."""
        return np.stack([self.low, self.high])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extrema):
            return NotImplemented
        return self.count == other.count and np.array_equal(self.bounds, other.bounds)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Extrema(count={self.count}, channels={self.channels})"
