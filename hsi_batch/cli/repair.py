"""``repair``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Cluster, DryRun, Json, Quiet, Workers, client_of, show
from hsi_batch.cli.progress import observing

__all__ = ["register"]

_DAMAGED = 3


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("repair")(repair)


def repair(
    store: Annotated[Path, typer.Argument(metavar="STORE")],
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive", metavar="STORE", help="Of scores: the archive they were made of."
        ),
    ] = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(
            "--pipeline", metavar="FITTED.yaml", help="Of scores: what they were made with."
        ),
    ] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Redo what verify --deep finds damaged: from the sources, or by scoring again.

    What does not belong in the store is moved into its run state. Exit code 3 if damage is left.

    Example: hsi-batch repair archive.zarr --dry-run
    """
    from hsi_batch.stages.repair import repair as run_repair

    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run_repair(
            store,
            archive=archive,
            pipeline=pipeline,
            dry_run=dry_run,
            client=client,
            workers=workers,
            observer=observer,
        )
    show(result, as_json=as_json, quiet=quiet)
    if not result.sound and (result.hopeless or not dry_run):
        raise typer.Exit(_DAMAGED)
