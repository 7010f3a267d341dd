"""``provenance``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Json, Quiet, show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("provenance")(provenance)


def provenance(
    scores: Annotated[Path, typer.Argument(metavar="SCORES")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell what made some scores: a paragraph for a paper, or RO-Crate with --json.

    Example: hsi-batch provenance scores.zarr --json
    """
    from hsi_batch.stages.provenance import provenance as run_provenance

    show(run_provenance(scores), as_json=as_json, quiet=quiet)
