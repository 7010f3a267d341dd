"""Which ports hold every pixel of the cube, where it lies in the cube, and which do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hsi_batch.errors import PipelineError, Problem
from hsi_batch.nodes.grid import WHOLE, Grid
from hsi_batch.nodes.ports import PortRef
from hsi_batch.nodes.spatial import GridNode

if TYPE_CHECKING:
    from hsi_batch.pipeline.graph import Graph

__all__ = ["common_grid", "grid_problems", "node_grids"]


def node_grids(graph: Graph) -> dict[str, Grid]:
    """Grid of the outputs of each node; nodes that are not named have that of the cube."""
    return {name: grid for name, grid, _ in _walk(graph)}


def common_grid(grids: Mapping[str, Grid], refs: tuple[PortRef, ...]) -> Grid:
    """The grid of ports that are taken together.

    Raises
    ------
    hsi_batch.errors.PipelineError
        They have different ones.
    """
    found = {ref: grids.get(ref.node, WHOLE) for ref in refs}
    if len(set(found.values())) > 1:
        said, hint = _different("these", found)
        raise PipelineError(said, hint=hint)
    return next(iter(found.values()), WHOLE)


def grid_problems(graph: Graph) -> Iterator[Problem]:
    """Nodes whose inputs, or whose marks of valid pixels, have the wrong size or lie otherwise."""
    for name, grid, inputs in _walk(graph):
        node = graph.nodes[name]
        if isinstance(node, GridNode):
            ports = graph.sources_of(name)
            fed = {port: inputs[refs[0]] for port, refs in ports.items() if refs[0] in inputs}
            wrong = node.grid_problem(fed)
            if wrong:
                yield Problem(
                    f"{name} ({type(node).__name__}): {wrong}",
                    hint="Connect it where its inputs lie as it needs them.",
                )
        elif len(set(inputs.values())) > 1:
            yield Problem(" ".join(_different(f"the inputs of {name}", inputs)))
        if node.MARKS_VALID is not None and grid != WHOLE:
            yield Problem(
                f"{name} marks the pixels that are fitted on, but it sees only {grid};"
                " connect it to the data node."
            )


def _walk(graph: Graph) -> Iterator[tuple[str, Grid, dict[PortRef, Grid]]]:
    """Nodes in order, their grid, and the grids of what feeds them."""
    if not any(isinstance(node, GridNode) for node in graph.nodes.values()):
        return
    grids: dict[str, Grid] = {}
    for name in graph.order():
        node = graph.nodes[name]
        fed = {
            port: refs
            for port, refs in graph.sources_of(name).items()
            if node.INPUT_SPECS[port].has_pixels
        }
        inputs = {ref: grids[ref.node] for refs in fed.values() for ref in refs}
        if isinstance(node, GridNode):
            grids[name] = node.output_grid({port: grids[fed[port][0].node] for port in fed})
        else:
            grids[name] = max(inputs.values(), default=WHOLE)
        yield name, grids[name], inputs


def _different(what: str, found: Mapping[PortRef, Grid]) -> tuple[str, str]:
    """What is wrong, and what to do."""
    parts = ", ".join(f"{ref} ({grid})" for ref, grid in found.items())
    if len({grid.step for grid in found.values()}) > 1:
        hint = (
            "Bring maps to the size of the cube with ScoreUpsample, or thin all of them out alike."
        )
        return f"{what} are maps of different size: {parts}.", hint
    hint = "Turn all of them with the same SpatialRotateNode, or turn them back with another."
    return f"{what} are maps that lie differently: {parts}.", hint
