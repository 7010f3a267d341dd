"""Range and value counts of an affine map of spectra."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.float_histogram import CAPACITY, FloatHistogram
from hsi_batch.statistics.measure import Measure, chosen_pixels

__all__ = ["MappedExtrema", "MappedHistogram", "Mapping32"]


@dataclass(frozen=True, eq=False)
class Mapping32:
    """``max(A x + b, floor)``, computed in float64 and rounded to float32.

    Examples
    --------
    >>> Mapping32(Affine([[1.0, -1.0]], [0.0]), floor=0.0)(np.array([[3, 1], [1, 3]]))
    array([[2.],
           [0.]], dtype=float32)
    """

    map: Affine
    floor: float | None = None

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Map ``(n, C)`` pixels to ``(n, m)``."""
        values = self.map(pixels).astype(np.float32)
        return values if self.floor is None else np.maximum(values, np.float32(self.floor))

    @property
    def digest(self) -> str:
        """What tells it from others."""
        parts = hashlib.sha256(repr((self.map.matrix.shape, self.floor)).encode())
        parts.update(self.map.matrix.tobytes())
        parts.update(self.map.offset.tobytes())
        return parts.hexdigest()[:16]


class _Mapped(Measure):
    def __init__(self, mapping: Mapping32) -> None:
        self.mapping = mapping

    def _values(self, lines: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        return self.mapping(chosen_pixels(lines, valid))


class MappedHistogram(_Mapped):
    """The :class:`.FloatHistogram` of a map: exact up to 2**20 different values per output."""

    @property
    def name(self) -> str:
        """``histogram of``, and the map."""
        return f"histogram-of-{self.mapping.digest}"

    def nbytes(self, channels: int) -> int:  # noqa: ARG002 - counted are the outputs of the map
        """A key and a count for each different value."""
        return 12 * CAPACITY * self.mapping.map.outputs

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> FloatHistogram:
        """The statistic of a leaf."""
        values = self._values(lines, valid)
        return FloatHistogram.zero(self.mapping.map.outputs).update(values)


class MappedExtrema(_Mapped):
    """The :class:`.Extrema` of a map."""

    @property
    def name(self) -> str:
        """``extrema of``, and the map."""
        return f"extrema-of-{self.mapping.digest}"

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> Extrema:
        """The statistic of a leaf."""
        values = self._values(lines, valid)
        return Extrema.empty(self.mapping.map.outputs, np.float32).update(values)
