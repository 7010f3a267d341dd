"""``submit``, ``logs``, ``cancel``, ``cluster script``, ``cluster check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_batch.cli.options import Json, MaxFailed, OnlyFailed, Quiet, Replace, Set, Yes, show
from hsi_batch.errors import ConfigError
from hsi_batch.wording import printable

if TYPE_CHECKING:
    from hsi_batch.workflow_config import WorkflowConfig

__all__ = ["register"]

_Workflow = Annotated[Path, typer.Argument(metavar="WORKFLOW.yaml")]
_File = Annotated[Path, typer.Argument(metavar="CLUSTER.yaml")]

_clusters = typer.Typer(
    no_args_is_help=True,
    help="Look at a cluster YAML: the job script that it means, and whether workers come up.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("submit")(submit)
    app.command("logs")(logs)
    app.command("cancel")(cancel)
    _clusters.command("script")(script)
    _clusters.command("check")(check)
    app.add_typer(_clusters, name="cluster")


def submit(
    workflow: _Workflow,
    cluster: Annotated[
        Path, typer.Option("--cluster", metavar="FILE", help="Cluster YAML with a batch queue.")
    ],
    settings: Set = None,
    only_failed: OnlyFailed = False,
    replace: Replace = False,
    yes: Yes = False,
    max_failed: MaxFailed = 0,
    slices: Annotated[
        int | None,
        typer.Option(
            "--slices",
            min=1,
            metavar="N",
            help="Without Dask between machines: arrays of N jobs (SLURM).",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the job script and send nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send a whole run as one batch job, which starts its workers and goes on after its walltime.

    Example: hsi-batch submit workflows/rx_statistical.yaml --cluster cluster/slurm.yaml
    """
    from hsi_batch.cluster import QueueConfig, read_cluster
    from hsi_batch.cluster.driver import driver_script, step_script
    from hsi_batch.cluster.jobs import submit as send
    from hsi_batch.cluster.jobs import submit_slices
    from hsi_batch.workflow import read_workflow

    config = read_cluster(cluster)
    plan, _ = read_workflow(workflow, tuple(settings or ()))
    if not isinstance(config, QueueConfig):
        raise ConfigError(
            f"clusters of type {config.type} have no batch queue to submit to.",
            path=str(cluster),
            hint="hsi-batch run WORKFLOW --cluster FILE runs there from here.",
        )
    arguments = ["run", str(workflow.absolute()), "--cluster", str(cluster.absolute())]
    for setting in settings or ():
        arguments += ["--set", setting]
    arguments += ["--only-failed"] * only_failed + ["--replace"] * replace + ["--yes"] * yes
    arguments += ["--max-failed", str(max_failed)] * bool(max_failed)
    if slices is not None:
        if only_failed:
            raise ConfigError(
                "--slices knows no --only-failed.",
                hint="Without it, what is done is left alone as well, and what failed is listed.",
            )
        steps = _steps(plan, workflow.absolute(), list(settings or ()), slices, config.driver.cores)
        for name, command, _ in steps:
            if name == "convert-init":
                command.extend(["--replace"] * replace + ["--yes"] * yes)
            if command[0] != "init":
                command.extend(["--max-failed", str(max_failed)] * bool(max_failed))
        if dry_run:
            for name, command, count in steps:
                typer.echo(
                    step_script(config, "hsi-batch", Path("FOLDER"), name, command, slices=count)
                )
            return
        sent = submit_slices(config, workflow.absolute(), steps)
        show(sent, as_json=as_json, quiet=quiet)
        return
    if dry_run:
        typer.echo(driver_script(config, "hsi-batch", Path("FOLDER"), arguments))
        return
    show(send(config, workflow.absolute(), arguments), as_json=as_json, quiet=quiet)


def _steps(
    config: WorkflowConfig, workflow: Path, settings: list[str], slices: int, cores: int
) -> list[tuple[str, list[str], int]]:
    """Jobs of a run in slices: those of convert and score, and a whole run that does the rest."""
    more = [part for setting in settings for part in ("--set", setting)]
    rest = ["run", str(workflow), "--workers", str(cores), *more]

    def sliced(stage: str) -> list[tuple[str, list[str], int]]:
        where = [str(workflow), "--stage", stage, *more]
        return [
            (f"{stage}-init", ["init", *where, "--slices", str(slices)], 0),
            (f"{stage}-slice", ["slice", f"K/{slices}", *where], slices),
            (f"{stage}-finalise", ["finalise", *where], 0),
        ]

    steps = sliced("convert") if config.sources is not None else []
    if config.score is not None:
        if config.fit is not None or config.train is not None:
            # All but scores and report.
            steps.append(("fit", [*rest, "--set", "score=null", "--set", "report=null"], 0))
        steps += sliced("score")
    return [*steps, ("last", rest, 0)]


def logs(
    workflow: _Workflow,
    workers: Annotated[bool, typer.Option("--workers", help="Those of the workers.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, metavar="N", help="The last N lines of each.")
    ] = 50,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a submitted run has printed.

    Example: hsi-batch logs workflows/rx_statistical.yaml
    """
    from hsi_batch.cluster.jobs import logs as find

    found = {
        str(file): "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
        for file in find(workflow, workers=workers)
    }
    if as_json:
        show(found, as_json=True, quiet=quiet)
        return
    for name, text in found.items():
        if not quiet:
            typer.echo(f"==> {name}", err=True)
            typer.echo(printable(text))


def cancel(workflow: _Workflow, as_json: Json = False, quiet: Quiet = False) -> None:
    """End a submitted run and its workers; what is written stays, and `submit` goes on from there.

    Example: hsi-batch cancel workflows/rx_statistical.yaml
    """
    from hsi_batch.cluster.jobs import cancel as end
    from hsi_batch.wording import counted

    ended = end(workflow)
    told = f"cancelled {counted(ended, 'job')}" if ended else "nothing was running"
    show({"jobs": ended} if as_json else told, as_json=as_json, quiet=quiet)


def script(cluster: _File, as_json: Json = False, quiet: Quiet = False) -> None:
    """Print the job script of a worker, or the Kubernetes manifest, that a cluster YAML means.

    Example: hsi-batch cluster script cluster/slurm.yaml
    """
    from hsi_batch.cluster import read_cluster
    from hsi_batch.cluster.scripts import script_of

    text = script_of(read_cluster(cluster))
    show({"script": text} if as_json else text, as_json=as_json, quiet=quiet)


def check(
    cluster: _File,
    storage: Annotated[
        Path | None,
        typer.Option("--storage", metavar="DIR", help="Folder to measure the speed of storage in."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring up one worker, run a small frame through it, and measure its way to the storage.

    Example: hsi-batch cluster check cluster/slurm.yaml --storage /data/archives
    """
    from hsi_batch.stages.cluster_check import check_cluster

    show(check_cluster(cluster, storage or Path.cwd()), as_json=as_json, quiet=quiet)
