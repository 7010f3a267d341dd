"""``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import (
    Cluster,
    DryRun,
    Force,
    Json,
    MaxFailed,
    Quiet,
    Set,
    Workers,
    client_of,
    finish,
    show,
)
from hsi_batch.cli.plans import train_plan_data, train_plan_text
from hsi_batch.cli.progress import observing

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train")(train)


def train(
    trainrun: Annotated[Path, typer.Argument(metavar="TRAINRUN.yaml")],
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="STORE", help="Archive of the data, not the trainrun's."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FITTED.yaml", help="The trained pipeline to write."),
    ] = None,
    settings: Set = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a pipeline, train it by gradients, write it; goes on where it was interrupted.

    Example: hsi-batch train trainrun.yaml --archive archive.zarr --out fitted/selector.yaml
    """
    from hsi_batch.training.trained_run import plan
    from hsi_batch.training.trained_run import train as run_train

    if dry_run:
        with client_of(cluster, workers) as client:
            planned = plan(
                trainrun,
                archive=archive,
                out=out,
                overrides=settings or (),
                force=force,
                client=client,
                workers=workers,
            )
        show(
            train_plan_data(planned) if as_json else train_plan_text(planned),
            as_json=as_json,
            quiet=quiet,
        )
        return
    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run_train(
            trainrun,
            archive=archive,
            out=out,
            overrides=settings or (),
            force=force,
            client=client,
            workers=workers,
            observer=observer,
        )
    for failure in result.failures[:20]:
        typer.echo(f"failed: {failure.key}: {failure.reason}", err=True)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)
