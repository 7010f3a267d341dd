"""``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Cluster, Json, Quiet, Workers, client_of, show
from hsi_batch.cli.progress import observing

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate")(evaluate)


def evaluate(
    scores: Annotated[Path, typer.Argument(metavar="SCORES")],
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="session|sensor|attr:NAME",
            help="Units that are reported, and drawn for intervals.",
        ),
    ] = "session",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="session|sensor|attr:NAME",
            help="Report apart what the pipeline was fitted on, and what it has not seen.",
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="STORE", help="Where the labels are, if they moved."),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", min=1, metavar="N", help="Of the bootstrap over units.")
    ] = 500,
    cluster: Cluster = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure scores against labels: pixels, objects and false alarms, with intervals.

    Example: hsi-batch evaluate scores.zarr --by attr:lot --split attr:lot
    """
    from hsi_batch.stages.performance import performance

    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = performance(
            scores,
            by=by,
            split=split,
            archive=archive,
            draws=draws,
            client=client,
            workers=workers,
            observer=observer,
        )
    show(result, as_json=as_json, quiet=quiet)
