"""A cluster YAML, or nothing, becomes a Dask client."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from dask.utils import parse_bytes
from distributed import Client, Status, get_client
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessScheduler, SubprocessWorker
from distributed.security import Security
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, create_model

from hsi_batch.documents import Document, read_yaml
from hsi_batch.errors import ClusterError, ConfigError, Problem, did_you_mean
from hsi_batch.validation import validate

__all__ = [
    "ExistingConfig",
    "LocalConfig",
    "cluster_schema",
    "connect",
    "current_client",
    "read_cluster",
]

_ORPHAN = "hsi_batch.engine.orphan"
#: Tells it which process to watch.
_PARENT = "HSI_BATCH_PARENT"
#: Dask's sampling profiler keeps every second of a run: 10 to 20 MB an hour in each worker.
_CONFIG = {"distributed.worker.profile.enabled": False}
#: Memory that a worker should have at least.
_WORKER_BYTES = 1.5 * 2**30


def _bytes(value: Any) -> int:
    try:
        size = 0 if isinstance(value, bool) else int(parse_bytes(value))
    except (ValueError, AttributeError, TypeError, OverflowError):
        size = 0
    if size <= 0:
        raise ValueError("write a size such as 4 GiB")
    return size


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LocalConfig(_Config):
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
    """

    type: Literal["local"] = "local"
    workers: int | None = Field(default=None, ge=1)
    memory: Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)] | None = None
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    scratch: str | None = None
    dashboard: bool = False


class SecurityConfig(_Config):
    """Files of a TLS connection; each party must show a certificate of this authority.

    Attributes
    ----------
    ca_file : str
        Certificate of the authority (PEM).
    cert, key : str
        Certificate and private key of this client (PEM).
    """

    ca_file: str
    cert: str
    key: str

    def to_dask(self) -> Security:
        """For a client; nothing but TLS is spoken then."""
        return Security(
            require_encryption=True,
            tls_ca_file=self.ca_file,
            tls_client_cert=self.cert,
            tls_client_key=self.key,
        )


class ExistingConfig(_Config):
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


_TYPES: dict[str, type[_Config]] = {"local": LocalConfig, "existing": ExistingConfig}


def _model_of(kind: str) -> type[_Config]:
    """The model of a type; for a misspelt one that of the nearest, else the keys of all."""
    if kind in _TYPES:
        return _TYPES[kind]
    base: type[_Config] = _Config
    fields: dict[str, Any] = {}
    for near in difflib.get_close_matches(kind, _TYPES, n=1):
        base = _TYPES[near]
    if base is _Config:
        fields = {name: (Any, None) for model in _TYPES.values() for name in model.model_fields}
    fields["type"] = (Any, None)
    return create_model("Cluster", __base__=base, **fields)


def cluster_schema() -> dict[str, Any]:
    """JSON Schema of a cluster YAML."""
    return TypeAdapter(LocalConfig | ExistingConfig).json_schema()


def read_cluster(source: str | os.PathLike[str] | Document) -> LocalConfig | ExistingConfig:
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
    problems: list[Problem] = []
    config: _Config | None = None
    try:
        config = validate(_model_of(kind), replace(document, problems=()))
    except ConfigError as error:
        if not error.problems:
            raise
        problems.extend(error.problems)
    if kind not in _TYPES:
        text = f"type: there is no cluster type {kind!r}.{did_you_mean(kind, _TYPES)}"
        problems.append(document.problem(f"{text} Types are {', '.join(_TYPES)}.", ("type",)))
    if kind == "existing" and (data.get("address") is None) == (data.get("scheduler_file") is None):
        problems.append(document.problem("give either `address` or `scheduler_file`.", ("type",)))
    if problems or document.problems:
        raise ConfigError.collect(document.merged(problems), path=document.path)
    assert isinstance(config, (LocalConfig, ExistingConfig))
    # Paths are relative to the file they are written in.
    base = Path(document.path or "").parent
    named = "scratch" if isinstance(config, LocalConfig) else "scheduler_file"
    place = getattr(config, named)
    changed: dict[str, Any] = {} if place is None else {named: str(base / place)}
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
        return _local(config)
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot do anything.", hint="Ask for 1 or more.")
    return _local(config.model_copy(update={"workers": workers}))


