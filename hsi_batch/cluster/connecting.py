"""A cluster YAML, or nothing, becomes a Dask client."""

from __future__ import annotations

import os
from pathlib import Path

from distributed import Client, get_client

from hsi_batch.cluster.config import ExistingConfig, LocalConfig, read_cluster, scheduler_address
from hsi_batch.cluster.embedded import start_local
from hsi_batch.errors import ClusterError, ConfigError

__all__ = ["connect", "current_client"]


def current_client() -> Client | None:
    """The client that is already there, if any."""
    try:
        return get_client()
    except ValueError:
        return None


def connect(
    config: str | os.PathLike[str] | LocalConfig | ExistingConfig | None = None,
    *,
    workers: int | None = None,
) -> Client:
    """Return a client, a context manager that stops on leaving what it started.

    Parameters
    ----------
    config : path or config, optional
        Cluster YAML. Without one, workers are started on this machine.
    workers : int, optional
        Number of local workers; wins over the file.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The file is wrong.
    hsi_batch.errors.ClusterError
        No scheduler, or no worker, within the time-out.

    Examples
    --------
    >>> with connect(workers=2) as client:  # doctest: +SKIP
    ...     hb.convert(["recordings/"], "archive.zarr", client=client)
    """
    if config is None:
        config = LocalConfig()
    elif not isinstance(config, (LocalConfig, ExistingConfig)):
        config = read_cluster(config)
    if isinstance(config, ExistingConfig):
        return _existing(config)
    if workers is None:
        return start_local(config)
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot do anything.", hint="Ask for 1 or more.")
    return start_local(config.model_copy(update={"workers": workers}))


def _existing(config: ExistingConfig) -> Client:
    target = config.address or config.scheduler_file
    try:
        address = config.address or scheduler_address(
            Path(str(config.scheduler_file)), config.timeout
        )
        # Without an address, Dask would start a cluster of its own.
        security = {} if config.security is None else {"security": config.security.to_dask()}
        client = Client(address or "nowhere", timeout=config.timeout, **security)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no scheduler answers at {target} within {config.timeout:g} s ({error}).",
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
