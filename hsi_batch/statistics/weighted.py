"""Moments of pixels that count less the further they are from a known background."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.measure import Measure, chosen_pixels
from hsi_batch.statistics.packed import pack, triangle

__all__ = ["StudentMoments", "WeightedMoments"]

Values = NDArray[np.float64]
#: Pixels whose distances are computed at once.
_GROUP = 1024


@dataclass(frozen=True)
class WeightedMoments:
    """Mean and scatter of weighted pixels; mergeable by Chan's rule.

    Attributes
    ----------
    count : int
        Pixels.
    weight : float
        Sum of their weights.
    squares : float
        Sum of the squares of their weights.
    mean : numpy.ndarray of float64, shape (C,)
    packed_scatter : numpy.ndarray of float64, shape (C (C + 1) / 2,)
        ``sum w (x - mean) (x - mean)^T``.
    """

    count: int
    weight: float
    squares: float
    mean: Values
    packed_scatter: Values

    @classmethod
    def of(cls, pixels: Values, weights: Values) -> WeightedMoments:
        """Of ``(n, C)`` pixels."""
        total = float(weights.sum())
        # About a pixel first: then little is lost by cancellation.
        origin = pixels[0] if len(pixels) else np.zeros(pixels.shape[1])
        apart = pixels - origin
        mean = weights @ apart / (total or 1.0)
        apart -= mean
        scatter = pack((apart * weights[:, None]).T @ apart)
        return cls(len(pixels), total, float(weights @ weights), origin + mean, scatter)

    def merge(self, other: WeightedMoments) -> WeightedMoments:
        """Union of both; merging with no pixels changes no bit."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        weight = self.weight + other.weight
        delta = other.mean - self.mean
        rows, columns = triangle(len(delta))
        between = delta[rows] * delta[columns] * (self.weight * other.weight / weight)
        return WeightedMoments(
            self.count + other.count,
            weight,
            self.squares + other.squares,
            self.mean + delta * (other.weight / weight),
            self.packed_scatter + other.packed_scatter + between,
        )

    @property
    def share(self) -> float:
        """How many pixels of equal weight would tell as much, as a share of all."""
        return self.weight**2 / (self.count * self.squares)

    def moments(self, factor: float) -> FloatMoments:
        """Moments of as many pixels, with the covariance ``factor * scatter / weight``."""
        scale = factor * max(self.count - 1, 1) / self.weight
        return FloatMoments(self.count, self.mean, self.packed_scatter * scale)


class StudentMoments(Measure):
    """Moments with the weights ``(nu + C) / (nu + d^2)``, ``d^2 = |factor (x - mean)|^2``.

    Distances and weights are float64 on the fixed grid of leaves, so they do not depend on blocks,
    tasks or workers.

    Parameters
    ----------
    mean : numpy.ndarray of float64, shape (C,)
    factor : numpy.ndarray of float64, shape (C, C)
        Whitening factor of the covariance.
    nu : float
        Degrees of freedom of the t distribution, above 0.
    """

    def __init__(self, mean: Values, factor: Values, nu: float) -> None:
        self.mean = np.ascontiguousarray(mean, dtype=np.float64)
        self.factor = np.ascontiguousarray(factor, dtype=np.float64)
        self.nu = float(nu)
        content = self.mean.tobytes() + self.factor.tobytes() + np.float64(nu).tobytes()
        self._digest = hashlib.sha256(content).hexdigest()[:12]

    @property
    def name(self) -> str:
        """``weighted moments``, and a digest of the background."""
        return f"weighted moments {self._digest}"

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> WeightedMoments:
        """Of a leaf."""
        pixels = chosen_pixels(lines, valid).astype(np.float64)
        pixels = pixels[np.isfinite(pixels).all(axis=1)]
        parts = [
            self.weights(pixels[start : start + _GROUP]) for start in range(0, len(pixels), _GROUP)
        ]
        return WeightedMoments.of(pixels, np.concatenate(parts) if parts else np.zeros(0))

    def weights(self, pixels: Values) -> Values:
        """Weights of ``(n, C)`` pixels."""
        whitened = (pixels - self.mean) @ self.factor.T
        squared = np.einsum("ij,ij->i", whitened, whitened)
        found: Values = (self.nu + pixels.shape[1]) / (self.nu + squared)
        return found
