"""From a pipeline file to a graph, with every mistake reported at once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from hsi_batch.documents import Document, validate
from hsi_batch.errors import ConfigError, PipelineError, Problem, did_you_mean
from hsi_batch.nodes import Node, node_class
from hsi_batch.nodes.registry import is_foreign
from hsi_batch.pipeline.config import (
    ConnectionConfig,
    NodeConfig,
    PipelineConfig,
    is_short_form,
    written_out,
)
from hsi_batch.pipeline.graph import Graph

__all__ = ["build"]

M = TypeVar("M", bound=BaseModel)


def build(document: Document, graph: Graph) -> PipelineConfig:
    """Add the nodes and connections of a document to an empty graph.

    Both the released form and the seeds' short form are read. Files that name classes of cuvis-ai
    and files in the short form are read leniently: parameters that a class does not have are
    dropped with a warning, and declared channel counts may be corrected.

    Raises
    ------
    hsi_batch.errors.ConfigError
        With one problem per mistake, each with its line.
    """
    short = is_short_form(document.data)
    document = written_out(document)
    problems: list[Problem] = []
    try:
        config = validate(PipelineConfig, document)
    except ConfigError as error:
        if not error.problems:
            raise
        problems.extend(error.problems)
        config = PipelineConfig.model_construct(nodes=[])
    nodes = _entries(NodeConfig, document, "nodes")
    graph.lenient = short or any(is_foreign(node.class_name) for node in nodes.values())
    if config.metadata is not None:
        graph.name = config.metadata.name
    for index, node in nodes.items():
        try:
            graph.add_node(_node(document, index, node, graph))
        except ConfigError as error:
            problems.extend(error.problems or [document.problem(str(error), ("nodes", index))])
    missing = {str(raw.get("name")) for raw in _raw(document, "nodes")} - set(graph.nodes)
    broken = _connect(document, graph, missing, problems, lenient=short)
    places = {node.name: index for index, node in nodes.items()}
    for name, problem in graph.unfed():
        # An input whose connection is wrong is reported there.
        if name not in broken:
            problems.append(document.problem(problem.message, ("nodes", places[name])))
    if not missing:
        try:
            graph.source  # noqa: B018
        except PipelineError as error:
            problems.append(document.problem(str(error), ("nodes",)))
    if problems:
        raise PipelineError.collect(
            sorted(problems, key=lambda problem: problem.line or 0), path=document.path
        )
    return config


def _raw(document: Document, key: str) -> list[dict[str, Any]]:
    """The entries under a key; what is no mapping counts as an empty one."""
    found = document.data.get(key) if document.data else None
    entries = found if isinstance(found, list) else []
    return [entry if isinstance(entry, dict) else {} for entry in entries]


def _entries(model: type[M], document: Document, key: str) -> dict[int, M]:
    """The entries under a key that can be understood, by index, without unknown keys."""
    found = {}
    for index, raw in enumerate(_raw(document, key)):
        with suppress(ValidationError):
            found[index] = model.model_validate(
                {name: value for name, value in raw.items() if name in model.model_fields}
            )
    return found


def _connect(
    document: Document, graph: Graph, missing: set[str], problems: list[Problem], *, lenient: bool
) -> set[str]:
    """Join what can be joined; the names of nodes that a connection should have reached."""
    broken: set[str] = set()
    connections = _entries(ConnectionConfig, document, "connections")
    for index, raw in enumerate(_raw(document, "connections")):
        broken_here = str(raw.get("target")).split(".", 1)[0]
        connection = connections.get(index)
        if connection is None:
            broken.add(broken_here)
            continue
        try:
            ends = (
                _end(graph, connection.source, "outputs", missing, lenient=lenient),
                _end(graph, connection.target, "inputs", missing, lenient=lenient),
            )
            if None in ends:
                broken.add(broken_here)
            else:
                graph.connect(ends)
        except PipelineError as error:
            broken.add(broken_here)
            problems.append(document.problem(str(error), ("connections", index)))
    return broken


def _node(document: Document, index: int, entry: NodeConfig, graph: Graph) -> Node:
    at = ("nodes", index)
    if "." in entry.name:
        raise PipelineError.collect(
            [document.problem(f"the name {entry.name!r} holds a dot.", (*at, "name"))]
        )
    if entry.name in graph.nodes:
        raise PipelineError.collect(
            [document.problem(f"there are two nodes {entry.name!r}.", (*at, "name"))]
        )
    try:
        cls = node_class(entry.class_name)
    except PipelineError as error:
        raise PipelineError.collect([document.problem(str(error), (*at, "class_name"))]) from None
    hparams = _checked(cls, entry.hparams, document, at, lenient=graph.lenient)
    for argument in cls.PATH_ARGUMENTS:
        if hparams.get(argument) is not None and document.path is not None:
            hparams[argument] = str(Path(document.path).absolute().parent / hparams[argument])
    try:
        return cls(name=entry.name, **hparams)
    except PipelineError as error:
        # The messages begin with the name of the argument.
        where = (*at, "hparams", str(error).split(" ", 1)[0])
        raise PipelineError.collect([document.problem(str(error), where)]) from None


def _parameters(cls: type[Node]) -> type[BaseModel]:
    """A model of the constructor's arguments."""
    hints = get_type_hints(cls.__init__)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name in ("self", "name") or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    return create_model(
        cls.__name__, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields
    )


