"""Sums of pixels weighted by responsibilities: one step of expectation maximisation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.measure import Measure, chosen_pixels

__all__ = ["Mixture", "MixtureMeasure", "MixtureSums"]

Values = NDArray[np.float64]
#: Pixels whose densities are computed at once.
_GROUP = 4096


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians.

    Attributes
    ----------
    weights : numpy.ndarray of float64, shape (K,)
        Shares of the components; they sum to 1.
    means : numpy.ndarray of float64, shape (K, C)
    factors : numpy.ndarray of float64, shape (K, C, C)
        Upper triangular ``F`` with ``F F^T`` the inverse of the covariance.
    """

    weights: Values
    means: Values
    factors: Values

    @classmethod
    def of(cls, weights: Values, means: Values, covariances: Values) -> Mixture:
        """From covariances ``(K, C, C)``.

        Raises
        ------
        numpy.linalg.LinAlgError
            A covariance is not positive definite.
        """
        lower = np.linalg.cholesky(covariances)
        unit = np.broadcast_to(np.eye(means.shape[1]), covariances.shape)
        return cls(weights, means, np.triu(np.swapaxes(np.linalg.solve(lower, unit), 1, 2)))

    def log_densities(self, pixels: NDArray[Any]) -> Values:
        """``log(w_k N(x; mean_k, cov_k))`` of ``(n, C)`` pixels, ``(n, K)``."""
        x = pixels.astype(np.float64)
        columns = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            white = (x - mean) @ factor
            size = np.log(np.diagonal(factor)).sum() - 0.5 * len(mean) * np.log(2.0 * np.pi)
            squared = np.einsum("nc,nc->n", white, white)
            with np.errstate(divide="ignore"):
                columns.append(np.log(weight) + size - 0.5 * squared)
        return np.stack(columns, axis=1)

    def shares(self, pixels: NDArray[Any]) -> tuple[Values, Values]:
        """Responsibilities ``(n, K)``, which sum to 1, and log-likelihoods ``(n,)``."""
        each = self.log_densities(pixels)
        largest = each.max(axis=1, keepdims=True)
        total = largest + np.log(np.exp(each - largest).sum(axis=1, keepdims=True))
        return np.exp(each - total), total[:, 0]


@dataclass(frozen=True)
class MixtureSums:
    """Sums over pixels that the next mixture follows from; mergeable.

    Attributes
    ----------
    count : float
        Pixels, or their weights.
    likelihood : float
        Sum of the log-likelihoods.
    totals : numpy.ndarray of float64, shape (K,)
        Sums of the responsibilities ``r``.
    sums : numpy.ndarray of float64, shape (K, C)
        ``sum r (x - mean)``.
    squares : numpy.ndarray of float64, shape (K, C, C)
        ``sum r (x - mean) (x - mean)^T``.
    """

    count: float
    likelihood: float
    totals: Values
    sums: Values
    squares: Values

    @classmethod
    def of(
        cls, pixels: NDArray[Any], mixture: Mixture, weights: Values | None = None
    ) -> MixtureSums:
        """The sums of ``(n, C)`` pixels; those that are not finite are left out."""
        finite = np.isfinite(pixels).all(axis=1)
        x = pixels[finite].astype(np.float64)
        w = np.ones(len(x)) if weights is None else weights[finite]
        clusters, channels = mixture.means.shape
        likelihood, totals = 0.0, np.zeros(clusters)
        sums, squares = np.zeros((clusters, channels)), np.zeros((clusters, channels, channels))
        for start in range(0, len(x), _GROUP):
            part, heavy = x[start : start + _GROUP], w[start : start + _GROUP]
            shares, likelihoods = mixture.shares(part)
            shares *= heavy[:, None]
            likelihood += float((likelihoods * heavy).sum())
            totals += shares.sum(axis=0)
            for k in range(clusters):
                # About the old mean, so that little is lost by cancellation.
                apart = part - mixture.means[k]
                weighted = apart * shares[:, k, None]
                sums[k] += weighted.sum(axis=0)
                squares[k] += apart.T @ weighted
        return cls(float(w.sum()), likelihood, totals, sums, squares)

    def merge(self, other: MixtureSums) -> MixtureSums:
        """Sum of both."""
        return MixtureSums(
            self.count + other.count,
            self.likelihood + other.likelihood,
            self.totals + other.totals,
            self.sums + other.sums,
            self.squares + other.squares,
        )

    def mixture(self, old: Mixture, ridge: float) -> Mixture:
        """The mixture of the next step, ``ridge`` added to all variances.

        Raises
        ------
        numpy.linalg.LinAlgError
            A covariance is not positive definite.
        """
        # A component that no pixel is in keeps a mean.
        totals = self.totals + 10.0 * np.finfo(np.float64).eps
        moved = self.sums / totals[:, None]
        covariances = self.squares / totals[:, None, None]
        covariances = covariances - moved[:, :, None] * moved[:, None, :]
        covariances = (covariances + np.swapaxes(covariances, 1, 2)) / 2.0
        covariances += ridge * np.eye(moved.shape[1])
        return Mixture.of(totals / totals.sum(), old.means + moved, covariances)


class MixtureMeasure(Measure):
    """Takes :class:`MixtureSums` of the valid pixels of a port."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        parts = (mixture.weights, mixture.means, mixture.factors)
        content = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        self._digest = hashlib.sha256(content).hexdigest()[:16]

    @property
    def name(self) -> str:
        """``mixture``, and a digest of it."""
        return f"mixture-{self._digest}"

    def nbytes(self, channels: int) -> int:
        """Sums of squares of each component."""
        return len(self.mixture.weights) * 8 * (channels + 1) ** 2

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> MixtureSums:
        """The statistic of a leaf."""
        return MixtureSums.of(chosen_pixels(lines, valid), self.mixture)
