"""``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Cluster, Json, Quiet, Workers, client_of, show
from hsi_batch.cli.progress import observing

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    scores: Annotated[Path, typer.Argument(metavar="SCORES")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="parquet|csv|coco|gpkg|geotiff|envi|png",
            help="Detections (parquet, coco, gpkg), maps (geotiff, envi, png), or tables of frames"
            " and sessions (csv; parquet writes them too).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder; made if needed.")],
    output: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="PORT", help="Map that is written; repeatable."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", metavar="T", help="Flag scores from here on, instead of decisions."
        ),
    ] = None,
    min_area: Annotated[
        int, typer.Option("--min-area", min=1, metavar="N", help="Pixels of a detection, at least.")
    ] = 1,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="STORE", help="Where the cubes are, if they moved."),
    ] = None,
    ortho: Annotated[
        Path | None,
        typer.Option(
            "--ortho",
            metavar="GLT.hdr|igm",
            help="Put GeoTIFFs onto the grid of this GLT, or of one made from each session's IGM.",
        ),
    ] = None,
    interleave: Annotated[
        str, typer.Option("--interleave", metavar="bsq|bil|bip", help="Of ENVI files.")
    ] = "bsq",
    limits: Annotated[
        tuple[float, float] | None,
        typer.Option("--range", metavar="LOW HIGH", help="Ends of the grey scale of PNGs."),
    ] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write detections, maps (GeoTIFF, ENVI, PNG) or tables of scores for other tools.

    Example: hsi-batch export scores.zarr --format gpkg --out detections/
    """
    from hsi_batch.stages.export import export as run_export

    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run_export(
            scores,
            kind,
            out,
            outputs=output,
            threshold=threshold,
            min_area=min_area,
            archive=archive,
            ortho=ortho,
            interleave=interleave,
            limits=limits,
            client=client,
            workers=workers,
            observer=observer,
        )
    show(result, as_json=as_json, quiet=quiet)
