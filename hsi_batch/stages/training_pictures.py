"""Pictures of what a training changed: two ROCs, and weights of channels on the mean spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsi_batch.stages.pictures import blank_figure, svg_text

__all__ = ["curves_picture", "weights_picture"]

_BEFORE, _AFTER = "#8a94a0", "#4c78a8"
_SPECTRUM = "#e08a2e"
_SMALLEST_RATE = 1e-6


def curves_picture(curves: Sequence[Mapping[str, Any] | None]) -> str | None:
    """ROC before and after as SVG; None unless both are known."""
    before, after = curves
    if before is None or after is None:
        return None
    figure = blank_figure(4.2, 3.0)
    axes = figure.subplots()
    smallest = 1.0
    for curve, words, colour, style in (
        (before, "fitted", _BEFORE, "--"),
        (after, "trained", _AFTER, "-"),
    ):
        rate = np.asarray(curve["false_positive_rate"])
        smallest = min(smallest, float(rate[rate > 0].min(initial=1.0)))
        axes.step(
            np.maximum(rate, _SMALLEST_RATE),
            np.asarray(curve["true_positive_rate"]),
            where="post",
            color=colour,
            linestyle=style,
            label=f"{words}, AUC {curve['auc']:.4f}",
        )
    axes.set_xscale("log")
    axes.set_xlim(max(_SMALLEST_RATE, smallest / 2), 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.legend(frameon=False, fontsize=8, loc="best")
    return svg_text(figure)


def weights_picture(
    values: Sequence[Sequence[float]],
    chosen: Sequence[int],
    wavelength: Sequence[float] | None,
    mean: Sequence[float] | None,
) -> str:
    """Weights before and after, the chosen channels marked, over the mean spectrum, as SVG."""
    before, after = (np.asarray(row, dtype=np.float64) for row in values)
    at = np.arange(after.size) if wavelength is None else np.asarray(wavelength)
    figure = blank_figure(8.4, 3.0)
    axes = figure.subplots()
    for channel in chosen:
        axes.axvline(at[channel], color=_AFTER, linewidth=5, alpha=0.25, zorder=0)
    axes.step(at, before, where="mid", color=_BEFORE, linestyle="--", label="weights, fitted")
    axes.step(at, after, where="mid", color=_AFTER, label="weights, trained")
    axes.set_ylim(0, max(before.max(), after.max(), 1e-12) * 1.1)
    axes.set_ylabel("weight")
    axes.set_xlabel("channel" if wavelength is None else "wavelength (nm)")
    lines = list(axes.lines[len(chosen) :])
    if mean is not None:
        other = axes.twinx()
        lines += other.plot(at, mean, color=_SPECTRUM, linewidth=1.2, label="mean spectrum")
        other.set_ylabel("mean spectrum, as recorded")
        other.set_ylim(min(0.0, float(np.min(mean))), float(np.max(mean)) * 1.1 or 1.0)
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=8)
    return svg_text(figure)
