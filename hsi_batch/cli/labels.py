"""``label``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hsi_batch.cli.options import (
    Cluster,
    DryRun,
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
from hsi_batch.cli.tables import table

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("label")(label)


def label(
    store: Annotated[Path, typer.Argument(metavar="STORE")],
    annotations: Annotated[
        str | None,
        typer.Option(
            "--annotations",
            metavar="FILE|DIR|sibling",
            help="COCO, class image, .npz, ENVI classification or ROI, GeoJSON, GeoPackage; a"
            " folder of files named after the recordings.",
        ),
    ] = None,
    ignore_border: Annotated[
        int,
        typer.Option(
            "--ignore-border",
            min=0,
            metavar="N",
            help="Leave N pixels on either side of each border unlabelled.",
        ),
    ] = 0,
    rest: Annotated[
        str | None,
        typer.Option(
            "--rest",
            metavar="background|unlabelled",
            help="What is not marked; by default what the kind of file says.",
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, metavar="N", help="Let this version hold again."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the versions.")] = False,
    frames: Frames = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add labels to sessions of an archive, as a new version; cubes stay as they are.

    Example: hsi-batch label archive.zarr --annotations labels.json --frames lentils_000
    """
    from hsi_batch.errors import ConfigError
    from hsi_batch.stages.label import label as run_label
    from hsi_batch.stages.label import use_labels

    if sum((annotations is not None, version is not None, listed)) != 1:
        raise ConfigError(
            "one of --annotations, --version and --list is needed.",
            hint="Write for example --annotations labels.json, or --list.",
        )
    if dry_run and annotations is None:
        raise ConfigError(
            "--dry-run needs --annotations.", hint="--list shows the versions that there are."
        )
    if rest not in (None, "background", "unlabelled"):
        raise ConfigError(f"--rest {rest!r} is not one of background, unlabelled.")
    if listed:
        _list(store, frames, as_json=as_json, quiet=quiet)
        return
    if version is not None:
        result = use_labels(store, version, frames=frames)
    else:
        assert annotations is not None
        with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
            result = run_label(
                store,
                annotations,
                frames=frames,
                ignore_border=ignore_border,
                rest=rest,  # type: ignore[arg-type]  # of Click's choices
                dry_run=dry_run,
                client=client,
                workers=workers,
                observer=observer,
            )
    for failure in result.failures[:20]:
        typer.echo(f"failed: {failure.key}: {failure.reason}", err=True)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)


def _list(store: Path, frames: list[str] | None, *, as_json: bool, quiet: bool) -> None:
    from hsi_batch.archive import open_archive
    from hsi_batch.archive.labels import label_versions

    archive = open_archive(store)
    rows: list[dict[str, Any]] = []
    for name, session in archive.sessions(archive.select(frames).sessions).items():
        for number, entry in label_versions(session).items():
            holds = number == session.label_version
            rows.append({"session": name, "version": number, "holds": holds, **entry})
    if as_json:
        typer.echo(json.dumps({"labels": rows}, indent=2))
        return
    if quiet:
        return
    columns = ("session", "version", "holds", "labelled_frames", "ignore_border", "made", "from")
    cells = [
        ["yes" if row.get(c) is True else str(row.get(c) or "") for c in columns] for row in rows
    ]
    table(f"labels of {store}", [c.replace("_", " ") for c in columns], cells)
