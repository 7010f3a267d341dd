"""What a cluster YAML would have done, in the words of the batch system."""

from __future__ import annotations

from hsi_batch.cluster.config import ClusterConfig
from hsi_batch.cluster.queue_config import QueueConfig
from hsi_batch.cluster.remote_config import KubernetesConfig
from hsi_batch.errors import ConfigError

__all__ = ["script_of"]


def script_of(config: ClusterConfig) -> str:
    """The job script of a worker, or the manifest of a DaskJob.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Clusters of this type need none.
    """
    if isinstance(config, QueueConfig):
        from hsi_batch.cluster.jobqueue import job_script

        return job_script(config)
    if isinstance(config, KubernetesConfig):
        from hsi_batch.cluster.pods import manifest

        return manifest(config)
    raise ConfigError(
        f"clusters of type {config.type} need no script.",
        hint="Those of slurm, pbs, lsf and sge have job scripts, those of kubernetes a manifest.",
    )
