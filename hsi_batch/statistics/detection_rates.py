"""What a detector finds at few false alarms, from counts of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.float_histogram import FloatHistogram

__all__ = ["Counted", "bootstrap", "rates"]

#: Bins that scores of a bootstrap are put on.
_BINS = 2**14


@dataclass(frozen=True)
class Counted:
    """Scores of several units (sessions, lots) on common bins, descending.

    Attributes
    ----------
    background, target : numpy.ndarray of float64, shape (units, bins)
        Pixels of both classes.
    """

    background: NDArray[np.float64]
    target: NDArray[np.float64]

    @classmethod
    def of(
        cls, pairs: Sequence[tuple[FloatHistogram, FloatHistogram]], bins: int = _BINS
    ) -> Counted:
        """From the histograms of the background and the targets of each unit.

        Bins are made coarser, alike for all, until there are no more than ``bins``.
        """
        shift = max((h.shift for pair in pairs for h in pair), default=0)
        while True:
            held = [tuple(h.coarsened(shift) for h in pair) for pair in pairs]
            parts = [h.keys[0] for pair in held for h in pair]
            keys = np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.uint32)
            if keys.size <= bins:
                break
            shift += 1
        tables = np.zeros((2, len(pairs), keys.size))
        for unit, pair in enumerate(held):
            for kind, histogram in enumerate(pair):
                at = np.searchsorted(keys, histogram.keys[0])
                tables[kind, unit, at] = histogram.counts[0]
        return cls(tables[0, :, ::-1], tables[1, :, ::-1])


def rates(
    background: NDArray[np.float64],
    target: NDArray[np.float64],
    pfas: Sequence[float] = (1e-4, 1e-3, 1e-2),
    part: float = 1e-3,
) -> dict[str, float]:
    """Measures of pixels on descending bins; empty if a class is.

    ``auc`` is the area under the ROC curve, ``partial_auc`` that from no false alarms to ``part``
    of the background, divided by ``part`` (1 is perfect; linear between the points of the curve),
    ``average_precision`` is ``sum (R_k - R_{k-1}) P_k``, ``pd_P`` the share of target pixels at
    the lowest threshold whose false alarms are no more than the share ``P``.

    Parameters
    ----------
    background, target : numpy.ndarray of float64, shape (bins,)
    pfas : sequence of float
    part : float

    Examples
    --------
    >>> found = rates(np.array([0.0, 1.0, 1.0]), np.array([2.0, 0.0, 0.0]))
    >>> found["auc"], found["partial_auc"], found["pd_0.001"]
    (1.0, 1.0, 1.0)
    """
    negatives, positives = background.sum(), target.sum()
    if not (negatives and positives):
        return {}
    false, true = np.cumsum(background), np.cumsum(target)
    x = np.concatenate([[0.0], false / negatives])
    y = np.concatenate([[0.0], true / positives])
    counted = true + false > 0
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=counted)
    found = {
        "auc": float(np.trapezoid(y, x)),
        "partial_auc": _area(x, y, part) / part,
        "average_precision": float((target / positives) @ precision),
    }
    for pfa in pfas:
        found[f"pd_{pfa:g}"] = float(y[np.searchsorted(x, pfa, "right") - 1])
    return found


def _area(x: NDArray[np.float64], y: NDArray[np.float64], end: float) -> float:
    inside = x <= end
    last = float(np.interp(end, x, y))
    return float(np.trapezoid(np.append(y[inside], last), np.append(x[inside], end)))


def bootstrap(
    counted: Counted, draws: int = 500, seed: int = 0, level: float = 0.95
) -> Mapping[str, tuple[float, float]]:
    """Intervals of :func:`rates` over units drawn with replacement (percentile bootstrap).

    Pixels of one unit are not independent, units are; so units are drawn and not pixels. Empty with
    fewer than two units.

    Parameters
    ----------
    counted : Counted
    draws : int
    seed : int
        Of the generator; the same numbers give the same intervals.
    level : float
        Share that the interval is to hold.
    """
    units = len(counted.background)
    if units < 2:
        return {}
    generator = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        times = np.bincount(generator.integers(0, units, units), minlength=units).astype(float)
        one = rates(times @ counted.background, times @ counted.target)
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {
        name: (float(low), float(high))
        for name, values in found.items()
        for low, high in [np.quantile(values, ends)]
    }
