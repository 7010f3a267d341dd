"""``convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_batch.cli.options import (
    Cluster,
    CropOption,
    Dark,
    DeadColumns,
    DryRun,
    Force,
    Gps,
    Igm,
    Json,
    MaxFailed,
    OnlyFailed,
    Panel,
    QuantityOption,
    Quiet,
    Replace,
    Roi,
    WavelengthMap,
    White,
    Workers,
    Yes,
    asked,
    client_of,
    finish,
    show,
)
from hsi_batch.cli.outcomes import list_failures, plan_or_json
from hsi_batch.cli.plans import convert_plan_text
from hsi_batch.cli.progress import observing
from hsi_batch.wording import printable

if TYPE_CHECKING:
    from hsi_batch.stages.convert import ConvertResult

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("convert")(convert)
    app.command("ingest", hidden=True)(convert)


def convert(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...")],
    archive: Annotated[Path, typer.Option("--archive", metavar="STORE", help="The archive.")],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Name sessions by their path below DIR."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option("--mode", metavar="MODE", help="SDK processing mode, such as Reflectance."),
    ] = None,
    annotations: Annotated[
        str,
        typer.Option("--annotations", metavar="sibling|none|FILE", help="Where labels are."),
    ] = "sibling",
    nodata: Annotated[
        float | None, typer.Option("--nodata", metavar="V", help="Stored value of no data.")
    ] = None,
    saturation: Annotated[
        float | None,
        typer.Option("--saturation", metavar="V", help="Stored value from which it is saturated."),
    ] = None,
    block_lines: Annotated[
        str | None,
        typer.Option("--block-lines", metavar="N|frame", help="Height of blocks; 8 to 16 MB."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="fast|balanced|small|sharded",
            help="How blocks are stored; balanced by default.",
        ),
    ] = None,
    white: White = "sibling",
    dark: Dark = "sibling",
    panel: Panel = None,
    crop: CropOption = None,
    quantity: QuantityOption = None,
    roi: Roi = None,
    dead_columns: DeadColumns = None,
    igm: Igm = "sibling",
    gps: Gps = "sibling",
    wavelength_map: WavelengthMap = None,
    replace: Replace = False,
    yes: Yes = False,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    only_failed: OnlyFailed = False,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert recordings (.cu3s, ENVI .hdr, .npz; files, folders, globs) into an archive.

    Example: hsi-batch convert recordings/ --archive archive.zarr
    """
    from hsi_batch.errors import ConfigError
    from hsi_batch.stages.convert import convert as run_convert

    lines: int | str | None = block_lines
    if block_lines is not None and block_lines != "frame":
        if not block_lines.isdigit() or int(block_lines) < 1:
            raise ConfigError(f"--block-lines {block_lines!r} is not a number of lines or 'frame'.")
        lines = int(block_lines)
    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result: ConvertResult = run_convert(
            list(sources),
            archive,
            mode=mode,
            root=root,
            annotations=annotations,
            nodata=nodata,
            saturation=saturation,
            block_lines=lines,
            preset=preset,
            white=white,
            dark=dark,
            panel=panel,
            crop=crop,
            quantity=quantity,
            roi=roi,
            dead_columns=dead_columns,
            igm=igm,
            gps=gps,
            wavelength_map=wavelength_map,
            replace=replace,
            force=force,
            only_failed=only_failed,
            dry_run=dry_run,
            client=client,
            workers=workers,
            observer=observer,
            confirm=None if yes else asked,
        )
    if dry_run:
        plan_or_json(convert_plan_text(result), result.plan, as_json=as_json, quiet=quiet)
        return
    if not quiet:
        for path, reason in result.skipped:
            typer.echo(printable(f"skipped: {path}: {reason}"), err=True)
    list_failures(result)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)
