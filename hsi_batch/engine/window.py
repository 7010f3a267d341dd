"""Running many tasks with a bounded number in flight."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import dask
import numpy as np
from dask.utils import parse_timedelta
from distributed import Client, Future, KilledWorker, Worker, as_completed
from numpy.typing import NDArray

from hsi_batch.engine.worker import ask_workers
from hsi_batch.errors import ClusterError, ConfigError, HsiBatchError, HsiBatchWarning, StoreError

__all__ = ["Outcome", "Task", "batch_count", "batches", "run_window", "total_threads"]


#: Tasks take about a second; one that hangs must not hold up the end of a run.
_SETTLE_SECONDS = 30.0
#: Setting of Dask: how long no task may end before those that run are taken for hanging.
_TIMEOUT = "hsi-batch.task-timeout"
_DEFAULT_TIMEOUT = "30 minutes"
#: A worker that is started again has so long to come back.
_RESTART_SECONDS = 30.0


@dataclass(frozen=True)
class Task:
    """A batch of work that one worker does in about a second.

    Attributes
    ----------
    key : str
        Unique in the run.
    items : tuple
        The work; if a task kills its worker, each item is tried alone to find the culprit.
    shared : tuple of Future
        What this task needs besides the arguments of all tasks; passed on after them.
    """

    key: str
    items: tuple[Any, ...]
    shared: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its result, or why there is none."""

    task: Task
    result: Any = None
    error: str | None = None


def total_threads(client: Client) -> int:
    """Threads of all workers.

    Raises
    ------
    hsi_batch.errors.ClusterError
        There is no worker.
    """
    threads = int(sum(client.nthreads().values()))
    if not threads:
        raise ClusterError(
            "the cluster has no workers.", hint="Wait for them to start, or check the cluster."
        )
    return threads


def batches(
    items: Iterable[Any],
    size_of: Callable[[Any], int],
    *,
    threads: int,
    target: int,
    prefix: str,
    within: Callable[[Any], object] = lambda _item: None,
) -> Iterator[Task]:
    """Group items in order into tasks of about ``target`` bytes, at least four per thread.

    Parameters
    ----------
    items : iterable
        Small descriptions of work.
    size_of : callable
        Bytes an item stands for.
    threads : int
        Of the cluster.
    target : int
        Bytes of a task.
    prefix : str
        Of the keys of the tasks.
    within : callable
        Items for which it differs come into different tasks.
    """
    ordered = list(items)
    total = sum(size_of(item) for item in ordered)
    limit = _limit(total, threads, target)
    count = itertools.count()
    group: list[Any] = []
    held = 0
    for item in ordered:
        if group and within(item) != within(group[-1]):
            yield Task(f"{prefix}-{next(count):06d}", tuple(group))
            group, held = [], 0
        group.append(item)
        held += size_of(item)
        if held >= limit:
            yield Task(f"{prefix}-{next(count):06d}", tuple(group))
            group, held = [], 0
    if group:
        yield Task(f"{prefix}-{next(count):06d}", tuple(group))


