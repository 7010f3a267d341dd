"""Refusing what cannot fit into the memory of a worker."""

from __future__ import annotations

from distributed import Client

from hsi_batch.engine.worker import memory_now
from hsi_batch.errors import PlanError

__all__ = ["check_memory"]


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
