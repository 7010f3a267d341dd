"""Walking back from a port through affine nodes to the last port that is not affine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hsi_batch.nodes import CU3SDataNode, Node, PortRef, Request, Scope
from hsi_batch.pipeline.graph import Graph
from hsi_batch.statistics import Affine, Measure
from hsi_batch.statistics.columns import COLUMNS

__all__ = ["CUBE", "Folded", "fold", "need_of", "node_at", "root_of"]

#: The cube as it is stored, before any node.
CUBE = PortRef("", "cube")


class Folded(NamedTuple):
    """A port as an affine map of another one.

    Attributes
    ----------
    root : PortRef
        The port that is mapped; :data:`CUBE` for the stored cube.
    map : Affine, optional
        None for the identity.
    via : tuple of str
        Nodes that were folded, from the root on.
    """

    root: PortRef
    map: Affine | None
    via: tuple[str, ...] = ()


def node_at(graph: Graph, name: str, substitutes: Mapping[str, Node]) -> Node:
    """The node of that name, or what stands in for it on the frame at hand."""
    return substitutes.get(name) or graph.nodes[name]


def as_stored(node: Node) -> bool:
    """Whether a data node hands on all channels as they are stored."""
    return not isinstance(node, CU3SDataNode) or node.view.plain


def _steps(graph: Graph, node: Node, port: PortRef) -> PortRef | None:
    """The input a port is an affine map of, if its node is affine; CUBE for the data node."""
    if node.AFFINE is None or node.AFFINE[1] != port.port or node.scope is not Scope.PIXEL:
        return None
    if node.is_source:
        return CUBE
    return graph.writer(PortRef(port.node, node.AFFINE[0]))


def fold(
    graph: Graph,
    port: PortRef,
    substitutes: Mapping[str, Node] | None = None,
    stop: PortRef = CUBE,
) -> Folded:
    """Express a port as an affine map of the last port that is not affine; nodes must be fitted.

    It goes back no further than ``stop``.
    """
    stand_ins = substitutes or {}
    if port in (CUBE, stop):
        return Folded(port, None)
    node = node_at(graph, port.node, stand_ins)
    before = _steps(graph, node, port)
    if before is None:
        return Folded(port, None)
    if node.is_source:
        return Folded(CUBE, None if as_stored(node) else node.affine(), (port.node,))
    inner = fold(graph, before, stand_ins, stop)
    outer = node.affine()
    composed = outer if inner.map is None else outer.after(inner.map)
    return Folded(inner.root, composed, (*inner.via, port.node))


def root_of(
    graph: Graph, port: PortRef, kind: str | Measure = "moments"
) -> tuple[PortRef, tuple[str, ...]]:
    """Where a statistic of a port can be taken, and the nodes it is carried through.

    Unlike :func:`fold` this needs no fitted node. Extrema and moments of columns pass only nodes
    that keep channels apart, histograms and measures pass none but a data node that hands on what
    is stored.
    """
    node = graph.nodes[port.node]
    before = _steps(graph, node, port)
    if before is None:
        return port, ()
    if node.is_source:
        taken = kind in ("moments", "extrema", COLUMNS) or as_stored(node)
        return (CUBE, (port.node,)) if taken else (port, ())
    passes = kind == "moments" or (kind in ("extrema", COLUMNS) and not node.mixes_channels)
    if not passes:
        return port, ()
    root, via = root_of(graph, before, kind)
    return root, (*via, port.node)


def need_of(graph: Graph, name: str, request: Request) -> PortRef:
    """The output that feeds the input of a request."""
    writer = graph.writer(PortRef(name, request.port))
    assert writer is not None, "verified graphs have all inputs connected"
    return writer
