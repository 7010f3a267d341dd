"""``drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Frames, Json, Quiet, show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("drift")(drift)


def drift(
    fitted: Annotated[Path, typer.Argument(metavar="FITTED.yaml")],
    archive: Annotated[Path, typer.Option("--archive", metavar="STORE", help="The archive.")],
    frames: Frames = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say how far each session has moved from what a pipeline was fitted on; reads no pixels.

    Example: hsi-batch drift fitted/rx.yaml --archive archive.zarr --frames 'glob:2026-*'
    """
    from hsi_batch.stages.drift import drift as run_drift

    show(run_drift(fitted, archive, frames=frames), as_json=as_json, quiet=quiet)
