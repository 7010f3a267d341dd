"""Checks of the machine: CPU, memory, limits, scratch, storage, a worker."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hsi_batch.places import is_url
from hsi_batch.stages.doctor import Finding
from hsi_batch.wording import sized

if TYPE_CHECKING:
    from hsi_batch.stages.doctor import Verdict

__all__ = ["blas", "cpu", "local_worker", "memory", "open_files", "scratch", "storage", "sums"]

#: Instructions that the kernels of integer sums use, the best first.
_VECTORS = ("avx512_vnni", "avx_vnni", "avx512bw", "avx2")
#: A worker with torch, and a share of blocks.
_WORKER_BYTES = 1_000_000_000
#: A store of shards, its records, the libraries and the connections of some workers.
_FILES = 1024
_SCRATCH_BYTES = 1_000_000_000
_TRIED_BYTES = 64 * 2**20
#: Below this a core waits for the storage: it sums and scores faster.
_SLOW = 50e6


def cpu() -> Finding:
    """Cores and vector instructions."""
    from hsi_batch.cluster.embedded import cores
    from hsi_batch.engine.worker import environment

    try:
        line = next(
            text for text in Path("/proc/cpuinfo").read_text().splitlines() if "flags" in text
        )
        flags = set(line.split(":", 1)[1].split())
    except (OSError, StopIteration):
        flags = set()
    have = [name for name in _VECTORS if name in flags]
    found = f"{environment()['cpu']}, {cores()} cores may be used"
    if not have:
        advice = "Sums are slower, with the same bits; nothing needs to be done."
        return Finding("cpu", "warning", f"{found}, without AVX2.", advice)
    return Finding("cpu", "ok", f"{found}, {', '.join(have)}")


def sums() -> Finding:
    """The kernel of exact sums that is in use."""
    from hsi_batch.statistics.kernels import kernel_name

    names = {dtype: kernel_name(dtype) for dtype in ("uint8", "uint16")}
    if "float64" in names.values():
        advice = "Look at numba and llvmlite: pip install --force-reinstall numba."
        return Finding(
            "sums",
            "warning",
            "the compiled kernel cannot be used; float64 gives the same bits, six times slower.",
            advice,
        )
    return Finding("sums", "ok", ", ".join(f"{dtype} by {n}" for dtype, n in names.items()))


def blas() -> Iterator[Finding]:
    """Type and threads of the linear algebra."""
    import numpy as np
    from threadpoolctl import threadpool_info

    np.zeros((2, 2)) @ np.zeros((2, 2))
    for each in threadpool_info():
        if each.get("user_api") != "blas":
            continue
        found = (
            f"{each.get('internal_api')} {each.get('version')} {each.get('architecture', '')},"
            f" {each.get('num_threads')} threads here (workers set one)"
        )
        forced = os.environ.get("OPENBLAS_CORETYPE")
        if forced:
            advice = "Unset it, or set the same on all machines: float scores follow its rounding."
            yield Finding("blas", "warning", f"{found}; OPENBLAS_CORETYPE={forced}.", advice)
        else:
            yield Finding("blas", "ok", found)


def memory() -> Finding:
    """Memory that is free, for as many workers as there are cores."""
    from hsi_batch.cluster.embedded import cores

    free = psutil.virtual_memory().available
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        free = min(free, soft)
    found = f"{sized(free)} free"
    room = int(free // _WORKER_BYTES)
    if room < 1:
        advice = "End other programs, raise `ulimit -v`, or use another machine."
        return Finding("memory", "problem", f"{found}; a worker takes about 1 GB.", advice)
    if room < cores():
        advice = f"Use --workers {room}."
        return Finding("memory", "warning", f"{found} for {cores()} workers of 1 GB.", advice)
    return Finding("memory", "ok", f"{found} for {cores()} workers of about 1 GB")


def open_files() -> Finding:
    """Files that a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} (at most {hard})"
    if soft >= _FILES:
        return Finding("open files", "ok", found)
    verdict: Verdict = "problem" if soft < _FILES // 4 else "warning"
    return Finding("open files", verdict, f"{found}.", f"Say `ulimit -n {max(4096, _FILES)}`.")


def scratch() -> Finding:
    """The folder for logs and spilled data."""
    folder = Path(tempfile.gettempdir())
    free = psutil.disk_usage(str(folder)).free
    found = f"{folder}, {sized(free)} free"
    if free < _SCRATCH_BYTES:
        advice = "Make room, or set TMPDIR (`scratch:` in a cluster YAML) to another folder."
        return Finding("scratch", "warning", f"{found}.", advice)
    return Finding("scratch", "ok", found)


def storage(store: str | os.PathLike[str] | None) -> Finding:
    """Speed of writing and reading where archives are."""
    if store is not None and is_url(store):
        return Finding(
            "storage",
            "warning",
            f"{os.fspath(store)} is a URL; only folders are measured.",
            "`hsi-batch verify URL` tells whether it answers.",
        )
    folder = Path.cwd() if store is None else Path(store).absolute()
    # Beside a store and not in it: nothing foreign belongs there.
    if (folder / "zarr.json").exists():
        folder = folder.parent
    if not folder.is_dir():
        advice = "Name a folder, or a store, that exists."
        return Finding("storage", "problem", f"{folder} is no folder.", advice)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hsi-batch-doctor-") as file:
            write, read = _speed(file.fileno())
    except OSError as error:
        advice = "Choose another place, make room, or change the permissions."
        return Finding("storage", "problem", f"{folder}: {error.strerror}.", advice)
    free = psutil.disk_usage(str(folder)).free
    found = f"{folder}: writes {write / 1e6:.0f} MB/s, reads {read / 1e6:.0f} MB/s"
    found += f", {sized(free)} free"
    if min(write, read) < _SLOW:
        advice = "It will be what runs wait for; use a faster one if there is."
        return Finding("storage", "warning", f"{found}.", advice)
    return Finding("storage", "ok", found)


def _speed(file: int) -> tuple[float, float]:
    """Bytes per second to and from a file; what is read may come from the system's memory."""
    data = os.urandom(2**20)
    count = _TRIED_BYTES // len(data)
    begun = time.perf_counter()
    for _ in range(count):
        os.write(file, data)
    os.fsync(file)
    write = _TRIED_BYTES / (time.perf_counter() - begun)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.perf_counter()
    for i in range(count):
        os.pread(file, len(data), i * len(data))
    return write, _TRIED_BYTES / (time.perf_counter() - begun)


def local_worker() -> Finding:
    """A worker of the embedded cluster comes up and sums rightly."""
    from hsi_batch.cluster import LocalConfig
    from hsi_batch.stages.cluster_check import check_cluster

    with tempfile.TemporaryDirectory(prefix="hsi-batch-doctor-") as folder:
        found = check_cluster(LocalConfig(workers=1), folder)
    return Finding(
        "worker",
        "ok",
        f"up after {found.start_seconds:.1f} s, base {sized(found.base)},"
        f" sums {found.frame_rate / 1e6:.0f} MB/s, {found.task_seconds * 1e3:.1f} ms per task",
    )
