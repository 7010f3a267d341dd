"""``init``, ``slice``, ``finalise``: for sites where Dask may not open ports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hsi_batch.cli.options import Json, MaxFailed, Quiet, Replace, Set, Yes, asked, finish, show
from hsi_batch.cli.outcomes import list_failures
from hsi_batch.cli.progress import observing

__all__ = ["register"]

_Workflow = Annotated[Path, typer.Argument(metavar="WORKFLOW.yaml")]
_Stage = Annotated[str, typer.Option("--stage", metavar="convert|score", help="The stage.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("init")(init)
    app.command("slice")(one)
    app.command("finalise")(finalise)


def init(
    workflow: _Workflow,
    slices: Annotated[int, typer.Option("--slices", min=1, metavar="N", help="Number of jobs.")],
    stage: _Stage = "convert",
    settings: Set = None,
    replace: Replace = False,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prepare a stage for N independent jobs, each of which does a slice without Dask.

    Example: hsi-batch init workflows/rx_statistical.yaml --stage convert --slices 20
    """
    from hsi_batch.workflow_steps import init_stage

    with observing(quiet=quiet or as_json) as observer:
        result = init_stage(
            workflow,
            stage,  # type: ignore[arg-type]
            slices,
            tuple(settings or ()),
            replace=replace,
            observer=observer,
            confirm=None if yes else asked,
        )
    show(result, as_json=as_json, quiet=quiet)


def one(
    part: Annotated[str, typer.Argument(metavar="K/N")],
    workflow: _Workflow,
    stage: _Stage = "convert",
    settings: Set = None,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Do slice K of the N that `init` prepared; a killed one goes on when it is run again.

    Example: hsi-batch slice 3/20 workflows/rx_statistical.yaml --stage convert
    """
    from hsi_batch.workflow_steps import slice_stage

    with observing(quiet=quiet or as_json) as observer:
        result = slice_stage(workflow, stage, part, tuple(settings or ()), observer=observer)  # type: ignore[arg-type]
    list_failures(result)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)


def finalise(
    workflow: _Workflow,
    stage: _Stage = "convert",
    settings: Set = None,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Commit what the slices have done; fails if blocks are missing.

    Example: hsi-batch finalise workflows/rx_statistical.yaml --stage convert
    """
    from hsi_batch.workflow_steps import finalise_stage

    with observing(quiet=quiet or as_json) as observer:
        result: Any = finalise_stage(workflow, stage, tuple(settings or ()), observer=observer)  # type: ignore[arg-type]
    list_failures(result)
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)
