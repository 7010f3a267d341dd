"""Workers as jobs of a batch system, by dask-jobqueue."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

from distributed import Client

from hsi_batch.cluster.dask_settings import SETTINGS, settle, variables
from hsi_batch.cluster.fields import clock
from hsi_batch.cluster.owned import OwnedClient, compare_versions, wait_for_workers
from hsi_batch.cluster.queue_config import GroupConfig, QueueConfig
from hsi_batch.cluster.queues import QUEUES, Queue, refused
from hsi_batch.errors import ClusterError, ConfigError
from hsi_batch.files import expand_home
from hsi_batch.tls import temporary

__all__ = ["DRIVER", "FOLDER", "job_script", "library", "prologue", "start_queue"]

#: Variables by which a job knows whose driver it is, and where it keeps its files.
DRIVER = "HSI_BATCH_JOB"
FOLDER = "HSI_BATCH_JOB_FOLDER"
_DEATH_SECONDS = 60
#: Of logs and certificates, unless told otherwise.
_FOLDER = "~/.cache/hsi-batch"
_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMBA", "BLOSC")
_CLASSES = {"slurm": "SLURM", "pbs": "PBS", "lsf": "LSF", "sge": "SGE"}
#: A job that is not listed for so long has ended.
_GONE_SECONDS = 4.0


def library() -> ModuleType:
    """Import dask-jobqueue, which would take the place of our handler of Ctrl-C.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is not installed.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError:
        raise ConfigError(
            "clusters with a batch queue need the package dask-jobqueue.",
            hint="pip install 'hsi-batch[hpc]'.",
        ) from None
    finally:
        with contextlib.suppress(ValueError, TypeError):
            signal.signal(signal.SIGINT, before)
    return dask_jobqueue


def prologue(config: QueueConfig) -> list[str]:
    """Lines that a job script runs first: one thread per worker in every library, then yours."""
    threads = " ".join(f"{name}_NUM_THREADS=1" for name in _THREADS if name != "BLOSC")
    dask_lines = " ".join(f"{k}={shlex.quote(v)}" for k, v in variables(SETTINGS).items())
    return [f"export {threads} BLOSC_NTHREADS=1", f"export {dask_lines}", *config.setup]


def folder_of(config: QueueConfig) -> Path:
    """Folder that all nodes see, which only we can read; it is made."""
    given = config.folder or os.environ.get(FOLDER) or _FOLDER
    folder = expand_home(os.path.expandvars(given))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"folder: {folder} cannot be made ({error}).",
            hint="Name a folder that all nodes see and you may write to.",
        ) from None
    return folder


def options(config: QueueConfig, group: GroupConfig | None = None) -> dict[str, Any]:
    """Arguments of the class of dask-jobqueue for a kind of jobs."""
    per_job = config.workers_per_job if group is None else 1
    memory = (group and group.memory) or config.memory
    walltime = (group and group.walltime) or config.walltime
    resources = config.resources if group is None else group.resources
    lifetime, stagger = config.lifetime(walltime)
    extra = ["--no-dashboard", "--lifetime", f"{lifetime:.0f}s"]
    extra += ["--lifetime-stagger", f"{stagger:.0f}s"]
    if resources:
        extra += ["--resources", ",".join(f"{k}={v:g}" for k, v in resources.items())]
    time_text = clock(walltime)
    lines = [*config.directives, *(group.directives if group else ())]
    queue = QUEUES[config.type]
    if config.environment and queue.hand_over:
        lines.append(queue.hand_over.format(",".join(config.environment)))
    found: dict[str, Any] = {
        "cores": per_job,
        "processes": per_job,
        "memory": f"{memory * per_job}B",
        "walltime": time_text[:-3] if config.type == "lsf" else time_text,
        "queue": (group and group.queue) or config.queue,
        "interface": config.interface,
        "local_directory": config.scratch,
        "death_timeout": _DEATH_SECONDS,
        "python": config.python or sys.executable,
        "worker_extra_args": extra,
        "job_extra_directives": lines,
        "job_script_prologue": prologue(config),
    }
    found["project" if config.type in ("lsf", "sge") else "account"] = config.account
    if config.type == "sge":
        found["resource_spec"] = f"h_vmem={-(-memory // 2**20)}M"
        if per_job > 1:
            lines.append(f"-pe smp {per_job}")
    return {**found, **config.options}


