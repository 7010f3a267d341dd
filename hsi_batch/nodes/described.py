"""The node library in words: summary, scope, ports and parameters of every class."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from hsi_batch.nodes.node import ALWAYS, Node, Stage
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.registry import node_classes

__all__ = ["Described", "Parameter", "Port", "described", "shape_text", "type_name"]

_AXES = ("batch", "y", "x", "channel")
#: Markup of docstrings: double backticks, and roles with their targets.
_MARKUP = re.compile(r":\w+:`[~.!]?([^`]*)`|``([^`]*)``")
_RULE = re.compile(r"^=+(?: +=+)+\n?", re.MULTILINE)
_CELL = re.compile(r"^``([^`]*)``( +)(?=\S.*\n(?:``| {6,}|=))", re.MULTILINE)
_SECTION = re.compile(r"^(\S[^\n]*)\n-{3,}$", re.MULTILINE)


@dataclass(frozen=True)
class Port:
    """An input or an output in words."""

    name: str
    dtype: str
    shape: str
    description: str
    optional: bool
    variadic: bool


@dataclass(frozen=True)
class Parameter:
    """An argument of a constructor in words; ``default`` is None where one must be given."""

    name: str
    type: str
    default: str | None
    description: str


@dataclass(frozen=True)
class Described:
    """A node class in words.

    Attributes
    ----------
    name, summary, text : str
        Class, first sentence of its documentation, and the rest before the parameters.
    scope : tuple of str
        What it may have to see at once, depending on its parameters.
    fitted_from : tuple of str
        Statistics of which inputs it is fitted from.
    folds : str
        "affine", "quadratic", or empty.
    stages : tuple of str
        When it runs; all by default.
    inputs, outputs : tuple of Port
    parameters : tuple of Parameter
    """

    name: str
    summary: str
    text: str
    scope: tuple[str, ...]
    fitted_from: tuple[str, ...]
    folds: str
    stages: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parameters: tuple[Parameter, ...]


def described(name: str) -> Described:
    """A class of the library in words.

    Examples
    --------
    >>> found = described("MinMaxNormalizer")
    >>> found.scope, found.fitted_from, found.folds
    (('pixel', 'frame'), ('extrema of data', 'extrema of data, per frame'), 'affine')
    """
    cls = node_classes()[name]
    text, _ = _sections(_documentation(cls))
    # What a base says of a parameter holds for a class that does not say anything.
    said: dict[str, tuple[str, str]] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(Node)]):
        said.update(_said(_sections(_documentation(base))[1].get("Parameters", "")))
    summary, _, rest = text.partition("\n\n")
    made = list(_instances(cls))
    scopes = dict.fromkeys(str(node.scope) for node in made)
    fitted = dict.fromkeys(found for node in made if (found := _fitted_from(node)))
    folds = "affine" if cls.AFFINE else "quadratic" if cls.QUADRATIC else ""
    return Described(
        name,
        " ".join(summary.split()),
        rest.strip(),
        tuple(scopes),
        tuple(fitted),
        folds,
        tuple(stage.value for stage in Stage if cls.stages != ALWAYS and stage in cls.stages),
        _ports(cls.INPUT_SPECS),
        _ports(cls.OUTPUT_SPECS),
        tuple(_parameters(cls, said)),
    )


def type_name(dtype: Any) -> str:
    """A dtype of a port in words."""
    if dtype is torch.Tensor:
        return "any"
    return str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")


def shape_text(spec: PortSpec) -> str:
    """The shape of a port with its axes named; sizes that follow the data are letters.

    Examples
    --------
    >>> shape_text(PortSpec(torch.float32, (-1, -1, -1, "n_components")))
    '(batch, y, x, n_components)'
    >>> shape_text(PortSpec(torch.float32, (-1,)))
    '(n,)'
    """
    names = _AXES if len(spec.shape) in (3, 4) else ("n", "m", "k")
    sizes = [
        str(size) if size != -1 else names[i % len(names)] for i, size in enumerate(spec.shape)
    ]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _ports(specs: Mapping[str, PortSpec]) -> tuple[Port, ...]:
    return tuple(
        Port(n, type_name(s.dtype), shape_text(s), s.description, s.optional, s.variadic)
        for n, s in specs.items()
    )


def _sections(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the first section of a docstring, and the sections."""
    found = list(_SECTION.finditer(text))
    if not found:
        return text.strip(), {}
    ends = [match.start() for match in found[1:]] + [len(text)]
    sections = {
        match.group(1): text[match.end() : end].strip("\n")
        for match, end in zip(found, ends, strict=True)
    }
    return text[: found[0].start()].strip(), sections


def _documentation(cls: type) -> str:
    text = inspect.cleandoc(cls.__doc__ or "")
    # The first column of a table keeps its width, and the rules above and below are for machines.
    text = _RULE.sub("", _CELL.sub(lambda cell: f"{cell[1]}    {cell[2]}", text))
    return _MARKUP.sub(r"\1\2", text)


def _said(section: str) -> dict[str, tuple[str, str]]:
    """Type and description of each parameter of a section."""
    said: dict[str, tuple[str, str]] = {}
    for entry in re.split(r"\n(?=\S)", section):
        head, _, body = entry.partition("\n")
        names, _, kind = head.partition(" : ")
        for name in names.split(","):
            said[name.strip().lstrip("*")] = (kind.strip(), " ".join(body.split()))
    return said


def _parameters(cls: type[Node], said: Mapping[str, tuple[str, str]]) -> Iterator[Parameter]:
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name in ("self", "name") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind, description = said.get(name, ("", ""))
        default = None if parameter.default is parameter.empty else repr(parameter.default)
        yield Parameter(name, kind or str(parameter.annotation), default, description)


def _fitted_from(node: Node) -> str:
    with suppress(Exception):
        each = ", per frame" if node.fits_each_frame else ""
        named = dict.fromkeys(f"{_word(r.kind)} of {r.port}{each}" for r in node.requests())
        return ", ".join(named)
    return ""


def _word(kind: object) -> str:
    """A statistic without what tells one of several parameters apart."""
    return str(kind).partition("-")[0]


#: Arguments that have a default, but that no node can do without.
_GIVEN = {"targets": [[1.0, 2.0]]}


def _instances(cls: type[Node]) -> Iterator[Node]:
    """Nodes of a class: one with its defaults, and one for each choice that a parameter offers."""
    hints: dict[str, Any] = {}
    with suppress(Exception):
        hints = get_type_hints(cls.__init__)
    signature = inspect.signature(cls.__init__).parameters
    needed = {
        name: _some(hints.get(name))
        for name, p in signature.items()
        if name != "self" and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    }
    needed |= {name: value for name, value in _GIVEN.items() if name in signature}
    yield from _made(cls, needed)
    for name in signature:
        for choice in _choices(hints.get(name)):
            yield from _made(cls, {**needed, name: choice})


def _made(cls: type[Node], arguments: Mapping[str, Any]) -> Iterator[Node]:
    # Not every combination is one that a class takes.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield cls(**arguments)


def _choices(hint: Any) -> tuple[Any, ...]:
    if hint is bool:
        return (True, False)
    if get_origin(hint) is Literal:
        return get_args(hint)
    return ()


def _some(hint: Any) -> Any:
    """A value of a type that a constructor may take."""
    if choices := _choices(hint):
        return choices[0]
    origin = get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [500.0, 600.0, 700.0]
    values: tuple[tuple[type, Any], ...] = ((int, 2), (float, 2.0), (str, "a"))
    kinds = get_args(hint) or (hint,)
    return next((value for kind, value in values if kind in kinds), [2])
