"""A sample of spectra that depends on nothing but which spectra there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.measure import Measure, chosen_pixels

__all__ = ["SampleMeasure", "SpectraSample", "spectrum_keys"]

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


def spectrum_keys(pixels: NDArray[np.float32], seed: int = 0) -> NDArray[np.uint64]:
    """Hash of each spectrum ``(n, C)``, 64 bits, from its float32 bits and a seed.

    Every channel is stirred in by the finaliser of SplitMix64 (G. L. Steele et al., Fast splittable
    pseudorandom number generators, OOPSLA 2014).
    """
    bits = (np.asarray(pixels, dtype=np.float32) + np.float32(0.0)).view(np.uint32)
    keys = np.full(len(bits), seed % 2**64, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for channel in bits.T:
            keys = (keys ^ channel) + _STEP
            keys = (keys ^ (keys >> np.uint64(30))) * _MIX[0]
            keys = (keys ^ (keys >> np.uint64(27))) * _MIX[1]
            keys ^= keys >> np.uint64(31)
    return keys


@dataclass(frozen=True)
class SpectraSample:
    """The different spectra with the smallest hashes, and how often each occurs; mergeable.

    A spectrum that is in the sample of all pixels is in the sample of every part that holds it, so
    counts are exact, and the sample depends neither on order nor on grouping.

    Attributes
    ----------
    size : int
        Different spectra at most.
    keys : numpy.ndarray of uint64, shape (k,)
        Ascending hashes.
    spectra : numpy.ndarray of float32, shape (k, C)
    counts : numpy.ndarray of int64, shape (k,)
    seen : int
        Pixels absorbed.
    """

    size: int
    keys: NDArray[np.uint64]
    spectra: NDArray[np.float32]
    counts: NDArray[np.int64]
    seen: int

    @classmethod
    def of(cls, pixels: NDArray[Any], size: int, seed: int = 0) -> SpectraSample:
        """The sample of ``(n, C)`` pixels; those that are not finite are left out."""
        spectra = np.ascontiguousarray(pixels, dtype=np.float32)
        spectra = spectra[np.isfinite(spectra).all(axis=1)]
        ones = np.ones(len(spectra), dtype=np.int64)
        return _smallest(size, spectrum_keys(spectra, seed), spectra, ones, len(spectra))

    def merge(self, other: SpectraSample) -> SpectraSample:
        """The sample of both."""
        return _smallest(
            self.size,
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.spectra, other.spectra]),
            np.concatenate([self.counts, other.counts]),
            self.seen + other.seen,
        )


def _smallest(
    size: int,
    keys: NDArray[np.uint64],
    spectra: NDArray[np.float32],
    counts: NDArray[np.int64],
    seen: int,
) -> SpectraSample:
    distinct, first, where = np.unique(keys, return_index=True, return_inverse=True)
    total = np.zeros(distinct.size, dtype=np.int64)
    np.add.at(total, where, counts)
    return SpectraSample(size, distinct[:size], spectra[first[:size]], total[:size], seen)


class SampleMeasure(Measure):
    """Takes a :class:`SpectraSample` of the valid pixels of a port.

    Parameters
    ----------
    size : int
        Different spectra at most.
    seed : int
        Another seed gives another sample.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size, self.seed = int(size), int(seed)

    @property
    def name(self) -> str:
        """``sample``, its size and seed."""
        return f"sample-{self.size}-{self.seed}"

    def nbytes(self, channels: int) -> int:
        """Float32 spectra with a key and a count each."""
        return self.size * (4 * channels + 16)

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> SpectraSample:
        """The statistic of a leaf."""
        return SpectraSample.of(chosen_pixels(lines, valid), self.size, self.seed)
