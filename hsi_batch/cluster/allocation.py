"""All workers of a run inside the job of its driver (SLURM)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from distributed import Client, Scheduler
from distributed.deploy.spec import ProcessInterface, SpecCluster

from hsi_batch.cluster.dask_settings import settle
from hsi_batch.cluster.jobqueue import folder_of
from hsi_batch.cluster.owned import OwnedClient, compare_versions, wait_for_workers
from hsi_batch.cluster.queue_config import QueueConfig
from hsi_batch.errors import ConfigError
from hsi_batch.tls import handed_over, temporary

__all__ = ["start_allocation"]


class _Step(ProcessInterface):
    """One ``srun`` of all workers."""

    def __init__(
        self,
        scheduler: str,
        config: QueueConfig,
        secret: dict[str, str],
        log: str,
        name: object = None,
    ) -> None:
        del name
        super().__init__()  # type: ignore[no-untyped-call]
        self._scheduler, self._config, self._secret, self._log = scheduler, config, secret, log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        config = self._config
        command = [
            "srun",
            "--overlap",
            "--kill-on-bad-exit=0",
            "--cpu-bind=none",
            f"--ntasks={config.workers}",
            "--cpus-per-task=1",
            config.python or sys.executable,
            *("-m", "distributed.cli.dask_worker", self._scheduler),
            *("--nthreads", "1", "--memory-limit", f"{config.memory}B", "--nanny"),
            *("--death-timeout", "60", "--no-dashboard"),
        ]
        if config.scratch:
            command += ["--local-directory", os.path.expandvars(config.scratch)]
        if config.resources:
            offered = ",".join(f"{k}={v:g}" for k, v in config.resources.items())
            command += ["--resources", offered]
        with Path(self._log).open("ab") as file:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **self._secret},
                start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        await super().start()  # type: ignore[no-untyped-call]

    def ended(self) -> bool:
        """Whether the step is over, with all its workers."""
        return self.process is not None and self.process.returncode is not None

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 20)
        await super().close()  # type: ignore[no-untyped-call]


def start_allocation(config: QueueConfig) -> Client:
    """Start workers as a step of the job that this process runs in.

    Raises
    ------
    hsi_batch.errors.ConfigError
        This is no job of SLURM.
    hsi_batch.errors.ClusterError
        The workers do not come up.
    """
    if not os.environ.get("SLURM_JOB_ID"):
        raise ConfigError(
            "`pattern: allocation` is for runs that are jobs themselves.",
            hint="Send it: hsi-batch submit WORKFLOW --cluster FILE.",
        )
    folder = Path(tempfile.mkdtemp(prefix="allocation-", dir=folder_of(config)))
    log = folder / "workers.log"
    security = temporary() if config.security == "temporary" else None
    secret = {} if security is None else handed_over(security, str(folder))
    protocol: dict[str, Any] = {} if security is None else {"protocol": "tls://"}
    settle()
    cluster = SpecCluster(
        scheduler={
            "cls": Scheduler,
            "options": {
                **protocol,
                "security": security,
                "interface": config.interface,
                "dashboard": config.dashboard,
                "dashboard_address": "127.0.0.1:0",
            },
        },
        workers={
            "step": {
                "cls": _Step,
                "options": {"config": config, "secret": secret, "log": str(log)},
            }
        },
        name="hsi-batch",
        security=security,
        silence_logs="error",
    )

    def keep() -> None:
        if cluster.workers["step"].ended():
            del cluster.workers["step"]
            cluster.sync(cluster._correct_state)  # noqa: SLF001

    def problem() -> str | None:
        if not cluster.workers["step"].ended():
            return None
        lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
        return f"srun has ended. {log} ends with: {' '.join(lines[-3:])[-400:]}"

    client = OwnedClient(cluster, keep=keep)
    try:
        wait_for_workers(client, config.timeout, problem, lambda: f"See {log}.")
        compare_versions(client)
    except BaseException:
        client.close()
        raise
    return client
