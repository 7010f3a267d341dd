"""Files of other dialects, written out in the released form of the cuvis-ai family."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hsi_batch.documents import Document, Location, set_value
from hsi_batch.errors import ConfigError, HsiBatchWarning, did_you_mean
from hsi_batch.nodes import Node
from hsi_batch.nodes.ports import seed_port
from hsi_batch.nodes.registry import is_foreign

__all__ = ["is_lenient", "names_cuvis_ai", "port_of", "set_entry", "written_out"]

_Lines = dict[Location, int]

#: Keys of entries that other dialects name otherwise.
_SHORT = {"type": "class_name", "config": "hparams"}
_OLD_NODES = {"class": "class_name", "params": "hparams"}
_OLD_CONNECTIONS = {"from": "source", "to": "target"}
#: Arguments that cuvis-ai writes without meaning anything by them.
_MEANINGLESS = ("execution_stages", "name")


def is_lenient(document: Document) -> bool:
    """Whether a file is of cuvis-ai or of the seed pages, and is read as leniently as they do."""
    data = document.data
    return (isinstance(data, dict) and _is_short(data)) or names_cuvis_ai(document)


def names_cuvis_ai(document: Document) -> bool:
    """Whether a file names classes of cuvis-ai by their paths, so that its versions wrote it."""
    data = document.data
    if not isinstance(data, dict):
        return False
    nodes = data.get("nodes")
    if isinstance(nodes, dict):
        bodies = [b if isinstance(b, dict) else {"type": b} for b in nodes.values()]
        return any(is_foreign(str(body.get("type"))) for body in bodies)
    return any(_is_foreign(node) for node in _entries(data, "nodes"))


def set_entry(document: Document, assignment: str) -> Document:
    """Apply one ``a.b=c`` of the command line to a pipeline file of any dialect.

    ``hparams`` and ``class_name`` may be said whatever the file itself calls them.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No such node, or not of the form ``a.b=c``.

    Examples
    --------
    >>> from hsi_batch.documents import read_yaml
    >>> short = read_yaml("p.yaml", text="nodes: {rx: RXGlobal}")
    >>> set_entry(short, "nodes.rx.hparams.eps=0").data
    {'nodes': {'rx': {'type': 'RXGlobal', 'config': {'eps': 0}}}}
    """
    path, equals, text = assignment.partition("=")
    parts = path.split(".")
    nodes = document.data.get("nodes") if isinstance(document.data, dict) else None
    if parts[0] != "nodes" or len(parts) < 3 or not isinstance(nodes, (dict, list)):
        return set_value(document, assignment)
    name = parts[1]
    if isinstance(nodes, dict):
        if name not in nodes:
            raise ConfigError(
                f"--set {assignment!r}: there is no node {name!r}.{did_you_mean(name, nodes)}",
                hint=f"Nodes are {', '.join(map(str, nodes))}.",
            )
        if not isinstance(nodes[name], dict):
            nodes = {**nodes, name: {"type": nodes[name]}}
            document = replace(document, data={**document.data, "nodes": nodes})
        here = {new: old for old, new in _SHORT.items()}
    else:
        named = [n for n in nodes if isinstance(n, dict) and n.get("name") == name]
        here = {new: old for old, new in _OLD_NODES.items() if named and old in named[0]}
    parts[2] = here.get(parts[2], parts[2])
    return set_value(document, f"{'.'.join(parts)}{equals}{text}")


def written_out(document: Document) -> Document:
    """Turn a file of any dialect into the released form, keeping the lines.

    The short form of the seed pages::

        nodes:
          rx: {type: RXGlobal, config: {eps: 0}}
        connections:
          - [data.cube, rx.data]

    and the first one of cuvis-ai (0.1), with ``class``, ``params``, ``from`` and ``to``, whose
    name may stand at the top.
    """
    if not isinstance(document.data, dict):
        return document
    if _is_short(document.data):
        document = _long(document)
    elif is_lenient(document):
        document = _renamed(document, "nodes", _OLD_NODES)
        document = _renamed(document, "connections", _OLD_CONNECTIONS)
        document = _named(document)
    else:
        return document
    return _without_nulls(document)


def _is_short(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("nodes"), dict)


def _entries(data: Any, key: str) -> list[dict[str, Any]]:
    found = data.get(key)
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []


def _is_foreign(node: Mapping[str, Any]) -> bool:
    return any(is_foreign(str(node.get(key))) for key in ("class_name", "class"))


def _long(document: Document) -> Document:
    data: dict[str, Any] = {k: v for k, v in document.data.items() if k != "trainer"}
    if "trainer" in document.data:
        warnings.warn(
            f"{document.path or 'pipeline'}:{document.line(('trainer',))}: `trainer` is ignored;"
            " it belongs to the run, not to the pipeline.",
            HsiBatchWarning,
            stacklevel=5,
        )
    lines: _Lines = {
        at: line
        for at, line in document.lines.items()
        if len(at) < 2 or at[0] not in ("nodes", "connections")
    }
    data["nodes"] = []
    for index, (name, body) in enumerate(document.data["nodes"].items()):
        entry: dict[str, Any] = {"name": name}
        for key, value in (body if isinstance(body, dict) else {"type": body}).items():
            entry[_SHORT.get(key, key)] = {} if key == "config" and value is None else value
        data["nodes"].append(entry)
        for at, line in document.lines.items():
            if at[:2] == ("nodes", name):
                lines["nodes", index, *_keys(at[2:], _SHORT)] = line
    connections = document.data.get("connections") or []
    if not isinstance(connections, list):
        return replace(document, data=data, lines=lines)
    data["connections"] = []
    problems = list(document.problems)
    for index, pair in enumerate(connections):
        if isinstance(pair, list) and len(pair) != 2:
            text = f"a connection is a pair [a.output, b.input]; this list has {len(pair)} items."
            problems.append(document.problem(text, ("connections", index)))
            continue
        found = document.line(("connections", index))
        if found is not None:
            lines["connections", len(data["connections"])] = found
        data["connections"].append(
            {"source": _endpoint(pair[0], "outputs"), "target": _endpoint(pair[1], "inputs")}
            if isinstance(pair, list)
            else pair
        )
    return replace(document, data=data, lines=lines, problems=tuple(problems))


def _keys(location: Sequence[str | int], names: Mapping[str, str]) -> Location:
    """The location below an entry whose first key has another name."""
    return (names.get(str(location[0]), location[0]), *location[1:]) if location else ()


def _endpoint(text: Any, side: str) -> Any:
    parts = str(text).split(".")
    return f"{parts[0]}.{side}.{parts[1]}" if len(parts) == 2 else text


def _renamed(document: Document, key: str, names: Mapping[str, str]) -> Document:
    """Rename keys of the entries of a list, where they stand alone."""
    entries = document.data.get(key)
    if not isinstance(entries, list):
        return document
    found, lines = [], dict(document.lines)
    for index, entry in enumerate(entries):
        old = {a: b for a, b in names.items() if isinstance(entry, dict) and a in entry}
        old = {a: b for a, b in old.items() if b not in entry}
        found.append({old.get(k, k): v for k, v in entry.items()} if old else entry)
        for at, line in document.lines.items():
            if old and at[:2] == (key, index):
                lines[key, index, *_keys(at[2:], old)] = line
    return replace(document, data={**document.data, key: found}, lines=lines)


def _named(document: Document) -> Document:
    """Move a name at the top, as early versions wrote it, to the metadata."""
    if not isinstance(document.data.get("name", 0), str | None):
        return document
    data = dict(document.data)
    name = data.pop("name")
    metadata = data.get("metadata") or {}
    if name and isinstance(metadata, dict) and not metadata.get("name"):
        data["metadata"] = {**metadata, "name": name}
    return replace(document, data=data)


def _without_nulls(document: Document) -> Document:
    """Drop arguments that are null because cuvis-ai wrote down everything it was called with."""
    nodes = document.data.get("nodes")
    if not isinstance(nodes, list):
        return document
    found = []
    for node in nodes:
        hparams = node.get("hparams") if isinstance(node, dict) else None
        if isinstance(hparams, dict):
            kept = {k: v for k, v in hparams.items() if k not in _MEANINGLESS or v is not None}
            node = {**node, "hparams": kept}  # noqa: PLW2901
        found.append(node)
    return replace(document, data={**document.data, "nodes": found})


def port_of(node: Node, port: str, side: str) -> str:
    """The port of a node that a lenient file means by a name."""
    specs = node.OUTPUT_SPECS if side == "outputs" else node.INPUT_SPECS
    return port if port in specs else seed_port(node, port, side) or port
