"""``run``, ``convert``, ``fit``, ``score``, ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hsi_batch.cli.options import (
    Cluster,
    DryRun,
    Force,
    Frames,
    Json,
    MaxFailed,
    OnlyFailed,
    Quiet,
    Replace,
    Set,
    Workers,
    client_of,
    finish,
    show,
)
from hsi_batch.cli.plans import (
    convert_plan_text,
    fit_plan_data,
    fit_plan_text,
    score_plan_text,
    train_plan_data,
    train_plan_text,
)
from hsi_batch.cli.progress import observing
from hsi_batch.wording import printable

if TYPE_CHECKING:
    from hsi_batch.stages.convert import ConvertResult

__all__ = ["failures_of", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("run")(run)
    app.command("convert")(convert)
    app.command("ingest", hidden=True)(convert)
    app.command("fit")(fit)
    app.command("score")(score)
    app.command("report")(report)


def _plan(text: str, plan: Any, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        show(plan, as_json=True, quiet=quiet)
    elif not quiet:
        typer.echo(text)


def failures_of(result: Any) -> None:
    """List what failed, with reasons, on stderr."""
    failures = list(getattr(result, "failures", ()))
    earlier = list(getattr(result, "earlier", ()))
    for path, reason in getattr(result, "broken", ()):
        known = reason if path in reason else f"{path}: {reason}"
        typer.echo(printable(f"failed: {known}"), err=True)
    _changed(result)
    for failure in failures[:20]:
        typer.echo(printable(f"failed: {failure.key}: {failure.reason}"), err=True)
    for failure in earlier[:20]:
        text = f"failed in an earlier run: {failure.key}: {failure.reason}"
        typer.echo(printable(text), err=True)
    more = max(len(failures) - 20, 0) + max(len(earlier) - 20, 0)
    if more:
        typer.echo(f"failed: and {more} more; see the records", err=True)
    if earlier:
        typer.echo("Try them again with --only-failed.", err=True)


def _changed(result: Any) -> None:
    """List sessions whose sources changed, on stderr."""
    changed = set(getattr(result, "changed", ()))
    for planned in result.plan.sessions if changed else ():
        if planned.name in changed:
            typer.echo(
                f"changed: session {planned.name}: {planned.why}; the archive keeps what it has."
                " Use --replace to convert it again.",
                err=True,
            )


def run(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW.yaml")],
    settings: Set = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    only_failed: OnlyFailed = False,
    replace: Replace = False,
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
        failures_of(part)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)


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
    replace: Replace = False,
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
            replace=replace,
            force=force,
            only_failed=only_failed,
            dry_run=dry_run,
            client=client,
            workers=workers,
            observer=observer,
        )
    if dry_run:
        _plan(convert_plan_text(result), result.plan, as_json=as_json, quiet=quiet)
        return
    if not quiet:
        for path, reason in result.skipped:
            typer.echo(printable(f"skipped: {path}: {reason}"), err=True)
    failures_of(result)
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
        typer.Option("--pixels", metavar="valid|labelled-normal", help="Pixels that count."),
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
            pixels=pixels,  # type: ignore[arg-type]
            background=background,
            fallback=fallback,
            dialect=dialect,  # type: ignore[arg-type]
            force=force,
            only_failed=only_failed,
            dry_run=dry_run,
            client=client,
            workers=workers,
            observer=observer,
        )
    if dry_run:
        _plan(fit_plan_text(result), fit_plan_data(result), as_json=as_json, quiet=quiet)
        return
    failures_of(result)
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
        _plan(score_plan_text(result), result.plan, as_json=as_json, quiet=quiet)
        return
    failures_of(result)
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
