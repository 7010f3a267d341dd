"""Workers on machines that are reached by SSH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from distributed import Client, Scheduler
from distributed.deploy.spec import ProcessInterface, SpecCluster

from hsi_batch.cluster.dask_settings import SETTINGS, settle, variables
from hsi_batch.cluster.owned import OwnedClient, compare_versions, wait_for_workers
from hsi_batch.cluster.remote_config import HostConfig, SSHConfig
from hsi_batch.errors import ConfigError, HsiBatchWarning
from hsi_batch.tls import temporary

__all__ = ["start_ssh"]

_CONNECT_SECONDS = 15
_END_SECONDS = 10
_ROLES = ("client", "scheduler", "worker")


class _Host(ProcessInterface):
    """The workers of one machine."""

    def __init__(
        self,
        scheduler: str,
        config: SSHConfig,
        host: HostConfig,
        secret: Mapping[str, str],
        name: object = None,
    ) -> None:
        del name
        super().__init__()  # type: ignore[no-untyped-call]
        self._scheduler, self._config, self._host, self._secret = scheduler, config, host, secret
        self._connection: Any = None
        self._process: Any = None
        #: Why there are no workers here.
        self.problem = ""

    async def start(self) -> None:
        import asyncssh

        host, config = self._host, self._config
        options: dict[str, Any] = {"port": host.port, "connect_timeout": _CONNECT_SECONDS}
        if host.user:
            options["username"] = host.user
        if config.key_file:
            options["client_keys"] = [config.key_file]
        if config.known_hosts:
            options["known_hosts"] = config.known_hosts
        self.problem = ""
        try:
            self._connection = await asyncssh.connect(host.host, **options)
            # By standard input: what stands in a command can be read by everybody there.
            self._process = await self._connection.create_process("sh -s", stderr=asyncssh.STDOUT)
            self._process.stdin.write(self._script())
            self._process.stdin.write_eof()
        except (OSError, asyncssh.Error, TimeoutError) as error:
            self.problem = f"{host.host}:{host.port}: {error or type(error).__name__}"
        await super().start()  # type: ignore[no-untyped-call]

    def _script(self) -> str:
        config, host = self._config, self._host
        lines = [
            "umask 077",
            f'at=$(mktemp -d "{config.scratch}/hsi-batch-XXXXXX") || exit 1',
            "trap 'rm -rf \"$at\"' EXIT",
        ]
        for name, text in self._secret.items():
            lines += [f"cat >\"$at/{name}.pem\" <<'END'", text.strip(), "END"]
            for role in _ROLES if name != "ca" else ():
                variable = f"DASK_DISTRIBUTED__COMM__TLS__{role.upper()}__{name.upper()}"
                lines.append(f'export {variable}="$at/{name}.pem"')
        if self._secret:
            lines.append('export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$at/cert.pem"')
            lines.append("export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true")
        for variable, value in variables(SETTINGS).items():
            lines.append(f"export {variable}={shlex.quote(value)}")
        for name in config.environment:
            lines.append(f"export {name}={shlex.quote(os.environ[name])}")
        for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
            lines.append(f"export {name}_NUM_THREADS=1")
        command = [
            config.python or shlex.quote(sys.executable),
            "-m distributed.cli.dask_worker",
            self._scheduler,
            f"--nworkers {host.workers} --nthreads 1 --memory-limit {config.memory}B --nanny",
            '--death-timeout 60 --no-dashboard --local-directory "$at"',
        ]
        if host.interface:
            command.append(f"--host {host.interface}")
        if host.resources:
            offered = ",".join(f"{k}={v:g}" for k, v in host.resources.items())
            command.append(f"--resources {offered}")
        return "\n".join([*lines, f"{' '.join(command)} </dev/null", ""])

    async def said(self) -> str:
        """The problem, or what the machine said before it ended."""
        if not self.problem and self._process is not None and self._process.exit_status is not None:
            text, _ = await self._process.communicate()
            lines = str(text or "").strip().splitlines()[-3:]
            self.problem = f"{self._host.host}:{self._host.port}: {' '.join(lines)[-400:]}"
        return self.problem

    @property
    def ended(self) -> bool:
        """Whether there are no workers there any more."""
        over = self._process is not None and self._process.exit_status is not None
        return bool(self.problem) or over

    async def close(self) -> None:
        if self._process is not None and self._process.exit_status is None:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(self._process.wait_closed(), _END_SECONDS)
        if self._connection is not None:
            self._connection.abort()
        await super().close()  # type: ignore[no-untyped-call]


def start_ssh(config: SSHConfig) -> Client:
    """Start a scheduler here, and workers on the machines; closing the client ends them.

    Raises
    ------
    hsi_batch.errors.ClusterError
        No machine has workers within the time-out; with what each of them said.
    """
    try:
        import asyncssh  # noqa: F401
    except ImportError:
        raise ConfigError(
            "workers by SSH need the package asyncssh.", hint="pip install 'hsi-batch[hpc]'."
        ) from None
    missing = [name for name in config.environment if name not in os.environ]
    if missing:
        raise ConfigError(
            f"environment: {', '.join(missing)} is not set here.", hint="Set it, or leave it out."
        )
    security = temporary() if config.security == "temporary" else None
    secret: dict[str, str] = {}
    if security is not None:
        secret = {n: str(getattr(security, f"tls_client_{n}")) for n in ("cert", "key")}
    settle()
    cluster = SpecCluster(
        scheduler={
            "cls": Scheduler,
            "options": {
                **({} if security is None else {"protocol": "tls://"}),
                "security": security,
                "host": config.address,
                "dashboard": config.dashboard,
                "dashboard_address": "127.0.0.1:0",
            },
        },
        workers={
            index: {"cls": _Host, "options": {"config": config, "host": host, "secret": secret}}
            for index, host in enumerate(config.hosts)
        },
        name="hsi-batch",
        security=security,
        silence_logs="error",
    )

    async def told() -> list[str]:
        return [await host.said() for host in list(cluster.workers.values()) if host.ended]

    def problem() -> str | None:
        found = cluster.sync(told)
        return "; ".join(found) if len(found) == len(config.hosts) else None

    def keep() -> None:
        gone = [name for name, host in cluster.workers.items() if host.ended]
        for name in gone:
            del cluster.workers[name]
        if gone:
            cluster.sync(cluster._correct_state)  # noqa: SLF001

    client = OwnedClient(cluster, keep=keep)
    try:
        wait_for_workers(client, config.timeout, problem, lambda: "; ".join(cluster.sync(told)))
        compare_versions(client)
    except BaseException:
        client.close()
        raise
    failed = cluster.sync(told)
    if failed:
        warnings.warn(f"no workers on {'; '.join(failed)}", HsiBatchWarning, stacklevel=2)
    return client
