"""What the YAML of SSH workers, Kubernetes and Dask Gateway may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hsi_batch.cluster.fields import Bytes, ClusterPart, Line, Place, Resources, Seconds, Word
from hsi_batch.cluster.queue_config import AdaptiveConfig

__all__ = ["GatewayConfig", "HostConfig", "KubernetesConfig", "SSHConfig"]

_GIB = 2**30


class HostConfig(ClusterPart):
    """A machine with SSH.

    Attributes
    ----------
    host : str
    port : int
    user : str, optional
    workers : int
    interface : str, optional
        Address by which other workers and the driver reach this machine, where it has several.
    resources : dict
        What each worker offers to work that asks for it.
    """

    host: Word
    port: int = Field(default=22, ge=1, le=65535)
    user: Word | None = None
    workers: int = Field(default=1, ge=1)
    interface: Word | None = None
    resources: Resources = Field(default_factory=dict)


class SSHConfig(ClusterPart):
    """Workers on machines that you reach by SSH; one thread each.

    Attributes
    ----------
    hosts : list of HostConfig
    memory : int
        Bytes of a worker.
    address : str, optional
        Address of this machine by which the workers reach the scheduler.
    scratch : str
        Folder on the machines for spilled data.
    python : str, optional
        Python on the machines; this one by default.
    key_file, known_hosts : str, optional
        Your private key, by default what SSH would take (an agent, ``~/.ssh``); the keys of the
        machines, which are always checked.
    timeout : float
        Seconds to wait for the first worker.
    security : {"temporary", "none"}
        TLS with a certificate that is made for the run, and sent to the machines by SSH.
    environment : list of str
        Names of variables that are handed to the workers.
    dashboard : bool
    """

    type: Literal["ssh"]
    hosts: list[HostConfig] = Field(min_length=1)
    memory: Bytes = 4 * _GIB
    address: Word | None = None
    scratch: Place = "/tmp"  # noqa: S108 - on machines that we know nothing of
    python: Line | None = None
    key_file: str | None = None
    known_hosts: str | None = None
    timeout: Seconds = 60.0
    security: Literal["temporary", "none"] = "temporary"
    environment: list[Word] = Field(default_factory=list)
    dashboard: bool = False

    @property
    def workers(self) -> int:
        """Workers on all machines."""
        return sum(host.workers for host in self.hosts)


class KubernetesConfig(ClusterPart):
    """Workers as pods, by the operator of dask-kubernetes; one thread each.

    Attributes
    ----------
    image : str
        With this package in it.
    name, namespace : str
    workers : int
    adaptive : AdaptiveConfig, optional
    memory : int
        Bytes of a worker.
    environment : list of str
        Names of variables that are handed over.
    variables_from : str, optional
        Name of a Secret of the cluster whose entries become variables of the pods.
    claim, mount : str, optional
        Name of the PersistentVolumeClaim with the data, and where pods see it.
    timeout : float
        Seconds to wait for the first worker.
    options : dict
        Passed on to ``KubeCluster``.
    """

    type: Literal["kubernetes"]
    image: Word
    name: Word = "hsi-batch"
    namespace: Word = "default"
    workers: int = Field(default=4, ge=1)
    adaptive: AdaptiveConfig | None = None
    memory: Bytes = 4 * _GIB
    environment: list[Word] = Field(default_factory=list)
    variables_from: Word | None = None
    claim: Word | None = None
    mount: Place = "/data"
    timeout: Seconds = 600.0
    options: dict[str, Any] = Field(default_factory=dict)


class GatewayConfig(ClusterPart):
    """Workers that a Dask Gateway starts.

    Attributes
    ----------
    address : str
    auth : str
        As dask-gateway names it; passwords and tokens come from its own configuration.
    workers : int
    adaptive : AdaptiveConfig, optional
    timeout : float
        Seconds to wait for the first worker.
    options : dict
        Cluster options of the gateway, such as ``worker_memory``.
    """

    type: Literal["gateway"]
    address: Word
    auth: Literal["basic", "kerberos", "jupyterhub"] | None = None
    workers: int = Field(default=4, ge=1)
    adaptive: AdaptiveConfig | None = None
    timeout: Seconds = 600.0
    options: dict[str, Any] = Field(default_factory=dict)
