"""Graphs with frame-scope nodes: what must be known of a whole frame first, then its blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.nodes import GridSubsample, Node, PortRef
from hsi_batch.nodes.grid import WHOLE
from hsi_batch.nodes.spatial import GridNode
from hsi_batch.pipeline.evaluate import Evaluator
from hsi_batch.pipeline.fold import CUBE, fold, need_of
from hsi_batch.pipeline.frame_source import FrameSource, ThinnedMap, thinned, turned
from hsi_batch.pipeline.gather import Need, finished, gather_block, gather_cube
from hsi_batch.pipeline.graph import Graph
from hsi_batch.pipeline.grids import common_grid, node_grids
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.program import (
    NodeStep,
    compile_program,
    frame_nodes,
    inputs_of,
)
from hsi_batch.statistics import Affine, Bundle, Measure
from hsi_batch.statistics.leaves import leaf_count

__all__ = ["FrameSource", "assembled_channels", "frame_evaluator"]


def frame_evaluator(
    graph: Graph,
    wanted: tuple[PortRef, ...],
    source: FrameSource,
    precision: Mapping[str, Precision] | None = None,
) -> Evaluator:
    """Run the frame-scope nodes of one frame and return the evaluator of its blocks.

    A frame-scope node that is fitted from a statistic gets the frame's own, reduced over its
    blocks (or taken from what is stored); any other gets its inputs assembled for the whole frame.
    Values of invalid pixels are NaN in assembled inputs, as they will be in what is stored. Ports
    behind a :class:`.GridNode` are values of another frame, with leaves of its own.
    """
    frame = _Frame(graph, source, precision)
    for name in frame_nodes(graph, wanted):
        frame.add(name)
    return frame.evaluator(wanted)


class _Frame:
    """What is known of a frame so far."""

    def __init__(
        self, graph: Graph, source: FrameSource, precision: Mapping[str, Precision] | None
    ) -> None:
        self.graph = graph
        self.precision = precision
        self.substitutes: dict[str, Node] = {}
        self.given: dict[PortRef, Any] = {}
        self._grids = node_grids(graph)
        self._sources = {WHOLE: source}
        #: Values of ports without pixels.
        self.tables: dict[PortRef, Any] = {}

    def source(self, refs: tuple[PortRef, ...]) -> FrameSource:
        """The frame on the grid of some ports."""
        grid = common_grid(self._grids, refs)
        if grid not in self._sources:
            found = self._sources[WHOLE]
            found = thinned(found, grid.step) if grid.step > 1 else found
            self._sources[grid] = turned(found, grid.turns) if grid.turns else found
        return self._sources[grid]

    def evaluator(self, refs: tuple[PortRef, ...]) -> Evaluator:
        """Of ports of one size."""
        program = compile_program(
            self.graph,
            refs,
            precision=self.precision,
            substitutes=self.substitutes,
            given=tuple(self.given),
            tables=self.tables,
        )
        return self.source(refs).evaluator(program, self.given)

    def add(self, name: str) -> None:
        """Find out what a frame-scope node gives."""
        node = self.graph.nodes[name]
        if isinstance(node, GridSubsample):
            (port,) = self.graph.sources_of(name)["cube"]
            self.given[PortRef(name, "cube")] = ThinnedMap(
                self.evaluator((port,)), port, node.stride
            )
        elif node.fits_each_frame:
            self.substitutes[name] = self._fitted(name)
        else:
            self.given.update(self._assembled(name))

    def _fitted(self, name: str) -> Node:
        node = self.graph.nodes[name]
        statistics = []
        for request in node.frame_requests():
            assert request.mask is None, "only fits of an archive are restricted"
            port = need_of(self.graph, name, request)
            folded = fold(self.graph, port, self.substitutes)
            root, derive = folded.root, folded.map
            if derive is not None and not _carries(derive, request.kind):
                root, derive = port, None
            statistic = self._statistic(Need(root, request.kind))
            if derive is not None:
                statistic = getattr(derive, str(request.kind))(statistic)
            statistics.append(statistic)
        return node.frame_fit(*statistics)

    def _statistic(self, need: Need) -> Any:
        source = self.source((need.root,))
        height, width, _ = source.shape
        bundle = Bundle()
        if need.root == CUBE:
            stored = source.statistics(need.kind) if isinstance(need.kind, str) else None
            if stored is not None:
                return stored
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
            evaluator = self.evaluator((need.root,))
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

    def _assembled(self, name: str) -> dict[PortRef, NDArray[Any]]:
        node = self.graph.nodes[name]
        ports, constants = inputs_of(self.graph, name, self.tables)
        refs = tuple(dict.fromkeys(ref for found in ports.values() for ref in found))
        source, evaluator = self.source(refs), self.evaluator(refs)
        whole: dict[PortRef, NDArray[Any]] = {}
        for start, stop in source.blocks if refs else ():
            valid = source.valid(start, stop)
            for ref, value in evaluator.block(start, stop).items():
                if ref not in whole:
                    whole[ref] = np.empty((*source.shape[:2], value.shape[-1]), dtype=value.dtype)
                whole[ref][start:stop] = value
                if valid is not None and value.dtype.kind == "f":
                    whole[ref][start:stop][~valid] = np.nan
        if isinstance(node, GridNode):
            constants |= self._sizes(node)
        node._need_fit()  # noqa: SLF001
        node.eval()
        outputs = tuple(
            PortRef(name, port) for port, spec in node.OUTPUT_SPECS.items() if spec.has_pixels
        )
        step = NodeStep(inputs=refs, outputs=outputs, node=node, ports=ports, constants=constants)
        with torch.no_grad():
            found = node(**step.tensors(whole))
        self.tables |= {ref: found[ref.port] for ref in self._asked(name) if ref.port in found}
        return step.arrays(found)

    def _asked(self, name: str) -> set[PortRef]:
        """Outputs of a node that inputs without pixels take."""
        return {
            ref
            for node in self.graph.nodes.values()
            for port, refs in self.graph.sources_of(node.name).items()
            if not node.INPUT_SPECS[port].has_pixels
            for ref in refs
            if ref.node == name
        }

    def _sizes(self, node: GridNode) -> dict[str, torch.Tensor]:
        """Tensors that have nothing but the size of what is connected."""
        fed = self.graph.sources_of(node.name)
        sizes = {port: self.source(tuple(fed[port])).shape for port in node.SIZE_INPUTS}
        return {p: torch.zeros(1).expand(1, *shape[:2], 1) for p, shape in sizes.items()}


def _carries(derive: Affine, kind: str | Measure) -> bool:
    """Whether a statistic of the output of a map follows from that of its input."""
    return kind == "moments" or (kind == "extrema" and derive.monomial is not None)


def assembled_channels(graph: Graph, wanted: tuple[PortRef, ...]) -> int:
    """Channels per pixel that assembling frames for frame-scope nodes holds in memory at most."""
    total = 0.0
    grids = node_grids(graph)
    for name in frame_nodes(graph, wanted):
        node = graph.nodes[name]
        if node.fits_each_frame or isinstance(node, GridSubsample):
            continue
        left = node.SIZE_INPUTS if isinstance(node, GridNode) else frozenset()
        fed = graph.sources_of(name)
        for port, axis in node.axes.items():
            if port not in left:
                total += axis.size / grids.get(fed[port][0].node, WHOLE).step ** 2
        outputs = sum(axis.size for axis in node.channel_axis(node.axes).values())
        total += outputs / grids.get(name, WHOLE).step ** 2
    return math.ceil(total)
