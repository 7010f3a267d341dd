"""YAML files with line numbers, every problem reported at once."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hsi_batch.errors import ConfigError, Problem, did_you_mean
from hsi_batch.limits import MAX_BYTES, MAX_DEPTH, MAX_ENTRIES, Bounded, expanded

__all__ = ["Document", "Location", "read_yaml", "set_value"]

Location = tuple[str | int, ...]

_YAML = "tag:yaml.org,2002:"
_SCALARS = {_YAML + kind for kind in ("str", "int", "float", "bool", "null")}
_COLLECTIONS = {_YAML + kind for kind in ("map", "seq")}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class _Loader(Bounded):
    """Safe loading without the implicit dates, octals and base 60 that surprise people."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag in (_YAML + "bool", _YAML + "null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 reads 1e-6 as text, 010 as 8 and 12:30 as 750; people mean a number, a name and a time.
_INT = r"^[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"
_FLOAT = (
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_Loader.add_implicit_resolver(_YAML + "int", re.compile(_INT), list("-+0123456789"))
_Loader.add_implicit_resolver(_YAML + "float", re.compile(_FLOAT), list("-+.0123456789"))


@dataclass(frozen=True)
class Document:
    """Contents of a YAML file and the line of every entry.

    Attributes
    ----------
    data : object
        Plain Python values.
    lines : dict
        Line (1-based) of each entry by its location, such as ``("nodes", 0, "name")``.
    path : str, optional
        The file.
    problems : tuple of Problem
        What could not be read; :func:`.validate` reports it with the rest.
    """

    data: Any
    lines: Mapping[Location, int]
    path: str | None = None
    problems: tuple[Problem, ...] = ()

    def line(self, location: Sequence[str | int]) -> int | None:
        """Line of the entry, or of the nearest one above it."""
        at = tuple(location)
        while at not in self.lines and at:
            at = at[:-1]
        return self.lines.get(at)

    def problem(self, message: str, location: Sequence[str | int] = ()) -> Problem:
        """A problem at an entry."""
        return Problem(message, path=self.path, line=self.line(location))

    def merged(self, found: Sequence[Problem]) -> list[Problem]:
        """The problems of reading and ``found`` ones, by line.

        What stands on a line that could not be read is not reported a second time.
        """
        unread = {problem.line for problem in self.problems}
        rest = [p for p in found if p.path != self.path or p.line not in unread]
        return sorted([*self.problems, *rest], key=lambda p: (p.path or "", p.line or 0))


def read_yaml(
    source: str | os.PathLike[str],
    *,
    text: str | None = None,
    variables: bool = False,
    collect: bool = False,
) -> Document:
    """Read a YAML file safely, with line numbers.

    Parameters
    ----------
    source : path
        The file; only its name is used if ``text`` is given.
    text : str, optional
        Contents to parse instead.
    variables : bool
        Replace ``${NAME}`` and ``${NAME:-default}`` in values by environment variables; a value
        stays one, and is never read as a list or a mapping.
    collect : bool
        Keep what is wrong with single entries in the document, for :func:`validate` to report
        with the rest, instead of raising.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Missing, unreadable, too large or not YAML; a key that stands twice.
    """
    path = os.fspath(source)
    if text is None:
        text = _read_text(path)
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            f"this is not YAML: {getattr(error, 'problem', None) or error}.",
            path=path,
            line=None if mark is None else mark.line + 1,
            hint="Check indentation, colons and quotes near this line.",
        ) from None
    except RecursionError:
        raise ConfigError(
            f"nested deeper than {MAX_DEPTH} levels.", path=path, hint="Write it less deep."
        ) from None
    if expanded(root) > MAX_ENTRIES:
        # Aliases can stand for exponentially many entries, or for themselves.
        raise ConfigError(
            f"nested deeper than {MAX_DEPTH} levels, or more than {MAX_ENTRIES} entries.",
            path=path,
            hint="Write less into it, or less deep, and look for aliases of aliases.",
        )
    lines: dict[Location, int] = {}
    problems: list[Problem] = []
    try:
        data = _plain(root, (), lines, problems, variables) if root is not None else None
    except ConfigError as error:
        error.path = path
        raise
    problems = [Problem(p.message, path=path, line=p.line, hint=p.hint) for p in problems]
    if problems and not collect:
        raise ConfigError.collect(problems, path=path)
    return Document(data, lines, path, tuple(problems))


def _read_text(path: str) -> str:
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"the file is larger than {MAX_BYTES // 2**20} MiB, so it is no configuration.",
                path=path,
                hint="Name a YAML file of settings.",
            )
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such file.", path=path, hint="Check the path.") from None
    except IsADirectoryError:
        raise ConfigError(
            "this is a folder; a YAML file was expected.", path=path, hint="Name the file in it."
        ) from None
    except UnicodeDecodeError:
        beside = f"The weights of a pipeline are read with its YAML, {Path(path).stem}.yaml."
        raise ConfigError(
            "cannot be read as text (UTF-8); a YAML file was expected.",
            path=path,
            hint=beside
            if Path(path).suffix == ".pt"
            else "Save it as UTF-8, or name another file.",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error}.", path=path, hint="Check the path and the permissions."
        ) from None


