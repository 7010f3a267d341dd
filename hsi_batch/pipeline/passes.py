"""One reading of a frame that serves every node that waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hsi_batch.nodes import CU3SDataNode, PortRef
from hsi_batch.nodes.grid import WHOLE, Grid
from hsi_batch.pipeline.cache import Packed, evaluator, unpack
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.frame_source import FrameSource
from hsi_batch.pipeline.gather import Need, gather_block, gather_cube
from hsi_batch.pipeline.graph import Graph
from hsi_batch.pipeline.grids import node_grids
from hsi_batch.pipeline.program import frame_nodes
from hsi_batch.statistics import Bundle, Measure
from hsi_batch.statistics.leaves import leaf_count
from hsi_batch.statistics.tree import Path

__all__ = ["gather_frame", "marks_of", "ports_of", "whole_frames"]


def ports_of(graph: Graph, needs: Iterable[Need]) -> tuple[PortRef, ...]:
    """Distinct ports, other than the stored cube, that a pass computes."""
    ports = (port for need in needs for port in need.ports if port != CUBE)
    return tuple(dict.fromkeys((*ports, *marks_of(graph))))


def marks_of(graph: Graph) -> tuple[PortRef, ...]:
    """The ports that mark the pixels which a fit may count."""
    return tuple(
        PortRef(name, node.MARKS_VALID)
        for name, node in graph.nodes.items()
        if node.MARKS_VALID is not None
    )


def whole_frames(graph: Graph, needs: Iterable[Need]) -> bool:
    """Whether a pass must hold whole frames together, because of frame-scope nodes."""
    return bool(frame_nodes(graph, ports_of(graph, needs)))


def gather_frame(
    packed: Packed,
    needs: Sequence[Need],
    source: FrameSource,
    ranges: Iterable[tuple[int, int]],
    prefix: Path = (),
) -> Bundle:
    """Take statistics of some lines of a frame, reading each line once.

    Parameters
    ----------
    packed : Packed
        The pipeline as far as it is fitted.
    needs : sequence of Need
    source : FrameSource
        Keeps the lines it read last, so that asking twice reads once.
    ranges : iterable of (int, int)
        Line ranges.
    prefix : path
        Place of the frame in the tree over frames.
    """
    height, width, _ = source.shape
    cube_needs = [need for need in needs if need.ports == (CUBE,)]
    port_needs = [need for need in needs if need.ports != (CUBE,)]
    labelled = any(isinstance(n.kind, Measure) and n.kind.labelled for n in needs)
    found = Bundle()
    marks = marks_of(unpack(packed))
    marking = evaluator(packed, marks, source) if marks else None
    grids = node_grids(unpack(packed))
    elsewhere: dict[Grid, _Elsewhere] = {}
    for need in [n for n in port_needs if grids.get(n.root.node, WHOLE) != WHOLE]:
        grid = grids[need.root.node]
        elsewhere.setdefault(grid, _Elsewhere(grid, height, width)).needs.append(need)
        port_needs.remove(need)
    running = evaluator(packed, _wanted(port_needs), source) if port_needs else None
    for start, stop in ranges:
        valid = source.valid(start, stop)
        if marking is not None:
            for flags in marking.block(start, stop).values():
                valid = flags[..., 0] if valid is None else valid & flags[..., 0]
        labels = source.labels(start, stop) if labelled else None
        classes = None if labels is None else _classes(packed, labels)
        if cube_needs:
            part = gather_cube(
                cube_needs,
                source.lines(start, stop),
                valid,
                classes,
                start=start,
                height=height,
                prefix=prefix,
            )
            found = found.merge(part)
        if running is not None:
            part = gather_block(
                port_needs,
                running,
                valid,
                classes,
                start=start,
                stop=stop,
                leaves=leaf_count(height, width),
                prefix=prefix,
            )
            found = found.merge(part)
        for other in elsewhere.values():
            other.count(start, stop, valid, classes)
    for other in elsewhere.values():
        found = found.merge(other.gather(packed, source, prefix))
    return found


def _wanted(needs: Iterable[Need]) -> tuple[PortRef, ...]:
    return tuple(dict.fromkeys(port for need in needs for port in need.ports))


class _Elsewhere:
    """Needs of ports on a grid that is not that of the cube, and the pixels that count."""

    def __init__(self, grid: Grid, height: int, width: int) -> None:
        self.grid = grid
        self.needs: list[Need] = []
        self.shape = grid.shape(height, width)
        self._valid = np.zeros(grid._replace(turns=0).shape(height, width), dtype=bool)
        self._classes: NDArray[np.int8] | None = None

    def count(
        self,
        start: int,
        stop: int,
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,
    ) -> None:
        """Note which pixels of the lines ``start:stop`` of the cube count."""
        step = self.grid.step
        rows = slice(-(-start // step), -(-stop // step))
        thin = (slice(-start % step, None, step), slice(None, None, step))
        self._valid[rows] = True if valid is None else valid[thin]
        if classes is not None:
            if self._classes is None:
                self._classes = np.full(self._valid.shape, -1, dtype=np.int8)
            self._classes[rows] = classes[thin]

    def gather(self, packed: Packed, source: FrameSource, prefix: Path) -> Bundle:
        """Their statistics."""
        return gather_block(
            self.needs,
            evaluator(packed, _wanted(self.needs), source),
            self.grid.turn(self._valid),
            None if self._classes is None else self.grid.turn(self._classes),
            start=0,
            stop=self.shape[0],
            leaves=leaf_count(*self.shape),
            prefix=prefix,
        )


def _classes(packed: Packed, labels: NDArray[np.int16]) -> NDArray[np.int8]:
    source = unpack(packed).source
    assert isinstance(source, CU3SDataNode)
    return source.classes(labels)
