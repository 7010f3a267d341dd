"""Pictures of the report: false colour, score maps, histogram, ROC."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from hsi_batch.archive.session import Session
from hsi_batch.statistics import FloatHistogram, RocCurve
from hsi_batch.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "blank_figure",
    "decision_picture",
    "display_channels",
    "draw_histogram",
    "draw_roc",
    "false_colour",
    "histogram_picture",
    "png_uri",
    "roc_picture",
    "score_limits",
    "score_picture",
    "stretched",
    "svg_text",
]

#: Wavelengths of red, green and blue in nm.
_RGB_NM = (650.0, 550.0, 450.0)
_MAX_SIDE = 320
_INK = "#5b6470"


def png_uri(image: NDArray[np.uint8]) -> str:
    """An RGB image ``(y, x, 3)`` as a data URI, at most 320 pixels on a side."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    scale = _MAX_SIDE / float(max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Few pixels stay pixels; many are averaged.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    buffer = io.BytesIO()
    picture.resize(size, how).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def display_channels(
    wavelength: NDArray[np.float64] | None, channels: int
) -> tuple[tuple[int, int, int], str]:
    """Channels that stand for red, green and blue, and what they are in words.

    Examples
    --------
    >>> display_channels(np.array([450.0, 500.0, 550.0, 600.0, 650.0]), 5)
    ((4, 2, 0), '650, 550, 450 nm')
    """
    if wavelength is not None and wavelength[0] <= 500 and wavelength[-1] >= 600:
        red, green, blue = (int(np.argmin(np.abs(wavelength - nm))) for nm in _RGB_NM)
    else:
        red, green, blue = (int((channels - 1) * part + 0.5) for part in (5 / 6, 1 / 2, 1 / 6))
    picked = (red, green, blue)
    if wavelength is None:
        return picked, f"channels {red}, {green}, {blue}"
    return picked, ", ".join(f"{wavelength[c]:g}" for c in picked) + " nm"


