"""Distributions of scores: histogram with thresholds, ROC, precision and recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError, DataError
from hsi_batch.nodes.thresholds import FittedThreshold
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.maps import stored_port
from hsi_batch.plots.canvas import axes_or_new
from hsi_batch.plots.scored import Scores, evaluation_of, name_of
from hsi_batch.stages.evaluation import Evaluation
from hsi_batch.stages.pictures import draw_histogram, draw_roc
from hsi_batch.statistics import FloatHistogram, RocCurve, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["precision_recall", "roc", "score_histogram"]


def score_histogram(
    scores: Scores | Evaluation | xr.DataArray | NDArray[np.floating],
    thresholds: Pipeline | Mapping[str, float] | float | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """How often which score occurs, with thresholds; of a store no pixel is read.

    With labels it shows the scores of background and of labelled pixels, else those of all. Both
    axes are logarithmic where scores are positive.

    Parameters
    ----------
    scores : ScoreResult, path, Evaluation, xarray.DataArray or numpy.ndarray
        A store of scores, of which the histograms are taken that scoring kept, or scores in
        memory; NaN is not counted.
    thresholds : Pipeline, mapping of str to float, or float, optional
        Drawn as lines. Of a fitted pipeline, those of the nodes that decide on its ``scores``.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Heights are ``ax.patches``, thresholds ``ax.lines``.

    Raises
    ------
    hsi_batch.errors.StoreError
        No scores there, or scoring was not finished.
    hsi_batch.errors.DataError
        No score is finite.

    Examples
    --------
    >>> ax = score_histogram(np.array([1.0, 2.0, 2.0, 8.0]), thresholds=4.0)
    >>> int(ax.patches[0].get_data().values.sum()), ax.get_xlabel()
    (4, 'score')
    """
    if isinstance(scores, (xr.DataArray, np.ndarray)):
        one = FloatHistogram.zero(1)
        everything = one.update(np.asarray(scores).reshape(-1, 1))
        background = target = one
    else:
        found = evaluation_of(scores)
        everything, background, target = found.scores, found.background, found.target
    ax = axes_or_new(ax)
    if not draw_histogram(ax, everything, background, target):
        raise DataError(
            "no score is finite.",
            hint="Look for values that are too large for float32, or pixels that are all flagged.",
        )
    for number, (name, value) in enumerate(_named(thresholds).items()):
        style = ("--", "-.", ":")[number % 3]
        ax.axvline(value, color="0.35", linestyle=style, label=f"{name} {value:.4g}")
    ax.legend(frameon=False, fontsize=8)
    return ax


def _named(thresholds: Pipeline | Mapping[str, float] | float | None) -> Mapping[str, float]:
    if thresholds is None:
        return {}
    if isinstance(thresholds, Mapping):
        return thresholds
    if not isinstance(thresholds, Pipeline):
        return {"threshold": float(thresholds)}
    scores = stored_port(thresholds, "scores")
    return {
        f"threshold of {edge.target.node}": float(node.threshold.detach())
        for edge in thresholds.edges
        if edge.source == scores
        and isinstance(node := thresholds.nodes[edge.target.node], FittedThreshold)
        and node.fitted
    }


def roc(
    scores: Scores | Evaluation,
    *,
    label: str | None = None,
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Detected targets against false alarms, at every threshold; no pixel is read.

    Over all labelled pixels of the store, never averaged over frames. The axis of false alarms is
    logarithmic. Call it again with the same axes to compare.

    Parameters
    ----------
    scores : ScoreResult, path or Evaluation
        A store of scores of an archive with labels.
    label : str, optional
        For the legend; the name of the store by default. The area under the curve is added.
    color : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The curve is the last of ``ax.lines``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There are no labels of both kinds.
    hsi_batch.errors.StoreError
        No scores there, or scoring was not finished.

    Examples
    --------
    >>> zero = FloatHistogram.zero(1)
    >>> low, high = (zero.update(np.array([[v], [3.0]])) for v in (1.0, 4.0))
    >>> roc(Evaluation(background=low, target=high)).get_legend().texts[0].get_text()
    'AUC 0.8750'
    """
    curve, _ = _curve(scores)
    ax = axes_or_new(ax, 5.0, 4.0)
    draw_roc(
        ax,
        curve,
        label=_legend(scores, label, f"AUC {curve.auc:.4f}"),
        color=color or f"C{len(ax.lines)}",
    )
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def precision_recall(
    scores: Scores | Evaluation,
    *,
    label: str | None = None,
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How many of the flagged pixels are targets, against how many targets are flagged.

    At every threshold, over all labelled pixels of the store; no pixel is read. The dotted line is
    the share of targets among all labelled pixels, which is what chance reaches.

    Parameters
    ----------
    scores : ScoreResult, path or Evaluation
        A store of scores of an archive with labels.
    label : str, optional
        For the legend; the average precision is added.
    color : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The curve is the last of ``ax.lines`` but one, the dotted line the last.

    Raises
    ------
    hsi_batch.errors.ConfigError, hsi_batch.errors.StoreError
        As :func:`roc`.

    Examples
    --------
    >>> zero = FloatHistogram.zero(1)
    >>> low, high = (zero.update(np.array([[v], [3.0]])) for v in (1.0, 4.0))
    >>> precision_recall(Evaluation(background=low, target=high)).lines[0].get_ydata()
    array([1.        , 1.        , 0.66666667, 0.5       ])
    """
    curve, (negative, positive) = _curve(scores)
    hits = curve.true_positive_rate * positive
    flagged = hits + curve.false_positive_rate * negative
    precision = np.divide(hits, flagged, out=np.ones_like(hits), where=flagged > 0)
    ax = axes_or_new(ax, 5.0, 4.0)
    name = _legend(scores, label, f"average precision {curve.average_precision:.4f}")
    (line,) = ax.step(curve.true_positive_rate, precision, where="pre", label=name, color=color)
    ax.axhline(positive / (positive + negative), color=line.get_color(), linestyle=":", lw=1)
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.03))
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    return ax


def _legend(scores: Scores | Evaluation, label: str | None, value: str) -> str:
    name = name_of(scores) if label is None else label
    return f"{name}: {value}" if name else value


def _curve(scores: Scores | Evaluation) -> tuple[RocCurve, tuple[int, int]]:
    found = evaluation_of(scores)
    curve = roc_curve(found.background, found.target)
    if curve is None:
        raise ConfigError(
            f"{found.background.count} pixels are labelled as background and"
            f" {found.target.count} as anomalous; a curve needs both.",
            hint="Add labels to the archive (hsi-batch label) and score again.",
        )
    return curve, (found.background.count, found.target.count)
