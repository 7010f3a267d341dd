"""A picture of a graph, as SVG: nodes in layers from left to right, ports on their sides."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hsi_batch.nodes import PortRef
from hsi_batch.pipeline.outline import Box, Outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["picture"]

# Sizes in units of one line of text; a letter of the font is about 0.52 wide.
_LETTER, _PAD, _GAP, _BETWEEN = 0.52, 0.8, 1.4, 2.0
_INCHES = 0.16
_POINTS = 8.0
_COLOURS = {
    "affine": "#dceefb",
    "quadratic": "#fde7d6",
    "frame": "#f6e3f3",
    "window": "#e9f3d8",
}

Place = tuple[float, float]


def picture(graph: Outline) -> str:
    """Draw a graph; returns the SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    sizes = {box.name: _size(box) for box in graph.boxes}
    places, width, bottom = _layout(graph, sizes)
    layers = {box.name: box.layer for box in graph.boxes}
    far = [e for e in graph.lines if layers[e.target.node] - layers[e.source.node] > 1]
    lanes = {line: bottom + (i + 1) * _BETWEEN / 2 for i, line in enumerate(far)}
    height = max([bottom, *lanes.values()]) + 1.0
    # Text stays text; the same graph gives the same file.
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "hsi_batch",
        "font.family": "monospace",
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width * _INCHES, height * _INCHES))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.text(1, 1.2, graph.name, fontsize=_POINTS + 3, weight="bold", va="center")
        ports: dict[tuple[str, PortRef], Place] = {}
        for box in graph.boxes:
            ports.update(_draw(axes, box, places[box.name], sizes[box.name]))
        labels = {ports["out", line.source]: line.shape for line in graph.lines}
        for (x, y), shape in labels.items():
            axes.text(x + 0.3, y - 0.45, shape, fontsize=_POINTS * 0.8, color="#555555")
        for line in graph.lines:
            ends = ports["out", line.source], ports["in", line.target]
            _join(axes, *ends, _label(line.shape), lanes.get(line))
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Title": graph.name})
    return content.getvalue()


def _label(shape: str) -> float:
    """Width of the words on a connection."""
    return len(shape) * _LETTER * 0.85 + 0.3


def _size(box: Box) -> Place:
    rows = [box.name, box.cls, *box.facts]
    rows += [f"{a}    {b}" for a, b in _pairs(box)]
    width = max(len(row) for row in rows) * _LETTER + 2 * _PAD
    return width, len(rows) + 0.8


def _pairs(box: Box) -> list[tuple[str, str]]:
    count = max(len(box.inputs), len(box.outputs))
    inputs = [*box.inputs, *[""] * (count - len(box.inputs))]
    outputs = [*box.outputs, *[""] * (count - len(box.outputs))]
    return list(zip(inputs, outputs, strict=True))


def _layout(graph: Outline, sizes: Mapping[str, Place]) -> tuple[dict[str, Place], float, float]:
    """Upper left corners of the boxes, the width of the whole, and the lowest line of a box.

    Boxes of a layer stand above each other, in the order of the mean height of what feeds them.
    """
    places: dict[str, Place] = {}
    feeders: dict[str, list[str]] = {}
    for line in graph.lines:
        feeders.setdefault(line.target.node, []).append(line.source.node)
    left, bottom = 1.0, 3.0
    for layer in range(max((box.layer for box in graph.boxes), default=0) + 1):
        members = [box for box in graph.boxes if box.layer == layer]

        def mean(box: Box) -> float:
            above = [places[name][1] for name in feeders.get(box.name, ()) if name in places]
            return sum(above) / len(above) if above else 0.0

        top = 3.0
        for box in sorted(members, key=mean):
            top = max(top, mean(box))
            places[box.name] = (left, top)
            top += sizes[box.name][1] + _BETWEEN
            bottom = max(bottom, top - _BETWEEN)
        here = {box.name for box in members}
        labels = [_label(line.shape) for line in graph.lines if line.source.node in here]
        left += max(sizes[box.name][0] for box in members)
        left += max(labels, default=0.0) + 2 * _GAP
    return places, left, bottom


def _draw(axes: Axes, box: Box, place: Place, size: Place) -> dict[tuple[str, PortRef], Place]:
    """Draw a node; returns where its ports are."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = place, size
    words = " ".join(box.facts)
    colour = next((c for fact, c in _COLOURS.items() if fact in words), "#f4f4f4")
    style = "round,pad=0,rounding_size=0.4"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, fc=colour, ec="#555555", lw=0.8)
    )
    row = y + 0.9
    text: dict[str, Any] = {"fontsize": _POINTS, "va": "center"}
    axes.text(x + _PAD, row, box.name, **text, weight="bold")
    for words in (box.cls, *box.facts):
        row += 1
        axes.text(x + _PAD, row, words, **text, color="#333333" if words == box.cls else "#777777")
    found: dict[tuple[str, PortRef], Place] = {}
    for given, result in _pairs(box):
        row += 1
        if given:
            axes.text(x + 0.4, row, given, **text, color="#1f5f8b")
            found["in", PortRef(box.name, given)] = (x, row)
        if result:
            axes.text(x + width - 0.4, row, result, **text, color="#1f5f8b", ha="right")
            found["out", PortRef(box.name, result)] = (x + width, row)
    return found


def _join(axes: Axes, start: Place, end: Place, straight: float, lane: float | None) -> None:
    """Draw a connection: straight below its words, then to its end.

    One that passes nodes by runs below all of them, on a line of its own.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    leave = start[0] + straight
    bend = max((end[0] - leave) / 2, 0.5) if lane is None else _GAP / 2
    points = [start, (leave, start[1]), (leave + bend, start[1])]
    codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    if lane is not None:
        down, up = leave + _GAP, end[0] - _GAP
        points += [(down - _GAP / 2, lane), (down, lane), (up, lane), (up + _GAP / 2, lane)]
        codes += [Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    points += [(end[0] - bend, end[1]), end]
    axes.add_patch(PathPatch(Path(points, codes), fc="none", ec="#8899aa", lw=0.9, zorder=0))
    axes.plot(*end, marker=">", markersize=3.5, color="#667788")