def _plain(
    node: yaml.Node,
    at: Location,
    lines: dict[Location, int],
    problems: list[Problem],
    variables: bool,
) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(at, line)
    if len(at) > MAX_DEPTH:
        raise ConfigError(
            f"nested deeper than {MAX_DEPTH} levels.", line=line, hint="Write it less deep."
        )
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, problems, variables)
    if node.tag not in _COLLECTIONS:
        problems.append(_tag_problem(node))
        return None
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Hashable, Any] = {}
        taken: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(Problem("keys must be plain text.", line=line))
                continue
            if key_node.value == "<<" and key_node.style is None:
                taken = {**_taken(value_node, at, lines, problems, variables), **taken}
                continue
            key = str(key_node.value)
            if key in mapping:
                problems.append(
                    Problem(
                        f"key {key!r} stands twice.",
                        line=key_node.start_mark.line + 1,
                        hint="Remove one of them.",
                    )
                )
                continue
            lines[*at, key] = key_node.start_mark.line + 1
            mapping[key] = _plain(value_node, (*at, key), lines, problems, variables)
        return {**{key: value for key, value in taken.items() if key not in mapping}, **mapping}
    return [
        _plain(child, (*at, index), lines, problems, variables)
        for index, child in enumerate(node.value)
    ]


def _taken(
    node: yaml.Node,
    at: Location,
    lines: dict[Location, int],
    problems: list[Problem],
    variables: bool,
) -> dict[Hashable, Any]:
    """The entries that ``<<: *anchor`` (or a list of anchors) adds; the first one counts."""
    parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(part, yaml.MappingNode) for part in parts):
        text = "'<<' takes over the entries of a mapping (<<: *anchor), or of a list of them."
        problems.append(Problem(text, line=node.start_mark.line + 1))
        return {}
    found: dict[Hashable, Any] = {}
    for index, part in enumerate(parts):
        # A place of its own, so that entries are counted and cannot multiply unseen.
        given = _plain(part, (*at, "<<", index), lines, problems, variables)
        found = {**given, **found}
    for key in found:
        lines.setdefault((*at, str(key)), node.start_mark.line + 1)
    return found


def _tag_problem(node: yaml.Node) -> Problem:
    return Problem(
        f"the tag {node.tag!r} is not allowed here.",
        line=node.start_mark.line + 1,
        hint="Remove it: values are plain text, numbers, lists and mappings.",
    )


def _scalar(node: yaml.ScalarNode, problems: list[Problem], variables: bool) -> Any:
    line = node.start_mark.line + 1
    if node.tag not in _SCALARS:
        problems.append(_tag_problem(node))
        return None
    text, tag = node.value, node.tag
    loader = _Loader("")
    try:
        if variables and "${" in text:
            text = _VARIABLE.sub(lambda match: _variable(match, problems, line), text)
            if node.style is not None or not text:
                return text
            # A replaced plain scalar is typed by what it became.
            tag = str(loader.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]
        return loader.construct_object(yaml.ScalarNode(tag, text), deep=True)
    except (ValueError, LookupError):
        # LookupError: `!!int ""`, `!!bool maybe`
        kind = tag.removeprefix(_YAML)
        problems.append(
            Problem(
                f"{text!r} cannot be read as {kind}.",
                line=line,
                hint="Write such a value, or remove the tag.",
            )
        )
        return None
    finally:
        loader.dispose()


def _variable(match: re.Match[str], problems: list[Problem], line: int) -> str:
    name, default = match.group(1), match.group(2)
    value: str | None = os.environ.get(name)
    value = default if value is None else value
    if value is None:
        problems.append(
            Problem(
                f"the environment variable {name} is not set (write ${{{name}:-default}}"
                " to give a default).",
                line=line,
            )
        )
        return ""
    return value


def set_value(document: Document, assignment: str) -> Document:
    """Apply one ``a.b=c`` of the command line.

    In lists, a part of the path is a number from 0 or the ``name`` of an entry. Mappings are made
    on the way where there are none.

    Examples
    --------
    >>> document = read_yaml("x.yaml", text="fit: {pixels: valid}")
    >>> set_value(document, "fit.pixels=labelled-normal").data
    {'fit': {'pixels': 'labelled-normal'}}
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {assignment!r} is not of the form a.b=value.")
    parts = path.split(".")
    value = read_yaml("--set", text=text).data
    data = {} if document.data is None else _copied(document.data)
    holder = data
    for depth, part in enumerate(parts, start=1):
        key = _key_of(holder, part)
        if key is None:
            above = ".".join(parts[: depth - 1]) or "the document"
            entries = holder if isinstance(holder, list) else []
            names = [str(entry["name"]) for entry in entries if _has_name(entry)]
            raise ConfigError(
                f"--set {assignment!r}: {above} has no entry {part!r}.{did_you_mean(part, names)}",
                hint="Use a number from 0, or the `name` of an entry.",
            )
        if depth == len(parts):
            holder[key] = value
        elif not isinstance(_held(holder, key), (dict, list)):
            holder[key] = {}
        holder = holder[key]
    return replace(document, data=data)


def _key_of(holder: Any, part: str) -> str | int | None:
    """Key of a mapping or index of a list; None if there can be no such entry."""
    if isinstance(holder, dict):
        return part
    if not isinstance(holder, list):
        return None
    if part.isdecimal():
        return int(part) if int(part) < len(holder) else None
    named = [i for i, x in enumerate(holder) if isinstance(x, dict) and x.get("name") == part]
    return named[0] if named else None


def _has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and "name" in entry


def _held(holder: Any, key: str | int) -> Any:
    return holder.get(key) if isinstance(holder, dict) else holder[key]


def _copied(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(value) for value in data] if isinstance(data, list) else data
