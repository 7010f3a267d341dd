"""Weights of channels over wavelength."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline import Pipeline
from hsi_batch.plots.canvas import ORANGE, axes_or_new, channels_along

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["channel_weights"]


def channel_weights(
    pipeline: Pipeline,
    node: str | None = None,
    *,
    mean: bool = True,
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The weight that a selector gives to each channel; reads nothing.

    Weights are those of the pipeline as it is, without noise. Of a selector of ``n_select``
    channels these are marked: the ones of largest weight. Of one with several outputs there is a
    line per output. Call it again with the same axes to compare, as fitted and as trained.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    node : str, optional
        The selector, if there are several.
    mean : bool
        Also draw the mean spectrum of the fit, where the selector sees the recorded channels.
    label : str, optional
        For the legend; the name of the node by default.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Weights are the lines of C points; the mean spectrum is on axes of its own.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No such node, or it is not fitted.

    Examples
    --------
    >>> from hsi_batch.nodes import CU3SDataNode, SoftChannelSelector
    >>> from hsi_batch.statistics import Moments
    >>> pipeline, data = Pipeline("demo"), CU3SDataNode(name="data")
    >>> selector = SoftChannelSelector(1, name="selector")
    >>> pipeline.connect((data.outputs.cube, selector.data))
    >>> selector.fit(Moments.empty(4, "uint8").update(np.ones((2, 4), dtype=np.uint8)))
    >>> channel_weights(pipeline).lines[0].get_ydata()
    array([0.25, 0.25, 0.25, 0.25])
    """
    name = _selector(pipeline, node)
    chosen = pipeline.nodes[name]
    weights = chosen.get_selection_weights().detach().double().cpu().numpy()
    rows: NDArray[np.float64] = np.atleast_2d(weights)
    axis = chosen.axes.get("data")
    if axis is None or axis.size != rows.shape[1]:
        axis = ChannelAxis(rows.shape[1])
    x, words = channels_along(axis)
    ax = axes_or_new(ax)
    drawn = sum(np.size(line.get_ydata()) == axis.size for line in ax.lines)
    first = not drawn
    for number, row in enumerate(rows):
        text = label or name
        said = text if len(rows) == 1 else f"{text}, output {number}"
        ax.step(x, row, where="mid", label=said, color=f"C{drawn + number}")
    count = getattr(chosen, "n_select", None) if weights.ndim == 1 else None
    if count is not None:
        largest = np.sort(np.argsort(-weights, kind="stable")[:count])
        ax.plot(
            x[largest],
            weights[largest],
            linestyle="",
            marker="o",
            markersize=4,
            color=ax.lines[-1].get_color(),
            label=f"the {count} largest",
        )
    ax.set_ylim(0, max(float(rows.max()) * 1.1, ax.get_ylim()[1] if not first else 0, 1e-12))
    ax.set(xlabel=words, ylabel="weight")
    lines = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    spectrum = _mean(pipeline, axis) if mean and first else None
    if spectrum is not None:
        other = ax.twinx()
        lines += other.plot(x, spectrum, color=ORANGE, linewidth=1, label="mean spectrum (right)")
        other.set_ylabel("mean spectrum of the fit, as recorded")
        other.set_ylim(min(0.0, float(spectrum.min())), float(spectrum.max()) * 1.1 or 1.0)
    ax.legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=8)
    return ax


def _selector(pipeline: Pipeline, node: str | None) -> str:
    having = [n for n, each in pipeline.nodes.items() if hasattr(each, "get_selection_weights")]
    if node is None and len(having) == 1:
        (node,) = having
    if node not in having:
        said = "no node was named" if node is None else f"{node!r} has no weights of channels"
        raise ConfigError(
            f"{said}; nodes that have them: {', '.join(having) or 'none'}.",
            hint="Add a SoftChannelSelector, or another selector, to the pipeline.",
        )
    if not pipeline.nodes[node].fitted:
        raise ConfigError(f"{node} is not fitted.", hint="Fit the pipeline first (hb.fit).")
    return node


def _mean(pipeline: Pipeline, axis: ChannelAxis) -> NDArray[np.float64] | None:
    """The mean spectrum of the fit, if it is one of these channels."""
    known, recorded = pipeline.reference, pipeline.axis
    if known is None or recorded is None or known.mean.size != axis.size:
        return None
    ours, theirs = axis.wavelength, recorded.wavelength
    if ours is None or theirs is None or not np.array_equal(ours, theirs):
        return None
    return known.mean
