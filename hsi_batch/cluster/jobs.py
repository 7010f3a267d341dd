"""Runs that were submitted: sent, asked after, read and cancelled from a login node."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsi_batch.archive.store import state_folder
from hsi_batch.cluster.driver import LOG, driver_script, step_script
from hsi_batch.cluster.jobqueue import job_script
from hsi_batch.cluster.queue_config import QueueConfig, QueueType
from hsi_batch.cluster.queues import QUEUES, JobState, refused, run
from hsi_batch.errors import ClusterError, ConfigError, StoreError
from hsi_batch.files import write_atomically

__all__ = [
    "JobStatus",
    "SubmittedJob",
    "cancel",
    "job_status",
    "last_job",
    "logs",
    "submit",
    "submit_slices",
]

_FILE = "job.json"
#: So long a new job is watched for what the batch system finds wrong with it.
_WATCH_SECONDS = 4.0
_CANCEL_SECONDS = 60.0
#: Exit codes of a run that was told to end.
_STOPPED = (124, 130, 137, 143)


@dataclass(frozen=True)
class SubmittedJob:
    """A run that a batch system has.

    Attributes
    ----------
    name : str
        Of the driver's job; its workers' jobs have ``-w`` appended.
    queue : str
        Batch system.
    job : str
        Number of the driver's job.
    workflow, folder : str
        What is run; where its script and logs are.
    submitted : str
        When.
    more : tuple of str
        Numbers of the other jobs of a run in slices.
    """

    name: str
    queue: QueueType
    job: str
    workflow: str
    folder: str
    submitted: str
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        jobs = f"job {self.job}" if not self.more else f"jobs {', '.join((self.job, *self.more))}"
        return f"submitted {self.workflow} as {jobs} ({self.name}); logs are in {self.folder}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all jobs."""
        return (self.name, f"{self.name}-w")

    def states(self) -> tuple[list[JobState], list[JobState]]:
        """What the batch system says of the driver, and of the workers."""
        queue = QUEUES[self.queue]
        return queue.states(self.name), queue.states(f"{self.name}-w")


@dataclass(frozen=True)
class JobStatus:
    """What became of a submitted run.

    Attributes
    ----------
    job : SubmittedJob
    state : {"queued", "running", "done", "failed", "gone"}
        ``gone``: it was killed or cancelled. The same ``submit`` goes on.
    code : int, optional
        Exit code of the run.
    starts : int
        How often it was started.
    driver, workers : list of JobState
    """

    job: SubmittedJob
    state: str
    code: int | None = None
    starts: int = 0
    driver: list[JobState] = field(default_factory=list)
    workers: list[JobState] = field(default_factory=list)

    def __str__(self) -> str:
        told = {
            "queued": "waits in the queue",
            "running": "is running",
            "done": "is done",
            "failed": f"ended with exit code {self.code}; see `hsi-batch logs`",
            "gone": "was killed or cancelled; submit it again to go on",
        }[self.state]
        lines = [f"{self.job.workflow}: job {self.job.job} {told}; started {self.starts} times"]
        lines += [str(state) for state in self.driver]
        running = sum(s.state in ("RUNNING", "R", "RUN", "r") for s in self.workers)
        if self.workers:
            lines.append(f"workers: {running} jobs running, {len(self.workers) - running} waiting")
            lines += [str(s) for s in self.workers if s.hopeless][:3]
        return "\n".join(lines)


def submit(
    config: QueueConfig,
    workflow: str | os.PathLike[str],
    arguments: Sequence[str],
) -> SubmittedJob:
    """Send a run as a job.

    Parameters
    ----------
    config : QueueConfig
    workflow : path
    arguments : sequence of str
        Of ``hsi-batch``, in that job.

    Raises
    ------
    hsi_batch.errors.ClusterError
        The batch system refuses the job, or its workers, in its words; or the run is there already.
    """
    queue = QUEUES[config.type]
    queue.check()
    refuse_second(workflow)
    name, folder = new_job(workflow)
    if config.dashboard and arguments[:1] == ["run"]:
        arguments = [*arguments, "--performance", str(folder / "performance.html")]
    script = driver_script(config, name, folder, arguments)
    (folder / "driver.sh").write_text(script)
    if config.type == "slurm" and config.pattern == "jobs":
        # Workers that cannot be had are better found now than hours later.
        probe = run("sbatch", "--test-only", text=job_script(config))
        if probe.returncode:
            raise refused(queue, probe.stderr)
    sent = SubmittedJob(
        name,
        config.type,
        queue.send(script),
        str(workflow),
        str(folder),
        _now(),
    )
    keep(sent)
    watch(sent)
    return sent


def submit_slices(
    config: QueueConfig,
    workflow: str | os.PathLike[str],
    steps: Sequence[tuple[str, Sequence[str], int]],
) -> SubmittedJob:
    """Send a run as a chain of jobs without Dask; each starts when the one before has ended.

    Parameters
    ----------
    config : QueueConfig
        Of SLURM.
    workflow : path
    steps : sequence of (name, arguments, slices)
        What each job runs; an array of jobs where there are slices.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Another batch system.
    hsi_batch.errors.ClusterError
        As for :func:`submit`.
    """
    if config.type != "slurm":
        raise ConfigError(
            f"--slices sends arrays of jobs to SLURM, not to {config.type}.",
            hint="Send `hsi-batch init`, `slice` and `finalise` as jobs of your own; see"
            " docs/clusters.md.",
        )
    queue = QUEUES[config.type]
    refuse_second(workflow)
    name, folder = new_job(workflow)
    sent: list[str] = []
    try:
        for step, arguments, slices in steps:
            script = step_script(config, name, folder, step, arguments, slices=slices)
            (folder / f"{step}.sh").write_text(script)
            after = [f"--dependency=afterok:{job}" for job in sent[-1:]]
            sent.append(queue.send(script, "--kill-on-invalid-dep=yes", *after))
    except ClusterError:
        queue.stop(sent)
        raise
    job = SubmittedJob(
        name, config.type, sent[-1], str(workflow), str(folder), _now(), tuple(sent[:-1])
    )
    keep(job)
    watch(job)
    return job


