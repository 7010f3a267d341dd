"""Differences of neighbouring pixels: what changes from one to the next is mostly noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.measure import Measure

__all__ = ["NeighbourDifferences"]


class NeighbourDifferences(Measure):
    """Moments of ``x[y, i + 1] - x[y, i]`` over pixels of a line that are both valid.

    If the scene changes slowly along a line, half their covariance is that of the noise
    (minimum/maximum autocorrelation factors: Switzer and Green 1984).
    """

    @property
    def name(self) -> str:
        """``neighbour differences``."""
        return "neighbour differences"

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> FloatMoments:
        """Of a leaf, which holds whole lines."""
        values = lines.astype(np.float64)
        steps = values[:, 1:] - values[:, :-1]
        flat = steps.reshape(-1, lines.shape[2])
        if valid is not None:
            flat = flat[(valid[:, 1:] & valid[:, :-1]).ravel()]
        return FloatMoments.zero(lines.shape[2]).update(flat)
