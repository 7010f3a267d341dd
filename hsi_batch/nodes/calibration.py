"""Thresholds of the largest F1 score against labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError

__all__ = ["Cut", "best_cut", "labelled", "need_both", "quantiles_to_try"]

#: Quantiles that are tried where a cut differs from frame to frame.
_TRIED = 256


class Cut(NamedTuple):
    """A threshold and the F1 score of ``score >= threshold``."""

    threshold: float
    f1: float


def best_cut(scores: NDArray[np.floating], targets: NDArray[np.bool_], name: str) -> Cut:
    """The threshold on scores with the largest F1 score, half way to the next lower score.

    ``F1 = 2 TP / (2 TP + FP + FN)`` at ``score >= threshold``, for every score that occurs; of
    equal F1 the highest threshold. NaN counts for nothing; ``-inf`` is never flagged.

    Raises
    ------
    hsi_batch.errors.DataError
        Not both classes are there.
    """
    known = ~np.isnan(scores)
    values, wanted = scores[known].astype(np.float64), targets[known]
    need_both(wanted, name)
    levels, place = np.unique(values, return_inverse=True)
    true = np.bincount(place, wanted, len(levels))[::-1].cumsum()[::-1]
    said = np.bincount(place, minlength=len(levels))[::-1].cumsum()[::-1]
    f1 = 2 * true / (said + wanted.sum())
    f1[np.isneginf(levels)] = -1.0
    best = len(levels) - 1 - int(np.argmax(f1[::-1]))
    lower = levels[best - 1] if best and np.isfinite(levels[best - 1]) else levels[best]
    # In float32 the middle of neighbours may be one of them, or lie beyond.
    middle = float(np.float32((levels[best] + lower) / 2))
    between = lower < middle <= levels[best]
    return Cut(middle if between else float(levels[best]), float(f1[best]))


def need_both(wanted: NDArray[np.bool_], name: str) -> None:
    """Raise :class:`~hsi_batch.errors.DataError` unless both classes are there."""
    if not wanted.any() or wanted.all():
        raise DataError(
            f"{name}: {int(wanted.sum())} of {wanted.size} labels are anomalous; both classes are"
            " needed to calibrate.",
            hint="Calibrate on frames with labelled anomalies and background.",
        )


def quantiles_to_try(pixels: int) -> NDArray[np.float64]:
    """Quantiles of an upper tail, evenly on a logarithmic scale, down to one pixel."""
    tails = np.geomspace(0.5, 1 / max(pixels, 2), _TRIED)
    return np.append(1 - tails, 1.0)


def labelled(scores: Tensor, targets: Tensor, name: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Scores and labels as arrays of the same shape.

    Raises
    ------
    hsi_batch.errors.DataError
        They have different shapes.
    """
    if scores.shape != targets.shape:
        raise DataError(
            f"{name}: scores have the shape {tuple(scores.shape)}, labels {tuple(targets.shape)}.",
            hint="Give a label for every score, (batch, y, x, 1).",
        )
    return scores.detach().float().cpu().numpy(), targets.detach().cpu().numpy() > 0
