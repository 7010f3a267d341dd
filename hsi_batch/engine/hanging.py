"""Tasks that do not end: workers that hold them are started again; waiting for cancelled ones."""

from __future__ import annotations

import contextlib
import time
import warnings

import dask
from dask.utils import parse_timedelta
from distributed import Client, Worker

from hsi_batch.engine.worker import ask_workers
from hsi_batch.errors import ConfigError, HsiBatchWarning

__all__ = ["restart_hanging", "settle", "task_timeout", "timeout_seconds"]

#: Tasks take about a second; one that hangs must not hold up the end of a run.
_SETTLE_SECONDS = 30.0
#: Setting of Dask: how long no task may end before those that run are taken for hanging.
_TIMEOUT = "hsi-batch.task-timeout"
_DEFAULT_TIMEOUT = "30 minutes"
#: A worker that is started again has so long to come back.
_RESTART_SECONDS = 30.0


def task_timeout() -> str:
    """How long no task may end, as Dask's configuration says it."""
    return str(dask.config.get(_TIMEOUT, _DEFAULT_TIMEOUT))


def timeout_seconds() -> float:
    """The same in seconds.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is no length of time.
    """
    given = task_timeout()
    try:
        return float(parse_timedelta(given))
    except (KeyError, ValueError, TypeError):
        raise ConfigError(
            f"{_TIMEOUT} {given!r} in Dask's configuration is no length of time.",
            hint="Write for example 30m or 1h.",
        ) from None


def restart_hanging(client: Client, run: str) -> set[str]:
    """Start workers again that hold tasks of a run; the keys of these tasks."""
    held: dict[str, set[str]] = {}
    with contextlib.suppress(Exception):
        for address, keys in client.processing().items():
            names = {str(key) for key in keys if str(key).endswith(run)}
            if names:
                held[address] = names
        client.restart_workers(list(held), timeout=_RESTART_SECONDS, raise_for_error=False)
    if held:
        warnings.warn(
            f"{len(held)} worker(s) gave no result for"
            f" {task_timeout()} and were started again; if tasks may"
            " take so long, set DASK_HSI_BATCH__TASK_TIMEOUT to more.",
            HsiBatchWarning,
            stacklevel=4,
        )
    return set().union(*held.values())


def settle(client: Client, run: str) -> None:
    """Wait for tasks that were cancelled while they ran; Dask cannot stop them, and they write."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    quiet = 0
    # Twice in a row: a task may be on its way to a worker that is asked.
    while quiet < 2 and time.monotonic() < deadline:
        quiet = 0 if any(ask_workers(client, _executing, run).values()) else quiet + 1
        time.sleep(0.05)


def _executing(run: str, dask_worker: Worker) -> bool:
    return any(str(state.key).endswith(run) for state in dask_worker.state.executing)
