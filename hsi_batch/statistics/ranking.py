"""How well scores separate two classes, from mergeable counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.float_histogram import FloatHistogram

__all__ = ["Confusion", "RocCurve", "roc_curve"]


@dataclass(frozen=True)
class Confusion:
    """Counts of decisions against labels, a mergeable statistic.

    Ratios with an empty denominator are 0, as in scikit-learn's ``zero_division=0``.

    Parameters
    ----------
    true_positive, false_positive, false_negative, true_negative : int
        Pixels.

    Examples
    --------
    >>> c = Confusion(true_positive=3, false_positive=1, false_negative=2, true_negative=94)
    >>> c.precision, c.recall, round(c.f1, 3), c.iou
    (0.75, 0.6, 0.667, 0.5)
    """

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @classmethod
    def of(cls, decided: NDArray[np.bool_], target: NDArray[np.bool_]) -> Confusion:
        """Count boolean decisions against boolean targets of the same shape."""
        both = int(np.count_nonzero(decided & target))
        said, true = int(np.count_nonzero(decided)), int(np.count_nonzero(target))
        return cls(both, said - both, true - both, target.size - said - true + both)

    def merge(self, other: Confusion) -> Confusion:
        """Sum of both."""
        return Confusion(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def precision(self) -> float:
        """``TP / (TP + FP)``."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """``TP / (TP + FN)``."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """``2 TP / (2 TP + FP + FN)``."""
        wrong = self.false_positive + self.false_negative
        return _ratio(2 * self.true_positive, 2 * self.true_positive + wrong)

    @property
    def iou(self) -> float:
        """Intersection over union, ``TP / (TP + FP + FN)``."""
        wrong = self.false_positive + self.false_negative
        return _ratio(self.true_positive, self.true_positive + wrong)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class RocCurve:
    """Receiver operating characteristic of scores where larger means positive.

    Attributes
    ----------
    false_positive_rate, true_positive_rate : numpy.ndarray of float64, shape (k,)
        From (0, 0) to (1, 1), one point per distinct score (or bin), descending scores.
    auc : float
        Area under the curve, ties counted half (the Mann-Whitney statistic).
    auc_error : float
        Bound of the error of ``auc`` by bins that hold both classes; 0 if scores were exact.
    average_precision : float
        ``sum (R_k - R_{k-1}) P_k`` over descending thresholds.

    Examples
    --------
    >>> zero = FloatHistogram.zero(1)
    >>> curve = roc_curve(zero.update(np.array([[0.1]])), zero.update(np.array([[0.9]])))
    >>> curve.auc, curve.true_positive_rate.tolist()
    (1.0, [0.0, 1.0, 1.0])
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    auc: float
    auc_error: float
    average_precision: float


def roc_curve(negative: FloatHistogram, positive: FloatHistogram) -> RocCurve | None:
    """ROC of one-channel histograms of the scores of both classes; None if a class is empty.

    Parameters
    ----------
    negative, positive : FloatHistogram
        Of one channel: scores of what is normal, and of what is to be found.

    Examples
    --------
    >>> zero = FloatHistogram.zero(1)
    >>> low = zero.update(np.array([[0.1], [0.4], [0.35]]))
    >>> high = zero.update(np.array([[0.8], [0.4]]))
    >>> round(roc_curve(low, high).auc, 4)
    0.9167
    """
    shift = max(negative.shift, positive.shift)
    neg, pos = negative.coarsened(shift), positive.coarsened(shift)
    if neg.count == 0 or pos.count == 0:
        return None
    keys = np.union1d(neg.keys[0], pos.keys[0])[::-1]
    counts = np.zeros((2, keys.size))
    for row, histogram in enumerate((neg, pos)):
        counts[
            row, np.searchsorted(-keys.astype(np.int64), -histogram.keys[0].astype(np.int64))
        ] = histogram.counts[0]
    n, p = counts
    fp, tp = np.cumsum(n), np.cumsum(p)
    ties = float(p @ n / (tp[-1] * fp[-1]))
    auc = float(p @ (fp[-1] - fp) / (tp[-1] * fp[-1])) + ties / 2
    return RocCurve(
        false_positive_rate=np.concatenate([[0.0], fp / fp[-1]]),
        true_positive_rate=np.concatenate([[0.0], tp / tp[-1]]),
        auc=auc,
        auc_error=ties / 2 if shift else 0.0,
        average_precision=float((p / tp[-1]) @ (tp / (tp + fp))),
    )
