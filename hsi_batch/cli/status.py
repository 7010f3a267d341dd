"""``status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Json, Quiet, show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("status")(status)


def status(
    store: Annotated[Path, typer.Argument(metavar="STORE|FITTED.yaml")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show whether a run uses a store, from any terminal, and how far it is.

    Example: hsi-batch status archive.zarr
    """
    from hsi_batch.stages.status import status as find

    show(find(store), as_json=as_json, quiet=quiet)
