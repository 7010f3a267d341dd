"""Upper tails of background scores: quantiles and laws that are fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Counts", "chi2_threshold", "hotelling_threshold", "pareto_tail", "pareto_threshold"]


@dataclass(frozen=True)
class Counts:
    """Values, ascending, and how often each occurred.

    Attributes
    ----------
    values : numpy.ndarray of float64
    counts : numpy.ndarray of int64
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """All of them."""
        return int(self.counts.sum())

    def above(self, threshold: float) -> int:
        """How many lie at or above a threshold."""
        return int(self.counts[np.searchsorted(self.values, threshold) :].sum())

    def beyond(self, threshold: float) -> Counts:
        """Excesses over a threshold, of what lies above it."""
        kept = self.values > threshold
        return Counts(self.values[kept] - threshold, self.counts[kept])

    def largest_with(self, share: float) -> float:
        """The smallest value that at most this share of all lies at or above.

        Beyond the largest value, if that one occurs too often.
        """
        allowed = int(np.floor(share * self.total * (1 + 1e-12)))
        at_or_above = np.cumsum(self.counts[::-1])[::-1]
        first = int(np.count_nonzero(at_or_above > allowed))
        if first == len(self.values):
            return float(np.nextafter(np.float32(self.values[-1]), np.float32(np.inf)))
        return float(self.values[first])

    def moments(self) -> tuple[float, float]:
        """Mean and sample variance."""
        mean = float(self.values @ self.counts) / self.total
        spread = float(np.square(self.values - mean) @ self.counts)
        return mean, spread / max(self.total - 1, 1)


def chi2_threshold(pfa: float, dof: float, scale: float = 1.0) -> float:
    """Exceeded with probability ``pfa`` by ``scale`` times a chi-square of ``dof`` degrees."""
    return float(scale * special.chdtri(dof, pfa))


def hotelling_threshold(pfa: float, channels: float, pixels: int) -> float:
    """Exceeded with probability ``pfa`` by the squared Mahalanobis distance of a new pixel.

    The distance is that from the mean of ``n`` Gaussian pixels, by their sample covariance; it is
    ``C (n + 1) (n - 1) / (n (n - C))`` times an F of ``C`` and ``n - C`` degrees of freedom.
    Anderson, An Introduction to Multivariate Statistical Analysis (2003), section 5.2.
    """
    n, c = float(pixels), float(channels)
    # One minus the beta variable is small in far tails, and keeps its digits there.
    rest = special.betaincinv((n - c) / 2, c / 2, pfa)
    quantile = (1 - rest) / rest * (n - c) / c
    return float(c * (n + 1) * (n - 1) / (n * (n - c)) * quantile)


def pareto_tail(excess: Counts) -> tuple[float, float]:
    """Shape ``xi`` and scale ``sigma`` of a generalised Pareto law, from excesses.

    ``P(Y > y) = (1 + xi y / sigma)^(-1 / xi)``. By probability-weighted moments: with ``a`` the
    mean and ``b = E[Y (1 - F(Y))]``, ``xi = 2 - a / (a - 2 b)``, ``sigma = 2 a b / (a - 2 b)``.
    Hosking and Wallis, Technometrics 29 (1987); good for ``xi < 1/2``.
    """
    n = excess.total
    mean, _ = excess.moments()
    # Of n ordered values the one of rank j (from 1) has the unbiased weight (n - j) / (n - 1);
    # equal values share the mean of their weights.
    before = np.cumsum(excess.counts) - excess.counts
    rank = before + (excess.counts + 1) / 2
    weight = (n - rank) / (n - 1)
    weighted = float((excess.values * weight) @ excess.counts) / n
    gap = mean - 2 * weighted
    return 2 - mean / gap, 2 * mean * weighted / gap


def pareto_threshold(pfa: float, start: float, share: float, shape: float, scale: float) -> float:
    """Exceeded with probability ``pfa``, where ``share`` of all lies above ``start``."""
    ratio = share / pfa
    if abs(shape) < 1e-9:
        return float(start + scale * np.log(ratio))
    return float(start + scale * np.expm1(shape * np.log(ratio)) / shape)
