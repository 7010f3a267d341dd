"""``quicklook``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Json, Quiet, show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("quicklook")(quicklook)


def quicklook(
    source: Annotated[Path, typer.Argument(metavar="SOURCE")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PAGE.html", help="Page with pictures.")
    ] = None,
    frame: Annotated[int, typer.Option("--frame", metavar="N", help="Counted from 0.")] = 0,
    mode: Annotated[
        str | None,
        typer.Option("--mode", metavar="MODE", help="SDK processing mode, such as Reflectance."),
    ] = None,
    nodata: Annotated[
        float | None, typer.Option("--nodata", metavar="V", help="Stored value of no data.")
    ] = None,
    saturation: Annotated[
        float | None,
        typer.Option("--saturation", metavar="V", help="Stored value from which it is saturated."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at a recording before converting it: flags, noise, bands that look bad, pictures.

    Example: hsi-batch quicklook scan.hdr --out scan.html
    """
    from hsi_batch.stages.quicklook import quicklook as run_quicklook

    result = run_quicklook(
        source, out, frame=frame, mode=mode, nodata=nodata, saturation=saturation
    )
    show(result, as_json=as_json, quiet=quiet)
