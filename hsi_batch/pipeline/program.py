"""What scoring runs: the graph pruned to what is asked for, folded, one step per port."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import Node, PortRef, Scope
from hsi_batch.nodes.gaussian import single_thread
from hsi_batch.nodes.spatial import GridNode
from hsi_batch.pipeline.fold import CUBE, fold, node_at
from hsi_batch.pipeline.graph import Graph
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.quadratic import QuadraticMap
from hsi_batch.statistics import Affine

__all__ = ["NodeStep", "Program", "Step", "compile_program", "frame_nodes", "inputs_of"]

#: Pixels of a leaf that are mapped at once.
_GROUP = 1024


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """Computes the values of one or more ports on a group of lines."""

    inputs: tuple[PortRef, ...]
    outputs: tuple[PortRef, ...]
    halo: int = 0
    #: Pixels that are invalid are given as NaN.
    masked: bool = False

    @abstractmethod
    def run(self, values: Mapping[PortRef, NDArray[Any]]) -> dict[PortRef, NDArray[Any]]:
        """From ``(lines, x, channel)`` arrays to such arrays."""

    def run_within(
        self, values: Mapping[PortRef, NDArray[Any]], start: int, stop: int
    ) -> dict[PortRef, NDArray[Any]]:
        """The lines ``start:stop`` of what :meth:`run` gives."""
        return {ref: value[start:stop] for ref, value in self.run(values).items()}


def _groups(lines: NDArray[Any], out: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pixels of a leaf, 1024 at once: scratch memory stays small, and within the cache."""
    flat, flat_out = lines.reshape(-1, lines.shape[-1]), out.reshape(-1, out.shape[-1])
    for start in range(0, len(flat), _GROUP):
        yield flat[start : start + _GROUP], flat_out[start : start + _GROUP]


@dataclass(frozen=True, kw_only=True)
class AffineStep(Step):
    """A port that is an affine map of its root, as float32."""

    map: Affine | None

    def run(self, values: Mapping[PortRef, NDArray[Any]]) -> dict[PortRef, NDArray[Any]]:
        """Map in float64, round once."""
        lines = values[self.inputs[0]]
        if self.map is None:
            return {self.outputs[0]: lines.astype(np.float32)}
        mapped = np.empty((*lines.shape[:2], self.map.outputs), dtype=np.float32)
        for group, out in _groups(lines, mapped):
            out[...] = self.map(group)
        return {self.outputs[0]: mapped}


@dataclass(frozen=True, kw_only=True)
class QuadraticStep(Step):
    """A quadratic score of its root, as float32."""

    map: QuadraticMap

    def run(self, values: Mapping[PortRef, NDArray[Any]]) -> dict[PortRef, NDArray[Any]]:
        """Score every pixel."""
        lines = values[self.inputs[0]]
        scores = self.map.scores(lines.reshape(-1, lines.shape[-1])).astype(np.float32)
        return {self.outputs[0]: scores.reshape(*lines.shape[:2], 1)}


@dataclass(frozen=True, kw_only=True)
class NodeStep(Step):
    """A node that is run as it is."""

    node: Node
    ports: Mapping[str, tuple[PortRef, ...]]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def run(self, values: Mapping[PortRef, NDArray[Any]]) -> dict[PortRef, NDArray[Any]]:
        """Run the module on tensors ``(1, lines, x, channel)``, without gradients."""
        with torch.no_grad():
            return self.arrays(self.node(**self.tensors(values)))

    def run_within(
        self, values: Mapping[PortRef, NDArray[Any]], start: int, stop: int
    ) -> dict[PortRef, NDArray[Any]]:
        """As :meth:`run`, for some lines."""
        with torch.no_grad():
            return self.arrays(self.node.forward_lines(start, stop, **self.tensors(values)))

    def tensors(self, values: Mapping[PortRef, NDArray[Any]]) -> dict[str, Any]:
        """The arguments of the node: tensors with a batch axis, under the names of its inputs."""
        given: dict[str, Any] = dict(self.constants)
        for port, refs in self.ports.items():
            spec = self.node.INPUT_SPECS[port]
            tensors = [torch.from_numpy(np.ascontiguousarray(values[ref]))[None] for ref in refs]
            if len(spec.shape) == 3:
                tensors = [tensor[..., 0] for tensor in tensors]
            given[port] = tensors if spec.variadic else tensors[0]
        return given

    def arrays(self, result: Mapping[str, Any]) -> dict[PortRef, NDArray[Any]]:
        """What the node gave, without the batch axis."""
        found = {ref: result[ref.port][0].numpy() for ref in self.outputs if ref.port in result}
        # Class numbers have no channel axis of their own.
        return {ref: v if v.ndim == 3 else v[..., None] for ref, v in found.items()}


