"""What tests of the engine run on workers; importable there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

from distributed import SchedulerPlugin, get_worker

from hsi_batch.errors import SourceError


def in_flight(client, prefix):
    """Tasks of a prefix that the scheduler knows and that have not ended."""

    def count(prefix, dask_scheduler):
        states = [t.state for key, t in dask_scheduler.tasks.items() if str(key).startswith(prefix)]
        return sum(state not in ("memory", "erred", "forgotten", "released") for state in states)

    return client.run_on_scheduler(count, prefix)


class MostInFlight(SchedulerPlugin):
    """The most tasks of a prefix that had not ended at any time."""

    def __init__(self, prefix):
        self.prefix, self.name = prefix, f"most-{prefix}"
        self.keys, self.most = set(), 0

    def transition(self, key, start, finish, *args, **kwargs):  # noqa: ARG002 (Dask calls it so)
        if not str(key).startswith(self.prefix):
            return
        if finish in ("memory", "erred", "forgotten", "released"):
            self.keys.discard(key)
        else:
            self.keys.add(key)
        self.most = max(self.most, len(self.keys))


@contextlib.contextmanager
def counting_in_flight(client, prefix):
    """A function that tells the most tasks of a prefix that were in flight since it was made."""
    plugin = MostInFlight(prefix)
    client.register_plugin(plugin)

    def told(name, dask_scheduler):
        return dask_scheduler.plugins[name].most

    try:
        yield lambda: client.run_on_scheduler(told, plugin.name)
    finally:
        client.unregister_scheduler_plugin(plugin.name)


def wait_until(condition):
    """Wait until something that must happen has happened; a minute is an error."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def doubled(items, key, *arguments):
    """Twice each item, what else was given, and the name of the task."""
    return [2 * item for item in items], key, arguments


def tripled(items, key):
    return [3 * item for item in items], key


def rounded(items, key):
    """As ``tripled``; a tuple of odd items, a list of even ones."""
    return (tuple if items[0] % 2 else list)([3 * items[0], key])


def key_of(result):
    """The name of the task that gave it."""
    return result[1]


def logged(items, key, folder):
    """Leave a file per attempt, then twice each item."""
    for item in items:
        (Path(folder) / f"{item}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return [2 * item for item in items]


def deadly(items, key, folder, deadly_items):
    """As logged, but some items kill the worker that takes them."""
    logged(items, key, folder)
    if set(items) & set(deadly_items):
        os.kill(os.getpid(), signal.SIGKILL)
    return [2 * item for item in items]


def deadly_once(items, key, folder):
    """As logged, but the first worker that comes to item 3 dies."""
    logged(items, key, folder)
    if 3 in items:
        try:
            (Path(folder) / "died").mkdir()
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return [2 * item for item in items]


def hanging_once(items, key, folder, how):
    """As logged, but the first worker that comes to item 3 hangs: in its task, or altogether."""
    logged(items, key, folder)
    if 3 in items:
        with contextlib.suppress(FileExistsError):
            (Path(folder) / "hung").mkdir()
            if how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(600)
    return [2 * item for item in items]


def failing(items, key, kind):
    if 2 in items:
        if kind == "ours":
            raise SourceError("cannot be read.", session="s", frame=2)
        raise ZeroDivisionError("by nothing")
    return items


def slow_for_low(items, key):
    """Low numbers come last."""
    time.sleep(0.005 * max(0, 12 - items[0]))
    return items


def napping(items, key):
    """As long as a window of short tasks is to last."""
    time.sleep(0.2)


class Words(tuple):
    """Merges by joining; remembers nothing else."""

    __slots__ = ()

    def merge(self, other):
        return Words(sorted((*self, *other)))


def words(items, key):
    return Words(items)


def forest_of(items, key, seed, size):
    """A forest of float moments, one leaf per item; bits depend on the order of merging."""
    import numpy as np

    from hsi_batch.statistics import Forest, Moments

    forest = Forest()
    for item in items:
        pixels = np.random.default_rng((seed, item)).normal(1000, 7, (50, 3)).astype(np.float32)
        leaf = Moments.empty(3, "float32").update(pixels)
        forest = forest.merge(Forest.of(((item, size),), leaf))
    return forest


def unpacked_pipeline(items, key, packed):
    """Identity of the pipeline object that this process uses."""
    from hsi_batch.pipeline.cache import unpack

    return os.getpid(), id(unpack(packed)), sorted(unpack(packed).nodes)


def thread_counts(items, key):
    """Threads of every pool, as a task sees them."""
    import numba
    import torch
    import zarr
    from numcodecs import blosc
    from threadpoolctl import threadpool_info

    return {
        "blas and openmp": [pool["num_threads"] for pool in threadpool_info()],
        "torch": torch.get_num_threads(),
        "numba": numba.get_num_threads(),
        "blosc": bool(blosc.use_threads),
        "zarr": zarr.config.get("threading.max_workers"),
        "dask": get_worker().state.nthreads,
    }


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def mapped_blocks(items=(), key=""):
    """Blocks that malloc maps from the system for 20 MiB, and bytes it keeps of them once free."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = _Mallinfo
    libc.malloc.restype = ctypes.c_void_p
    before = libc.mallinfo2().hblks
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(20 * 2**20)))
    mapped = libc.mallinfo2().hblks - before
    libc.free(block)
    return mapped, libc.mallinfo2().fordblks


def setup_calls():
    """How often the set-up ran in this process, as the warm-up of a test counts it."""
    return _calls[0]


_calls = [0]


def warm():
    _calls[0] += 1


def die_once_in_epoch(epoch, marker):
    """Make the process that trains kill itself as an epoch begins, if none has before."""
    from hsi_batch.training.module import TrainingModule

    begin = TrainingModule.on_train_epoch_start

    def dying(module):
        if module.current_epoch == epoch:
            with contextlib.suppress(FileExistsError):
                Path(marker).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        begin(module)

    TrainingModule.on_train_epoch_start = dying
