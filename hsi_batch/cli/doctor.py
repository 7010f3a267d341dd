"""``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Json, Quiet, show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    store: Annotated[
        Path | None,
        typer.Argument(metavar="[STORE]", help="Folder or store on the storage to measure."),
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Start a local worker as well.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check environment, SDK, versions, machine and storage; says what to do about each problem.

    The exit code is 1 if there is a problem; warnings are none.

    Example: hsi-batch doctor archive.zarr
    """
    from hsi_batch.stages.doctor import examine

    found = examine(store, worker=worker)
    show(found, as_json=as_json, quiet=quiet and not found.problems)
    if found.problems:
        raise typer.Exit(1)
