"""Which ports hold every pixel of the cube, and which only some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hsi_batch.errors import PipelineError, Problem
from hsi_batch.nodes.ports import PortRef
from hsi_batch.nodes.spatial import GridNode

if TYPE_CHECKING:
    from hsi_batch.pipeline.graph import Graph

__all__ = ["common_step", "grid_problems", "node_steps"]


def node_steps(graph: Graph) -> dict[str, int]:
    """Step of the outputs of each node, in pixels of the cube; nodes that are not named have 1."""
    return {name: step for name, step, _ in _walk(graph)}


def common_step(steps: Mapping[str, int], refs: tuple[PortRef, ...]) -> int:
    """The step of ports that are taken together.

    Raises
    ------
    hsi_batch.errors.PipelineError
        They have different ones.
    """
    found = {ref: steps.get(ref.node, 1) for ref in refs}
    if len(set(found.values())) > 1:
        raise PipelineError(_different("these", found), hint=_HINT)
    return next(iter(found.values()), 1)


def grid_problems(graph: Graph) -> Iterator[Problem]:
    """Nodes whose inputs, or whose marks of valid pixels, have the wrong size."""
    for name, step, inputs in _walk(graph):
        node = graph.nodes[name]
        if not isinstance(node, GridNode) and len(set(inputs.values())) > 1:
            yield Problem(f"{_different(f'the inputs of {name}', inputs)} {_HINT}")
        if node.MARKS_VALID is not None and step > 1:
            yield Problem(
                f"{name} marks the pixels that are fitted on, but it sees only {_every(step)};"
                " connect it to the data node."
            )


_HINT = "Bring maps to the size of the cube with ScoreUpsample, or thin all of them out alike."


def _walk(graph: Graph) -> Iterator[tuple[str, int, dict[PortRef, int]]]:
    """Nodes in order, their step, and the steps of what feeds them."""
    if not any(isinstance(node, GridNode) for node in graph.nodes.values()):
        return
    steps: dict[str, int] = {}
    for name in graph.order():
        node = graph.nodes[name]
        fed = {
            port: refs
            for port, refs in graph.sources_of(name).items()
            if node.INPUT_SPECS[port].has_pixels
        }
        inputs = {ref: steps[ref.node] for refs in fed.values() for ref in refs}
        if isinstance(node, GridNode):
            steps[name] = node.output_step({port: steps[fed[port][0].node] for port in fed})
        else:
            steps[name] = max(inputs.values(), default=1)
        yield name, steps[name], inputs


def _different(what: str, found: Mapping[PortRef, int]) -> str:
    parts = ", ".join(f"{ref} ({_every(step)})" for ref, step in found.items())
    return f"{what} are maps of different size: {parts}."


def _every(step: int) -> str:
    return "every pixel" if step == 1 else f"one pixel in {step} x {step}"
