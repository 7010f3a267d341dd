"""Refusing what cannot fit into the memory of a worker."""

from __future__ import annotations

from collections.abc import Iterable

from distributed import Client

from hsi_batch.archive.layout import Geometry
from hsi_batch.engine.worker import memory_now
from hsi_batch.errors import PlanError

__all__ = ["assembled_bytes", "check_memory"]


def assembled_bytes(geometries: Iterable[Geometry], channels: int) -> int:
    """Bytes of what is assembled of the largest frame for nodes that must see it whole.

    Parameters
    ----------
    geometries : iterable of Geometry
    channels : int
        Values held per pixel, float32; ``forward`` may hold as much again.
    """
    per_pixel = max(16, 8 * channels)
    return max((g.shape[0] * g.shape[1] * per_pixel for g in geometries), default=0)


def check_memory(client: Client, needed: int, stage: str) -> int:
    """Compare what a stage needs above the base with what a worker may take.

    Parameters
    ----------
    client : distributed.Client
    needed : int
        Bytes above the base.
    stage : str
        For the message.

    Returns
    -------
    int
        Base of the largest worker in bytes.

    Raises
    ------
    hsi_batch.errors.PlanError
        A worker's limit is lower than its base and the need.
    """
    base = max(client.run(memory_now).values(), default=0)
    limits = [
        worker["memory_limit"]
        for worker in client.scheduler_info(n_workers=-1)["workers"].values()
        if worker.get("memory_limit")
    ]
    limit = min(limits, default=0)
    if limit and base + needed > limit:
        raise PlanError(
            f"{stage} needs {(base + needed) / 1e6:.0f} MB per worker (base {base / 1e6:.0f} MB and"
            f" {needed / 1e6:.0f} MB for the data in flight), but a worker may take"
            f" {limit / 1e6:.0f} MB.",
            hint="Use fewer workers with more memory each, or lower blocks (--block-lines).",
        )
    return base
