"""The page of commands, from the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from hsi_batch.cli.main import app

__all__ = ["page"]


def page() -> str:
    """Every command with its arguments and options, in Markdown."""
    root = typer.main.get_command(app)
    lines = ["# Commands", "", f"{app.info.help}", "", f"{app.info.epilog}", ""]
    lines += ["Results go to standard output, everything else to standard error.", ""]
    for name, command in _all(root):
        lines += _command(name, command)
    return "\n".join(lines)


def _all(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if getattr(command, "commands", None):
            yield from _all(command, f"{above}{name} ")
        elif not command.hidden:
            yield above + name, command


def _command(name: str, command: Any) -> list[str]:
    text, _, example = (command.help or "").partition("Example:")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([f"hsi-batch {name}", *(_metavar(a) for a in arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", _escaped(text.strip()), "", "```text", usage, "```", ""]
    if example:
        lines += ["Example:", "", "```text", " ".join(example.split()), "```", ""]
    rows = [
        [f"`{' '.join([', '.join(o.opts), *_takes(o)])}`", _escaped(o.help or ""), _default(o)]
        for o in [*arguments, *options]
        if o in options or o.help
    ]
    if rows:
        head = ["option", "what it does", "default"]
        width = 3 if any(row[2] for row in rows) else 2
        rows = [row[:width] for row in [head, ["---"] * 3, *rows]]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        lines += [f"| {' | '.join(row)} |" for row in cells]
    return [*lines, ""]


def _metavar(argument: Any) -> str:
    shown = argument.metavar or argument.name.upper()
    return shown if argument.required or shown.startswith("[") else f"[{shown}]"


def _takes(option: Any) -> list[str]:
    if getattr(option, "is_flag", False):
        return [f"/ {', '.join(option.secondary_opts)}"] if option.secondary_opts else []
    named = option.opts[0].startswith("-")
    return [option.metavar or option.name.upper()] if named else []


def _default(option: Any) -> str:
    if option.required:
        return "must be given"
    value = getattr(option.default, "value", option.default)
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""
    return f"`{value}`" if plain else ""


def _escaped(text: str) -> str:
    flat = " ".join(text.split()).replace("<", "&lt;")
    return re.sub(r"([*_\[\]])", r"\\\1", flat)
