"""From counts to reflectance by white and dark references, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.readers.protocol import Source

__all__ = ["Calibration", "ReferenceMean", "mean_of_columns"]

#: Lines of a reference that are summed at once; fixed, so that sums have the same bits anywhere.
_LINES = 64


@dataclass(frozen=True)
class ReferenceMean:
    """A reference, averaged along its lines.

    Attributes
    ----------
    mean : numpy.ndarray of float64, shape (x, channel)
        Counts.
    bad : numpy.ndarray of bool, shape (x, channel)
        Not finite, or saturated in any line.
    lines : int
        That were averaged.
    """

    mean: NDArray[np.float64]
    bad: NDArray[np.bool_]
    lines: int


def mean_of_columns(
    source: Source, frame: int | None = None, saturation: float | None = None
) -> ReferenceMean:
    """Average a reference along its lines, over one frame or all of them.

    Parameters
    ----------
    source : Source
        Opened.
    frame : int, optional
    saturation : float, optional
        Counts from which a pixel is saturated.
    """
    height, width, channels = source.info.shape
    total = np.zeros((width, channels))
    bad = np.zeros((width, channels), dtype=bool)
    frames = range(source.info.frames) if frame is None else (frame,)
    for index in frames:
        opened = source.frame(index)
        for start in range(0, height, _LINES):
            lines = opened.read(start, min(start + _LINES, height))
            total += lines.sum(axis=0, dtype=np.float64)
            if saturation is not None:
                bad |= (lines >= saturation).any(axis=0)
    count = height * len(frames)
    mean = total / count
    return ReferenceMean(mean, bad | ~np.isfinite(mean), count)


@dataclass(frozen=True)
class Calibration:
    """``R = (raw - dark) / (white - dark) x panel x ratio``, with the means of each column.

    Attributes
    ----------
    dark, gain : numpy.ndarray of float64, shape (x, channel)
        ``R = (raw - dark) gain``; the gain is 0 where the references are bad.
    bad : numpy.ndarray of bool, shape (x, channel)
        Where the references say nothing: white not above dark, not finite, or saturated.

    Examples
    --------
    >>> ones = np.ones((2, 1))
    >>> found = Calibration.of(5 * ones, np.array([[1.0], [5.0]]), panel=0.5)
    >>> raw = np.array([[[3], [7]]])
    >>> found(raw).ravel(), found.bad.ravel()
    (array([0.25, 0.  ], dtype=float32), array([False,  True]))
    """

    dark: NDArray[np.float64]
    gain: NDArray[np.float64]
    bad: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        white: NDArray[np.float64],
        dark: NDArray[np.float64],
        bad: NDArray[np.bool_] | None = None,
        *,
        panel: NDArray[np.float64] | float = 1.0,
        ratio: float = 1.0,
    ) -> Calibration:
        """From the means of the references.

        Parameters
        ----------
        white, dark : numpy.ndarray of float64, shape (x, channel)
            Counts.
        bad : numpy.ndarray of bool, shape (x, channel), optional
            Pixels of the references that are no good for other reasons.
        panel : float or numpy.ndarray, shape (channel,)
            Reflectance of the panel.
        ratio : float
            Integration time of the white reference over that of the scan.
        """
        span = white - dark
        with np.errstate(invalid="ignore"):
            wrong = ~(span > 0) | ~np.isfinite(span)
        wrong = wrong if bad is None else wrong | bad
        gain = np.zeros_like(span)
        np.divide(np.broadcast_to(panel, span.shape) * ratio, span, out=gain, where=~wrong)
        return cls(np.where(np.isfinite(dark), dark, 0.0), gain, wrong)

    @property
    def bad_bands(self) -> NDArray[np.bool_]:
        """Channels that are bad in more than half of the columns."""
        return np.asarray(self.bad.mean(axis=0) > 0.5)

    def dead_columns(self, used: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Columns with a bad channel among those that are used, shape (x,)."""
        wrong = self.bad if used is None else self.bad[:, used]
        return np.asarray(wrong.any(axis=1))

    def __call__(self, lines: NDArray[Any]) -> NDArray[np.float32]:
        """Calibrate ``(lines, x, channel)``; computed in float64, rounded once."""
        out = np.empty(lines.shape, dtype=np.float32)
        for line, result in zip(lines, out, strict=True):
            shifted = np.subtract(line, self.dark, dtype=np.float64)
            shifted *= self.gain
            result[...] = shifted
        return out