def _checked(
    cls: type[Node],
    hparams: Mapping[str, Any],
    document: Document,
    at: tuple[str | int, ...],
    *,
    lenient: bool,
) -> dict[str, Any]:
    model = _parameters(cls)
    given = dict(hparams)
    if lenient:
        for name in sorted(set(given) - set(model.model_fields)):
            line = document.line((*at, "hparams", name))
            warnings.warn(
                f"{document.path or 'pipeline'}:{line}: {cls.__name__} has no parameter {name!r};"
                f" it is ignored.",
                UserWarning,
                stacklevel=4,
            )
            del given[name]
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            name = str(detail["loc"][0])
            where = (*at, "hparams", *detail["loc"])
            if detail["type"] == "extra_forbidden":
                text = (
                    f"{cls.__name__} has no parameter {name!r}."
                    f"{did_you_mean(name, model.model_fields)}"
                )
                if "Did you mean" not in text:
                    text += f" It has {', '.join(model.model_fields) or 'none'}."
            elif detail["type"] == "missing":
                text = f"{cls.__name__} needs the parameter {name!r}."
                where = at
            else:
                message = detail["msg"][0].lower() + detail["msg"][1:]
                text = f"{cls.__name__}: {name}: {message} (found {detail['input']!r})."
            problems.append(document.problem(text, where))
        raise PipelineError.collect(problems) from None
    return {name: getattr(checked, name) for name in model.model_fields}


def _end(graph: Graph, text: str, side: str, missing: set[str], *, lenient: bool) -> Any:
    """The port at one end of a connection; None if its node is one that could not be built."""
    parts = text.split(".")
    if len(parts) == 2:
        parts = [parts[0], side, parts[1]]
    if len(parts) != 3 or parts[1] != side:
        raise PipelineError(
            f"{text!r} is not an {side[:-1]}; write node.{side}.port"
            f" (found {len(text.split('.'))} parts)."
        )
    name, _, port = parts
    if name in missing:
        return None
    if name not in graph.nodes:
        raise PipelineError(
            f"{text!r}: there is no node {name!r}.{did_you_mean(name, graph.nodes)}"
        )
    node = graph.nodes[name]
    specs = node.OUTPUT_SPECS if side == "outputs" else node.INPUT_SPECS
    if lenient and port not in specs:
        port = _seed_port(node, port, side)
    return (node.outputs if side == "outputs" else node.inputs)[port]


def _seed_port(node: Node, port: str, side: str) -> str:
    """Map port names that only the seed pages use."""
    if side == "outputs" and port == "output" and node.AFFINE is not None:
        return node.AFFINE[1]
    return {"scores": "logits", "weights": "selection_weights"}.get(port, port)