def false_colour(session: Session, frame: int, first: int, last: int) -> NDArray[np.uint8]:
    """Three channels of some lines as RGB, each stretched from its 2nd to its 98th percentile."""
    picked, _ = display_channels(session.wavelength, session.geometry.shape[2])
    parts = []
    step = max(1, (last - first) // (2 * _MAX_SIDE))
    for start, stop in session.geometry.ranges():
        top, bottom = max(start, first), min(stop, last)
        if top < bottom:
            lines = session.read(frame, top, bottom)
            parts.append(lines[::step][:, :, list(picked)].astype(np.float64))
    return stretched(np.concatenate(parts))


def stretched(
    planes: NDArray[np.float64], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Planes ``(y, x, 3)`` as RGB, each stretched from its 2nd to its 98th percentile.

    Percentiles are those of the finite values of the ``valid`` pixels ``(y, x)``, or of all.
    """
    image = np.empty_like(planes)
    for channel in range(planes.shape[2]):
        plane = planes[:, :, channel]
        inside = plane[np.isfinite(plane) if valid is None else np.isfinite(plane) & valid]
        low, high = map(float, np.percentile(inside, [2, 98])) if inside.size else (0.0, 1.0)
        image[:, :, channel] = (plane - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(np.nan_to_num(image), 0, 1) * 255, dtype=np.uint8)


def score_picture(scores: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scores ``(y, x)`` on a logarithmic colour scale from ``low`` to ``high``; NaN is grey.

    Where an end is infinite, the finite scores that are shown give the scale.
    """
    floor, high = score_limits(scores, low, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(np.maximum(scores, floor) / floor) / max(np.log(high / floor), 1e-12)
    image = np.asarray(colormaps["magma"](np.clip(scaled, 0, 1))[..., :3] * 255, dtype=np.uint8)
    image[np.isnan(scores)] = 128
    return image


def score_limits(scores: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Ends of a logarithmic scale from ``low`` to ``high``, six decades at most."""
    if not np.isfinite([low, high]).all():
        finite = np.abs(scores[np.isfinite(scores)]).astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return max(low, 1e-30, high * 1e-6), high


def decision_picture(decisions: NDArray[Any], labels: NDArray[Any] | None) -> NDArray[np.uint8]:
    """Decisions ``(y, x)`` against labels, if there are any.

    Flagged and labelled green, flagged only red, labelled only yellow, invalid grey; without labels
    flagged pixels are white.
    """
    image = np.full((*decisions.shape, 3), 24, dtype=np.uint8)
    said = decisions == 1
    if labels is None or (labels < 0).all():
        image[said] = (240, 240, 240)
    else:
        true = labels > 0
        image[said & true] = (60, 180, 75)
        image[said & ~true] = (220, 60, 50)
        image[~said & true] = (250, 210, 50)
    image[decisions == 255] = 128
    return image


def histogram_picture(
    everything: FloatHistogram,
    background: FloatHistogram,
    target: FloatHistogram,
    mark: Callable[[Axes], None] | None = None,
) -> str | None:
    """Histogram of all finite scores, or of those of both classes if there are labels, as SVG.

    What ``mark`` draws stands in the legend too.

    Returns None if no score is finite.
    """
    figure = blank_figure(5.6, 3.0)
    if not draw_histogram(figure.subplots(), everything, background, target, mark):
        return None
    return svg_text(figure)


def draw_histogram(
    axes: Axes,
    everything: FloatHistogram,
    background: FloatHistogram,
    target: FloatHistogram,
    mark: Callable[[Axes], None] | None = None,
) -> bool:
    """Draw what :func:`histogram_picture` shows; returns whether any score is finite."""
    values, counts = everything.bins(0)
    finite = np.isfinite(values)
    if not finite.any():
        return False
    endless = int(counts[~finite].sum())
    values = values[finite]
    positive = values > 0
    if not positive.any():
        positive = np.ones(values.shape, dtype=bool)
    low, high = values[positive].min(), values[positive].max()
    edges = np.geomspace(low, high * 1.0001, 80) if low > 0 else np.linspace(low, high, 80)
    shown = [(everything, "all pixels", "#7a8694")]
    if target.count:
        shown = [(background, "background", "#4c78a8"), (target, "labelled", "#e45756")]
    for histogram, label, colour in shown:
        values, counts = histogram.bins(0)
        finite = np.isfinite(values)
        heights, _ = np.histogram(values[finite], edges, weights=counts[finite])
        if heights.any():
            axes.stairs(heights, edges, fill=True, alpha=0.75, label=label, color=colour)
    if low > 0:
        axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(
        f"score ({counted(endless, 'pixel')} with infinite scores not shown)"
        if endless
        else "score"
    )
    axes.set_ylabel("pixels")
    if mark is None:
        axes.legend(frameon=False)
    else:
        mark(axes)
        # Above, where no mark runs through it.
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return True


def roc_picture(curve: RocCurve) -> str:
    """ROC with a logarithmic axis of false alarms, as SVG."""
    figure = blank_figure(3.8, 3.0)
    axes = figure.subplots()
    draw_roc(axes, curve)
    axes.set_title(f"AUC {curve.auc:.4f}", fontsize=10, color=_INK)
    return svg_text(figure)


def draw_roc(axes: Axes, curve: RocCurve, **options: Any) -> None:
    """Draw a ROC of at most 2000 points on a logarithmic axis of false alarms.

    The axis begins at half of the smallest rate of any curve on it.
    """
    before = axes.get_xlim()[0] if axes.lines else 1.0
    rate = np.maximum(curve.false_positive_rate, 1e-6)
    keep = np.unique(np.linspace(0, rate.size - 1, 2000).astype(int))
    options = {"color": "#4c78a8", **options}
    axes.step(rate[keep], curve.true_positive_rate[keep], where="post", **options)
    axes.set_xscale("log")
    smallest = curve.false_positive_rate[curve.false_positive_rate > 0]
    axes.set_xlim(min(before, max(1e-6, smallest.min() / 2 if smallest.size else 1e-6)), 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")


def blank_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, to be drawn on and given to :func:`svg_text`."""
    return Figure(figsize=(width, height), layout="constrained")


def svg_text(figure: Figure) -> str:
    """A figure as SVG, in colours that are seen on light and on dark pages."""
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        right = axes.yaxis.get_ticks_position() == "right"
        axes.spines[["top", "left" if right else "right"]].set_visible(False)
        # Within one decade, a logarithmic axis has labels at its minor ticks only.
        axes.tick_params(which="both", colors=_INK)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_offset_text().set_color(_INK)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(_INK)
        for spine in axes.spines.values():
            spine.set_color(_INK)
        legend = axes.get_legend()
        if legend is not None:
            for entry in legend.get_texts():
                entry.set_color(_INK)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
