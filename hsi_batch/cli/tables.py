"""Tables and lists of facts on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from hsi_batch.wording import printable

__all__ = ["facts", "none", "table", "text"]


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; in a pipe it is as wide as it needs to be."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        shown.add_column(
            column, justify="left" if index == 0 else "right", no_wrap=index == 0, overflow="fold"
        )
    for row in rows:
        shown.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(200, console.width))
    console.print(shown)


def facts(entries: Mapping[str, Any]) -> None:
    """Print what is known, a line each."""
    for key, value in entries.items():
        if value not in (None, "", {}, []):
            typer.echo(printable(f"  {key:18} {value}"))


def none(value: Any) -> Any:
    """The value, or None for NaN."""
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN


def text(value: Any) -> str:
    """The text of a cell."""
    value = none(value)
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
