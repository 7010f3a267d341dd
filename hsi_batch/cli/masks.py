"""``mask``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import (
    Cluster,
    Frames,
    Json,
    MaxFailed,
    Quiet,
    Workers,
    client_of,
    finish,
    show,
)
from hsi_batch.cli.progress import observing

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("mask")(mask)


def mask(
    store: Annotated[Path, typer.Argument(metavar="STORE")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the mask.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="EXPR|FILE|x0:x1",
            help="What is inside: 'b(800)/b(650) > 1.2', 100:900, x=100:900,y=0:50,"
            " 'polygon (x,y) (x,y) (x,y)', label:NAME, or a mask image.",
        ),
    ],
    frames: Frames = None,
    cluster: Cluster = None,
    workers: Workers = None,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Name pixels of an archive, to fit on them (fit --pixels mask:NAME); cubes stay as they are.

    Example: hsi-batch mask archive.zarr --name product --from 'b(800)/b(650) > 1.2'
    """
    from hsi_batch.stages.mask import mask as run_mask

    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run_mask(
            store, name, source, frames=frames, client=client, workers=workers, observer=observer
        )
    for failure in result.failures[:20]:
        typer.echo(f"failed: {failure.key}: {failure.reason}", err=True)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)
