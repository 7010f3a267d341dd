"""A picture of a graph, as SVG: nodes in layers from left to right, ports on their sides."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hsi_batch.nodes import PortRef
from hsi_batch.pipeline.outline import Box, Line, Outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["inline_picture", "picture"]

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


#: What stands outside of the nodes, in a file; and what marks it where the page gives the colour.
_TITLE, _SHAPES, _OF_PAGE = "#000000", "#555555", "#010203"
#: Units that a row of nodes may take on a page, and the size of the picture there.
_PAGE, _SCALE = 60.0, 0.9


def inline_picture(graph: Outline) -> str:
    """Draw a graph as an element of a page: in rows, without background.

    Words outside of the nodes have the page's colour.
    """
    short = (
        replace(line, shape=line.shape.replace("batch, y, x", "B,y,x")) for line in graph.lines
    )
    text = _drawn(replace(graph, lines=tuple(short)), _PAGE, _OF_PAGE, _OF_PAGE)
    text = text[text.index("<svg") :].replace(_OF_PAGE, "currentColor")

    def smaller(found: re.Match[str]) -> str:
        return f'{found[1]}="{float(found[2]) * _SCALE:.1f}pt"'

    return re.sub(r'(width|height)="([\d.]+)pt"', smaller, text, count=2)


def picture(graph: Outline) -> str:
    """Draw a graph; returns the SVG."""
    return _drawn(graph, math.inf, _TITLE, _SHAPES)


def _drawn(graph: Outline, page: float, title: str, shapes: str) -> str:
    """Draw a graph in rows that are no wider than a page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    sizes = {box.name: _size(box) for box in graph.boxes}
    laid = _layout(graph, sizes, page)
    # Text stays text; the same graph gives the same file.
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "hsi_batch",
        "font.family": "monospace",
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(laid.width * _INCHES, laid.height * _INCHES))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, laid.width), ylim=(laid.height, 0))
        axes.axis("off")
        big: Any = {"fontsize": _POINTS + 3, "weight": "bold", "va": "center"}
        axes.text(1, 1.2, graph.name, color=title, **big)
        ports: dict[tuple[str, PortRef], Place] = {}
        for box in graph.boxes:
            ports.update(_draw(axes, box, laid.places[box.name], sizes[box.name]))
        labels = {ports["out", line.source]: line.shape for line in graph.lines}
        for (x, y), shape in labels.items():
            axes.text(x + 0.3, y - 0.45, shape, fontsize=_POINTS * 0.8, color=shapes)
        for line in graph.lines:
            start, end = ports["out", line.source], ports["in", line.target]
            if line in laid.turns:
                _turn(axes, start, end, _label(line.shape), laid.turns[line])
            else:
                _join(axes, start, end, _label(line.shape), laid.lanes.get(line))
        content = io.StringIO()
        figure.savefig(
            content,
            format="svg",
            transparent=title == _OF_PAGE,
            metadata={"Date": None, "Title": graph.name},
        )
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


class _Laid(NamedTuple):
    """Where everything is: upper left corners of boxes, and the ways of connections.

    ``lanes`` are the heights of those that pass nodes by in their row; ``turns`` of those that
    lead to another row: the lanes below their row and above the other, and the margin between.
    """

    places: dict[str, Place]
    lanes: dict[Line, float]
    turns: dict[Line, tuple[float, float, float]]
    width: float
    height: float


def _layout(graph: Outline, sizes: Mapping[str, Place], page: float) -> _Laid:
    """Boxes of a layer stand above each other, in the order of the mean height of their feeders."""
    layers: dict[int, list[Box]] = {}
    for box in graph.boxes:
        layers.setdefault(box.layer, []).append(box)
    labels = {
        layer: max(
            (_label(e.shape) for e in graph.lines if e.source.node in {b.name for b in members}),
            default=0.0,
        )
        for layer, members in layers.items()
    }
    wide = {layer: max(sizes[b.name][0] for b in members) for layer, members in layers.items()}
    rows, left = {0: 0}, 1.0
    for layer in range(max(layers, default=0) + 1):
        turned = layer > 0 and left + wide[layer] + labels[layer] + _GAP > page
        rows[layer] = rows.get(layer - 1, 0) + turned
        left = 1.0 if turned else left
        left += wide.get(layer, 0.0) + labels.get(layer, 0.0) + 2 * _GAP
    row_of = {box.name: rows[box.layer] for box in graph.boxes}
    layer_of = {box.name: box.layer for box in graph.boxes}
    across = [e for e in graph.lines if row_of[e.source.node] != row_of[e.target.node]]
    margin = 1.0 + _BETWEEN / 2 * len(across)
    places: dict[str, Place] = {}
    feeders: dict[str, list[str]] = {}
    for line in graph.lines:
        feeders.setdefault(line.target.node, []).append(line.source.node)
    lanes: dict[Line, float] = {}
    below: dict[tuple[int, Line], float] = {}
    top, width = 3.0, 0.0
    for row in range(max(rows.values()) + 1):
        left, bottom = margin, top

        def mean(box: Box, row: int = row, top: float = top) -> float:
            names = feeders.get(box.name, ())
            above = [places[n][1] for n in names if n in places and row_of[n] == row]
            return sum(above) / len(above) if above else top

        for layer in sorted(n for n in layers if rows[n] == row):
            at = top
            for box in sorted(layers[layer], key=mean):
                at = max(at, mean(box))
                places[box.name] = (left, at)
                at += sizes[box.name][1] + _BETWEEN
                bottom = max(bottom, at - _BETWEEN)
            left += wide[layer] + labels[layer] + 2 * _GAP
        width = max(width, left)
        for line in graph.lines:
            first, last = row_of[line.source.node], row_of[line.target.node]
            far = layer_of[line.target.node] - layer_of[line.source.node] > 1
            if (first == last == row and far) or (first != last and row in (first, last - 1)):
                bottom += _BETWEEN / 2
                if first == last:
                    lanes[line] = bottom
                else:
                    below[row, line] = bottom
        top = bottom + _BETWEEN
    turns = {
        line: (
            below[row_of[line.source.node], line],
            below[row_of[line.target.node] - 1, line],
            0.5 + _BETWEEN / 2 * number,
        )
        for number, line in enumerate(across)
    }
    return _Laid(places, lanes, turns, width, top - _BETWEEN + 1.0)


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


def _turn(
    axes: Axes, start: Place, end: Place, straight: float, way: tuple[float, float, float]
) -> None:
    """Draw a connection to another row: below its own row to the margin, and above the other."""
    below, above, margin = way
    out, back = start[0] + straight + _GAP / 2, end[0] - _GAP / 2
    points = [start, (out, start[1]), (out, below)]
    points += [] if below == above else [(margin, below), (margin, above)]
    points += [(back, above), (back, end[1]), end]
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color="#8899aa", lw=0.9, zorder=0, solid_joinstyle="round")
    axes.plot(*end, marker=">", markersize=3.5, color="#667788")
