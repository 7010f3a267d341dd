"""``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import (
    Cluster,
    DryRun,
    Force,
    Json,
    Quiet,
    Workers,
    client_of,
    plain,
    show,
)
from hsi_batch.cli.progress import observing

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo")(demo)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]")] = Path("demo"),
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a small synthetic archive with planted targets to DIR and run the quickstart on it.

    Example: hsi-batch demo /tmp/demo
    """
    from hsi_batch.demo import run_demo

    if dry_run:
        planned = {"writes": [str(folder / "recordings")], "runs": str(folder / "quickstart.yaml")}
        text = f"writes four recordings of 5.5 MB to {folder / 'recordings'} and runs the workflow"
        show(planned if as_json else f"{text} {planned['runs']}", as_json=as_json, quiet=quiet)
        return
    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        workflow, result = run_demo(
            folder, client=client, workers=workers, force=force, observer=observer
        )
    if as_json:
        import json

        typer.echo(json.dumps(plain(result), indent=2))
    elif not quiet:
        auc = result.score.metrics["auc"] if result.score is not None else float("nan")
        typer.echo(str(result))
        typer.echo(f"\nThe planted targets were found with AUC {auc:.4f}.")
        typer.echo(f"Edit {workflow} and run it again with: hsi-batch run {workflow}")
        if result.report is not None:
            typer.echo(f"Report: {result.report.path}")
