"""A cluster YAML, or nothing, becomes a Dask client."""

from __future__ import annotations

import os
from pathlib import Path

from distributed import Client, get_client

from hsi_batch.cluster.config import (
    ClusterConfig,
    ExistingConfig,
    LocalConfig,
    read_cluster,
    scheduler_address,
)
from hsi_batch.cluster.embedded import start_local
from hsi_batch.cluster.owned import ClosingClient
from hsi_batch.cluster.queue_config import QueueConfig
from hsi_batch.cluster.remote_config import GatewayConfig, SSHConfig
from hsi_batch.errors import ClusterError, ConfigError

__all__ = ["connect", "current_client"]


def current_client() -> Client | None:
    """The client that is already there, if any."""
    try:
        return get_client()
    except ValueError:
        return None


def connect(
    config: str | os.PathLike[str] | ClusterConfig | None = None,
    *,
    workers: int | None = None,
) -> Client:
    """Return a client, a context manager that stops on leaving what it started.

    Parameters
    ----------
    config : path or config, optional
        Cluster YAML. Without one, workers are started on this machine.
    workers : int, optional
        Number of workers; wins over the file.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The file is wrong.
    hsi_batch.errors.ClusterError
        No scheduler, or no worker, within the time-out.

    Examples
    --------
    >>> with connect(workers=1) as client:  # doctest: +SKIP
    ...     print(len(client.nthreads()))
    1
    """
    if config is None:
        config = LocalConfig()
    found = config if isinstance(config, ClusterConfig) else read_cluster(config)
    if isinstance(found, ExistingConfig):
        return _existing(found)
    if workers is not None:
        if workers < 1:
            raise ConfigError(f"{workers} workers cannot do anything.", hint="Ask for 1 or more.")
        if not isinstance(found, SSHConfig):
            found = found.model_copy(update={"workers": workers})
    if isinstance(found, LocalConfig):
        return start_local(found)
    if isinstance(found, QueueConfig):
        from hsi_batch.cluster.allocation import start_allocation
        from hsi_batch.cluster.jobqueue import start_queue

        return start_allocation(found) if found.pattern == "allocation" else start_queue(found)
    if isinstance(found, SSHConfig):
        from hsi_batch.cluster.remote import start_ssh

        return start_ssh(found)
    if isinstance(found, GatewayConfig):
        from hsi_batch.cluster.pods import start_gateway

        return start_gateway(found)
    from hsi_batch.cluster.pods import start_kubernetes

    return start_kubernetes(found)


def _existing(config: ExistingConfig) -> Client:
    target = config.address or config.scheduler_file
    try:
        address = config.address or scheduler_address(
            Path(str(config.scheduler_file)), config.timeout
        )
        # Without an address, Dask would start a cluster of its own.
        security = {} if config.security is None else {"security": config.security.to_dask()}
        client = ClosingClient(address or "nowhere", timeout=config.timeout, **security)
    # Dask asserts that its thread starts within 10 s, which a crowded login node may miss.
    except (OSError, TimeoutError, ValueError, RuntimeError, AssertionError) as error:
        why = str(error) or type(error).__name__
        raise ClusterError(
            f"no scheduler answers at {target} within {config.timeout:g} s ({why}).",
            hint="Check the address and that the scheduler runs.",
        ) from None
    try:
        client.wait_for_workers(1, timeout=config.timeout)
    except TimeoutError:
        client.close()
        raise ClusterError(
            f"the scheduler at {target} has no worker after {config.timeout:g} s.",
            hint="Start workers, or raise `timeout`.",
        ) from None
    return client
