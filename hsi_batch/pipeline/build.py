"""From a pipeline file to a graph, with every mistake reported at once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import nn

from hsi_batch.documents import Document
from hsi_batch.errors import ConfigError, HsiBatchWarning, PipelineError, Problem, did_you_mean
from hsi_batch.nodes import Node, node_class
from hsi_batch.nodes.plugin import PluginNode, plugin_class
from hsi_batch.nodes.registry import is_foreign
from hsi_batch.pipeline.catalogue import is_default, meant, without_pixels
from hsi_batch.pipeline.config import ConnectionConfig, NodeConfig, PipelineConfig
from hsi_batch.pipeline.dialects import is_lenient, names_cuvis_ai, port_of, written_out
from hsi_batch.pipeline.graph import Graph
from hsi_batch.validation import validate
from hsi_batch.wording import complaint, counted, mistakes

__all__ = ["build"]

M = TypeVar("M", bound=BaseModel)


def build(document: Document, graph: Graph) -> PipelineConfig:
    """Add the nodes and connections of a document to an empty graph.

    The released form, the first one of cuvis-ai and the seeds' short form are read. Files that
    name classes of cuvis-ai and files in the short form are read leniently: nodes of cuvis-ai that
    only show or write things are dropped with a warning, a name that stands twice gets a counter,
    declared channel counts may be corrected. Parameters that a class does not have are dropped,
    with a warning, from files that name classes of cuvis-ai alone.

    Nothing that a file names is imported, except classes of the packages it lists in ``plugins``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        With one problem per mistake, each with its line.
    """
    graph.lenient = is_lenient(document)
    strays = names_cuvis_ai(document)
    document = written_out(document)
    problems: list[Problem] = []
    try:
        config = validate(PipelineConfig, replace(document, problems=()))
    except ConfigError as error:
        if not error.problems:
            raise
        problems.extend(error.problems)
        config = PipelineConfig.model_construct(nodes=[], plugins=None, metadata=None)
    nodes = _entries(NodeConfig, document, "nodes")
    if config.metadata is not None:
        graph.name = config.metadata.name
    graph.plugins = config.plugins or []
    places: dict[str, int] = {}
    left_out: set[str] = set()
    for index, entry in nodes.items():
        if graph.lenient and _only_shows(entry, graph.plugins):
            _warn(document, ("nodes", index, "class_name"), _LEFT_OUT.format(entry))
            left_out.add(entry.name)
            continue
        try:
            node = graph.add_node(_node(document, index, entry, graph, strays))
        except ConfigError as error:
            problems.extend(error.problems or [document.problem(str(error), ("nodes", index))])
        else:
            places[node.name] = index
    named = {str(raw.get("name")) for raw in _raw(document, "nodes")}
    missing = named - set(graph.nodes) - left_out
    broken = _connect(document, graph, missing, left_out - set(graph.nodes), problems)
    for name, problem in graph.unfed():
        # An input whose connection is wrong is reported there.
        if name not in broken:
            problems.append(document.problem(problem.message, ("nodes", places[name])))
    if not missing:
        try:
            graph.source  # noqa: B018
        except PipelineError as error:
            problems.append(document.problem(str(error), ("nodes",)))
    if problems or document.problems:
        raise PipelineError.collect(document.merged(problems), path=document.path)
    return config


_LEFT_OUT = (
    "{0.name} ({0.class_name}) only shows or writes what others compute; hsi_batch does not have"
    " it, and leaves it out."
)


def _only_shows(entry: NodeConfig, plugins: Sequence[str]) -> bool:
    """Whether a node of cuvis-ai that is not here gives nothing that others could need."""
    if not without_pixels(entry.class_name):
        return False
    with suppress(PipelineError):
        return _class_of(entry.class_name, plugins) is None
    return True


def _warn(document: Document, at: tuple[str | int, ...], text: str) -> None:
    where = f"{document.path or 'pipeline'}:{document.line(at)}"
    warnings.warn(f"{where}: {text}", HsiBatchWarning, stacklevel=5)


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
    document: Document,
    graph: Graph,
    missing: set[str],
    left_out: set[str],
    problems: list[Problem],
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
        if {end.split(".", 1)[0] for end in (connection.source, connection.target)} & left_out:
            continue
        try:
            ends = (
                _end(graph, connection.source, "outputs", missing),
                _end(graph, connection.target, "inputs", missing),
            )
            if None in ends:
                broken.add(broken_here)
            else:
                graph.connect(ends)
        except PipelineError as error:
            broken.add(broken_here)
            problems.append(document.problem(str(error), ("connections", index)))
    return broken


def _node(document: Document, index: int, entry: NodeConfig, graph: Graph, strays: bool) -> Node:
    at = ("nodes", index)
    if "." in entry.name:
        raise PipelineError.collect(
            [document.problem(f"the name {entry.name!r} holds a dot.", (*at, "name"))]
        )
    # In cuvis-ai the second one gets a counter, and connections go to the first.
    if entry.name in graph.nodes and not graph.lenient:
        raise PipelineError.collect(
            [document.problem(f"there are two nodes {entry.name!r}.", (*at, "name"))]
        )
    try:
        cls = _class_of(entry.class_name, graph.plugins)
    except PipelineError as error:
        raise PipelineError.collect([document.problem(str(error), (*at, "class_name"))]) from None
    foreign = entry.class_name if is_foreign(entry.class_name) else ""
    hparams = _checked(cls, entry.hparams, document, at, strays=strays, foreign=foreign)
    for argument in cls.PATH_ARGUMENTS:
        if hparams.get(argument) is not None and document.path is not None:
            hparams[argument] = str(Path(document.path).absolute().parent / hparams[argument])
    try:
        return cls(name=entry.name, **hparams)
    except PipelineError as error:
        # The messages begin with the name of the argument.
        where = (*at, "hparams", str(error).split(" ", 1)[0])
        raise PipelineError.collect([document.problem(str(error), where)]) from None
    except (RuntimeError, MemoryError, OverflowError) as error:
        # Of sizes that no memory holds.
        text = f"{cls.__name__} cannot be made with these parameters: {error}"
        raise PipelineError.collect([document.problem(text, (*at, "hparams"))]) from None


def _version(document: Document) -> str:
    """The version of cuvis-ai that a file says wrote it."""
    metadata = document.data.get("metadata") if document.data else None
    return str(metadata.get("cuvis_ai_version", "")) if isinstance(metadata, dict) else ""


def _class_of(class_name: str, plugins: Sequence[str]) -> type[Node]:
    """A class of the library, or one of the packages that the file lists."""
    try:
        return node_class(class_name)
    except PipelineError:
        found = plugin_class(class_name, plugins)
        if found is None:
            raise
        return found


def _parameters(cls: type[Node]) -> type[BaseModel]:
    """A model of the constructor's arguments."""
    foreign = issubclass(cls, PluginNode)
    made = cls.WRAPPED.__init__ if issubclass(cls, PluginNode) else cls.__init__
    # What the arguments of a foreign class may be is for the class to say.
    hints = {} if foreign else get_type_hints(made)
    fields: dict[str, Any] = {}
    extra: Literal["allow", "forbid"] = "forbid"
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            # A module without a constructor of its own takes nothing.
            extra = "allow" if foreign and made is not nn.Module.__init__ else "forbid"
        elif name not in ("self", "name") and parameter.kind is not parameter.VAR_POSITIONAL:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    return create_model(
        cls.__name__, __config__=ConfigDict(extra=extra, arbitrary_types_allowed=True), **fields
    )


