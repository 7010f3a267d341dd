"""A cluster of this machine's own, started for a run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psutil
from distributed import Client, Status
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessScheduler, SubprocessWorker

from hsi_batch.cluster.config import LocalConfig
from hsi_batch.cluster.dask_settings import CALM, variables
from hsi_batch.cluster.owned import ClosingClient
from hsi_batch.errors import ClusterError, ConfigError
from hsi_batch.tls import handed_over, temporary

__all__ = ["EmbeddedClient", "cores", "start_local"]

_ORPHAN = "hsi_batch.engine.orphan"
#: Tells it which process to watch.
_PARENT = "HSI_BATCH_PARENT"
#: Memory that a worker should have at least.
_WORKER_BYTES = 1.5 * 2**30


class _Scheduler(SubprocessScheduler):
    """A scheduler process whose messages go to a file."""

    def __init__(self, log: str, secret: dict[str, str], **kwargs: Any) -> None:
        self._log = log
        self._secret = secret
        super().__init__(**kwargs)

    async def _start(self) -> None:
        file = Path(self.scheduler_kwargs["scheduler_file"])
        self.process = await _spawn(
            "distributed.Scheduler", self.scheduler_kwargs, self._log, self._secret
        )
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

    def __init__(self, scheduler: str, log: str, secret: dict[str, str], **kwargs: Any) -> None:
        self._log = log
        self._secret = secret
        super().__init__(scheduler, **kwargs)

    async def _start(self) -> None:
        self.process = await _spawn(
            self.worker_class,
            self.worker_kwargs,
            f"{self._log}-{self.name}.log",
            self._secret,
            self.scheduler,
        )


async def _spawn(
    cls: str, options: dict[str, Any], log: str, secret: dict[str, str], *arguments: str
) -> asyncio.subprocess.Process:
    # Started by command, not by multiprocessing: scripts need no __main__ guard.
    command = [sys.executable, "-m", "dask", "spec", *arguments]
    with Path(log).open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *command,
            "--spec",
            json.dumps({"cls": cls, "opts": options}),
            env={**variables(CALM), **os.environ, **secret, _PARENT: str(os.getpid())},
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


class EmbeddedClient(ClosingClient):
    """A client that owns its cluster: closing it stops the workers."""

    _owned: SpecCluster | None = None

    def __init__(self, cluster: SpecCluster, folder: str) -> None:
        super().__init__(cluster, set_as_default=True)
        # Not before: the logs of a scheduler that does not answer are still to be read.
        self._owned = cluster
        self._folder = folder

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection, the cluster, and remove its scratch folder."""
        owned, self._owned = self._owned, None
        if owned is not None and self.status != "running":
            # The scheduler died. Asking it to close would take a minute.
            _kill(owned)
            self.status = "closed"
        else:
            super().close(*args, **kwargs)
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


def start_local(config: LocalConfig) -> Client:
    """Start a scheduler and workers on the loopback address; closing the client stops them."""
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
    security = temporary() if config.security == "temporary" else None
    secret = {} if security is None else handed_over(security, folder)
    protocol = {} if security is None else {"protocol": "tls"}
    scheduler = {
        "cls": _Scheduler,
        "options": {
            "log": f"{folder}/scheduler.log",
            "secret": secret,
            "scheduler_kwargs": {
                **protocol,
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
            "secret": secret,
            "worker_kwargs": {
                **protocol,
                "host": "127.0.0.1",
                "nthreads": 1,
                "memory_limit": memory,
                "local_directory": folder,
                "preload_nanny": [_ORPHAN],
                "config": dict(CALM),
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
            security=security,
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
