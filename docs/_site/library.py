"""The page of nodes, from their docstrings and ports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

from markup import plain

from hsi_batch.nodes import node_classes
from hsi_batch.nodes.described import Described, Port, described

__all__ = ["page"]

_EXAMPLES = re.compile(r"^Examples\n-{3,}\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL)


def page() -> str:
    """The whole library, in Markdown."""
    found = [described(name) for name in sorted(node_classes())]
    lines = [
        "# Nodes",
        "",
        f"The {len(found)} classes that a graph may name, as `hsi-batch nodes NAME` shows them."
        " What the words mean is in [Pipelines](../pipelines.md).",
        "",
        "| node | what it does | scope | fitted from |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| [{each.name}](#{each.name.lower()}) | {_cell(each.summary)} | {', '.join(each.scope)}"
        f" | {_cell('; '.join(each.fitted_from))} |"
        for each in found
    ]
    for each in found:
        lines += ["", *_node(each)]
    return "\n".join(lines)


def _node(each: Described) -> list[str]:
    facts = {
        "scope": ", ".join(each.scope),
        "folds": f"yes, it is {each.folds}" if each.folds else "",
        "fitted from": "; ".join(each.fitted_from),
        "runs in": ", ".join(each.stages),
    }
    told = "; ".join(f"**{name}** {text}" for name, text in facts.items() if text)
    text = inspect.cleandoc(node_classes()[each.name].__doc__ or "")
    body = re.split(r"^\S[^\n]*\n-{3,}$", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [f"## {each.name}", "", plain(body).strip(), "", told, ""]
    lines += _ports("input", each.inputs) + _ports("output", each.outputs)
    if each.parameters:
        lines += ["| parameter | type | default | |", "| --- | --- | --- | --- |"]
        for p in each.parameters:
            default = "must be given" if p.default is None else f"`{p.default}`"
            cells = [f"`{p.name}`", _cell(p.type), default, _cell(p.description)]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    if (example := _EXAMPLES.search(text + "\n")) is not None:
        lines += ["```pycon", example[1].strip(), "```", ""]
    return lines


def _ports(side: str, ports: Iterable[Port]) -> list[str]:
    rows = []
    for port in ports:
        notes = {"optional": port.optional, "any number": port.variadic}
        said = ", ".join([port.shape, *(note for note, holds in notes.items() if holds)])
        rows.append(f"| `{port.name}` | {port.dtype} | {said} | {_cell(port.description)} |")
    head = [f"| {side} | type | shape | |", "| --- | --- | --- | --- |"]
    return [*head, *rows, ""] if rows else []


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("<", "&lt;")
    return re.sub(r"([*_\[\]|])", r"\\\1", flat)
