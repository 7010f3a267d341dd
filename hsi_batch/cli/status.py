"""``status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Json, Quiet, show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("status")(status)


def status(
    store: Annotated[Path, typer.Argument(metavar="STORE|FITTED.yaml|WORKFLOW.yaml")],
    workers: Annotated[
        bool,
        typer.Option("--workers", help="What each worker and machine did: rates, the slowest."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show whether a run uses a store, from any terminal, and how far it is.

    Of a workflow that was submitted: its jobs, and the stores that it writes.

    Example: hsi-batch status archive.zarr
    """
    from hsi_batch.cluster.jobs import job_status, last_job
    from hsi_batch.stages.status import status as find
    from hsi_batch.stages.throughput import throughput
    from hsi_batch.workflow import outputs_of

    if workers:
        places = [store] if last_job(store) is None else outputs_of(store)
        shares = [stage for place in places for stage in throughput(place)]
        if as_json:
            show(shares, as_json=True, quiet=quiet)
        else:
            for stage in shares:
                show(stage, as_json=False, quiet=quiet)
        return
    if last_job(store) is None:
        show(find(store), as_json=as_json, quiet=quiet)
        return
    parts = [find(place) for place in outputs_of(store) if place.exists()]
    if as_json:
        show({"job": job_status(store), "stores": parts}, as_json=True, quiet=quiet)
    else:
        for part in (job_status(store), *parts):
            show(part, as_json=False, quiet=quiet)