def _address(file: Path, seconds: float) -> str:
    """Address in a scheduler file; Dask itself would wait for the file for ever."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return str(json.loads(file.read_text())["address"] or "")
        except (OSError, ValueError, LookupError, TypeError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no address in the file: {error!r}") from None
            time.sleep(0.05)


def _existing(config: ExistingConfig) -> Client:
    target = config.address or config.scheduler_file
    try:
        address = config.address or _address(Path(str(config.scheduler_file)), config.timeout)
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


# -- embedded cluster ----------------------------------------------------------------------------


class _Scheduler(SubprocessScheduler):
    """A scheduler process whose messages go to a file."""

    def __init__(self, log: str, **kwargs: Any) -> None:
        self._log = log
        super().__init__(**kwargs)

    async def _start(self) -> None:
        file = Path(self.scheduler_kwargs["scheduler_file"])
        self.process = await _spawn("distributed.Scheduler", self.scheduler_kwargs, self._log)
        deadline = asyncio.get_running_loop().time() + self.timeout
        while asyncio.get_running_loop().time() < deadline and self.process.returncode is None:
            with contextlib.suppress(OSError, json.JSONDecodeError):
                self.address = json.loads(file.read_text())["address"]
                return
            await asyncio.sleep(0.05)
        raise ClusterError(
            f"the scheduler did not start within {self.timeout} s: {_tail(self._log)}",
            hint="Check that this machine may open ports on 127.0.0.1.",
        )


class _Worker(SubprocessWorker):
    """A nanny process (which keeps its worker alive) whose messages go to a file."""

    def __init__(self, scheduler: str, log: str, **kwargs: Any) -> None:
        self._log = log
        super().__init__(scheduler, **kwargs)

    async def _start(self) -> None:
        self.process = await _spawn(
            self.worker_class, self.worker_kwargs, f"{self._log}-{self.name}.log", self.scheduler
        )


async def _spawn(
    cls: str, options: dict[str, Any], log: str, *arguments: str
) -> asyncio.subprocess.Process:
    # Started by command, not by multiprocessing: scripts need no __main__ guard.
    command = [sys.executable, "-m", "dask", "spec", *arguments]
    with Path(log).open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *command,
            "--spec",
            json.dumps({"cls": cls, "opts": options}),
            env={**os.environ, _PARENT: str(os.getpid())},
            # Ctrl-C in a terminal is for the command alone, which ends its workers in order.
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )


def _tail(log: str) -> str:
    try:
        return Path(log).read_text(errors="replace").strip()[-500:] or "no message"
    except OSError:
        return "no message"


class EmbeddedClient(Client):
    """A client that owns its cluster: closing it stops the workers."""

    def __init__(self, cluster: SpecCluster, folder: str) -> None:
        self._owned: SpecCluster | None = cluster
        self._folder = folder
        super().__init__(cluster, set_as_default=True)  # type: ignore[no-untyped-call]

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection, the cluster, and remove its scratch folder."""
        owned, self._owned = self._owned, None
        if owned is not None and self.status != "running":
            # The scheduler died. Asking it to close would take a minute.
            _kill(owned)
            self.status = "closed"
        else:
            super().close(*args, **kwargs)  # type: ignore[no-untyped-call]
            try:
                if owned is not None:
                    owned.close()
            except (OSError, TimeoutError):
                # It died at this very moment.
                _kill(owned)
        if owned is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _kill(cluster: Any) -> None:
    """End the processes of a cluster that nobody answers for any more, and what is said of it."""
    for name in ("distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for part in (cluster.scheduler, *cluster.workers.values()):
        process = getattr(part, "process", None)
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if process is not None and process.returncode is None:
                parent = psutil.Process(process.pid)
                for each in (*parent.children(recursive=True), parent):
                    with contextlib.suppress(psutil.Error):
                        each.kill()
    cluster.status = Status.closed


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _local(config: LocalConfig) -> Client:
    count = config.workers
    total = psutil.virtual_memory().total
    if count is None:
        count = max(1, min(cores(), int(total * 0.8 / _WORKER_BYTES)))
    memory = config.memory or int(total * 0.9 / count)
    try:
        folder = tempfile.mkdtemp(prefix="hsi-batch-", dir=config.scratch)
    except OSError as error:
        raise ConfigError(
            f"scratch: no folder can be made for logs and spilled data ({error}).",
            hint="Name a folder that exists and may be written to.",
        ) from None
    scheduler = {
        "cls": _Scheduler,
        "options": {
            "log": f"{folder}/scheduler.log",
            "scheduler_kwargs": {
                "host": "127.0.0.1",
                "port": 0,
                "dashboard": config.dashboard,
                "dashboard_address": "127.0.0.1:0" if config.dashboard else None,
                "scheduler_file": f"{folder}/{uuid.uuid4().hex}.json",
                "preload": [_ORPHAN],
            },
        },
    }
    worker = {
        "cls": _Worker,
        "options": {
            "log": f"{folder}/worker",
            "worker_kwargs": {
                "host": "127.0.0.1",
                "nthreads": 1,
                "memory_limit": memory,
                "local_directory": folder,
                "preload_nanny": [_ORPHAN],
                "config": _CONFIG,
                "resources": config.resources,
                "silence_logs": logging.WARNING,
                # Dashboards of single workers would open ports on all interfaces.
                "dashboard": False,
            },
        },
    }
    started: SpecCluster | Client | None = None
    try:
        started = cluster = SpecCluster(
            workers=dict.fromkeys(range(count), worker),
            scheduler=scheduler,
            worker=worker,
            name="hsi-batch",
            silence_logs=logging.WARNING,
        )
        started = client = EmbeddedClient(cluster, folder)
        client.wait_for_workers(count, timeout=60)
    except (TimeoutError, OSError, RuntimeError) as error:
        logs = " ".join(_tail(str(path)) for path in sorted(Path(folder).glob("*.log")))
        if started is not None:
            with contextlib.suppress(Exception):
                started.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise ClusterError(
            f"the workers on this machine did not start ({error}): {logs[-800:]}",
            hint="Check memory and that ports on 127.0.0.1 may be opened.",
        ) from None
    return client
