"""The report: tables on the terminal and in a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.speed.harness import Line

__all__ = ["show", "write"]

_HEAD = ("what", "against", "ours", "theirs", "ratio", "by the clock", "bar", "", "note")
_PAGE = Path(__file__).with_name("page.md")


def show(lines: Iterable[Line], head: dict[str, str]) -> None:
    """Print to the terminal."""
    console = Console(width=170)
    for name, value in head.items():
        console.print(f"[bold]{name}[/bold]: {value}", highlight=False)
    for family, members in groupby(lines, key=lambda line: line.family):
        table = Table(*_HEAD, title=family, title_justify="left")
        for line in members:
            style = {True: "green", False: "red", None: None}[line.met]
            table.add_row(*_cells(line), style=style)
        console.print(table)


def write(lines: Sequence[Line], head: dict[str, str], page: Path, command: str) -> None:
    """Write the page."""
    tables = []
    for family, members in groupby(lines, key=lambda line: line.family):
        rows = [" | ".join(_cells(line)) for line in members]
        rule = " | ".join("---" for _ in _HEAD)
        tables.append(
            f"## {family}\n\n| {' | '.join(_HEAD)} |\n| {rule} |\n"
            + "".join(f"| {row} |\n" for row in rows)
        )
    named = "\n".join(f"* **{name}**: {value}" for name, value in head.items())
    page.write_text(
        _PAGE.read_text().format(
            command=command, date=head["date"], head=named, tables="\n".join(tables)
        )
    )


def _cells(line: Line) -> tuple[str, ...]:
    bar = "" if line.bar is None else f"{'at most' if line.most else 'at least'} {line.bar:g}"
    met = {True: "pass", False: "**miss**", None: ""}[line.met]
    return (
        line.what,
        line.peer,
        _number(line.ours, line.unit),
        _number(line.theirs, line.unit),
        _number(line.ratio),
        _number(line.wall_ratio),
        bar,
        met,
        line.note,
    )


def _number(value: float | None, unit: str = "") -> str:
    if value is None or value == 0 or math.isnan(value):
        return ""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()
