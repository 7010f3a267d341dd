"""Workers as pods of Kubernetes, and those of a Dask Gateway."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import yaml
from distributed import Client

from hsi_batch.cluster.dask_settings import SETTINGS, settle, variables
from hsi_batch.cluster.owned import OwnedClient, compare_versions, wait_for_workers
from hsi_batch.cluster.remote_config import GatewayConfig, KubernetesConfig
from hsi_batch.errors import ClusterError, ConfigError

__all__ = ["dask_job", "manifest", "start_gateway", "start_kubernetes"]

_API = "kubernetes.dask.org/v1"


def start_kubernetes(config: KubernetesConfig) -> Client:
    """Ask the operator of dask-kubernetes for a cluster; closing the client removes it.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The package is not installed.
    hsi_batch.errors.ClusterError
        The operator does not answer, or no pod becomes a worker.
    """
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError:
        raise ConfigError(
            "workers on Kubernetes need the package dask-kubernetes.",
            hint="pip install 'hsi-batch[kubernetes]'.",
        ) from None
    settle()
    return _started(
        lambda: KubeCluster(
            custom_cluster_spec=_cluster(config),
            namespace=config.namespace,
            quiet=True,
            **config.options,
        ),
        config,
        f"`kubectl --namespace {config.namespace} get pods` tells what became of them.",
    )


def start_gateway(config: GatewayConfig) -> Client:
    """Ask a Dask Gateway for a cluster; closing the client removes it.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The package is not installed.
    hsi_batch.errors.ClusterError
        The gateway does not answer, or gives no worker.
    """
    try:
        from dask_gateway import Gateway
    except ImportError:
        raise ConfigError(
            "a Dask Gateway needs the package dask-gateway.",
            hint="pip install 'hsi-batch[gateway]'.",
        ) from None
    settle()

    def start() -> Any:
        gateway = Gateway(config.address, auth=config.auth)
        cluster = gateway.new_cluster(shutdown_on_close=True, **config.options)
        if config.adaptive is None:
            cluster.scale(config.workers)
        return cluster

    return _started(start, config, f"Ask the gateway at {config.address}.")


def _started(start: Any, config: KubernetesConfig | GatewayConfig, advice: str) -> Client:
    client: Client | None = None
    cluster: Any = None
    try:
        cluster = start()
        if config.adaptive is not None:
            cluster.adapt(minimum=config.adaptive.minimum, maximum=config.adaptive.maximum)
        client = OwnedClient(cluster)
        wait_for_workers(client, config.timeout, lambda: None, lambda: advice)
        compare_versions(client)
    except BaseException as error:
        with contextlib.suppress(Exception):
            (client or cluster).close()
        if isinstance(error, (ClusterError, ConfigError)) or not isinstance(error, Exception):
            raise
        raise ClusterError(
            f"the cluster did not start ({type(error).__name__}: {error}).", hint=advice
        ) from None
    return client


def _container(config: KubernetesConfig, name: str, arguments: Sequence[str]) -> dict[str, Any]:
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    settings = {**threads, **variables(SETTINGS)}
    environment = [{"name": k, "value": v} for k, v in settings.items()]
    found: dict[str, Any] = {
        "name": name,
        "image": config.image,
        "args": list(arguments),
        "env": environment,
    }
    if config.variables_from:
        found["envFrom"] = [{"secretRef": {"name": config.variables_from}}]
    if config.claim:
        found["volumeMounts"] = [{"name": "data", "mountPath": config.mount}]
    if name == "worker":
        size = f"{-(-config.memory // 2**20)}Mi"
        found["resources"] = {
            "requests": {"cpu": "1", "memory": size},
            "limits": {"cpu": "1", "memory": size},
        }
    return found


def _pod(config: KubernetesConfig, container: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = {"containers": [container]}
    if config.claim:
        claim = {"persistentVolumeClaim": {"claimName": config.claim}}
        pod["volumes"] = [{"name": "data", **claim}]
    return pod


def _cluster(config: KubernetesConfig) -> dict[str, Any]:
    worker = ["dask", "worker", "--nthreads", "1", "--memory-limit", f"{config.memory}B"]
    worker += ["--name", "$(DASK_WORKER_NAME)", "--death-timeout", "60", "--no-dashboard"]
    scheduler = _container(config, "scheduler", ["dask", "scheduler"])
    scheduler["ports"] = [
        {"name": "tcp-comm", "containerPort": 8786, "protocol": "TCP"},
        {"name": "http-dashboard", "containerPort": 8787, "protocol": "TCP"},
    ]
    scheduler["readinessProbe"] = {
        "httpGet": {"port": "http-dashboard", "path": "/health"},
        "initialDelaySeconds": 5,
        "periodSeconds": 10,
    }
    return {
        "apiVersion": _API,
        "kind": "DaskCluster",
        "metadata": {"name": config.name, "namespace": config.namespace},
        "spec": {
            "worker": {
                "replicas": config.workers,
                "spec": _pod(config, _container(config, "worker", worker)),
            },
            "scheduler": {
                "spec": _pod(config, scheduler),
                "service": {
                    "type": "ClusterIP",
                    "selector": {
                        "dask.org/cluster-name": config.name,
                        "dask.org/component": "scheduler",
                    },
                    "ports": [
                        {
                            "name": "tcp-comm",
                            "protocol": "TCP",
                            "port": 8786,
                            "targetPort": "tcp-comm",
                        },
                        {
                            "name": "http-dashboard",
                            "protocol": "TCP",
                            "port": 8787,
                            "targetPort": "http-dashboard",
                        },
                    ],
                },
            },
        },
    }


def dask_job(config: KubernetesConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """A DaskJob: a pod that runs ``hsi-batch`` beside a cluster of its own.

    Parameters
    ----------
    config : KubernetesConfig
    arguments : sequence of str
        Of the command line; the client finds its scheduler by ``DASK_SCHEDULER_ADDRESS``.
    """
    job = _pod(config, _container(config, "job", ["hsi-batch", *arguments]))
    return {
        "apiVersion": _API,
        "kind": "DaskJob",
        "metadata": {"name": config.name, "namespace": config.namespace},
        "spec": {
            "job": {"spec": {**job, "restartPolicy": "OnFailure"}},
            "cluster": {"spec": _cluster(config)["spec"]},
        },
    }


def manifest(config: KubernetesConfig) -> str:
    """The DaskJob in YAML, to edit its command and ``kubectl apply -f``."""
    workflow = os.path.join(config.mount, "workflow.yaml")  # noqa: PTH118 - of the pod
    cluster = os.path.join(config.mount, "existing.yaml")  # noqa: PTH118
    told = dask_job(config, ["run", workflow, "--cluster", cluster])
    text: str = yaml.safe_dump(told, sort_keys=False)
    return text
