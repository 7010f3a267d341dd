"""The graph: nodes joined by ports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

from hsi_batch.errors import PipelineError, Problem, did_you_mean
from hsi_batch.nodes import ChannelAxis, InputPort, Node, OutputPort, PortRef, Scope, Stage
from hsi_batch.nodes.metrics import Context
from hsi_batch.nodes.ports import mismatch
from hsi_batch.pipeline.axes import resolve_axes
from hsi_batch.pipeline.forward import forward
from hsi_batch.pipeline.grids import grid_problems

__all__ = ["Edge", "Graph"]


class Edge(NamedTuple):
    """A connection from an output to an input.

    Attributes
    ----------
    source, target : PortRef
        The output that is read, and the input that it goes to.

    Examples
    --------
    >>> str(Edge(PortRef("data", "cube"), PortRef("rx", "data")))
    'data.cube -> rx.data'
    """

    source: PortRef
    target: PortRef

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


class Graph:
    """Nodes by name and the connections between their ports.

    Ports are fed by connections only; the batch reaches the graph through its data node.

    Parameters
    ----------
    name : str
        Name of the graph.
    lenient : bool
        A declared channel count that disagrees with the data is corrected with a warning (files in
        the dialects of cuvis-ai) instead of being an error.

    Examples
    --------
    >>> from hsi_batch.nodes import MeanCenter, RXGlobal
    >>> graph, centre, rx = Graph("small"), MeanCenter(), RXGlobal()
    >>> graph.connect((centre.outputs.cube, rx.inputs.data))
    >>> [str(edge) for edge in graph.edges]
    ['MeanCenter.cube -> RXGlobal.data']
    """

    def __init__(self, name: str = "Pipeline", *, lenient: bool = False) -> None:
        self.name = name
        self.lenient = lenient
        self.axis: ChannelAxis | None = None
        #: Packages of other node classes, as the file names them.
        self.plugins: list[str] = []
        #: Whether every node knows its channels; joining nodes makes it False.
        self.settled = False
        self._nodes: dict[str, Node] = {}
        self._edges: list[Edge] = []

    # -- building ----------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name, in the order in which they were added."""
        return self._nodes

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All connections."""
        return tuple(self._edges)

    def add_node(self, node: Node) -> Node:
        """Add a node that is not connected yet; a name that is taken gets a counter."""
        if self._nodes.get(node.name) is node:
            return node
        if "." in node.name:
            raise PipelineError(
                f"the name {node.name!r} holds a dot, which stands between nodes and ports.",
                hint="Choose a name without one.",
            )
        base, count = node.name, 0
        while node.name in self._nodes:
            count += 1
            node.name = f"{base}-{count}"
        self._nodes[node.name] = node
        if node.frozen:
            # Nodes with parameters of their own are made trainable.
            node.requires_grad_(False)
        return node

    def add_nodes(self, **nodes: Node) -> None:
        """Add nodes under the names of the keywords."""
        for name, node in nodes.items():
            node.name = name
            self.add_node(node)

    def connect(self, *pairs: Any) -> None:
        """Join outputs to inputs: ``connect(out, in)`` or ``connect((out, in), (out, in), ...)``.

        All pairs are joined, or none.

        Raises
        ------
        hsi_batch.errors.PipelineError
            The ports do not fit, the input has a writer already, or a cycle would be closed.
        """
        if len(pairs) == 2 and not isinstance(pairs[0], tuple):
            pairs = (pairs,)
        for pair in pairs:
            if not (isinstance(pair, tuple) and len(pair) == 2):
                raise PipelineError(
                    f"connect takes pairs (output, input); found {pair!r}.",
                    hint="Write pipeline.connect((a.outputs.x, b.inputs.y), ...).",
                )
        nodes, edges = dict(self._nodes), list(self._edges)
        try:
            for pair in pairs:
                self._join(*pair)
        except PipelineError:
            self._nodes, self._edges = nodes, edges
            raise

    def _join(self, source: Any, target: Any) -> None:
        if not isinstance(source, OutputPort) or not isinstance(target, InputPort):
            raise PipelineError(
                f"a connection runs from an output to an input; found {source!r} -> {target!r}.",
                hint="Write node.outputs.x and node.inputs.y where the names are ambiguous.",
            )
        why = mismatch(source, target, declared=not self.lenient)
        if why:
            raise PipelineError(
                f"these ports do not fit: {why}.", hint="Connect ports of one type and shape."
            )
        self.add_node(source.node)
        self.add_node(target.node)
        edge = Edge(source.ref, target.ref)
        if edge in self._edges:
            raise PipelineError(
                f"the connection {edge} is there already.", hint="Remove one of the two."
            )
        writer = self.writer(edge.target)
        if writer is not None and not target.spec.variadic:
            raise PipelineError(
                f"{edge.target} is written twice, by {writer} and by {edge.source}; an input has"
                " one writer.",
                hint="Remove one of the two connections.",
            )
        way = self._way(edge.target.node, edge.source.node)
        if way:
            raise PipelineError(
                f"the connection {edge} closes the cycle {' -> '.join([edge.source.node, *way])}.",
                hint="Data flow one way; remove one connection of the cycle.",
            )
        self._edges.append(edge)
        self.settled = False

    def _way(self, start: str, end: str) -> list[str]:
        """Names on a way from one node to another, both included; empty if there is none."""
        before = {start: ""}
        queue = [start]
        while queue and end not in before:
            name = queue.pop()
            for edge in self._edges:
                if edge.source.node == name and edge.target.node not in before:
                    before[edge.target.node] = name
                    queue.append(edge.target.node)
        way = [end] if end in before else []
        while way and before[way[0]]:
            way.insert(0, before[way[0]])
        return way

    # -- looking -----------------------------------------------------------------------------

    def writer(self, port: PortRef) -> PortRef | None:
        """The output that feeds an input."""
        return next((edge.source for edge in self._edges if edge.target == port), None)

    def sources_of(self, node: str) -> dict[str, list[PortRef]]:
        """The outputs that feed each input of a node."""
        found: dict[str, list[PortRef]] = {}
        for edge in self._edges:
            if edge.target.node == node:
                found.setdefault(edge.target.port, []).append(edge.source)
        return found

    def order(self) -> list[str]:
        """Node names, each after all that feed it, otherwise in the order they were added."""
        sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(self._nodes, ()))
        for edge in self._edges:
            sorter.add(edge.target.node, edge.source.node)
        rank = {name: i for i, name in enumerate(self._nodes)}
        sorter.prepare()
        ordered: list[str] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=rank.__getitem__)
            ordered.extend(ready)
            sorter.done(*ready)
        return ordered

    def ancestors(self, node: str) -> set[str]:
        """Names of all nodes that feed a node, directly or not."""
        found: set[str] = set()
        queue = [node]
        while queue:
            for refs in self.sources_of(queue.pop()).values():
                fresh = {ref.node for ref in refs} - found
                found |= fresh
                queue.extend(fresh)
        return found

    @property
    def source(self) -> Node:
        """The data node."""
        sources = [node for node in self._nodes.values() if node.is_source]
        if len(sources) != 1:
            raise PipelineError(
                f"the pipeline has {len(sources)} data nodes; it needs one.",
                hint="Add one CU3SDataNode (or AnomalyDataNode) and connect its port `cube`.",
            )
        return sources[0]

    def port(self, name: str) -> PortRef:
        """Find an output by ``node.port``, ``node.outputs.port``, or a port name that is unique.

        Raises
        ------
        hsi_batch.errors.PipelineError
            There is none, or several; the message lists them.
        """
        outputs = [PortRef(n, p) for n, node in self._nodes.items() for p in node.OUTPUT_SPECS]
        parts = name.replace(".outputs.", ".").split(".")
        if len(parts) == 2:
            found = [ref for ref in outputs if ref == tuple(parts)]
        else:
            found = [ref for ref in outputs if ref.port == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise PipelineError(
                f"output {name!r} is ambiguous: {', '.join(map(str, found))}.",
                hint="Name the node too.",
            )
        known = [str(ref) for ref in outputs]
        raise PipelineError(
            f"the pipeline has no output {name!r}."
            f"{did_you_mean(name, [*known, *(ref.port for ref in outputs)])}",
            hint=f"It has {', '.join(known)}.",
        )

    def problems(self) -> list[Problem]:
        """What is wrong with the graph as a whole: no data node, unfed inputs, unequal sizes."""
        found: list[Problem] = []
        try:
            self.source  # noqa: B018
        except PipelineError as error:
            found.append(Problem(str(error)))
        found.extend(problem for _, problem in self.unfed())
        found.extend(grid_problems(self))
        return found

    def unfed(self) -> Iterator[tuple[str, Problem]]:
        """The nodes with inputs that need a connection and have none, and what is wrong."""
        for name, node in self._nodes.items():
            fed = self.sources_of(name)
            for port, spec in node.INPUT_SPECS.items():
                if not (node.is_source or spec.optional or port in fed):
                    text = f"nothing is connected to the input {name}.{port}"
                    yield name, Problem(f"{text} ({type(node).__name__} needs it).")

    def verify(self) -> None:
        """Raise one :class:`~hsi_batch.errors.ConfigError` with all :meth:`problems`."""
        found = self.problems()
        if found:
            raise PipelineError.collect(found)

    # -- channel axes --------------------------------------------------------------------------

    def resolve(self, axis: ChannelAxis) -> None:
        """Carry the channel axis of the data through the graph and check declared counts.

        Raises
        ------
        hsi_batch.errors.ConfigError
            What :meth:`verify` finds; else one problem per node whose declared number of channels,
            or whose need of wavelengths, does not agree with what reaches it.
        """
        self.verify()
        resolve_axes(self, axis)
        self.axis = axis
        self.settled = True

    # -- running in memory -------------------------------------------------------------------

    def forward(
        self,
        batch: Mapping[str, Any],
        stage: Stage | str = Stage.INFERENCE,
        context: Context | None = None,
        *,
        keep: Collection[str] | None = None,
        feed: Callable[[Node, dict[str, Any]], dict[str, Any] | None] | None = None,
    ) -> dict[PortRef, Any]:
        """Run the graph on a batch in memory.

        Parameters
        ----------
        batch : mapping
            Inputs of the data node: ``cube`` (B, y, x, C), optional ``wavelengths``, ``mask``, ...
        stage : {"inference", "train", "val", "test"}
            Nodes of other stages are left out.
        context : Context, optional
            Where the run stands; wins over ``stage``.
        keep : collection of str, optional
            Ports (by their own names) to return; values of others are freed as soon as all that
            they feed has run. Everything is returned by default.
        feed : callable, optional
            Is given each node and its inputs; returns the inputs to run it on, or None to leave it
            out.

        Returns
        -------
        dict
            Outputs that were produced, by ``(node, port)``.
        """
        at = Context(stage=Stage(stage)) if context is None else context
        return forward(self, batch, at, keep=keep, feed=feed)

    def scopes(self) -> Iterator[tuple[str, Scope]]:
        """Name and scope of every node, in order."""
        for name in self.order():
            yield name, self._nodes[name].scope

    def __repr__(self) -> str:
        lines = [f"<{type(self).__name__} {self.name!r}: {len(self._nodes)} nodes>"]
        for name in self.order():
            node = self._nodes[name]
            state = "fitted" if node.requires_initial_fit and node.fitted else ""
            state = "not fitted" if not node.fitted else state
            fed = ", ".join(f"{p}<-{r[0]}" for p, r in self.sources_of(name).items())
            lines.append(f"  {name} ({type(node).__name__}) {fed} {state}".rstrip())
        return "\n".join(lines)
