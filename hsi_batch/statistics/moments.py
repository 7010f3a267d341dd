"""Count, mean and scatter of pixels: :class:`Moments`, exact for integers, stable for floats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hsi_batch.errors import DataError
from hsi_batch.statistics.packed import unpack

__all__ = ["Moments", "is_exact"]


def is_exact(dtype: DTypeLike) -> bool:
    """Whether sums over this dtype are kept exactly: 8 and 16-bit integers, signed or not.

    Examples
    --------
    >>> is_exact("uint16"), is_exact("uint32"), is_exact("float32")
    (True, False, False)
    """
    kind = np.dtype(dtype)
    return kind.kind in "iu" and kind.itemsize <= 2


class Moments(ABC):
    """First and second moments of spectra, a mergeable statistic.

    Use :meth:`empty` to get the kind that fits a dtype: :class:`.IntegerMoments` (exact sums, any
    order of merging gives the same bits) for 8 and 16-bit integers, :class:`.FloatMoments`
    (blockwise centred float64, Chan merge) for all else; 32 and 64-bit integers are taken as
    float64, so values above 2**53 are rounded and sums carry the relative error of float64 sums.

    Attributes
    ----------
    count : int
        Pixels absorbed.

    Examples
    --------
    >>> m = Moments.empty(2, "uint16").update(np.array([[1, 2], [3, 6]], dtype=np.uint16))
    >>> m.count, m.mean, m.covariance()
    (2, array([2., 4.]), array([[2., 4.],
           [4., 8.]]))
    """

    __slots__ = ()

    count: int
    #: Whether the order of merging shows in the last bits.
    ordered: ClassVar[bool] = False

    @staticmethod
    def empty(channels: int, dtype: DTypeLike) -> Moments:
        """The identity of merging for pixels of ``dtype`` with ``channels`` channels."""
        from hsi_batch.statistics.float_moments import FloatMoments
        from hsi_batch.statistics.integer_moments import IntegerMoments

        return IntegerMoments.zero(channels) if is_exact(dtype) else FloatMoments.zero(channels)

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of channels."""

    @abstractmethod
    def update(self, pixels: NDArray[Any]) -> Self:
        """Absorb ``(n, C)`` pixels and return the result; all of them count."""

    @abstractmethod
    def merge(self, other: Self, /) -> Self:
        """Union of two disjoint sets of pixels."""

    @abstractmethod
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays for the disk."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Inverse of :meth:`to_arrays`."""

    @property
    @abstractmethod
    def mean(self) -> NDArray[np.float64]:
        """Mean spectrum, ``(C,)``; :class:`~hsi_batch.errors.DataError` without pixels."""

    @property
    @abstractmethod
    def packed_scatter(self) -> NDArray[np.float64]:
        """Upper triangle of ``sum (x - mean)(x - mean)^T``."""

    @property
    def scatter(self) -> NDArray[np.float64]:
        """``sum (x - mean)(x - mean)^T``, ``(C, C)``."""
        return unpack(self.packed_scatter)

    @property
    def finite(self) -> bool:
        """Whether no sum went beyond the range of float64; true without pixels."""
        if self.count == 0:
            return True
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.packed_scatter).all())

    def packed_covariance(self, ddof: int = 1) -> NDArray[np.float64]:
        """Upper triangle of the sample covariance ``scatter / (n - ddof)``.

        Raises
        ------
        hsi_batch.errors.DataError
            Not more than ``ddof`` pixels.
        """
        self._need(ddof + 1)
        return self.packed_scatter / (self.count - ddof)

    def covariance(self, ddof: int = 1) -> NDArray[np.float64]:
        """Sample covariance, ``(C, C)``; see :meth:`packed_covariance`."""
        return unpack(self.packed_covariance(ddof))

    def variance(self, ddof: int = 1) -> NDArray[np.float64]:
        """Sample variance per channel, ``(C,)``."""
        return np.diagonal(self.covariance(ddof)).copy()

    def _need(self, pixels: int) -> None:
        if self.count < pixels:
            raise DataError(
                f"{self.count} valid pixels were counted, at least {pixels} are needed.",
                hint="Select more frames, or check the quality flags (hsi-batch show).",
            )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self.to_arrays(), other.to_arrays()
        return all(np.array_equal(mine[k], theirs[k]) for k in mine)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(count={self.count}, channels={self.channels})"
