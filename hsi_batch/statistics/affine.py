"""Affine maps of spectra, and what they do to statistics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.packed import pack, triangle

__all__ = ["Affine"]


class Affine:
    """``x -> A x + b`` on spectra, square or not, in float64.

    It acts on statistics: ``mean -> A mean + b`` and ``M2 -> A M2 A^T``; on extrema only if every
    output channel comes from one input channel (:attr:`monomial`). Maps that are monomial act
    without matrix products, so their results do not depend on the BLAS in use.

    Parameters
    ----------
    matrix : array_like, shape (m, C)
        What values are multiplied by.
    offset : array_like, shape (m,)
        Added after that.

    Examples
    --------
    >>> half = Affine.scaling([0.5, 0.5], [1.0, 0.0])
    >>> half(np.array([[2.0, 4.0]]))
    array([[2., 2.]])
    >>> Affine([[1.0, 1.0]], [0.0]).after(half)(np.array([[2.0, 4.0]]))
    array([[4.]])
    """

    def __init__(self, matrix: ArrayLike, offset: ArrayLike) -> None:
        self.matrix: NDArray[np.float64] = np.asarray(matrix, dtype=np.float64)
        self.offset: NDArray[np.float64] = np.asarray(offset, dtype=np.float64)
        if self.matrix.ndim != 2 or self.offset.shape != self.matrix.shape[:1]:
            raise ValueError(
                f"matrix {self.matrix.shape} and offset {self.offset.shape} do not fit;"
                " expected (m, C) and (m,)"
            )

    @classmethod
    def identity(cls, channels: int) -> Affine:
        """``x -> x``."""
        return cls(np.eye(channels), np.zeros(channels))

    @classmethod
    def scaling(cls, scale: ArrayLike, offset: ArrayLike) -> Affine:
        """``x_c -> scale_c x_c + offset_c``."""
        return cls(np.diag(np.asarray(scale, dtype=np.float64)), offset)

    @classmethod
    def selection(cls, indices: ArrayLike, channels: int) -> Affine:
        """Keep the channels ``indices`` of ``channels``, in that order."""
        picked = np.asarray(indices, dtype=np.intp)
        return cls(np.eye(channels)[picked], np.zeros(len(picked)))

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return int(self.matrix.shape[1])

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return len(self.matrix)

    @cached_property
    def monomial(self) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
        """Source channel and factor per output channel, or None if channels are mixed."""
        if np.any(np.count_nonzero(self.matrix, axis=1) > 1):
            return None
        source = np.argmax(self.matrix != 0, axis=1)
        return source, self.matrix[np.arange(self.outputs), source]

    @cached_property
    def _used(self) -> NDArray[np.bool_]:
        return np.asarray(self.matrix.any(axis=0))

    def _check(self, channels: int) -> None:
        if channels != self.inputs:
            raise ValueError(f"a map of {self.inputs} channels cannot take {channels}")

    def after(self, inner: Affine) -> Affine:
        """The map ``x -> self(inner(x))``."""
        self._check(inner.outputs)
        if self.monomial is not None:
            source, factor = self.monomial
            return Affine(
                inner.matrix[source] * factor[:, None],
                inner.offset[source] * factor + self.offset,
            )
        if inner.monomial is not None:
            source, factor = inner.monomial
            matrix = np.zeros((self.outputs, inner.inputs))
            # Two output channels of `inner` may share a source channel.
            np.add.at(matrix.T, source, (self.matrix * factor).T)
            return Affine(matrix, self.matrix @ inner.offset + self.offset)
        return Affine(self.matrix @ inner.matrix, self.matrix @ inner.offset + self.offset)

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Map ``(n, C)`` pixels to ``(n, m)`` float64."""
        self._check(pixels.shape[1])
        if self.monomial is not None:
            source, factor = self.monomial
            mapped: NDArray[np.float64] = pixels[:, source].astype(np.float64)
            mapped *= factor
        elif self._used.all():
            mapped = pixels.astype(np.float64) @ self.matrix.T
        else:
            # A channel that counts for nothing may hold what is no number.
            mapped = pixels[:, self._used].astype(np.float64) @ self.matrix[:, self._used].T
        mapped += self.offset
        return mapped

    def moments(self, moments: Moments) -> FloatMoments:
        """Moments of ``A x + b`` from those of ``x``."""
        self._check(moments.channels)
        if moments.count == 0:
            return FloatMoments.zero(self.outputs)
        if self.monomial is not None:
            source, factor = self.monomial
            rows, columns = triangle(self.outputs)
            scatter = moments.scatter[source[rows], source[columns]]
            return FloatMoments(
                moments.count,
                moments.mean[source] * factor + self.offset,
                scatter * (factor[rows] * factor[columns]),
            )
        used = self._used
        if used.all():
            matrix, mean, scatter = self.matrix, moments.mean, moments.scatter
        else:
            matrix, mean = self.matrix[:, used], moments.mean[used]
            scatter = moments.scatter[np.ix_(used, used)]
        return FloatMoments(
            moments.count, matrix @ mean + self.offset, pack(matrix @ scatter @ matrix.T)
        )

    def extrema(self, extrema: Extrema) -> Extrema:
        """Extrema of ``A x + b`` from those of ``x``.

        Raises
        ------
        ValueError
            The map mixes channels, so the extrema do not follow.
        """
        self._check(extrema.channels)
        if self.monomial is None:
            raise ValueError("extrema do not follow through a map that mixes channels")
        if extrema.count == 0:
            return Extrema.empty(self.outputs, np.float64)
        source, factor = self.monomial
        ends = extrema.bounds.astype(np.float64)[:, source] * factor + self.offset
        return Extrema(extrema.count, ends.min(axis=0), ends.max(axis=0))

    def columns(self, columns: Any) -> Any:
        """:class:`.ColumnMoments` of ``A x + b``; a map that mixes channels raises ValueError."""
        return columns.mapped(self)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """``matrix`` and ``offset``."""
        return {"matrix": self.matrix, "offset": self.offset}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Affine:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["matrix"], arrays["offset"])

    def __repr__(self) -> str:
        kind = "mixing" if self.monomial is None else "monomial"
        return f"Affine({self.inputs} -> {self.outputs}, {kind})"
