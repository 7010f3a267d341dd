"""What all stages share: a client, tasks in a window, progress, the verdict of a run."""

from __future__ import annotations

import contextlib
import platform
import traceback
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from distributed import Client, get_worker
from distributed.comm.core import CommClosedError

from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.records import BlockRecord
from hsi_batch.cluster import connect, cores, current_client
from hsi_batch.engine.events import Observer, Progress, silent
from hsi_batch.engine.metrics import count
from hsi_batch.engine.tasks import Task
from hsi_batch.engine.window import run_window
from hsi_batch.engine.worker import base_memory, peak_memory, prepare
from hsi_batch.errors import ClusterError, HsiBatchError
from hsi_batch.stages.status import observed, tell_dashboard

__all__ = [
    "BlockWork",
    "Failure",
    "Memory",
    "Run",
    "TaskReport",
    "cluster_at_hand",
    "count_done",
    "failed_frames",
    "failed_record",
    "failure_rows",
    "judge",
    "run_blocks",
    "worker_name",
    "workers_on_demand",
]

#: Bytes of stored pixels that a task should cover.
TASK_BYTES = 512 * 2**20
#: What workers do before their base memory is measured.
_CONVERTING = "hsi_batch.stages.warm:converting"
_SCORING = "hsi_batch.stages.warm:scoring"
#: So many failures, all for one reason and before anything succeeded, end the run.
_HOPELESS = 20
#: What Dask raises once its scheduler is gone.
_LOST = (CancelledError, futures.CancelledError, CommClosedError)
#: Letters of a traceback that are kept; its end tells most.
_TRACEBACK = 4000


@dataclass(frozen=True)
class Failure:
    """A block that could not be done.

    Attributes
    ----------
    key : BlockKey
    reason : str
    """

    key: BlockKey
    reason: str


def failed_frames(*failures: Failure) -> int:
    """Number of frames that blocks failed of."""
    return len({(failure.key.session, failure.key.frame) for failure in failures})


def failure_rows(*failures: Sequence[Failure]) -> list[tuple[str, str]]:
    """Where and why, for tables."""
    return [(str(failure.key), failure.reason) for some in failures for failure in some]


def worker_name() -> str:
    """Address of the worker that this runs on; of a slice the name of the machine."""
    try:
        return str(get_worker().address)
    except ValueError:
        return platform.node() or "local"


def count_done(stage: str, keys: Iterable[BlockKey], report: TaskReport) -> None:
    """Add what a task did to the metrics of its worker."""
    first = sum(key.start == 0 for key in keys)
    failed = sum(failure.key.start == 0 for failure in report.failures)
    failures = len(report.failures)
    count(stage, frames=first - failed, size=report.done_bytes, failures=failures)


def failed_record(key: BlockKey, digest: str, error: BaseException, worker: str) -> BlockRecord:
    """The record of a block that raised an error."""
    lines = "".join(traceback.format_exception(error))
    return BlockRecord(
        key, "failed", digest, reason=str(error), traceback=lines[-_TRACEBACK:], worker=worker
    )


@dataclass
class TaskReport:
    """What a task on a worker sends back; small.

    Attributes
    ----------
    done, done_bytes : int
        Blocks, and bytes of stored pixels.
    failures : list of Failure
    changes : bytes, optional
        What a transactional store must know (:mod:`hsi_batch.archive.transactions`).
    """

    done: int = 0
    done_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    changes: bytes | None = None


@dataclass(frozen=True)
class Memory:
    """Memory of the workers, in bytes.

    Attributes
    ----------
    base : int
        Largest of all workers before the first block.
    peak : int
        Largest of all workers over the run.
    """

    base: int
    peak: int

    def __str__(self) -> str:
        return f"{self.peak / 1e6:.0f} MB at most per worker (base {self.base / 1e6:.0f} MB)"


@dataclass
class _Demand:
    start: Callable[[], Client]
    client: Client | None = None


_demand: ContextVar[_Demand | None] = ContextVar("workers on demand", default=None)


@contextlib.contextmanager
def workers_on_demand(start: Callable[[], Client]) -> Iterator[None]:
    """Workers that several stages share: started by the first that needs some, closed at the end.

    Stages that find everything up to date need none, and starting them takes seconds.

    Parameters
    ----------
    start : callable
        Starts workers and gives their client.
    """
    demand = _Demand(start)
    token = _demand.set(demand)
    try:
        yield
    finally:
        _demand.reset(token)
        if demand.client is not None:
            demand.client.close()


def _demanded() -> Client | None:
    demand = _demand.get()
    if demand is not None and demand.client is None:
        demand.client = demand.start()
    return None if demand is None else demand.client