@dataclass(frozen=True)
class Program:
    """Steps in order, and what they give.

    Attributes
    ----------
    steps : tuple of Step
        Each after those it depends on.
    wanted : tuple of PortRef
        The outputs that were asked for.
    given : tuple of PortRef
        Ports whose values come from outside (frame-scope nodes that ran before).
    """

    steps: tuple[Step, ...]
    wanted: tuple[PortRef, ...]
    given: tuple[PortRef, ...] = ()

    @cached_property
    def halo(self) -> int:
        """Lines around a block that its outputs depend on."""
        return self.reach(1)

    def reach(self, lines_per_leaf: int) -> int:
        """Lines around a block of whole leaves that are read, also whole leaves.

        Every step with a halo looks at whole leaves of its input, so steps in a row reach further
        than :attr:`halo` rounded up.
        """
        reach: dict[PortRef, int] = {}
        for step in self.steps:
            own = -(-step.halo // lines_per_leaf) * lines_per_leaf
            need = own + max((reach.get(ref, 0) for ref in step.inputs), default=0)
            reach.update(dict.fromkeys(step.outputs, need))
        return max((reach.get(ref, 0) for ref in self.wanted), default=0)

    @property
    def by_column(self) -> bool:
        """Whether a value depends on the column that it is in."""
        return any(isinstance(step, NodeStep) and step.node.by_column for step in self.steps)

    @property
    def producers(self) -> dict[PortRef, Step]:
        """The step that gives each port."""
        return {ref: step for step in self.steps for ref in step.outputs}


def frame_nodes(graph: Graph, wanted: tuple[PortRef, ...]) -> list[str]:
    """Frame-scope nodes that the wanted outputs depend on, each after those it depends on."""
    needed: set[str] = set()
    queue = [ref.node for ref in wanted if ref != CUBE]
    while queue:
        name = queue.pop()
        if name not in needed:
            needed.add(name)
            only_fits = graph.nodes[name].FIT_INPUTS
            for port, refs in graph.sources_of(name).items():
                queue.extend(ref.node for ref in refs if port not in only_fits)
    return [n for n in graph.order() if n in needed and graph.nodes[n].scope is Scope.FRAME]


def compile_program(
    graph: Graph,
    wanted: tuple[PortRef, ...],
    *,
    precision: Mapping[str, Precision] | None = None,
    substitutes: Mapping[str, Node] | None = None,
    given: tuple[PortRef, ...] = (),
    tables: Mapping[PortRef, Any] | None = None,
) -> Program:
    """Prune and fold a fitted graph to the ports that are wanted.

    Every step is folded back to its own root, whatever else is asked for, so the bits of an output
    do not depend on the other outputs.

    Parameters
    ----------
    graph : Graph
        Verified and resolved; the nodes that are needed must be fitted.
    wanted : tuple of PortRef
        Outputs with pixels (:data:`.CUBE` is allowed).
    precision : mapping, optional
        Arithmetic of quadratic nodes by name; float64 by default.
    substitutes : mapping, optional
        Nodes that stand in for frame-scope nodes on the frame at hand.
    given : tuple of PortRef
        Ports whose values will come from outside.
    tables : mapping, optional
        Values of ports without pixels on the frame at hand.

    Raises
    ------
    hsi_batch.errors.PipelineError
        A wanted output has no pixels, or needs a node that cannot run by blocks.
    hsi_batch.errors.NotFittedError
        A node is not fitted.
    """
    compiler = _Compiler(graph, precision or {}, substitutes or {}, given, tables or {})
    with single_thread():
        for ref in wanted:
            compiler.need(ref)
    return Program(tuple(compiler.steps), wanted, given)


class _Compiler:
    def __init__(
        self,
        graph: Graph,
        precision: Mapping[str, Precision],
        substitutes: Mapping[str, Node],
        given: tuple[PortRef, ...],
        tables: Mapping[PortRef, Any],
    ) -> None:
        self.graph = graph
        self.precision = precision
        self.substitutes = substitutes
        self.tables = tables
        self.steps: list[Step] = []
        self.done: set[PortRef] = {CUBE, *given}

    def need(self, ref: PortRef) -> None:
        """Add the steps that give a port."""
        if ref in self.done:
            return
        node = node_at(self.graph, ref.node, self.substitutes)
        folded = fold(self.graph, ref, self.substitutes)
        if folded.root != ref:
            self.need(folded.root)
            self._add(AffineStep(inputs=(folded.root,), outputs=(ref,), map=folded.map))
        elif (
            node.QUADRATIC is not None
            and node.QUADRATIC[1] == ref.port
            and (node.scope is Scope.PIXEL)
        ):
            writer = self.graph.writer(PortRef(ref.node, node.QUADRATIC[0]))
            assert writer is not None
            inner = fold(self.graph, writer, self.substitutes)
            self.need(inner.root)
            # Buffers that were assigned after the fit are not those that were measured.
            measured = self.precision.get(ref.node, Precision())
            chosen = measured.dtype if node.exact_state() is not None else "float64"
            score = QuadraticMap.fold(node.quadratic(), inner.map, chosen)
            self._add(QuadraticStep(inputs=(inner.root,), outputs=(ref,), map=score))
        else:
            self._need_node(node, ref)

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        self.done.update(step.outputs)

    def _need_node(self, node: Node, ref: PortRef) -> None:
        spec = node.OUTPUT_SPECS[ref.port]
        if not spec.has_pixels:
            raise PipelineError(
                f"{ref} ({spec.description}) has no pixels, so it cannot be stored per pixel.",
                hint="Ask for an output that is a map; it may depend on this one.",
            )
        if node.is_source:
            raise PipelineError(
                f"{ref} comes with the batch; it cannot be had while scoring block by block.",
                hint="Ask for another output.",
            )
        if node.scope in (Scope.FRAME, Scope.SEQUENCE):
            raise PipelineError(
                f"{ref.node} ({type(node).__name__}) has scope {node.scope}; it cannot run block"
                " by block.",
                hint="Score whole frames, or ask for another output.",
            )
        node._need_fit()  # noqa: SLF001
        ports, constants = inputs_of(self.graph, ref.node, self.tables)
        inputs = tuple(r for refs in ports.values() for r in refs)
        for source in inputs:
            self.need(source)
        # Ports that are folded stay so, whatever else is asked of the node.
        folded = {ends[1] for ends in (node.AFFINE, node.QUADRATIC) if ends is not None}
        outputs = tuple(
            PortRef(ref.node, port)
            for port, s in node.OUTPUT_SPECS.items()
            if port == ref.port or (s.has_pixels and not s.optional and port not in folded)
        )
        node.eval()
        self._add(
            NodeStep(
                inputs=inputs,
                outputs=outputs,
                node=node,
                ports=ports,
                constants=constants,
                halo=node.halo,
                masked=node.SKIPS_INVALID,
            )
        )


def inputs_of(
    graph: Graph, name: str, tables: Mapping[PortRef, Any] | None = None
) -> tuple[dict[str, tuple[PortRef, ...]], dict[str, Any]]:
    """What feeds the inputs of a node: ports with pixels, and the values of those without."""
    node, known = graph.nodes[name], tables or {}
    specs = node.INPUT_SPECS
    left = node.SIZE_INPUTS if isinstance(node, GridNode) else node.FIT_INPUTS
    fed = {p: refs for p, refs in graph.sources_of(name).items() if p not in left}
    ports = {port: tuple(refs) for port, refs in fed.items() if specs[port].has_pixels}
    single = {port: refs[0] for port, refs in fed.items() if port not in ports}
    constants = {p: known[r] if r in known else _constant(graph, r) for p, r in single.items()}
    return ports, constants


def _constant(graph: Graph, ref: PortRef) -> Any:
    """The value of a port without pixels: a parameter, or the wavelengths of the data."""
    node = graph.nodes[ref.node]
    if node.is_source and ref.port == "wavelengths":
        given = None if graph.axis is None else node.channel_axis({"cube": graph.axis})["cube"]
        wavelength = None if given is None else given.wavelength
        if wavelength is None:
            raise PipelineError(
                f"{ref} is needed, but the recordings state no wavelengths.",
                hint="Add 'wavelength' with 'wavelength units' to the headers and convert again.",
            )
        return np.rint(wavelength).astype(np.int32)
    buffer = node.port_buffer(ref.port)
    if buffer is None:
        raise PipelineError(
            f"{ref} cannot be had while scoring block by block.", hint="Ask for another output."
        )
    node._need_fit()  # noqa: SLF001
    return buffer
