"""Clusters: what their YAML says, those of this machine, those that run already."""

from hsi_batch.cluster.config import (
    ClusterConfig,
    ExistingConfig,
    LocalConfig,
    cluster_schema,
    read_cluster,
    refuse_strangers,
)
from hsi_batch.cluster.connecting import connect, current_client
from hsi_batch.cluster.embedded import cores
from hsi_batch.cluster.queue_config import QueueConfig

__all__ = [
    "ClusterConfig",
    "ExistingConfig",
    "LocalConfig",
    "QueueConfig",
    "cluster_schema",
    "connect",
    "cores",
    "current_client",
    "read_cluster",
    "refuse_strangers",
]
