"""What a cluster YAML may say."""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import time
import urllib.parse
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, create_model

from hsi_batch.cluster.fields import Bytes, ClusterPart, Resources, secrets
from hsi_batch.cluster.queue_config import QueueConfig
from hsi_batch.cluster.remote_config import GatewayConfig, KubernetesConfig, SSHConfig
from hsi_batch.documents import Document, read_yaml
from hsi_batch.errors import ConfigError, Problem, did_you_mean
from hsi_batch.tls import SecurityConfig
from hsi_batch.validation import validate

__all__ = [
    "ClusterConfig",
    "ExistingConfig",
    "LocalConfig",
    "cluster_schema",
    "read_cluster",
    "refuse_strangers",
    "scheduler_address",
]


class LocalConfig(ClusterPart):
    """Workers on this machine, started for the run; one thread each.

    Attributes
    ----------
    workers : int, optional
        Number of workers; the cores this process may use by default.
    memory : int, optional
        Bytes per worker (``4 GiB``); an equal share of the machine by default. A worker that takes
        more is restarted.
    resources : dict
        What each worker offers to work that asks for it, such as ``TRAIN: 1`` to a trainrun.
    scratch : str, optional
        Folder for logs and spilled data.
    dashboard : bool
        Serve Dask's dashboard on the loopback address.
    security : {"temporary"}, optional
        Speak TLS with a certificate that is made for this run and shown to nobody else; on
        machines that are shared.
    """

    type: Literal["local"] = "local"
    workers: int | None = Field(default=None, ge=1)
    memory: Bytes | None = None
    resources: Resources = Field(default_factory=dict)
    scratch: str | None = None
    dashboard: bool = False
    security: Literal["temporary"] | None = None


class ExistingConfig(ClusterPart):
    """A scheduler that runs already; it is left running.

    Attributes
    ----------
    address : str, optional
        Such as ``tcp://10.0.0.1:8786``.
    scheduler_file : str, optional
        File that the scheduler wrote; one of the two.
    timeout : float
        Seconds to wait for it and for its first worker.
    security : SecurityConfig, optional
        Speak TLS (``tls://...``) with these certificates, and nothing else.
    """

    type: Literal["existing"]
    address: str | None = None
    scheduler_file: str | None = None
    timeout: float = Field(default=60.0, gt=0)
    security: SecurityConfig | None = None


ClusterConfig = (
    LocalConfig | ExistingConfig | QueueConfig | SSHConfig | KubernetesConfig | GatewayConfig
)
_TYPES: dict[str, type[ClusterPart]] = {
    "local": LocalConfig,
    "existing": ExistingConfig,
    **dict.fromkeys(("slurm", "pbs", "lsf", "sge"), QueueConfig),
    "ssh": SSHConfig,
    "kubernetes": KubernetesConfig,
    "gateway": GatewayConfig,
}
#: Keys that are paths, relative to the file that they are written in.
_PATHS = ("scratch", "scheduler_file", "folder", "key_file", "known_hosts")


def _model_of(kind: str) -> type[ClusterPart]:
    """The model of a type; for a misspelt one that of the nearest, else the keys of all."""
    if kind in _TYPES:
        return _TYPES[kind]
    base: type[ClusterPart] = ClusterPart
    fields: dict[str, Any] = {}
    for near in difflib.get_close_matches(kind, _TYPES, n=1):
        base = _TYPES[near]
    if base is ClusterPart:
        fields = {name: (Any, None) for model in _TYPES.values() for name in model.model_fields}
    fields["type"] = (Any, None)
    return create_model("Cluster", __base__=base, **fields)


def cluster_schema() -> dict[str, Any]:
    """JSON Schema of a cluster YAML."""
    return TypeAdapter(ClusterConfig).json_schema()


def read_cluster(source: str | os.PathLike[str] | Document) -> ClusterConfig:
    """Read a cluster YAML.

    Raises
    ------
    hsi_batch.errors.ConfigError
        All mistakes at once, with lines.
    """
    document = (
        source if isinstance(source, Document) else read_yaml(source, variables=True, collect=True)
    )
    data = document.data if isinstance(document.data, dict) else {}
    kind = str(data.get("type", "local"))
    problems: list[Problem] = list(secrets(document))
    config: ClusterPart | None = None
    try:
        config = validate(_model_of(kind), replace(document, problems=()))
    except ConfigError as error:
        if not error.problems:
            raise
        told = {problem.line for problem in problems}
        problems.extend(p for p in error.problems if p.line not in told)
    if kind not in _TYPES:
        text = f"type: there is no cluster type {kind!r}.{did_you_mean(kind, _TYPES)}"
        problems.append(document.problem(f"{text} Types are {', '.join(_TYPES)}.", ("type",)))
    if kind == "existing" and (data.get("address") is None) == (data.get("scheduler_file") is None):
        problems.append(document.problem("give either `address` or `scheduler_file`.", ("type",)))
    if problems or document.problems:
        raise ConfigError.collect(document.merged(problems), path=document.path)
    assert isinstance(config, ClusterConfig)
    base = Path(document.path or "").parent
    changed: dict[str, Any] = {}
    for name in _PATHS:
        place = getattr(config, name, None)
        # What a shell on another machine replaces stays as it is.
        if place is not None and not place.startswith(("$", "~")):
            changed[name] = str(base / place)
    if isinstance(config, ExistingConfig) and config.security is not None:
        files = {k: str(base / v) for k, v in config.security.model_dump().items()}
        missing = [name for name, file in files.items() if not Path(file).is_file()]
        if missing:
            raise ConfigError.collect(
                [
                    document.problem(f"security.{name}: there is no such file.", ("security", name))
                    for name in missing
                ],
                path=document.path,
            )
        changed["security"] = SecurityConfig(**files)
    return config.model_copy(update=changed) if changed else config


def refuse_strangers(config: ClusterConfig, where: str) -> None:
    """Refuse other machines that a workflow names, and not the user.

    A scheduler can make its clients run code, as it does with its workers; a job script is code.

    Raises
    ------
    hsi_batch.errors.ConfigError
    """
    if isinstance(config, LocalConfig):
        return
    named = ""
    if isinstance(config, ExistingConfig):
        named = str(config.address or config.scheduler_file)
        try:
            address = config.address or scheduler_address(Path(str(config.scheduler_file)), 0)
            parts = urllib.parse.urlsplit(address if "//" in address else f"//{address}")
            host = parts.hostname or ""
            if host == "localhost" or ipaddress.ip_address(host).is_loopback:
                return
        except (ValueError, TimeoutError):
            pass
        text = f"would hand the run to a scheduler on another machine ({named}), which can"
    else:
        text = f"would start workers elsewhere (type {config.type}) by scripts that"
    raise ConfigError(
        f"cluster: this workflow {text} run code as you.",
        path=where,
        hint="If you trust it, name it yourself: hsi-batch run WORKFLOW --cluster FILE"
        f" (in Python run_workflow(path, cluster=FILE)), with `type: {config.type}` in the file.",
    )


def scheduler_address(file: Path, seconds: float) -> str:
    """Address in a scheduler file; Dask itself would wait for the file for ever."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return str(json.loads(file.read_text())["address"] or "")
        except (OSError, ValueError, LookupError, TypeError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no address in the file: {error!r}") from None
            time.sleep(0.05)
