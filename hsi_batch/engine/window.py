"""Running many tasks with a bounded number in flight."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed
from distributed.comm.core import CommClosedError

from hsi_batch.engine.carried import Carried, map_carried
from hsi_batch.engine.hanging import restart_hanging, settle, task_timeout, timeout_seconds
from hsi_batch.engine.tasks import Task
from hsi_batch.errors import ClusterError, HsiBatchError, StoreError

__all__ = ["Outcome", "run_window", "total_threads"]


#: Tasks that are much shorter than a second are handed out more at a time: as many as end in so
#: many seconds, by the pace of so many tasks, and never more than so many per thread.
_WINDOW_SECONDS = 0.2
_PACE = 32
_PER_THREAD_SHORT = 64
#: Results that take longer to come are looked after.
_LOOK_SECONDS = 2.0


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


def run_window(
    client: Client,
    function: Callable[..., Any],
    tasks: Iterable[Task],
    *arguments: Any,
    keep: bool = False,
    peek: Callable[[Any], Any] | None = None,
    peek_at: type | None = None,
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
    peek : callable, optional
        Of results that are kept: what it makes of one, on the worker, is that of the outcome.
    peek_at : type, optional
        Only results of this type are looked at; a look costs a message to and fro.
    per_thread : int
        Tasks in flight per thread; where results are not kept and tasks are shorter than a
        twentieth of a second or so, up to 64, as many as end in a fifth of a second.

    Raises
    ------
    hsi_batch.errors.HsiBatchError
        ``function`` raised it; anything it raises ends the run.
    """
    window = _Window(client, function, arguments, iter(tasks), keep, peek, peek_at, per_thread)
    try:
        with _connected(client):
            window.refill()
        while window.running:
            yield from window.ended()
            with _connected(client):
                window.refill()
    finally:
        window.close()


class _Window:
    """The tasks of one run that are in flight."""

    def __init__(
        self,
        client: Client,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        queue: Iterator[Task],
        keep: bool,
        peek: Callable[[Any], Any] | None,
        peek_at: type | None,
        per_thread: int,
    ) -> None:
        self.client, self.function = client, Carried.of(function)
        self.arguments = tuple(map(Carried.of, arguments))
        self.queue, self.keep, self.per_thread = queue, keep, per_thread
        self.peek, self.peek_at = peek, peek_at
        self.running: dict[Future[Any], Task] = {}
        #: Results that are kept, by the futures of what is told of them.
        self.peeked: dict[Future[Any], Future[Any]] = {}
        self.finished = as_completed(loop=client.loop, raise_errors=False)
        self.suspects: list[Task] = []
        self.alone: Task | None = None
        self.hung: set[str] = set()
        self.threads, self.counted_at = 1, -math.inf
        self.workers: frozenset[str] = frozenset()
        self.pace: deque[float] = deque(maxlen=_PACE)
        # Another run on the same cluster may use the same names for its tasks.
        self.run = uuid.uuid4().hex[:12]

    def refill(self) -> None:
        """Submit as many tasks as there is room for, when half of it is empty."""
        threads = self._threads()
        room = self.per_thread * threads
        if not self.keep and len(self.pace) == _PACE:
            room = max(room, min(_short(self.pace), _PER_THREAD_SHORT * threads))
        busy = len(self.running) - len(self.peeked)
        if busy > room // 2:
            return
        if chosen := list(itertools.islice(self.queue, room - busy)):
            self._submit(chosen)
        elif not self.running and self.suspects:
            self.alone = self.suspects.pop(0)
            self._submit([self.alone])

    def _threads(self) -> int:
        """Threads of all workers, as of a second ago or less: workers come and go."""
        now = time.monotonic()
        if now > self.counted_at + 1:
            self.counted_at = now
            threads = self.client.nthreads()
            self.threads, self.workers = max(sum(threads.values()), 1), frozenset(threads)
        return self.threads

    def _submit(self, tasks: list[Task]) -> None:
        # Tasks of several backgrounds are given more than those of one.
        for _, alike in itertools.groupby(tasks, key=lambda task: len(task.shared)):
            self._send(list(alike))

    def _send(self, tasks: list[Task]) -> None:
        # One message for all of them: a message costs the scheduler as much as several tasks do.
        futures = map_carried(
            self.client,
            self.function,
            [task.items for task in tasks],
            [task.key for task in tasks],
            *([argument] * len(tasks) for argument in self.arguments),
            *zip(*(task.shared for task in tasks), strict=True),
            key=[f"{t.key}{'-alone' if t is self.alone else ''}-{self.run}" for t in tasks],
            retries=0,
        )
        self.running.update(zip(futures, tasks, strict=True))
        self.finished.update(futures)

    def ended(self) -> Iterator[tuple[Outcome, Future[Any] | None]]:
        """Wait until tasks end; what became of them."""
        with _connected(self.client):
            ready = _ready(self.finished, self._restart)
            if self.peek is not None:
                ready = self._peek(ready)
            fetched = [f for f in ready if not self.keep or f in self.peeked]
            results = _results(self.client, fetched, self._restart, self.workers)
            del fetched
        ready.reverse()
        while ready:
            future = ready.pop()
            told = not self.keep or future in self.peeked
            made_again = future.status == "finished" and told and future not in results
            if made_again or future.status in ("lost", "pending"):
                # Its worker died with the result; the scheduler runs it again, or has done so since
                # results were asked for.
                self.finished.add(future)
                continue
            task = self.running.pop(future)
            kept = self.peeked.pop(future, future) if self.keep else None
            self.pace.append(time.monotonic())
            if future.status == "finished":
                yield Outcome(task, results.pop(future) if told else None), kept
            elif future.status == "error":
                if outcome := self._erred(task, future):
                    yield outcome, None
            else:
                raise _lost(f"a task was {future.status}")

    def _peek(self, ready: list[Future[Any]]) -> list[Future[Any]]:
        """Ask what is to be told of results that are kept; the others that ended."""
        done = [f for f in ready if f.status == "finished" and self._to_be_told(f)]
        if done:
            assert self.peek is not None
            # Before tasks that wait; nobody waits for it here, or workers would run out of tasks.
            told = map_carried(self.client, self.peek, done, priority=10)
            for peeked, kept in zip(told, done, strict=True):
                self.running[peeked] = self.running.pop(kept)
                self.peeked[peeked] = kept
            self.finished.update(told)
        return [future for future in ready if future not in done]

    def _to_be_told(self, future: Future[Any]) -> bool:
        if future in self.peeked:
            return False
        if self.peek_at is None or not isinstance(future.type, type):
            return True
        return issubclass(future.type, self.peek_at)

    def _restart(self) -> None:
        self.hung.update(restart_hanging(self.client, self.run))

    def _erred(self, task: Task, future: Future[Any]) -> Outcome | None:
        error = future.exception()
        if not isinstance(error, KilledWorker):
            raise _shown(error)
        if task is self.alone:
            return Outcome(task, error=_killed(error, str(future.key) in self.hung))
        if len(task.items) == 1:
            self.suspects.append(task)
        else:
            self.queue = itertools.chain(_cut(task), self.queue)
        return None

    def close(self) -> None:
        """Cancel what is in flight."""
        with contextlib.suppress(Exception):
            self.client.cancel(list(self.running))
            if self.running:
                settle(self.client, self.run)


