"""How well each channel tells two classes apart, from mergeable statistics of both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import DataError
from hsi_batch.statistics.classes import ClassStatistics
from hsi_batch.statistics.float_histogram import FloatHistogram
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.ranking import roc_curve

__all__ = ["absolute_correlation", "channel_auc", "fisher_ratio", "mutual_information", "need_both"]

Values = NDArray[np.float64]

#: Relative spread below which a channel is constant: a float32 holds no more digits.
_CONSTANT = 2.0**-23
#: Added to every cell of the table of mutual information, as cuvis-ai does.
_SMOOTHING = 1e-10


def need_both(statistic: ClassStatistics | None) -> ClassStatistics:
    """The statistic, if it counted pixels of both classes.

    Raises
    ------
    hsi_batch.errors.DataError
        It did not.
    """
    normal = 0 if statistic is None else statistic.normal.count
    anomalous = 0 if statistic is None else statistic.anomalous.count
    if statistic is None or not normal or not anomalous:
        raise DataError(
            f"{normal} normal and {anomalous} anomalous labelled pixels were counted; some of each"
            " are needed.",
            hint="Label the recordings (hsi-batch label, or convert --annotations), select frames"
            " with labels, and check normal_class_ids of the data node.",
        )
    return statistic


def fisher_ratio(first: Moments, second: Moments) -> Values:
    """``(mu_1 - mu_0)^2 / (var_0 + var_1)`` per channel, with population variances.

    0 where both classes are constant to the precision of float32.

    Source: R. A. Fisher, The use of multiple measurements in taxonomic problems, Annals of
    Eugenics 7 (1936) 179-188.

    Examples
    --------
    >>> a = Moments.empty(1, "uint8").update(np.array([[0], [2]], np.uint8))
    >>> b = Moments.empty(1, "uint8").update(np.array([[4], [6]], np.uint8))
    >>> fisher_ratio(a, b)
    array([8.])
    """
    spread = first.variance(ddof=0) + second.variance(ddof=0)
    size = np.maximum(np.abs(first.mean), np.abs(second.mean))
    constant = spread <= (_CONSTANT * size) ** 2
    apart = (second.mean - first.mean) ** 2
    ratio: Values = np.where(constant, 0.0, apart / np.where(constant, 1.0, spread))
    return ratio


def channel_auc(statistic: ClassStatistics) -> Values:
    """Area under the ROC curve of each channel as a score of the anomalous class, 0 to 1.

    Ties count half. Exact where the histograms are.
    """
    areas = np.empty(statistic.channels)
    for channel in range(statistic.channels):
        curve = roc_curve(
            _only(statistic.normal_values, channel), _only(statistic.anomalous_values, channel)
        )
        areas[channel] = 0.5 if curve is None else curve.auc
    return areas


def _only(histogram: FloatHistogram, channel: int) -> FloatHistogram:
    return FloatHistogram(
        [histogram.keys[channel]],
        [histogram.counts[channel]],
        histogram.shift,
        histogram.capacity,
    )


def mutual_information(statistic: ClassStatistics, bins: int = 10) -> Values:
    """Mutual information of the digitised channel and the class, in bits.

    ``I = sum p(k, y) log2(p(k, y) / (p(k) p(y)))`` where ``k`` counts the edges of
    ``linspace(min, max, bins)`` that a value reaches. 0 for a constant channel.
    """
    found = np.zeros(statistic.channels)
    for channel in range(statistic.channels):
        sides = [
            histogram.bins(channel)
            for histogram in (statistic.normal_values, statistic.anomalous_values)
        ]
        low = min(values[0] for values, _ in sides)
        high = max(values[-1] for values, _ in sides)
        if high > low:
            edges = np.linspace(low, high, bins)
            table = np.stack(
                [
                    np.bincount(np.digitize(values, edges) - 1, weights=counts, minlength=bins)
                    for values, counts in sides
                ]
            )
            found[channel] = _information(np.asarray(table + _SMOOTHING, dtype=np.float64))
    return found


def _information(table: Values) -> float:
    joint = table / table.sum()
    independent = joint.sum(axis=0) * joint.sum(axis=1, keepdims=True)
    return float(np.sum(joint * np.log2(joint / independent)))


def absolute_correlation(moments: Moments) -> Values:
    """``|corr|`` between channels, ``(C, C)``; 0 for channels that do not vary."""
    covariance = moments.covariance()
    spread = np.sqrt(np.diagonal(covariance))
    scale = np.where(spread > 0, spread, 1.0)
    return np.abs(covariance / scale[:, None] / scale)
