"""Settings of Dask in the processes of clusters that are started here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import dask

__all__ = ["CALM", "SETTINGS", "settle", "variables"]

#: For workers and schedulers everywhere. Dask's sampling profiler keeps every second of a run, 10
#: to 20 MB an hour in each worker; its clocks take 2 to 3 % of a core in each process, and
#: there are three processes for a worker.
CALM: Mapping[str, Any] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "200ms",
}
#: Where jobs are preempted, nodes fail, and networks are slower than those of one machine.
SETTINGS: Mapping[str, Any] = {
    **CALM,
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.worker-saturation": 1.1,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
    "distributed.comm.retry.count": 5,
    "distributed.deploy.lost-worker-timeout": "5s",
}


def variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """The same as variables of the environment.

    Examples
    --------
    >>> variables({"distributed.comm.retry.count": 5})
    {'DASK_DISTRIBUTED__COMM__RETRY__COUNT': '5'}
    """
    return {_variable(key): str(value) for key, value in settings.items()}


def settle() -> None:
    """Settings for clusters of many machines, where the environment has no others."""
    dask.config.set({k: v for k, v in SETTINGS.items() if _variable(k) not in os.environ})


def _variable(key: str) -> str:
    return f"DASK_{key.upper().replace('.', '__').replace('-', '_')}"
