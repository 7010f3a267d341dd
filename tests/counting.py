"""Counts reads of stored chunks, and other work, in this process and on the workers."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distributed import WorkerPlugin

_seen: list[str] = []
_originals: dict = {}


def start() -> None:
    """Record the files that are read, whichever way they are read."""
    from zarr.storage import LocalStore

    _seen.clear()
    if _originals:
        return
    _originals["open"], _originals["get"] = Path.open, LocalStore.get
    original_open, original_get = Path.open, LocalStore.get

    def opened(self, mode="r", *args, **kwargs):
        if "r" in mode:
            _seen.append(str(self))
        return original_open(self, mode, *args, **kwargs)

    async def got(self, key, *args, **kwargs):
        _seen.append(str(self.root / key))
        return await original_get(self, key, *args, **kwargs)

    Path.open, LocalStore.get = opened, got


def stop() -> list[str]:
    """Stop recording; returns what was read."""
    from zarr.storage import LocalStore

    if _originals:
        Path.open, LocalStore.get = _originals["open"], _originals["get"]
        _originals.clear()
    return list(_seen)


@contextmanager
def counting(client, store, array="cube"):
    """Count the chunks of an array that are read while the block runs, by file."""
    counts: Counter = Counter()
    client.run(start)
    start()
    try:
        yield counts
    finally:
        files = [*stop(), *(f for found in client.run(stop).values() for f in found)]
        counts.update(
            f for f in files if re.search(rf"/{array}/c[./]", f) and f.startswith(str(store))
        )


@dataclass
class Work:
    """What was done on the workers and here.

    ``read`` and ``decoded`` count bytes and chunks of cubes; ``tasks`` those that finished, by the
    beginning of their key; ``packed`` and ``unpacked`` how often a pipeline was made into bytes and
    back; ``gram_pixels`` and ``gram_flops`` what went into products of sums, ``score_flops`` into
    those of scores; ``store_calls`` how often Zarr's store was asked for something, or given it.
    """

    read: int = 0
    decoded: int = 0
    packed: int = 0
    unpacked: int = 0
    gram_pixels: int = 0
    gram_flops: int = 0
    score_flops: int = 0
    store_calls: int = 0
    tasks: Counter = field(default_factory=Counter)

    @property
    def total_tasks(self):
        return sum(self.tasks.values())

    @property
    def leaves(self):
        """Tasks that read or write pixels."""
        return sum(
            n for key, n in self.tasks.items() if re.fullmatch(r"(fit-\d+|score|convert)", key)
        )


class TaskCounter(WorkerPlugin):
    """Counts the tasks that a worker finishes."""

    name = "count tasks"

    def setup(self, worker):  # noqa: ARG002
        self.finished = Counter()

    def transition(self, key, start, finish, **kwargs):  # noqa: ARG002
        if start == "executing" and finish == "memory":
            # Of a block task: its stage. Of others: the name of the function.
            leaf = re.match(r"(fit-\d+|score|convert)(-\d+)?-\d{6}-", str(key))
            self.finished[leaf[1] if leaf else str(key).rsplit("-", 1)[0]] += 1


_work = Work()
_replaced: list = []


def _replace(owner, name, wrap):
    original = owner.__dict__[name]
    plain = original.__func__ if isinstance(original, classmethod) else original
    made = wrap(plain)
    _replaced.append((owner, name, original))
    setattr(owner, name, classmethod(made) if isinstance(original, classmethod) else made)


def start_work():
    """Count from here on, in this process."""
    from zarr.storage import LocalStore

    from hsi_batch.archive import chunk_reader
    from hsi_batch.pipeline.pipeline import Pipeline
    from hsi_batch.pipeline.quadratic import QuadraticMap
    from hsi_batch.statistics import kernels

    def reading(original):
        def read(file, at, codec, chunk):
            found = original(file, at, codec, chunk)
            if found and re.search(r"/cube/c[./]", str(file.name)):
                _work.decoded += 1
                _work.read += chunk_reader.place_of(file, at).size
            return found

        return read

    def counted(name, amount=lambda *_: 1):
        def wrap(original):
            def call(*args, **kwargs):
                setattr(_work, name, getattr(_work, name) + amount(*args))
                return original(*args, **kwargs)

            return call

        return wrap

    stop_work()
    _work.__init__()
    _replace(chunk_reader, "_read_chunk", reading)
    _replace(Pipeline, "to_bytes", counted("packed"))
    _replace(Pipeline, "from_bytes", counted("unpacked"))
    _replace(kernels, "sums", counted("gram_pixels", lambda x: x.shape[0]))
    _replace(kernels, "sums", counted("gram_flops", lambda x: x.shape[0] * x.shape[1] ** 2))
    for name in ("get", "set", "exists", "delete"):
        _replace(LocalStore, name, counted("store_calls"))
    _replace(QuadraticMap, "scores", counted("score_flops", lambda self, x: len(x) * self.products))


def stop_work():
    """Stop counting; what was counted."""
    while _replaced:
        setattr(*_replaced.pop())
    return _work


def _finished_tasks(dask_worker):
    return dask_worker.plugins[TaskCounter.name].finished


@contextmanager
def counting_work(client):
    """Count all work that is done while the block runs, on the workers and here."""
    found = Work()
    client.register_plugin(TaskCounter())
    client.run(start_work)
    start_work()
    try:
        yield found
    finally:
        for part in [stop_work(), *client.run(stop_work).values()]:
            for name, value in vars(part).items():
                setattr(found, name, getattr(found, name) + value)
        for tasks in client.run(_finished_tasks).values():
            found.tasks.update(tasks)
        client.unregister_worker_plugin(TaskCounter.name)