def cluster_at_hand(client: Client | None = None) -> Client | None:
    """The client given, the one that is there, or that of the workers on demand; else None."""
    return client or current_client() or _demanded()


class Run:
    """A client for the length of a stage: the one given, the one that is there, or our own.

    Parameters
    ----------
    client : distributed.Client, optional
    workers : int, optional
        Number of local workers if we start them.
    scoring : bool
        Workers will run pipelines.
    observer : callable, optional
        Told of progress.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        workers: int | None = None,
        scoring: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self._given = client
        self._workers = workers
        self._scoring = scoring
        self._owned: Client | None = None
        self._client: Client | None = None
        self.observer: Observer = observed(observer or silent)
        self._base: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        alone = self._client is not None and self._client.status != "running"
        if self._owned is not None:
            self._owned.close()
            self._owned = None
        if isinstance(error, _LOST) or (alone and isinstance(error, OSError)):
            raise ClusterError(
                f"the connection to the cluster was lost ({type(error).__name__}).",
                hint="Start the command again; it continues where it stopped.",
            ) from error

    @property
    def client(self) -> Client:
        """The client; workers are started on first use."""
        if self._client is None:
            self._client = cluster_at_hand(self._given)
            if self._client is None:
                self._client = self._owned = connect(workers=self._workers)
            tell_dashboard(self._client)
            prepare(self._client, _SCORING if self._scoring else _CONVERTING)
            self._base = base_memory(self._client)
        return self._client

    @property
    def started(self) -> bool:
        """Whether workers were needed so far."""
        return self._client is not None

    @property
    def threads(self) -> int:
        """Threads of all workers."""
        return max(int(sum(self.client.nthreads().values())), 1)

    @property
    def expected_threads(self) -> int:
        """Threads of the workers that are there or would be started; starts none."""
        client = self._client or self._given or current_client()
        if client is None:
            return self._workers or cores()
        return max(int(sum(client.nthreads().values())), 1)

    @property
    def lost_workers(self) -> bool:
        """Whether workers that were there at the start are not any more."""
        if self._client is None:
            return False
        try:
            return not set(self._base) <= set(self._client.nthreads())
        except (OSError, TimeoutError, *_LOST):
            return True

    def memory(self) -> Memory | None:
        """Memory of the workers so far."""
        if self._client is None or not self._base:
            return None
        with contextlib.suppress(OSError, TimeoutError, *_LOST):
            peaks = peak_memory(self._client)
            return Memory(max(self._base.values()), max(peaks.values(), default=0))
        return None


@dataclass
class BlockWork:
    """The work of a stage on blocks, and its verdict.

    Attributes
    ----------
    progress : Progress
    failures : list of Failure
    """

    progress: Progress
    failures: list[Failure] = field(default_factory=list)


def run_blocks(
    run: Run,
    work: BlockWork,
    function: Callable[..., Any],
    tasks: Iterable[Task],
    *arguments: Any,
    blocks_of: Callable[[Any], Iterable[BlockKey]],
) -> Iterator[tuple[Any, Any]]:
    """Run tasks that report :class:`TaskReport`; count, observe, and stop a hopeless run.

    Yields ``(items, report)`` for tasks that came back, and ``(items, None)`` for an item that kept
    killing its worker, after its blocks were counted as failed.

    Raises
    ------
    hsi_batch.errors.HsiBatchError
        All of the first blocks failed for one reason.
    """
    for outcome, _ in run_window(run.client, function, tasks, *arguments):
        progress = work.progress
        if outcome.error is not None:
            for item in outcome.task.items:
                failed = [Failure(key, outcome.error) for key in blocks_of(item)]
                work.failures.extend(failed)
                progress.failed += len(failed)
            yield outcome.task.items, None
        else:
            report: TaskReport = outcome.result
            progress.done += report.done
            progress.done_bytes += report.done_bytes
            progress.failed += len(report.failures)
            work.failures.extend(report.failures)
            yield outcome.task.items, report
        run.observer(progress)
        judge(work)


def judge(work: BlockWork) -> None:
    """Stop a run all of whose first blocks failed for one reason."""
    if work.progress.done or len(work.failures) < _HOPELESS:
        return
    reasons = Counter(_kind(failure.reason) for failure in work.failures)
    if len(reasons) == 1:
        first = work.failures[0]
        raise HsiBatchError(
            f"the first {len(work.failures)} blocks all failed in the same way, so the run was"
            f" stopped. The first one was {first.key}: {first.reason}",
            hint="Mend the cause and run again.",
        )


def _kind(reason: str) -> str:
    """A reason without the places and numbers that differ from block to block."""
    text = reason.rpartition(": ")[2]
    return "".join("#" if letter.isdigit() else letter for letter in text)