def _limit(total: int, threads: int, target: int) -> int:
    return min(target, max(total // (4 * threads), 1))


def batch_count(sizes: NDArray[np.int64], *, threads: int, target: int) -> int:
    """How many tasks :func:`batches` makes of items of these sizes, for millions of them.

    Examples
    --------
    >>> batch_count(np.full(10, 100), threads=1, target=300)
    4
    """
    ends = np.cumsum(sizes)
    limit = _limit(int(ends[-1]) if len(ends) else 0, threads, target)
    count = done = held = 0
    while done < len(ends):
        done = int(np.searchsorted(ends, held + limit)) + 1
        held = int(ends[min(done, len(ends)) - 1])
        count += 1
    return count


def run_window(
    client: Client,
    function: Callable[..., Any],
    tasks: Iterable[Task],
    *arguments: Any,
    keep: bool = False,
    per_thread: int = 3,
) -> Iterator[tuple[Outcome, Future[Any] | None]]:
    """Run ``function(items, key, *arguments)`` for every task; yield outcomes as they come.

    At most ``per_thread`` tasks per thread are submitted at a time, and a task is released when
    its outcome was yielded, so nothing that is finished is done again when a worker dies. A task
    that kills its worker again and again is cut into its items. Dask suspects whatever waited on a
    worker that died, so an item is tried once more at the end, with nothing else in flight; one
    that kills its workers then too is an outcome with an error. Where no task ends for half an hour
    (``hsi-batch.task-timeout`` in Dask's configuration) the workers that hold some are started
    again, which counts as their death.

    Parameters
    ----------
    client : distributed.Client
    function : callable
        Importable on the workers.
    tasks : iterable of Task
        May be lazy.
    *arguments
        Passed on; futures among them are resolved on the worker, so that large things travel once.
    keep : bool
        Leave results on the workers and yield their futures; the outcome then has no result.
    per_thread : int
        Tasks in flight per thread.

    Raises
    ------
    hsi_batch.errors.HsiBatchError
        ``function`` raised it; anything it raises ends the run.
    """
    queue = iter(tasks)
    suspects: list[Task] = []
    alone: Task | None = None
    # Another run on the same cluster may use the same names for its tasks.
    run = uuid.uuid4().hex[:12]
    running: dict[Future[Any], Task] = {}
    hung: set[str] = set()
    finished = as_completed(raise_errors=False)

    def submit(task: Task) -> None:
        name = f"{task.key}-{run}" if task is not alone else f"{task.key}-alone-{run}"
        future = client.submit(
            function,
            task.items,
            task.key,
            *arguments,
            *task.shared,
            key=name,
            pure=False,
            retries=0,
        )
        running[future] = task
        finished.add(future)

    def refill() -> None:
        room = max(per_thread * sum(client.nthreads().values()), per_thread)
        for task in itertools.islice(queue, max(room - len(running), 0)):
            submit(task)
        if not running and suspects:
            nonlocal alone
            alone = suspects.pop(0)
            submit(alone)

    try:
        refill()
        while running:
            future = _next(finished, lambda: hung.update(_restart_hanging(client, run)))
            if future.status in ("lost", "pending"):
                # Its worker died with the result; the scheduler runs it again.
                finished.add(future)
                continue
            task = running.pop(future)
            if future.status == "finished":
                yield (Outcome(task), future) if keep else (Outcome(task, future.result()), None)
            elif future.status == "error":
                error = future.exception()
                if not isinstance(error, KilledWorker):
                    raise _shown(error)
                if task is alone:
                    yield Outcome(task, error=_killed(error, str(future.key) in hung)), None
                elif len(task.items) == 1:
                    suspects.append(task)
                else:
                    queue = itertools.chain(_cut(task), queue)
            else:
                raise ClusterError(
                    f"a task was {future.status}; the connection to the cluster was lost.",
                    hint="Start the command again; it continues where it stopped.",
                )
            del future
            refill()
    finally:
        with contextlib.suppress(Exception):
            client.cancel(list(running))
            if running:
                _settle(client, run)


def _settle(client: Client, run: str) -> None:
    """Wait for tasks that were cancelled while they ran; Dask cannot stop them, and they write."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while any(ask_workers(client, _executing, run).values()) and time.monotonic() < deadline:
        time.sleep(0.05)


def _executing(run: str, dask_worker: Worker) -> bool:
    return any(str(state.key).endswith(run) for state in dask_worker.state.executing)


def _cut(task: Task) -> list[Task]:
    """A task for each item."""
    return [replace(task, key=f"{task.key}.{i}", items=(x,)) for i, x in enumerate(task.items)]


def _timeout() -> float:
    given = dask.config.get(_TIMEOUT, _DEFAULT_TIMEOUT)
    try:
        return float(parse_timedelta(given))
    except (KeyError, ValueError, TypeError):
        raise ConfigError(
            f"{_TIMEOUT} {given!r} in Dask's configuration is no length of time.",
            hint="Write for example 30m or 1h.",
        ) from None


def _next(finished: as_completed, hanging: Callable[[], None]) -> Future[Any]:
    """The next future that ended; ``hanging`` is called whenever none did for too long."""
    begun, seconds = time.monotonic(), _timeout()
    while not finished.has_ready():
        if time.monotonic() - begun > seconds:
            hanging()
            begun = time.monotonic()
        # With a timeout, so that Ctrl-C is noticed.
        with finished.thread_condition:
            finished.thread_condition.wait(timeout=0.1)
    future: Future[Any] = next(finished)
    return future


def _restart_hanging(client: Client, run: str) -> set[str]:
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
            f" {dask.config.get(_TIMEOUT, _DEFAULT_TIMEOUT)} and were started again; if tasks may"
            " take so long, set DASK_HSI_BATCH__TASK_TIMEOUT to more.",
            HsiBatchWarning,
            stacklevel=4,
        )
    return set().union(*held.values())


def _shown(error: BaseException | None) -> BaseException:
    if isinstance(error, HsiBatchError):
        return error
    if isinstance(error, OSError):
        return StoreError(
            f"a worker could not read or write ({error}).",
            hint="Check the disk or the network share, and start the command again; it continues"
            " where it stopped.",
        )
    return ClusterError(
        f"a worker failed unexpectedly: {type(error).__name__}: {error}.",
        hint="This is a defect of hsi_batch; please report it with the log.",
    )


def _killed(error: KilledWorker, hung: bool) -> str:
    if hung:
        return (
            "the worker gave no result for"
            f" {dask.config.get(_TIMEOUT, _DEFAULT_TIMEOUT)}, or died, each of"
            f" {error.allowed_failures + 1} times it tried this"
        )
    return (
        f"the worker died each of {error.allowed_failures + 1} times it tried this; it may need"
        " more memory than a worker has"
    )