@contextlib.contextmanager
def _connected(client: Client) -> Iterator[None]:
    """Of a scheduler that went away, say so; it is no trouble of the disk."""
    try:
        yield
    except OSError as error:
        told = isinstance(error, (CommClosedError, TimeoutError)) or "to connect" in str(error)
        if told or client.status != "running":
            raise _lost("the scheduler does not answer") from error
        raise


def _lost(why: str) -> ClusterError:
    return ClusterError(
        f"{why}; the connection to the cluster was lost.",
        hint="Start the command again; it continues where it stopped.",
    )


def _cut(task: Task) -> list[Task]:
    """A task for each item."""
    return [replace(task, key=f"{task.key}.{i}", items=(x,)) for i, x in enumerate(task.items)]


def _short(ended: deque[float]) -> int:
    """How many tasks end in the time that a window is to last, by those that ended last."""
    return int(len(ended) * _WINDOW_SECONDS / max(ended[-1] - ended[0], 1e-9))


def _results(
    client: Client,
    futures: list[Future[Any]],
    hanging: Callable[[], None],
    workers: frozenset[str],
) -> dict[Future[Any], Any]:
    """Results of those that finished, asked for at once.

    Those of ``workers`` that died since are left out, those of workers that hang are made anew.
    """
    done = [future for future in futures if future.status == "finished"]
    loop: Any = client.loop
    asked = asyncio.run_coroutine_threadsafe(
        client.gather(done, asynchronous=True), loop.asyncio_loop
    )
    begun = time.monotonic()
    while True:
        try:
            return dict(zip(done, asked.result(_LOOK_SECONDS), strict=True))
        except KilledWorker:
            # A result was lost with its worker, and what made it kills workers.
            left = [future for future in done if future.status == "finished"]
            if len(left) == len(done):
                raise
            return _results(client, left, hanging, workers)
        except TimeoutError:
            if asked.done():
                raise
            alive = frozenset(client.nthreads())
            if workers - alive:
                # Dask tries for minutes to reach one that died.
                asked.cancel()
                return _results(client, done, hanging, alive)
            if time.monotonic() - begun > timeout_seconds():
                hanging()
                begun = time.monotonic()


def _ready(finished: as_completed, hanging: Callable[[], None]) -> list[Future[Any]]:
    """All futures that ended; ``hanging`` is called whenever none did for too long."""
    begun, seconds = time.monotonic(), timeout_seconds()
    while not finished.has_ready():
        if time.monotonic() - begun > seconds:
            hanging()
            begun = time.monotonic()
        # With a timeout, so that Ctrl-C is noticed.
        with finished.thread_condition:
            finished.thread_condition.wait(timeout=0.1)
    return list(finished.next_batch(block=False))


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
            f" {task_timeout()}, or died, each of"
            f" {error.allowed_failures + 1} times it tried this"
        )
    return (
        f"the worker died each of {error.allowed_failures + 1} times it tried this; it may need"
        " more memory than a worker has"
    )
