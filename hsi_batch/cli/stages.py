"""``run``, ``convert``, ``fit``, ``score``, ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import (
    Bands,
    Cluster,
    DryRun,
    ExcludeBands,
    Force,
    Frames,
    Json,
    MaxFailed,
    OnlyFailed,
    Quiet,
    RawValues,
    Replace,
    Set,
    Workers,
    Yes,
    asked,
    client_of,
    finish,
    show,
)
from hsi_batch.cli.outcomes import list_failures, plan_or_json
from hsi_batch.cli.plans import (
    convert_plan_text,
    fit_plan_data,
    fit_plan_text,
    score_plan_text,
    train_plan_data,
    train_plan_text,
)
from hsi_batch.cli.progress import observing

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("run")(run)
    app.command("fit")(fit)
    app.command("score")(score)
    app.command("report")(report)


def run(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW.yaml")],
    settings: Set = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    only_failed: OnlyFailed = False,
    replace: Replace = False,
    yes: Yes = False,
    max_failed: MaxFailed = 0,
    performance: Annotated[
        Path | None,
        typer.Option(
            "--performance", metavar="FILE.html", help="Write Dask's performance report there."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert, fit, score and report as a workflow says; what is up to date is left alone.

    Example: hsi-batch run workflows/quickstart.yaml --set fit.pixels=labelled-normal
    """
    from hsi_batch.workflow import run_workflow

    with observing(quiet=quiet or as_json) as observer:
        result = run_workflow(
            workflow,
            tuple(settings or ()),
            cluster=cluster,
            workers=workers,
            force=force,
            only_failed=only_failed,
            replace=replace,
            dry_run=dry_run,
            performance=performance,
            observer=observer,
            confirm=None if yes or dry_run else asked,
        )
    stages = (result.convert, result.fit, result.train, result.score)
    parts = [part for part in stages if part is not None]
    if dry_run:
        texts = {
            "convert": result.convert and convert_plan_text(result.convert),
            "fit": result.fit and fit_plan_text(result.fit),
            "train": result.train_plan and train_plan_text(result.train_plan),
            "score": result.score and score_plan_text(result.score),
        }
        if as_json:
            plans = {
                "convert": result.convert and result.convert.plan,
                "fit": result.fit and fit_plan_data(result.fit),
                "train": result.train_plan and train_plan_data(result.train_plan),
                "score": result.score and result.score.plan,
            }
            show(plans, as_json=True, quiet=quiet)
        elif not quiet:
            for name, text in texts.items():
                typer.echo(f"{name}: {text or 'planned when the stages before it are done'}")
        return
    for part in parts:
        list_failures(part)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)


def fit(
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml")],
    archive: Annotated[Path, typer.Option("--archive", metavar="STORE", help="The archive.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FITTED.yaml", help="Written, with its .pt beside.")
    ],
    frames: Frames = None,
    pixels: Annotated[
        str,
        typer.Option(
            "--pixels",
            metavar="valid|labelled-normal|class:NAME|mask:NAME",
            help="Pixels that count.",
        ),
    ] = "valid",
    background: Annotated[
        str,
        typer.Option(
            "--background",
            metavar="archive|session|sensor|attr:NAME",
            help="One state for everything, or one per session, sensor or attribute.",
        ),
    ] = "archive",
    fallback: Annotated[
        str | None,
        typer.Option(
            "--fallback",
            metavar="archive|GROUP",
            help="What sessions of another background are scored against; refused by default.",
        ),
    ] = None,
    bands: Bands = None,
    exclude_bands: ExcludeBands = None,
    raw_values: RawValues = None,
    wavelength_tolerance: Annotated[
        float | None,
        typer.Option(
            "--wavelength-tolerance",
            metavar="NM",
            help="Channels of sessions this far apart count as equal; 0.01 by default.",
        ),
    ] = None,
    dialect: Annotated[
        str,
        typer.Option(
            "--dialect", metavar="hsi-batch|cuvis-ai", help="Write what cuvis-ai 0.19.3 reads."
        ),
    ] = "hsi-batch",
    settings: Set = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    only_failed: OnlyFailed = False,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the statistical nodes of a pipeline, in as few passes over the pixels as possible.

    Example: hsi-batch fit workflows/pipelines/rx_statistical.yaml --archive archive.zarr
    --out fitted/rx.yaml --set nodes.rx.hparams.eps=1e-6
    """
    from hsi_batch.stages.fit_file import fit_file

    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = fit_file(
            pipeline,
            archive,
            out,
            overrides=tuple(settings or ()),
            frames=frames,
            pixels=pixels,
            background=background,
            fallback=fallback,
            bands=bands,
            exclude_bands=exclude_bands,
            raw_values=raw_values,
            wavelength_tolerance=wavelength_tolerance,
            dialect=dialect,  # type: ignore[arg-type]
            force=force,
            only_failed=only_failed,
            dry_run=dry_run,
            client=client,
            workers=workers,
            observer=observer,
        )
    if dry_run:
        plan_or_json(fit_plan_text(result), fit_plan_data(result), as_json=as_json, quiet=quiet)
        return
    list_failures(result)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)


def score(
    fitted: Annotated[Path, typer.Argument(metavar="FITTED.yaml")],
    archive: Annotated[Path, typer.Option("--archive", metavar="STORE", help="The archive.")],
    out: Annotated[Path, typer.Option("--out", metavar="SCORES", help="Store of the scores.")],
    frames: Frames = None,
    output: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="PORT", help="Port to store; repeatable."),
    ] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    only_failed: OnlyFailed = False,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score every pixel of an archive with a fitted pipeline.

    Example: hsi-batch score fitted/rx.yaml --archive archive.zarr --out scores.zarr
    """
    from hsi_batch.stages.score import score as run_score

    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run_score(
            fitted,
            archive,
            out,
            frames=frames,
            outputs=output,
            force=force,
            only_failed=only_failed,
            dry_run=dry_run,
            client=client,
            workers=workers,
            observer=observer,
        )
    if dry_run:
        plan_or_json(score_plan_text(result), result.plan, as_json=as_json, quiet=quiet)
        return
    list_failures(result)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)


def report(
    scores: Annotated[Path, typer.Argument(metavar="SCORES")],
    out: Annotated[Path, typer.Option("--out", metavar="report.html", help="The page.")],
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="STORE", help="Where the cubes are, if they moved."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained HTML page about scores; one that is up to date is left alone.

    Example: hsi-batch report scores.zarr --out report.html
    """
    from hsi_batch.stages.report import report as run_report

    show(run_report(scores, out, archive=archive, force=force), as_json=as_json, quiet=quiet)
