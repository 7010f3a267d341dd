"""Thumbnails of the report, and its picture of scores over frames."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from hsi_batch.stages.pictures import blank_figure, svg_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["frames_picture", "jpeg_uri", "mark_thresholds", "palette_uri", "pooled"]

#: Longest side of a thumbnail.
_SIDE = 320
#: Steps of a picture over all frames.
_STEPS = 300
_THRESHOLD = "#c2410c"
_CURVES = {
    "score_max": ("highest", "#e45756"),
    "score_p999": ("99.9 %", "#d08a1d"),
    "score_p50": ("median", "#4c78a8"),
}


def jpeg_uri(image: NDArray[np.uint8]) -> str:
    """An RGB image ``(y, x, 3)`` as a data URI of some kilobytes, at most 320 pixels on a side."""
    return _uri(_sized(image), "jpeg", quality=88)


def palette_uri(image: NDArray[np.uint8]) -> str:
    """The same with at most 256 colours and sharp pixels."""
    picture = _sized(image).quantize(256, dither=Image.Dither.NONE)
    return _uri(picture, "png", optimize=True)


def pooled(values: NDArray[Any], combine: np.ufunc, step: int | None = None) -> NDArray[Any]:
    """Squares of ``step`` pixels ``(y, x)`` combined into one, by default so that 320 are left.

    Examples
    --------
    >>> pooled(np.arange(6).reshape(2, 3), np.fmax, 2)
    array([[4, 5]])
    """
    step = step or max(1, -(-max(values.shape) // _SIDE))
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], step)
        values = combine.reduceat(values, starts, axis=axis)
    return values


def _sized(image: NDArray[np.uint8]) -> Image.Image:
    height, width = image.shape[:2]
    scale = _SIDE / float(max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    return Image.fromarray(image).resize(size, how)


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def mark_thresholds(
    axes: Axes, thresholds: Sequence[tuple[str, float, float]], *, level: bool = False
) -> None:
    """Draw deciders' thresholds, as lines or from the lowest to the highest of a background.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    thresholds : sequence of (name, lowest, highest)
    level : bool
        Scores are on the y axis.
    """
    for name, low, high in thresholds:
        if low == high:
            line = axes.axhline if level else axes.axvline
            words = f"threshold of {name}, {low:.4g}"
            line(low, color=_THRESHOLD, linestyle="--", linewidth=1.2, label=words)
        else:
            span = axes.axhspan if level else axes.axvspan
            words = f"thresholds of {name}, {low:.4g} to {high:.4g}"
            span(low, high, color=_THRESHOLD, alpha=0.3, linewidth=0, label=words)


def frames_picture(
    table: pd.DataFrame, thresholds: Sequence[tuple[str, float, float]] = ()
) -> str | None:
    """Highest score, 99.9 % and median of the frames in their order, as SVG; None without scores.

    Many frames are taken together: of the highest scores the highest is drawn, of the others the
    median.
    """
    held = [name for name in _CURVES if name in table]
    numbers = table[held].astype(float).replace([np.inf, -np.inf], np.nan).dropna()
    if not held or not len(numbers):
        return None
    starts = np.unique(np.linspace(0, len(numbers), min(_STEPS, len(numbers)) + 1).astype(int))
    figure = blank_figure(9.6, 3.0)
    axes = figure.subplots()
    few = len(starts) <= 60
    for name in held:
        words, colour = _CURVES[name]
        reduce = np.max if name == "score_max" else np.median
        values = numbers[name].to_numpy()
        steps = [reduce(values[a:b]) for a, b in pairwise(starts)]
        axes.plot(
            starts[:-1],
            steps,
            color=colour,
            linewidth=1.2,
            label=words,
            marker="o" if few else "",
            markersize=4,
        )
    mark_thresholds(axes, thresholds, level=True)
    if float(numbers.to_numpy().min()) > 0:
        axes.set_yscale("log")
    width = -(-len(numbers) // (len(starts) - 1))
    per = f", about {width} in one step" if width > 1 else ""
    axes.set_xlabel(f"frames in order of their sessions{per}")
    if few:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("score")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return svg_text(figure)