def refuse_second(workflow: str | os.PathLike[str]) -> None:
    """Refuse a workflow whose jobs are there already.

    Raises
    ------
    hsi_batch.errors.ClusterError
    """
    before = last_job(workflow)
    if before is not None and (found := [s for part in before.states() for s in part]):
        raise ClusterError(
            f"this workflow is submitted already: {found[0]}.",
            hint="Wait for it (hsi-batch status), or end it (hsi-batch cancel).",
        )


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def new_job(workflow: str | os.PathLike[str]) -> tuple[str, Path]:
    """A name and a folder for a job of a workflow."""
    name = f"hsi-{uuid.uuid4().hex[:8]}"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = _jobs_of(workflow) / f"{stamp}-{name}"
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise StoreError(
            f"no folder for the job can be made beside the workflow ({error}).",
            path=str(folder),
            hint="Copy the workflow to a folder that all nodes see and you may write to.",
        ) from None
    return name, folder


def keep(job: SubmittedJob) -> None:
    """Write down what was sent."""
    write_atomically(Path(job.folder) / _FILE, json.dumps(vars(job), indent=1))


def watch(job: SubmittedJob) -> None:
    """See for a few seconds whether the batch system will start a new job at all.

    Raises
    ------
    hsi_batch.errors.ClusterError
        It will not; the job is cancelled.
    """
    queue = QUEUES[job.queue]
    deadline = time.monotonic() + _WATCH_SECONDS
    while time.monotonic() < deadline:
        states = queue.states(job.name)
        if not states or states[0].state == "RUNNING":
            return
        if states[0].hopeless:
            queue.stop([job.job, *job.more])
            raise ClusterError(
                f"{queue.name} would never start the job: {states[0]}.",
                hint=f"Change the cluster YAML; `{queue.where}` tells what there is.",
            )
        time.sleep(0.5)


def _jobs_of(workflow: str | os.PathLike[str]) -> Path:
    state = state_folder(Path(workflow).absolute())
    assert isinstance(state, Path)
    return state / "jobs"


def last_job(workflow: str | os.PathLike[str]) -> SubmittedJob | None:
    """The job that was sent last for a workflow, if any."""
    for folder in sorted(_jobs_of(workflow).glob("*"), reverse=True):
        with contextlib.suppress(OSError, ValueError, TypeError):
            data: dict[str, Any] = json.loads((folder / _FILE).read_text())
            found = SubmittedJob(**{**data, "more": tuple(data.get("more", ()))})
            if found.queue in QUEUES:
                return found
    return None


def _needed(workflow: str | os.PathLike[str]) -> SubmittedJob:
    job = last_job(workflow)
    if job is None:
        raise StoreError(
            "no job was submitted for this workflow.",
            path=str(workflow),
            hint="hsi-batch submit WORKFLOW --cluster FILE sends one.",
        )
    return job


def job_status(workflow: str | os.PathLike[str]) -> JobStatus:
    """What became of the run that was submitted last.

    Raises
    ------
    hsi_batch.errors.StoreError
        None was.
    """
    job = _needed(workflow)
    driver, workers = job.states()
    folder = Path(job.folder)
    starts, code = _number(folder / "starts") or 0, _number(folder / "ended")
    if driver:
        waiting = all(s.state in ("PENDING", "PEND", "Q", "qw", "H") for s in driver)
        state = "queued" if waiting else "running"
    elif code is not None and code not in _STOPPED:
        state = "done" if code == 0 else "failed"
    else:
        state = "gone"
    return JobStatus(job, state, code, starts, driver, workers)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def logs(workflow: str | os.PathLike[str], *, workers: bool = False) -> list[Path]:
    """Files with what the run that was submitted last has printed.

    Parameters
    ----------
    workflow : path
    workers : bool
        Those of the workers.
    """
    folder = Path(_needed(workflow).folder)
    if workers:
        found = [*folder.glob("logs/*"), *folder.glob("allocation-*/workers.log")]
    else:
        found = [folder / LOG, *folder.glob("step-*.log")]
    return sorted(file for file in found if file.is_file())


def cancel(workflow: str | os.PathLike[str]) -> int:
    """Cancel the driver of a workflow and its workers; gives the number of jobs that ended.

    Raises
    ------
    hsi_batch.errors.ClusterError
        Some are still there after a minute.
    """
    job = _needed(workflow)
    queue = QUEUES[job.queue]
    ended: set[str] = set()
    deadline = time.monotonic() + _CANCEL_SECONDS
    while states := [s for part in job.states() for s in part]:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{queue.name} does not end {states[0]}.", hint="Ask those who run the cluster."
            )
        # The driver first; it would send other workers.
        queue.stop(state.job for state in states)
        ended |= {state.job for state in states}
        time.sleep(1.0)
    return len(ended)
