"""From a pipeline file to a graph, with every mistake reported at once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from hsi_batch.documents import Document, validate
from hsi_batch.errors import ConfigError, PipelineError, Problem, did_you_mean
from hsi_batch.nodes import Node, node_class
from hsi_batch.nodes.registry import is_foreign
from hsi_batch.pipeline.config import PipelineConfig, is_short_form, written_out
from hsi_batch.pipeline.graph import Graph

__all__ = ["build"]


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
    config = validate(PipelineConfig, document)
    graph.lenient = short or any(is_foreign(node.class_name) for node in config.nodes)
    if config.metadata is not None:
        graph.name = config.metadata.name
    problems: list[Problem] = []
    for index in range(len(config.nodes)):
        try:
            graph.add_node(_node(document, index, config, graph))
        except ConfigError as error:
            problems.extend(error.problems or [document.problem(str(error), ("nodes", index))])
    missing = {node.name for node in config.nodes} - set(graph.nodes)
    for index, connection in enumerate(config.connections):
        at = ("connections", index)
        try:
            ends = (
                _end(graph, connection.source, "outputs", missing, lenient=short),
                _end(graph, connection.target, "inputs", missing, lenient=short),
            )
            if None not in ends:
                graph.connect(ends)
        except PipelineError as error:
            problems.append(document.problem(str(error), at))
    if not problems:
        problems = [document.problem(p.message, ("nodes",)) for p in graph.problems()]
    if problems:
        raise PipelineError.collect(problems, path=document.path)
    return config


def _node(document: Document, index: int, config: PipelineConfig, graph: Graph) -> Node:
    entry = config.nodes[index]
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
    try:
        return cls(name=entry.name, **hparams)
    except PipelineError as error:
        raise PipelineError.collect([document.problem(str(error), (*at, "hparams"))]) from None


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
