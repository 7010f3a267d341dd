"""What pictures have in common: panels, colours, frames reduced to what a panel can show."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hsi_batch.errors import PipelineError, did_you_mean

__all__ = [
    "DPI",
    "NOTHING",
    "as_colours",
    "colour_map",
    "drawn",
    "panels",
    "reduced",
    "score_range",
    "show",
    "shown_ratio",
    "stretched",
]

DPI = 100
#: Colour of what has no value.
NOTHING = "#b8bec5"
#: Width of a panel in inches (less for tall frames), and the most that one side is longer.
_SIDE, _RATIO = 4.4, 3.0


def stretched(values: NDArray[Any]) -> NDArray[np.float64]:
    """Values as brightness in 0..1, from their 1st to their 99th percentile; NaN is grey."""
    known = values[np.isfinite(values)]
    low, high = map(float, np.percentile(known, [1, 99])) if known.size else (0.0, 1.0)
    if high <= low:
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    bright = np.full(values.shape, 0.5)
    if high > low:
        bright = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    bright[~np.isfinite(values)] = 0.7
    return bright


def as_colours(image: NDArray[Any]) -> NDArray[np.float64]:
    """A picture as it is if it lies in 0..1, else stretched, all channels together; NaN is grey."""
    known = image[np.isfinite(image)]
    if known.size and (known.min() < 0 or known.max() > 1):
        return stretched(image)
    return np.where(np.isfinite(image), image.astype(np.float64), 0.7)


def score_range(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """Smallest score, where the colours end, and the largest score; NaN counts for nothing.

    The colours end at the 99.8th percentile: one bright pixel must not turn the rest black.
    """
    known = scores[~np.isnan(scores)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    top = float(np.quantile(known, 0.998)) if known.size else high
    return low, top if top > low else high, high


def colour_map(name: str) -> str:
    """Check the name of a colour map of matplotlib."""
    if name not in colormaps:
        raise PipelineError(
            f"cmap {name!r} is not a colour map of matplotlib.{did_you_mean(name, colormaps)}",
            hint="Take one, such as viridis or inferno.",
        )
    return name


def shown_ratio(shape: tuple[int, ...]) -> float:
    """Width by height as shown: that of the frame, but readable where it is very long."""
    return float(np.clip(shape[1] / shape[0], 1 / _RATIO, _RATIO))


def _panel(shape: tuple[int, ...]) -> tuple[float, float]:
    """Height and width of the panel of a frame, in inches."""
    ratio = shown_ratio(shape)
    height = _SIDE / max(ratio, 0.6)
    return height, height * ratio


def panels(
    shape: tuple[int, ...], count: int, *, above: float, below: float, beside: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """Panels side by side for frames of a shape, and inches around them for texts."""
    height, width = _panel(shape)
    size = (count * (max(width, 3.0) + 0.35) + beside, height + above + below)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for panel in axes:
        panel.set_axis_off()
    return figure, axes


def show(axes: Axes, image: NDArray[Any], shape: tuple[int, ...], **how: Any) -> Any:
    """Draw an image, in the ratio of a frame of a shape."""
    aspect = image.shape[1] / image.shape[0] / shown_ratio(shape)
    return axes.imshow(image, aspect=aspect, interpolation="nearest", **how)


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """The pixels of a figure, ``(y, x, 3)``."""
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def reduced(
    values: NDArray[Any], how: Any = np.mean, *, most: tuple[int, int] | None = None
) -> NDArray[Any]:
    """A frame of at most so many lines and columns, by the mean (or another function) of cells.

    Without ``most`` it gets no more than its panel can show.
    """
    if most is None:
        # A tenth is left for texts that take place from the panel.
        height, width = (int(0.9 * DPI * inches) for inches in _panel(values.shape))
        most = (height, width)
    for axis, limit in enumerate(most):
        cell = -(-values.shape[axis] // limit)
        if cell > 1:
            spare = -values.shape[axis] % cell
            pad = [(0, spare if a == axis else 0) for a in range(values.ndim)]
            full = np.pad(values, pad, mode="edge")
            shape = [*full.shape[:axis], -1, cell, *full.shape[axis + 1 :]]
            values = how(full.reshape(shape), axis=axis + 1)
    return values
