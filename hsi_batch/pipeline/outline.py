"""A graph in words, for pictures: what every node is, and what runs along every connection."""

from __future__ import annotations

from dataclasses import dataclass

from hsi_batch.nodes import Node, PortRef
from hsi_batch.nodes.described import shape_text, type_name
from hsi_batch.nodes.node import ALWAYS, Stage
from hsi_batch.pipeline.graph import Graph

__all__ = ["Box", "Line", "Outline", "outline"]


@dataclass(frozen=True)
class Box:
    """A node in words.

    Attributes
    ----------
    name, cls : str
    facts : tuple of str
        Scope, whether it folds, from what it is fitted and whether it is.
    inputs, outputs : tuple of str
        Ports in use; with their shapes.
    layer : int
        Longest way from a node without inputs.
    """

    name: str
    cls: str
    facts: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: int


@dataclass(frozen=True)
class Line:
    """A connection in words."""

    source: PortRef
    target: PortRef
    shape: str
    dtype: str


@dataclass(frozen=True)
class Outline:
    """A graph in words, nodes in the order in which they run."""

    name: str
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def outline(graph: Graph) -> Outline:
    """Describe a graph; numbers of channels are shown where they are known."""
    boxes = []
    # Of a pipeline; a graph alone has none.
    grouped = getattr(getattr(graph, "groups", None), "nodes", ())
    layers: dict[str, int] = {}
    for name in graph.order():
        node = graph.nodes[name]
        fed = graph.sources_of(name)
        before = [layers[ref.node] + 1 for refs in fed.values() for ref in refs]
        layers[name] = max(before, default=0)
        used = dict.fromkeys(e.source.port for e in graph.edges if e.source.node == name)
        outputs = used or [p for p, s in node.OUTPUT_SPECS.items() if not s.optional]
        boxes.append(
            Box(
                name,
                type(node).__name__,
                _facts(node, grouped=name in grouped),
                tuple(p for p in node.INPUT_SPECS if p in fed),
                tuple(p for p in node.OUTPUT_SPECS if p in outputs),
                layers[name],
            )
        )
    lines = tuple(
        Line(
            edge.source,
            edge.target,
            _shape(graph, edge.source),
            type_name(graph.nodes[edge.source.node].OUTPUT_SPECS[edge.source.port].dtype),
        )
        for edge in graph.edges
    )
    return Outline(graph.name, tuple(boxes), lines)


def _facts(node: Node, *, grouped: bool) -> tuple[str, ...]:
    folds = "affine" if node.AFFINE else "quadratic" if node.QUADRATIC else ""
    request = node.request()
    fitted = ""
    if node.fits_each_frame and request is not None:
        fitted = f"{request.kind} of each frame"
    elif request is not None:
        state = "fitted" if node.fitted or grouped else "to be fitted"
        state += " per group" * grouped
        fitted = f"{state} from {request.kind}"
    stages = ""
    if node.stages != ALWAYS:
        stages = "/".join(stage.value for stage in Stage if stage in node.stages)
    halo = f" ({node.halo})" if node.halo else ""
    return tuple(part for part in (f"{node.scope}{halo}", folds, fitted, stages) if part)


def _shape(graph: Graph, ref: PortRef) -> str:
    """Shape of an output, with the channels that its readers know."""
    node = graph.nodes[ref.node]
    spec = node.OUTPUT_SPECS[ref.port]
    text = shape_text(spec)
    if len(spec.shape) != 4:
        return text
    for edge in graph.edges:
        axis = graph.nodes[edge.target.node].axes.get(edge.target.port)
        if edge.source == ref and axis is not None:
            return f"{text.rpartition(',')[0]}, {axis.size})"
    size = spec.shape[3]
    known = getattr(node, size, None) if isinstance(size, str) else None
    return text if known is None else f"{text.rpartition(',')[0]}, {known})"
