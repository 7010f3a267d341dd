"""Sums of the pixels nearest to each of some centres: one step of Lloyd's algorithm."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.measure import Measure, chosen_pixels

__all__ = ["ClusterMeasure", "ClusterSums", "nearest_centre", "plus_plus"]

Values = NDArray[np.float64]


def nearest_centre(pixels: NDArray[Any], centres: Values) -> tuple[NDArray[np.intp], Values]:
    """Index of the nearest centre of each pixel, the first of equally near ones, and its distance.

    Parameters
    ----------
    pixels : numpy.ndarray, shape (n, C)
    centres : numpy.ndarray of float64, shape (K, C)

    Returns
    -------
    index : numpy.ndarray of int, shape (n,)
    squared : numpy.ndarray of float64, shape (n,)
        Squared Euclidean distance, by differences: exact for pixels that are centres.
    """
    # Around the mean of the centres the products are small, so little is lost by cancellation.
    middle = centres.mean(axis=0)
    x, c = pixels.astype(np.float64) - middle, centres - middle
    index = np.argmax(x @ c.T - 0.5 * (c * c).sum(axis=1), axis=1)
    apart = x - c[index]
    return index, np.einsum("nc,nc->n", apart, apart)


@dataclass(frozen=True)
class ClusterSums:
    """Pixels per centre, their sums and squared distances; mergeable.

    Attributes
    ----------
    counts : numpy.ndarray of int64, shape (K,)
    sums : numpy.ndarray of float64, shape (K, C)
        Sums of pixels minus their centre.
    inertia : float
        Sum of squared distances to the centres.
    """

    counts: NDArray[np.int64]
    sums: Values
    inertia: float

    @classmethod
    def of(cls, pixels: NDArray[Any], centres: Values) -> ClusterSums:
        """The sums of ``(n, C)`` pixels; those that are not finite are left out."""
        x = pixels.astype(np.float64)
        x = x[np.isfinite(x).all(axis=1)]
        index, squared = nearest_centre(x, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, index, x - centres[index])
        return cls(np.bincount(index, minlength=len(centres)), sums, float(squared.sum()))

    def merge(self, other: ClusterSums) -> ClusterSums:
        """Sum of both."""
        return ClusterSums(
            self.counts + other.counts, self.sums + other.sums, self.inertia + other.inertia
        )

    def centres(self, old: Values) -> Values:
        """Means of the pixels of each centre; a centre without pixels stays."""
        return np.asarray(old + self.sums / np.maximum(self.counts, 1)[:, None])


class ClusterMeasure(Measure):
    """Takes :class:`ClusterSums` of the valid pixels of a port.

    Parameters
    ----------
    centres : numpy.ndarray of float64, shape (K, C)
    """

    def __init__(self, centres: Values) -> None:
        self.around = np.ascontiguousarray(centres, dtype=np.float64)

    @property
    def name(self) -> str:
        """``clusters``, and the centres."""
        return f"clusters-{hashlib.sha256(self.around.tobytes()).hexdigest()[:16]}"

    def nbytes(self, channels: int) -> int:
        """Sums and counts of each centre."""
        return len(self.around) * 8 * (channels + 2)

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> ClusterSums:
        """The statistic of a leaf."""
        return ClusterSums.of(chosen_pixels(lines, valid), self.around)


def plus_plus(
    spectra: Values, weights: Values, clusters: int, random: np.random.Generator
) -> Values:
    """Initial centres among weighted spectra, each drawn by its squared distance to those before.

    Source: D. Arthur, S. Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.
    """
    chosen = [int(random.choice(len(spectra), p=weights / weights.sum()))]
    squared = ((spectra - spectra[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < clusters:
        share = weights * squared
        chosen.append(int(random.choice(len(spectra), p=share / share.sum())))
        squared = np.minimum(squared, ((spectra - spectra[chosen[-1]]) ** 2).sum(axis=1))
    return spectra[chosen]
