"""Graphs with frame-scope nodes: what must be known of a whole frame first, then its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.nodes import Node, PortRef
from hsi_batch.pipeline.evaluate import Evaluator, Lines, Validity
from hsi_batch.pipeline.fold import CUBE, fold, need_of
from hsi_batch.pipeline.gather import Need, finished, gather_block, gather_cube
from hsi_batch.pipeline.graph import Graph
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.program import (
    NodeStep,
    Program,
    compile_program,
    frame_nodes,
    inputs_of,
)
from hsi_batch.statistics import Affine, Bundle, Measure
from hsi_batch.statistics.leaves import leaf_count

__all__ = ["FrameSource", "assembled_channels", "frame_evaluator"]


@dataclass(frozen=True)
class FrameSource:
    """Pixels of one frame, read by blocks.

    Attributes
    ----------
    lines : callable
        ``(start, stop) -> (lines, x, C)`` as stored.
    valid : callable
        ``(start, stop) -> (lines, x)`` bool or None.
    shape : tuple of int
        ``(y, x, C)``.
    dtype : numpy.dtype
    blocks : tuple of (int, int)
        Line ranges to read at once; whole leaves.
    labels : callable, optional
        ``(start, stop) -> (lines, x)`` class numbers, -1 where unlabelled; None without labels.
    usable : callable, optional
        As ``valid``, of all pixels that hold values; a fit may choose fewer to count. By default
        the same.
    statistics : callable, optional
        Statistics of the whole frame that need no reading, by kind; returns None for others.
    """

    lines: Lines
    valid: Validity
    shape: tuple[int, int, int]
    dtype: Any
    blocks: tuple[tuple[int, int], ...]
    labels: Callable[[int, int], NDArray[np.int16] | None] = field(
        default=lambda _start, _stop: None
    )
    statistics: Callable[[str], Any] = field(default=lambda _kind: None)
    usable: Validity | None = None

    def evaluator(
        self, program: Program, given: Mapping[PortRef, NDArray[Any]] | None = None
    ) -> Evaluator:
        """Runs a program on this frame."""
        height, width, _ = self.shape
        return Evaluator(program, self.lines, height, width, given, self.usable or self.valid)


def frame_evaluator(
    graph: Graph,
    wanted: tuple[PortRef, ...],
    source: FrameSource,
    precision: Mapping[str, Precision] | None = None,
) -> Evaluator:
    """Run the frame-scope nodes of one frame and return the evaluator of its blocks.

    A frame-scope node that is fitted from a statistic gets the frame's own, reduced over its
    blocks (or taken from what is stored); any other gets its inputs assembled for the whole frame.
    Values of invalid pixels are NaN in assembled inputs, as they will be in what is stored.
    """
    substitutes: dict[str, Node] = {}
    given: dict[PortRef, NDArray[Any]] = {}
    for name in frame_nodes(graph, wanted):
        node = graph.nodes[name]
        if node.fits_each_frame:
            substitutes[name] = _fitted(graph, name, source, substitutes, given, precision)
        else:
            given.update(_assembled(graph, name, source, substitutes, given, precision))
    program = compile_program(
        graph, wanted, precision=precision, substitutes=substitutes, given=tuple(given)
    )
    return source.evaluator(program, given)


def _fitted(
    graph: Graph,
    name: str,
    source: FrameSource,
    substitutes: Mapping[str, Node],
    given: Mapping[PortRef, NDArray[Any]],
    precision: Mapping[str, Precision] | None,
) -> Node:
    node = graph.nodes[name]
    statistics = []
    for request in node.frame_requests():
        port = need_of(graph, name, request)
        folded = fold(graph, port, substitutes)
        root, derive = folded.root, folded.map
        if derive is not None and not _carries(derive, request.kind):
            root, derive = port, None
        need = Need(root, request.kind)
        statistic = _frame_statistic(graph, need, source, substitutes, given, precision)
        if derive is not None:
            statistic = getattr(derive, str(request.kind))(statistic)
        statistics.append(statistic)
    return node.frame_fit(*statistics)


def _carries(derive: Affine, kind: str | Measure) -> bool:
    """Whether a statistic of the output of a map follows from that of its input."""
    return kind == "moments" or (kind == "extrema" and derive.monomial is not None)


def _frame_statistic(
    graph: Graph,
    need: Need,
    source: FrameSource,
    substitutes: Mapping[str, Node],
    given: Mapping[PortRef, NDArray[Any]],
    precision: Mapping[str, Precision] | None,
) -> Any:
    height, width, _ = source.shape
    if need.root == CUBE:
        stored = source.statistics(need.kind) if isinstance(need.kind, str) else None
        if stored is not None:
            return stored
        bundle = Bundle()
        for start, stop in source.blocks:
            part = gather_cube(
                [need],
                source.lines(start, stop),
                source.valid(start, stop),
                start=start,
                height=height,
            )
            bundle = bundle.merge(part)
    else:
        program = compile_program(
            graph,
            (need.root,),
            precision=precision,
            substitutes=substitutes,
            given=tuple(given),
        )
        evaluator = source.evaluator(program, given)
        bundle = Bundle()
        for start, stop in source.blocks:
            part = gather_block(
                [need],
                evaluator,
                source.valid(start, stop),
                start=start,
                stop=stop,
                leaves=leaf_count(height, width),
            )
            bundle = bundle.merge(part)
    return finished(bundle)[str(need)]


def _assembled(
    graph: Graph,
    name: str,
    source: FrameSource,
    substitutes: Mapping[str, Node],
    given: Mapping[PortRef, NDArray[Any]],
    precision: Mapping[str, Precision] | None,
) -> dict[PortRef, NDArray[Any]]:
    node = graph.nodes[name]
    ports, constants = inputs_of(graph, name)
    refs = tuple(dict.fromkeys(ref for found in ports.values() for ref in found))
    program = compile_program(
        graph, refs, precision=precision, substitutes=substitutes, given=tuple(given)
    )
    evaluator = source.evaluator(program, given)
    whole: dict[PortRef, NDArray[Any]] = {}
    for start, stop in source.blocks:
        valid = source.valid(start, stop)
        for ref, value in evaluator.block(start, stop).items():
            if ref not in whole:
                whole[ref] = np.empty((*source.shape[:2], value.shape[-1]), dtype=value.dtype)
            whole[ref][start:stop] = value
            if valid is not None and value.dtype.kind == "f":
                whole[ref][start:stop][~valid] = np.nan
    node._need_fit()  # noqa: SLF001
    node.eval()
    outputs = tuple(
        PortRef(name, port) for port, spec in node.OUTPUT_SPECS.items() if spec.has_pixels
    )
    step = NodeStep(inputs=refs, outputs=outputs, node=node, ports=ports, constants=constants)
    return step.run(whole)


def assembled_channels(graph: Graph, wanted: tuple[PortRef, ...]) -> int:
    """Channels per pixel that assembling frames for frame-scope nodes holds in memory at most."""
    total = 0
    for name in frame_nodes(graph, wanted):
        node = graph.nodes[name]
        if not node.fits_each_frame:
            known = (*node.axes.values(), *node.channel_axis(node.axes).values())
            total += sum(axis.size for axis in known)
    return total