def _checked(
    cls: type[Node],
    hparams: Mapping[str, Any],
    document: Document,
    at: tuple[str | int, ...],
    *,
    strays: bool,
    foreign: str,
) -> dict[str, Any]:
    model = _parameters(cls)
    given = dict(hparams)
    if foreign:
        # What cuvis-ai wrote means what cuvis-ai does.
        given = {**meant(cls.__name__, foreign, _version(document)), **given}
    if strays and model.model_config.get("extra") == "forbid":
        for name in sorted(set(given) - set(model.model_fields)):
            # cuvis-ai writes down all arguments; those it was not told mean nothing.
            if not is_default(cls.__name__, name, given.pop(name)):
                text = f"{cls.__name__} has no parameter {name!r}; it is ignored."
                _warn(document, (*at, "hparams", name), text)
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        problems = []
        for location, details in mistakes(error.errors(), given):
            detail, name = details[0], str(location[0])
            where = (*at, "hparams", *location)
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
                text = f"{cls.__name__}: {name}: {complaint(*details)}."
            problems.append(document.problem(text, where))
        raise PipelineError.collect(problems) from None
    if issubclass(cls, PluginNode):
        return given
    return {name: getattr(checked, name) for name in model.model_fields}


def _end(graph: Graph, text: str, side: str, missing: set[str]) -> Any:
    """The port at one end of a connection; None if its node is one that could not be built."""
    parts = text.split(".")
    if len(parts) == 2:
        parts = [parts[0], side, parts[1]]
    if len(parts) != 3 or parts[1] != side:
        raise PipelineError(
            f"{text!r} is not an {side[:-1]}; write node.{side}.port"
            f" (found {counted(len(text.split('.')), 'part')})."
        )
    name, _, port = parts
    if name in missing:
        return None
    if name not in graph.nodes:
        raise PipelineError(
            f"{text!r}: there is no node {name!r}.{did_you_mean(name, graph.nodes)}",
            hint="Name a node of the graph.",
        )
    node = graph.nodes[name]
    if graph.lenient:
        port = port_of(node, port, side)
    return (node.outputs if side == "outputs" else node.inputs)[port]
