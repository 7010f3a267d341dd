"""Pictures as arrays, drawn by matplotlib without its global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from hsi_batch.nodes.canvas import (
    DPI,
    NOTHING,
    drawn,
    panels,
    reduced,
    score_range,
    show,
    shown_ratio,
    stretched,
)

__all__ = [
    "agreement_picture",
    "component_picture",
    "false_colour_picture",
    "score_map_picture",
    "weight_matrix_picture",
]

_POINTS = 20_000
_FOUND, _FALSE, _MISSED, _FLAGGED = "#2ca02c", "#e8262b", "#ffd500", "#00d5e8"
_RED_GREEN_BLUE = ("#d62728", "#2ca02c", "#1f5fd6")
_GREY = "#9aa3ad"

Image = NDArray[np.float64]


def score_map_picture(
    scores: NDArray[Any], *, normalize: bool, cmap: str, title: str
) -> NDArray[np.uint8]:
    """Scores ``(y, x)`` in colours with a scale, as they are or brought to 0..1."""
    scores = np.where(np.isfinite(scores), scores, np.nan)
    known = scores[~np.isnan(scores)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    label = "score"
    if normalize:
        scores = (scores - low) / (high - low) if high > low else scores * 0.0
        label = f"score, {low:.4g} to {high:.4g} as 0 to 1"
    figure, (axes,) = panels(scores.shape, 1, above=0.4, below=0.1, beside=1.0)
    _score_panel(figure, axes, scores, cmap, label)
    axes.set_title(title)
    return drawn(figure)


def agreement_picture(
    background: Image,
    decisions: NDArray[np.bool_] | None,
    labels: NDArray[np.bool_] | None,
    scores: NDArray[Any] | None,
    *,
    shown: str,
    title: str,
) -> NDArray[np.uint8]:
    """A frame, what was flagged in it against what is labelled, and its scores.

    Parameters
    ----------
    background : numpy.ndarray of float64, shape (y, x) or (y, x, 3)
        The frame, 0..1.
    decisions, labels : numpy.ndarray of bool, shape (y, x), optional
    scores : numpy.ndarray, shape (y, x), optional
    shown : str
        What the background is.
    title : str
        Of the whole picture.
    """
    marked = decisions is not None or labels is not None
    count = 1 + marked + (scores is not None)
    figure, axes = panels(
        background.shape, count, above=0.95, below=0.8, beside=0.9 * (scores is not None)
    )
    picture = reduced(background)
    show(axes[0], picture, background.shape, cmap="gray", vmin=0, vmax=1)
    axes[0].set_title(shown)
    if marked:
        codes, legend = _codes(decisions, labels)
        _overlay(axes[1], picture, codes, legend)
        axes[1].set_title(_agreement(decisions, labels), fontsize=10)
    if scores is not None:
        _score_panel(figure, axes[-1], scores, "inferno", "score")
        axes[-1].set_title("scores")
    figure.suptitle(title, fontsize=11)
    return drawn(figure)


def false_colour_picture(
    cube: NDArray[Any],
    weights: NDArray[Any],
    wavelengths: NDArray[Any] | None,
    *,
    title: str,
) -> NDArray[np.uint8]:
    """The three channels of largest weight as red, green and blue, and all weights as bars."""
    order = np.argsort(-weights, kind="stable")[:3]
    picked = np.resize(order, 3)
    ratio = shown_ratio(cube.shape)
    height = float(np.clip(4.4 / ratio, 2.6, 6.5))
    figure = Figure(figsize=(height * ratio + 6.2, height + 1.1), layout="constrained")
    picture, bars = figure.subplots(1, 2, width_ratios=(height * ratio, 5.6))
    colours = stretched(cube[..., picked])
    show(picture, reduced(colours), cube.shape)
    picture.set_axis_off()
    names = [_channel(int(c), wavelengths) for c in order]
    picture.set_title("red, green, blue:\n" + ", ".join(names), fontsize=10)
    places = np.arange(weights.size) if wavelengths is None else np.asarray(wavelengths, float)
    gaps = np.diff(np.sort(places))
    step = float(np.median(gaps)) if gaps.size and np.median(gaps) > 0 else 1.0
    bars.bar(places, weights, width=0.85 * step, color=_GREY)
    for channel, colour, name in zip(order, _RED_GREEN_BLUE, names, strict=False):
        bars.bar(places[channel], weights[channel], width=0.85 * step, color=colour, label=name)
    bars.set_xlabel("channel" if wavelengths is None else "wavelength in nm")
    bars.set_ylabel("weight")
    bars.set_title("weights of the channels", fontsize=10)
    bars.margins(x=0.02)
    bars.set_ylim(top=max(float(weights.max()) * 1.18, 1e-12))
    bars.legend(loc="upper right", ncols=3, frameon=False, fontsize=9)
    bars.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    return drawn(figure)


def component_picture(projected: NDArray[Any], *, title: str) -> NDArray[np.uint8]:
    """Components ``(y, x, C)``: points coloured by place, the key of places, and as a picture."""
    height, width = projected.shape[:2]
    used = min(3, projected.shape[2])
    key = _places(height, width)
    figure, (points, places, picture) = panels((height, width), 3, above=0.7, below=0.5, beside=0.8)
    step = max(1, -(-height * width // _POINTS))
    flat = projected[..., :2].reshape(-1, 2)[::step]
    points.scatter(
        flat[:, 0], flat[:, 1], c=key.reshape(-1, 3)[::step], s=6, alpha=0.7, linewidths=0
    )
    points.set_xlabel("component 1")
    points.set_ylabel("component 2")
    points.set_axis_on()
    points.grid(alpha=0.3)
    points.locator_params(nbins=5)
    points.set_title("pixels" if step == 1 else f"every {step}th pixel")
    show(places, reduced(key), key.shape)
    places.set_title("colours of the points by place")
    channels = [stretched(projected[..., c]) for c in range(used)]
    channels += [np.zeros((height, width))] * (3 - used)
    show(picture, reduced(np.stack(channels, axis=-1)), key.shape)
    picture.set_title(
        "components 1, 2, 3 as red, green, blue" if used == 3 else "components 1, 2 as red, green"
    )
    figure.suptitle(title, fontsize=11)
    return drawn(figure)


def weight_matrix_picture(
    weights: NDArray[Any],
    wavelengths: NDArray[Any] | None,
    *,
    cell_height: int,
    cell_width: int,
    title: str,
) -> NDArray[np.uint8]:
    """Weights ``(outputs, channels)`` as coloured cells of a size in pixels, with a scale."""
    rows, columns = weights.shape
    width = max(1, min(cell_width, 4096 // columns)) * columns
    height = max(1, min(cell_height, 2048 // rows)) * rows
    # Inches of margins: left, right, below, above.
    left, right, below, above = 0.8, 1.1, 0.6, 0.45
    inches = (left + width / DPI + right, below + height / DPI + above)
    figure = Figure(figsize=(max(inches[0], 5.0), max(inches[1], 1.8)))
    total_width, total_height = figure.get_size_inches()
    place = (
        left / total_width,
        below / total_height,
        width / DPI / total_width,
        height / DPI / total_height,
    )
    axes = figure.add_axes(place)
    largest = float(np.nanmax(np.abs(weights))) or 1.0
    signed = bool((weights < 0).any())
    image = axes.imshow(
        weights,
        cmap="RdBu_r" if signed else "viridis",
        vmin=-largest if signed else 0.0,
        vmax=largest,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_yticks(range(rows), ["red", "green", "blue"] if rows == 3 else map(str, range(rows)))
    ticks = np.unique(np.linspace(0, columns - 1, max(2, min(columns, width // 55))).astype(int))
    axes.set_xticks(ticks, [_tick(int(c), wavelengths) for c in ticks])
    axes.set_xlabel("channel" if wavelengths is None else "wavelength in nm")
    axes.set_ylabel("output")
    axes.set_title(title, fontsize=11, loc="left")
    scale = figure.add_axes((place[0] + place[2] + 0.15 / total_width, place[1], 0.015, place[3]))
    figure.colorbar(image, cax=scale)
    return drawn(figure)


def _score_panel(figure: Figure, axes: Axes, scores: NDArray[Any], cmap: str, label: str) -> None:
    scores = np.where(np.isfinite(scores), scores, np.nan).astype(np.float64)
    low, top, high = score_range(scores)
    # The largest of a cell, so that no small target is lost.
    colours = colormaps[cmap].with_extremes(bad=NOTHING)
    shown = reduced(np.where(np.isnan(scores), -np.inf, scores), np.max)
    shown = np.ma.masked_invalid(shown)
    limits = {"vmin": low, "vmax": top if top > low else low + 1.0}
    image = show(axes, shown, scores.shape, cmap=colours, **limits)
    extend = "max" if top < high else "neither"
    figure.colorbar(image, ax=axes, extend=extend, fraction=0.05, pad=0.02, label=label)


def _codes(
    decisions: NDArray[np.bool_] | None, labels: NDArray[np.bool_] | None
) -> tuple[NDArray[np.uint8], list[tuple[str, str]]]:
    """Pixels by kind (0 for none), and colour and meaning of the others."""
    if decisions is None or labels is None:
        only = labels if decisions is None else decisions
        assert only is not None
        name = ("labelled", _MISSED) if decisions is None else ("flagged", _FLAGGED)
        return only.astype(np.uint8), [(name[1], name[0])]
    codes = np.select(
        [decisions & labels, decisions & ~labels, labels], [1, 2, 3], default=0
    ).astype(np.uint8)
    meaning = [(_FOUND, "flagged, labelled"), (_FALSE, "flagged only"), (_MISSED, "labelled only")]
    return codes, meaning


def _overlay(
    axes: Axes, picture: NDArray[Any], codes: NDArray[np.uint8], legend: Sequence[tuple[str, str]]
) -> None:
    # Where a cell holds several kinds, the errors are shown.
    kinds = reduced(codes, np.max)
    grey = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
    mixed = 0.6 * grey
    for kind, (colour, _) in enumerate(legend, 1):
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        here = kinds == kind
        mixed[here] = 0.2 * grey[here] + 0.8 * rgb
    show(axes, mixed, codes.shape)
    axes.legend(
        handles=[Patch(facecolor=colour, label=label) for colour, label in legend],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(legend) if shown_ratio(codes.shape) > 0.7 else 1,
        frameon=False,
        fontsize=8,
        handlelength=1.0,
        columnspacing=0.9,
    )


def _agreement(decisions: NDArray[np.bool_] | None, labels: NDArray[np.bool_] | None) -> str:
    if decisions is None:
        assert labels is not None
        return f"{np.count_nonzero(labels)} pixels labelled"
    said = int(np.count_nonzero(decisions))
    if labels is None:
        return f"{said} pixels flagged ({100 * said / max(decisions.size, 1):.2g} %)"
    both, true = int(np.count_nonzero(decisions & labels)), int(np.count_nonzero(labels))
    if not true:
        return f"{said} flagged, none labelled"
    overlap = both / (said + true - both)
    return f"{both} of {true} found, {said - both} false\nIoU {overlap:.3f}"


def _places(height: int, width: int) -> Image:
    """A colour for every place of a frame: four corners, mixed between them."""
    corners = np.array(
        [[[0.20, 0.35, 0.85], [0.85, 0.15, 0.30]], [[0.05, 0.65, 0.45], [0.95, 0.75, 0.10]]]
    )
    y = np.linspace(0, 1, height)[:, None, None]
    x = np.linspace(0, 1, width)[None, :, None]
    top, bottom = ((1 - x) * row[0] + x * row[1] for row in corners)
    return np.asarray((1 - y) * top + y * bottom)


def _channel(channel: int, wavelengths: NDArray[Any] | None) -> str:
    return f"channel {channel}" if wavelengths is None else f"{wavelengths[channel]:g} nm"


def _tick(channel: int, wavelengths: NDArray[Any] | None) -> str:
    return str(channel) if wavelengths is None else f"{wavelengths[channel]:g}"
