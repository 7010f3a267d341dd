"""``top``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Json, Quiet
from hsi_batch.cli.tables import none, table, text

__all__ = ["register"]

_COLUMNS = {
    "selector": "frame",
    "score_max": "highest",
    "max_y": "at line",
    "max_x": "sample",
    "score_p999": "99.9 %",
    "score_p50": "50 %",
    "flagged": "flagged",
}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("top")(top)


def top(
    scores: Annotated[Path, typer.Argument(metavar="SCORES")],
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, metavar="N", help="Frames, at most.")
    ] = 10,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="highest|p999|p99|flagged",
            help="Highest score, a quantile of the scores, or flagged pixels of a frame.",
        ),
    ] = "highest",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write selectors, for --frames @FILE."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rank the frames of scores, the strangest first; reads no score, only their summary.

    Example: hsi-batch top scores.zarr -n 10 --out top10.txt
    """
    from hsi_batch.stages.strangest import strangest

    found = strangest(scores, count, by=by, out=out)  # type: ignore[arg-type]
    if as_json:
        rows = [{key: none(value) for key, value in row.items()} for row in found.rows]
        typer.echo(json.dumps({**found.to_dict(), "frames": rows}, indent=2))
    elif not quiet:
        columns = [c for c in _COLUMNS if any(none(row.get(c)) is not None for row in found.rows)]
        cells = [[text(row.get(column)) for column in columns] for row in found.rows]
        table(str(found), [_COLUMNS[column] for column in columns], cells)
        if out is not None:
            typer.echo(f"selectors: {out}; use them as --frames @{out}")
