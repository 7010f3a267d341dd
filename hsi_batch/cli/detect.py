"""``detect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import (
    Cluster,
    DryRun,
    Force,
    Json,
    MaxFailed,
    OnlyFailed,
    Quiet,
    Workers,
    client_of,
    finish,
    show,
)
from hsi_batch.cli.outcomes import list_failures
from hsi_batch.cli.plans import convert_plan_text
from hsi_batch.cli.progress import observing

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("detect")(detect)


def detect(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for all results.")],
    pfa: Annotated[
        float, typer.Option("--pfa", metavar="P", help="Probability of a false alarm per pixel.")
    ] = 1e-3,
    background: Annotated[
        str,
        typer.Option(
            "--background",
            metavar="session|sensor|archive|attr:NAME",
            help="What has a background of its own.",
        ),
    ] = "session",
    min_area: Annotated[
        int, typer.Option("--min-area", min=1, metavar="N", help="Pixels of a detection, at least.")
    ] = 1,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    only_failed: OnlyFailed = False,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what stands out of recordings, without a YAML; writes the workflow that it ran.

    Example: hsi-batch detect recordings/ --out results/
    """
    from hsi_batch.detect import detect as run_detect

    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run_detect(
            list(sources),
            out,
            pfa=pfa,
            background=background,
            min_area=min_area,
            client=client,
            workers=workers,
            force=force,
            only_failed=only_failed,
            dry_run=dry_run,
            observer=observer,
        )
    if dry_run:
        assert result.run.convert is not None
        plan = result.run.convert
        show(plan.plan if as_json else convert_plan_text(plan), as_json=as_json, quiet=quiet)
        return
    for part in (result.run.convert, result.run.fit, result.run.score):
        if part is not None:
            list_failures(part)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)
