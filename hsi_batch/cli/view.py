"""``view``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_batch.cli.options import Json, Quiet

if TYPE_CHECKING:
    from hsi_batch.viewer import Viewer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("view")(view)


def view(
    scores: Annotated[Path, typer.Argument(metavar="SCORES")],
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="STORE", help="Where the cubes are, if they moved."),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="A free one by default.")
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the address, and open no browser.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at archive and scores in a browser on this machine, frame by frame; Ctrl-C ends it.

    Example: hsi-batch view scores.zarr
    """
    from hsi_batch.viewer import Content, view

    content = Content(scores, archive)
    with tempfile.TemporaryDirectory(prefix="hsi-batch-view-") as folder:

        def started(viewer: Viewer) -> None:
            if as_json:
                typer.echo(json.dumps({"address": viewer.address, "port": viewer.port}))
            elif not quiet:
                typer.echo(f"{viewer.address}\nOnly this machine can open it. Ctrl-C ends it.")
            sys.stdout.flush()
            if not no_open and _has_browser():
                _open(viewer.address, Path(folder))

        view(content, port, started=started)


def _has_browser() -> bool:
    # Without a display a browser would take the terminal.
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))


def _open(address: str, folder: Path) -> None:
    """Open a page that only this user can read: what programs are started with, all can see."""
    page = folder / "view.html"
    page.write_text(f'<meta http-equiv="refresh" content="0; url={address}">')
    webbrowser.open(page.as_uri())
