"""Whether a cluster works: one worker, a small frame, the way to the storage."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsi_batch.cluster import ClusterConfig, connect, read_cluster
from hsi_batch.engine.carried import submit_carried
from hsi_batch.engine.worker import memory_now, prepare
from hsi_batch.errors import ClusterError
from hsi_batch.statistics import Moments

__all__ = ["ClusterCheck", "check_cluster"]

_SHAPE = (64, 320, 61)
_STORED_BYTES = 64 * 2**20
_WARM = "hsi_batch.stages.warm:converting"


@dataclass(frozen=True)
class ClusterCheck:
    """What was found of a cluster.

    Attributes
    ----------
    kind : str
        Type of the cluster.
    worker, host : str
        Address of the worker, and the name of its machine.
    start_seconds : float
        From asking for the worker to having it.
    task_seconds : float
        There and back again for a task that does nothing.
    frame_rate : float
        Bytes per second of sums over a small frame of 16-bit values.
    write_rate, read_rate : float
        Bytes per second to and from the storage; reading may come from the memory of the machine.
    base : int
        Memory of the worker in bytes before it does anything.
    """

    kind: str
    worker: str
    host: str
    start_seconds: float
    task_seconds: float
    frame_rate: float
    write_rate: float
    read_rate: float
    base: int

    def __str__(self) -> str:
        return (
            f"{self.kind}: a worker on {self.host} ({self.worker}) after"
            f" {self.start_seconds:.1f} s, base {self.base / 1e6:.0f} MB\n"
            f"a task takes {self.task_seconds * 1e3:.1f} ms there and back\n"
            f"a small frame: right, {self.frame_rate / 1e6:.0f} MB/s\n"
            f"storage: writes {self.write_rate / 1e6:.0f} MB/s, reads"
            f" {self.read_rate / 1e6:.0f} MB/s"
        )


def check_cluster(
    cluster: str | os.PathLike[str] | ClusterConfig, storage: str | os.PathLike[str]
) -> ClusterCheck:
    """Bring up one worker, sum a small frame there, and measure its way to the storage.

    Parameters
    ----------
    cluster : path or config
    storage : path
        Folder where archives will be; the worker must see it too.

    Raises
    ------
    hsi_batch.errors.ClusterError
        The worker does not come, does not see the storage, or computes something else.
    """
    config = cluster if isinstance(cluster, ClusterConfig) else read_cluster(cluster)
    folder = Path(storage).absolute()
    begun = time.monotonic()
    with connect(config, workers=None if config.type in ("existing", "ssh") else 1) as client:
        started = time.monotonic() - begun
        prepare(client, _WARM)
        worker = next(iter(client.nthreads()))
        begun = time.monotonic()
        for _ in range(20):
            client.submit(int, 0, workers=[worker], pure=False).result()
        per_task = (time.monotonic() - begun) / 20
        base = submit_carried(client, memory_now, workers=[worker]).result()
        with tempfile.TemporaryDirectory(prefix=".hsi-batch-check-", dir=folder) as place:
            mark = Path(place) / "mark"
            mark.write_text(uuid.uuid4().hex)
            found: dict[str, Any] = submit_carried(client, _try, place, workers=[worker]).result()
            if found["mark"] != mark.read_text():
                raise ClusterError(
                    f"the worker on {found['host']} does not see {folder}.",
                    hint="Archives must be on storage that all machines share.",
                )
    expected = _frame().reshape(-1, _SHAPE[-1]).sum(axis=0, dtype=np.int64)
    if found["sums"] != expected.tolist():
        raise ClusterError(
            f"the worker on {found['host']} does not compute the sums that we do.",
            hint="Compare the software of both: `hsi-batch run --cluster` shows a table.",
        )
    return ClusterCheck(
        config.type,
        worker,
        found["host"],
        started,
        per_task,
        found["frame_rate"],
        found["write_rate"],
        found["read_rate"],
        base,
    )


def _frame() -> Any:
    return np.random.default_rng(7).integers(0, 4096, _SHAPE, dtype=np.uint16)


def _try(place: str) -> dict[str, Any]:
    """Run on the worker."""
    import platform

    found: dict[str, Any] = {"host": platform.node(), "mark": ""}
    mark = Path(place) / "mark"
    if mark.is_file():
        found["mark"] = mark.read_text()
    else:
        return found
    pixels = _frame().reshape(-1, _SHAPE[-1])
    Moments.empty(_SHAPE[-1], np.uint16).update(pixels)
    begun = time.perf_counter()
    moments = Moments.empty(_SHAPE[-1], np.uint16).update(pixels)
    found["frame_rate"] = pixels.nbytes / (time.perf_counter() - begun)
    found["sums"] = [int(v) for v in np.rint(moments.mean * moments.count)]
    data = os.urandom(2**20) * (_STORED_BYTES // 2**20)
    file = Path(place) / "data"
    begun = time.perf_counter()
    with file.open("wb") as out:
        out.write(data)
        os.fsync(out.fileno())
    found["write_rate"] = len(data) / (time.perf_counter() - begun)
    begun = time.perf_counter()
    with file.open("rb") as back:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(back.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        back.read()
    found["read_rate"] = len(data) / (time.perf_counter() - begun)
    return found
