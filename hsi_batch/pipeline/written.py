"""A pipeline as plain values: class paths, arguments, and the dialect of cuvis-ai."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hsi_batch.errors import HsiBatchWarning, PipelineError, Problem
from hsi_batch.nodes import Node, PortRef, node_classes
from hsi_batch.nodes.annealed import Annealed
from hsi_batch.nodes.plugin import PluginNode, covering
from hsi_batch.pipeline.catalogue import (
    COMPUTING,
    MEANT,
    REPAIRED,
    TAKEN,
    VERSION,
    CuvisClass,
    cuvis_classes,
)

if TYPE_CHECKING:
    from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["Dialect", "class_path", "for_cuvis_ai", "plain", "plugins_of", "refuse_what_is_not_in"]

Dialect = Literal["hsi-batch", "cuvis-ai"]


def plain(value: Any) -> Any:
    """An argument of a node as YAML knows it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of a node for a file: those that are None by default and so here are left out.

    A None that stands against another default means something, and has to come back.
    """
    defaults = inspect.signature(type(node).__init__).parameters
    return {
        key: plain(value)
        for key, value in node.hparams.items()
        if value is not None or getattr(defaults.get(key), "default", None) is not None
    }


def class_path(node: Node) -> str:
    """Name of a class of the library, or path of another one."""
    cls = node.WRAPPED if isinstance(node, PluginNode) else type(node)
    known = node_classes().get(cls.__name__)
    return cls.__name__ if known is cls else f"{cls.__module__}.{cls.__qualname__}"


def plugins_of(classes: Iterable[str], named: Sequence[str]) -> list[str]:
    """What must stand under ``plugins`` for these class paths to be found again."""
    found: dict[str, None] = {}
    for path in classes:
        if "." in path:
            found[covering(path, named) or path.split(".", 1)[0]] = None
    return list(found)


def for_cuvis_ai(pipeline: Pipeline) -> dict[str, Any]:
    """The contents of a YAML that cuvis-ai 0.19.3 loads.

    Raises
    ------
    hsi_batch.errors.PipelineError
        One problem per node, port or argument that it does not have.
    """
    writing = _Writing(pipeline)
    nodes = [writing.node(name, node) for name, node in pipeline.nodes.items()]
    connections = writing.connections()
    writing.judge()
    metadata = pipeline.metadata.model_dump()
    metadata["cuvis_ai_version"] = metadata["cuvis_ai_version"] or VERSION
    plugins = plugins_of((node["class_name"] for node in nodes), pipeline.plugins)
    return {
        "plugins": ["cuvis_ai_builtin" if name == "cuvis_ai" else name for name in plugins],
        "nodes": nodes,
        "connections": [
            {
                "source": f"{source.node}.outputs.{source.port}",
                "target": f"{target.node}.inputs.{target.port}",
            }
            for source, target in connections
        ],
        "metadata": metadata,
    }


def refuse_what_is_not_in(dialect: str, pipeline: Pipeline) -> None:
    """Raise now for what could not be written in a dialect after a fit.

    Raises
    ------
    hsi_batch.errors.PipelineError
        There is no such dialect, or it does not have a node, port or argument of the pipeline.
    """
    if dialect not in get_args(Dialect):
        raise PipelineError(f"dialect {dialect!r} is not one of {', '.join(get_args(Dialect))}.")
    if dialect == "hsi-batch":
        return
    writing = _Writing(pipeline, unfitted=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HsiBatchWarning)
        for name, node in pipeline.nodes.items():
            writing.node(name, node)
    writing.connections()
    writing.judge()


#: Inputs of class and port that take int64 in cuvis-ai, which no node here gives.
_INT64 = {("ClassMapToRGB", "class_map")}


class _Writing:
    """Gathers what cuvis-ai does not have."""

    def __init__(self, pipeline: Pipeline, *, unfitted: bool = False) -> None:
        self.pipeline = pipeline
        self.unfitted = unfitted
        self.problems: list[Problem] = []
        self.known: dict[str, CuvisClass] = {}

    def _wrong(self, text: str) -> None:
        self.problems.append(Problem(text))

    def judge(self) -> None:
        """Raise if anything is missing there."""
        if self.problems:
            raise PipelineError.collect(self.problems)

    def node(self, name: str, node: Node) -> dict[str, Any]:
        """One entry of ``nodes``."""
        if isinstance(node, PluginNode):
            hparams = {k: plain(v) for k, v in node.hparams.items()}
            return {"name": name, "class_name": class_path(node), "hparams": hparams}
        cls = type(node).__name__
        known = cuvis_classes().get(cls) if class_path(node) == cls else None
        if known is None:
            self._wrong(f"{name}: cuvis-ai {VERSION} has no node {cls}.")
            return {}
        self.known[name] = known
        hparams = {k: plain(v) for k, v in node.hparams.items() if k in known.arguments}
        if isinstance(node, Annealed):
            # The weights there do not hold where a schedule stands.
            hparams.update(node.as_arguments())
        for argument, needed in known.arguments.items():
            if not needed or hparams.get(argument) is not None:
                continue
            if argument == node.CHANNEL_ARGUMENT and getattr(node, argument, None) is not None:
                hparams[argument] = int(getattr(node, argument))
            elif not (self.unfitted and argument == node.CHANNEL_ARGUMENT):
                self._wrong(
                    f"{name}: {cls} of cuvis-ai needs {argument}; set it"
                    f"{', or fit the pipeline first' if argument == node.CHANNEL_ARGUMENT else ''}."
                )
        self._judge_arguments(name, node, known)
        return {"name": name, "class_name": known.path, "hparams": hparams}

    def _judge_arguments(self, name: str, node: Node, known: CuvisClass) -> None:
        cls = type(node).__name__
        signature = inspect.signature(type(node).__init__).parameters
        theirs = {**{k: p.default for k, p in signature.items()}, **MEANT.get(cls, {})}
        repaired = REPAIRED.get(cls, {})
        dropped = []
        for k, v in node.hparams.items():
            if k in known.arguments:
                taken = TAKEN.get((cls, k), (v,))
                if v not in taken:
                    these = ", ".join(map(repr, taken))
                    self._wrong(f"{name}: {cls} of cuvis-ai {VERSION} has {k} {these}, not {v!r}.")
            elif v != theirs.get(k) and (k not in repaired or v != repaired[k]):
                if (cls, k) in COMPUTING:
                    self._wrong(
                        f"{name}: {cls} of cuvis-ai {VERSION} has no {k} and computes what"
                        f" {k}={theirs[k]!r} does here, not {k}={v!r}."
                    )
                else:
                    dropped.append(f"{k}={v!r}")
        if dropped:
            warnings.warn(
                f"{name}: {cls} of cuvis-ai has no {', '.join(dropped)}; the fitted"
                " state is kept, but a fit there would not know of it.",
                HsiBatchWarning,
                stacklevel=6,
            )

    def connections(self) -> list[tuple[PortRef, PortRef]]:
        """All connections, and those that cuvis-ai needs besides."""
        edges = [(edge.source, edge.target) for edge in self.pipeline.edges]
        for source, target in edges:
            for ref, side in ((source, "outputs"), (target, "inputs")):
                known = self.known.get(ref.node)
                if known is not None and ref.port not in getattr(known, side):
                    cls = known.path.rpartition(".")[2]
                    self._wrong(
                        f"{ref}: {cls} of cuvis-ai {VERSION} has no {side[:-1]} {ref.port}."
                    )
            if (type(self.pipeline.nodes[target.node]).__name__, target.port) in _INT64:
                self._wrong(f"{target}: in cuvis-ai {VERSION} it takes int64, which none gives.")
            self._check_axes(source, target)
        fed = {target for _, target in edges}
        for name, known in self.known.items():
            if self.pipeline.nodes[name].is_source:
                continue
            for port, optional in known.inputs.items():
                target = PortRef(name, port)
                if optional or target in fed:
                    continue
                if port == "wavelengths" and self._sees_all_channels(name):
                    edges.append((PortRef(self.pipeline.source.name, port), target))
                else:
                    self._wrong(f"{target}: cuvis-ai needs a connection to it.")
        return edges

    def _check_axes(self, source: PortRef, target: PortRef) -> None:
        counts = [
            self.known[ref.node].axes.get(ref.port) if ref.node in self.known else None
            for ref in (source, target)
        ]
        if None not in counts and counts[0] != counts[1]:
            self._wrong(
                f"{target}: in cuvis-ai {VERSION} it takes {counts[1]} axes, and {source} has"
                f" {counts[0]}."
            )

    def _sees_all_channels(self, name: str) -> bool:
        """Whether a node gets the channels of the data: cuvis-ai hands on no other wavelengths."""
        pipeline = self.pipeline
        if pipeline.axis is None:
            return all(ref.node == pipeline.source.name for ref in _cubes(pipeline, name))
        size = pipeline.axis.size
        return all(axis.size == size for axis in pipeline.nodes[name].axes.values())


def _cubes(pipeline: Pipeline, name: str) -> list[PortRef]:
    specs = pipeline.nodes[name].INPUT_SPECS
    fed = pipeline.sources_of(name)
    return [ref for port, refs in fed.items() for ref in refs if len(specs[port].shape) == 4]
