"""Sums over abundances of pixels: one step of alternating non-negative least squares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.least_squares import non_negative
from hsi_batch.statistics.measure import Measure, chosen_pixels

__all__ = ["AbundanceMeasure", "AbundanceSums"]

Values = NDArray[np.float64]
#: Changes of the active set of a pixel at most, and error of an abundance.
_STEPS, _TOL = 2000, 1e-8


@dataclass(frozen=True)
class AbundanceSums:
    """Sums over pixels ``x`` and their abundances ``a``; mergeable.

    Attributes
    ----------
    count : float
        Pixels, or their weights.
    squares : float
        ``sum |x|^2``.
    residual : float
        ``sum |x - a E|^2``.
    gram : numpy.ndarray of float64, shape (K, K)
        ``sum a a^T``.
    cross : numpy.ndarray of float64, shape (K, C)
        ``sum a (x - a E)^T``: what is left over, seen by each endmember.
    """

    count: float
    squares: float
    residual: float
    gram: Values
    cross: Values

    @classmethod
    def of(
        cls, pixels: NDArray[Any], endmembers: Values, weights: Values | None = None
    ) -> AbundanceSums:
        """The sums of ``(n, C)`` pixels; those that are not finite are left out."""
        finite = np.isfinite(pixels).all(axis=1)
        x = pixels[finite].astype(np.float64)
        w = np.ones(len(x)) if weights is None else weights[finite]
        found = non_negative(x, endmembers, _STEPS, _TOL)
        heavy = found.abundances * w[:, None]
        return cls(
            float(w.sum()),
            float(np.einsum("n,nc,nc->", w, x, x)),
            float(w @ found.residuals**2),
            found.abundances.T @ heavy,
            heavy.T @ (x - found.abundances @ endmembers),
        )

    def merge(self, other: AbundanceSums) -> AbundanceSums:
        """Sum of both."""
        return AbundanceSums(
            self.count + other.count,
            self.squares + other.squares,
            self.residual + other.residual,
            self.gram + other.gram,
            self.cross + other.cross,
        )

    def endmembers(self, old: Values) -> tuple[Values, float]:
        """Best endmembers for these abundances, and by how much they lower the residual.

        An endmember that no pixel holds stays.

        Raises
        ------
        numpy.linalg.LinAlgError
            The abundances of one endmember follow from those of others.
        """
        used = np.diagonal(self.gram) > 0
        gram, cross = self.gram[np.ix_(used, used)], self.cross[used]
        # |x L - b|^2 has this Gram matrix: one small problem for every channel.
        lower = np.linalg.cholesky(gram)
        along = cross + gram @ old[used]
        channels = np.asarray(np.linalg.solve(lower, along).T, dtype=np.float64)
        solved = non_negative(channels, np.asarray(lower, dtype=np.float64), _STEPS, _TOL)
        new = old.copy()
        new[used] = solved.abundances.T
        moved = new[used] - old[used]
        gain = float((moved * (2.0 * cross - gram @ moved)).sum())
        return new, gain


class AbundanceMeasure(Measure):
    """Takes :class:`AbundanceSums` of the valid pixels of a port.

    Parameters
    ----------
    endmembers : numpy.ndarray of float64, shape (K, C)
        Linearly independent.
    """

    def __init__(self, endmembers: Values) -> None:
        self.endmembers = np.ascontiguousarray(endmembers, dtype=np.float64)

    @property
    def name(self) -> str:
        """``abundances``, and a digest of the endmembers."""
        return f"abundances-{hashlib.sha256(self.endmembers.tobytes()).hexdigest()[:16]}"

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> AbundanceSums:
        """The statistic of a leaf."""
        return AbundanceSums.of(chosen_pixels(lines, valid), self.endmembers)
