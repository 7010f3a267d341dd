"""Setting up a worker: threads, memory allocator, kernels; measuring its memory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from distributed import Client, Worker, WorkerPlugin

__all__ = [
    "WorkerSetup",
    "ask_workers",
    "memory_now",
    "memory_peak",
    "prepare",
    "reset_peak",
    "set_up",
]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_GIB = 2**30
#: A worker that has not answered by then does not.
_ANSWER_SECONDS = 10.0


class WorkerSetup(WorkerPlugin):
    """Make a worker fit for array work, whoever started it.

    One thread for BLAS, torch and numba; few for Zarr; an allocator that keeps freed blocks
    instead of handing them back to the system (Dask's default costs a page fault per 4 KiB of
    every block); a check of the integer kernels. Safe to run more than once.

    Parameters
    ----------
    warm : str
        ``module:function`` to call now, so that what it brings counts as the worker's base and not
        as a block.
    """

    idempotent = True

    def __init__(self, warm: str) -> None:
        self.warm = warm
        self.name = f"hsi-batch-setup-{warm}"

    def setup(self, worker: Worker) -> None:
        """Run on the worker as it joins, in the thread that will run its tasks.

        BLAS libraries keep buffers per thread.
        """
        worker.executors["default"].submit(set_up, self.warm).result()


def set_up(warm: str) -> None:
    """Make this process, and the calling thread, fit for array work; see :class:`WorkerSetup`."""
    _keep_memory()
    logging.getLogger("distributed.worker").setLevel(logging.ERROR)
    import zarr
    from numcodecs import blosc
    from threadpoolctl import threadpool_limits

    from hsi_batch.statistics import kernels

    module, _, function = warm.partition(":")
    start = getattr(import_module(module), function)
    threadpool_limits(1)
    blosc.use_threads = False
    zarr.config.set({"async.concurrency": 4, "threading.max_workers": 2})
    kernels.kernel_name()
    start()
    threadpool_limits(1)
    if "numba" in sys.modules:
        # Counted per thread; this is the one that runs tasks.
        sys.modules["numba"].set_num_threads(1)
    else:
        os.environ["NUMBA_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        _limit_torch()


def _limit_torch() -> None:
    import torch

    torch.set_num_threads(1)
    if torch.get_num_interop_threads() != 1:
        with contextlib.suppress(RuntimeError):
            # Refused once parallel work has started; the pool is idle all the same.
            torch.set_num_interop_threads(1)


def _keep_memory() -> None:
    """Raise malloc's thresholds; the environment variable that Dask sets cannot be unset here."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, _GIB)
        # Each thread would keep freed blocks in an arena of its own.
        libc.mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        # Not glibc; its allocator has no such thresholds.
        return


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def memory_now() -> int:
    """Resident memory of this process in bytes."""
    return _status("VmRSS:")


def memory_peak() -> int:
    """Largest resident memory of this process since :func:`reset_peak`, in bytes."""
    return _status("VmHWM:")


def reset_peak() -> None:
    """Forget the peak so far (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        # Not permitted in some containers; the peak then includes the imports.
        return


def _memory_from_here() -> int:
    reset_peak()
    return memory_now()


def prepare(client: Client, warm: str) -> None:
    """Set up all workers of a client, now and whenever one joins; see :class:`WorkerSetup`."""
    client.register_plugin(WorkerSetup(warm))


def ask_workers(client: Client, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """What a function gives on every worker that answers; one may be dying, or hang, when asked."""
    found: dict[str, Any] = client.sync(_ask, client, function, args)
    return found


async def _ask(client: Client, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    async def one(address: str) -> Any:
        answer = client._run(function, *args, workers=[address], on_error="ignore")  # noqa: SLF001
        return await asyncio.wait_for(answer, _ANSWER_SECONDS)

    assert client.scheduler is not None
    addresses = list(await client.scheduler.ncores(workers=None))
    answers = await asyncio.gather(*map(one, addresses), return_exceptions=True)
    return {k: v for answer in answers if isinstance(answer, dict) for k, v in answer.items()}


def base_memory(client: Client) -> dict[str, int]:
    """Resident memory of every worker in bytes; peaks are counted from here on."""
    found = ask_workers(client, _memory_from_here)
    return {str(worker): int(size) for worker, size in found.items()}


def peak_memory(client: Client) -> dict[str, int]:
    """Peak resident memory of every worker in bytes since :func:`base_memory`."""
    found = ask_workers(client, memory_peak)
    return {str(worker): int(size) for worker, size in found.items()}


def environment() -> dict[str, str]:
    """What on this machine may decide the last bits of a result."""
    import platform

    from threadpoolctl import threadpool_info

    blas = sorted(
        {
            f"{i.get('internal_api')} {i.get('version')} {i.get('architecture', '')}".strip()
            for i in threadpool_info()
            if i.get("user_api") == "blas"
        }
    )
    return {
        "host": platform.node(),
        "cpu": _cpu_name(),
        "blas": "; ".join(blas),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", ""),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine()