def start_queue(config: QueueConfig) -> Client:
    """Start a scheduler here, and workers as jobs; closing the client cancels them.

    Raises
    ------
    hsi_batch.errors.ClusterError
        The batch system refuses the jobs, or never starts them; in its own words.
    """
    queue = QUEUES[config.type]
    queue.check()
    missing = [name for name in config.environment if name not in os.environ]
    if missing:
        raise ConfigError(
            f"environment: {', '.join(missing)} is not set here.", hint="Set it, or leave it out."
        )
    driver = os.environ.get(DRIVER)
    name = f"{driver or f'hsi-{uuid.uuid4().hex[:8]}'}-w"
    if driver:
        # Workers of this driver's earlier start, which was killed.
        queue.stop(state.job for state in queue.states(name))
    folder = folder_of(config)
    settle()
    cluster = _cluster(config, name, folder)
    client: Client | None = None
    try:
        _ask_for_workers(cluster, config, queue)
        client = OwnedClient(
            cluster,
            keep=None if config.adaptive else lambda: _complete(cluster),
            ended=lambda: _tidy(cluster, queue, name),
        )
        watch = _Watch(queue, name, folder / "logs")
        wait_for_workers(client, config.timeout, watch.problem, watch.said)
        compare_versions(client)
    except BaseException:
        with contextlib.suppress(Exception):
            (client or cluster).close()
        with contextlib.suppress(ClusterError):
            _tidy(cluster, queue, name)
        raise
    return client


def _tidy(cluster: Any, queue: Queue, name: str) -> None:
    """Remove certificates, and jobs that are left."""
    for part in ("ca_file", "cert", "key"):
        file = getattr(cluster, f"_job_{part}", None)
        if file is not None:
            with contextlib.suppress(FileNotFoundError):
                file.close()
    queue.stop(state.job for state in queue.states(name))


def _cluster(config: QueueConfig, name: str, folder: Path) -> Any:
    arguments = options(config)
    secure = config.security == "temporary"
    try:
        cluster = getattr(library(), f"{_CLASSES[config.type]}Cluster")(
            n_workers=0,
            name=name,
            job_name=name,
            log_directory=str(folder / "logs"),
            shared_temp_directory=str(folder),
            security=temporary() if secure else None,
            silence_logs="error",
            scheduler_options={
                "dashboard": config.dashboard,
                # Its page of metrics is there in any case.
                "dashboard_address": "127.0.0.1:0",
                **arguments.pop("scheduler_options", {}),
            },
            **arguments,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"options: dask-jobqueue does not take them: {error}",
            hint="Remove what it does not take from `options`.",
        ) from None
    base = cluster.new_spec
    for kind, group in config.groups.items():
        special = {**base["options"], **options(config, group)}
        special["security"], special["protocol"] = (
            base["options"].get("security"),
            base["options"].get("protocol"),
        )
        for index in range(group.workers):
            cluster.worker_spec[f"{name}-{kind}-{index}"] = {
                "cls": base["cls"],
                "options": {**special, "job_name": name},
            }
    return cluster


def _ask_for_workers(cluster: Any, config: QueueConfig, queue: Queue) -> None:
    try:
        if config.adaptive is None:
            for _ in range(config.jobs):
                cluster.worker_spec.update(cluster.new_worker_spec())
            _complete(cluster)
        else:
            first = max(config.adaptive.minimum, 1)
            cluster.worker_spec.update(cluster.new_worker_spec())
            _complete(cluster)
            cluster.adapt(
                minimum=first, maximum=config.adaptive.maximum, interval="5s", wait_count=6
            )
    except (RuntimeError, ValueError) as error:
        said = str(error).rpartition("stdout:")[2].replace("stderr:", "")
        raise refused(queue, said) from None


def _complete(cluster: Any) -> None:
    """Send the jobs that lack; unlike ``scale`` this raises what goes wrong."""
    cluster.sync(cluster._correct_state)  # noqa: SLF001


class _Watch:
    """What a batch system says of the jobs that should become workers."""

    def __init__(self, queue: Queue, name: str, logs: Path) -> None:
        self._queue, self._name, self._logs = queue, name, logs
        self._seen = time.monotonic()

    def problem(self) -> str | None:
        """Why no worker will come, if that is so."""
        states = self._queue.states(self._name)
        if states:
            self._seen = time.monotonic()
            hopeless = [state for state in states if state.hopeless]
            return f"{hopeless[0]}." if len(hopeless) == len(states) else None
        if time.monotonic() - self._seen < _GONE_SECONDS:
            return None
        return f"the jobs have ended. {self._log()}"

    def said(self) -> str:
        """The states of the jobs."""
        states = self._queue.states(self._name)
        told = "; ".join(str(state) for state in states[:5])
        return f"{self._queue.name} says: {told}." if told else f"{self._queue.name} has no job."

    def _log(self) -> str:
        for file in sorted(self._logs.glob(f"*{self._name}*"), reverse=True):
            lines = [line for line in _lines(file) if line.strip()]
            if lines:
                return f"{file} ends with: {' '.join(lines[-3:])[-400:]}"
        return f"See the logs in {self._logs}."


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def job_script(config: QueueConfig) -> str:
    """The job script of a worker, as it would be sent."""
    with tempfile.TemporaryDirectory() as folder:
        shown = config.model_copy(update={"security": "none", "dashboard": False})
        cluster = _cluster(shown, "hsi-batch-w", Path(folder))
        try:
            text = str(cluster.job_script())
        finally:
            cluster.close()
        return text.replace(folder, str(expand_home(config.folder or _FOLDER)))
