"""Moments of the pixels that lie near a known background."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.measure import Measure, chosen_pixels
from hsi_batch.statistics.moments import Moments

__all__ = ["TrimmedMoments"]

#: Pixels whose distances are computed at once.
_GROUP = 1024


class TrimmedMoments(Measure):
    """Moments of the pixels with ``|factor (x - mean)|^2 <= cut``.

    Distances are float64 on the fixed grid of leaves, so the pixels that are kept do not depend on
    blocks, tasks or workers; those of integers are then summed exactly.

    Parameters
    ----------
    mean : numpy.ndarray of float64, shape (C,)
    factor : numpy.ndarray of float64, shape (C, C)
        Whitening factor of the covariance.
    cut : float
        Largest squared distance that is kept.
    """

    def __init__(self, mean: NDArray[np.float64], factor: NDArray[np.float64], cut: float) -> None:
        self.mean = np.ascontiguousarray(mean, dtype=np.float64)
        self.factor = np.ascontiguousarray(factor, dtype=np.float64)
        self.cut = float(cut)
        content = self.mean.tobytes() + self.factor.tobytes() + np.float64(cut).tobytes()
        self._digest = hashlib.sha256(content).hexdigest()[:12]

    @property
    def name(self) -> str:
        """``trimmed moments``, and a digest of the background."""
        return f"trimmed moments {self._digest}"

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> Moments:
        """Of a leaf."""
        pixels = chosen_pixels(lines, valid)
        kept = [
            self.keeps(pixels[start : start + _GROUP]) for start in range(0, len(pixels), _GROUP)
        ]
        near = pixels[np.concatenate(kept)] if kept else pixels
        return Moments.empty(pixels.shape[1], pixels.dtype).update(near)

    def keeps(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of ``(n, C)`` pixels are kept."""
        whitened = (pixels - self.mean) @ self.factor.T
        near: NDArray[np.bool_] = np.einsum("ij,ij->i", whitened, whitened) <= self.cut
        return near
