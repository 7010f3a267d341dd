"""Clients that own a cluster elsewhere: waiting for its workers, comparing versions, ending it."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from distributed import Client

from hsi_batch.errors import ClusterError, HsiBatchWarning

__all__ = ["ClosingClient", "OwnedClient", "compare_versions", "version_table", "wait_for_workers"]

_POLL_SECONDS = 1.0
#: What must be alike: how tasks are written down, and what decides the last bits of results.
_PACKAGES = ("hsi-batch", "numba", "numcodecs", "torch", "xarray", "zarr")
#: Without these being the same nothing runs, or something else than was asked for.
_DECISIVE = ("python", "hsi-batch", "distributed")
_KEEP_SECONDS = 5.0


class ClosingClient(Client):
    """A client that is closed at once where it cannot connect.

    Left to the garbage collector, it would stop its event loop in whatever thread is collected in.
    Where that thread is starting another event loop, it holds the lock that stopping takes, and
    waits for itself for ever.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        except BaseException:
            with contextlib.suppress(Exception):
                self.close()
            raise

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the connection."""
        return super().close(*args, **kwargs)  # type: ignore[no-untyped-call]


class OwnedClient(ClosingClient):
    """A client that owns its cluster: closing it ends the workers, and their jobs.

    Parameters
    ----------
    cluster : distributed.deploy.Cluster
    keep : callable, optional
        Called every few seconds: starts again what was lost.
    ended : callable, optional
        Called when all is closed.
    """

    def __init__(
        self,
        cluster: Any,
        *,
        keep: Callable[[], object] | None = None,
        ended: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        self._owned: Any = cluster
        self._ended = ended
        self._end = threading.Event()
        super().__init__(cluster, set_as_default=True, **options)
        if keep is not None:
            threading.Thread(
                target=self._keep, args=(keep,), name="hsi-batch-keeper", daemon=True
            ).start()

    def _keep(self, keep: Callable[[], object]) -> None:
        while not self._end.wait(_KEEP_SECONDS):
            # What fails now is tried again.
            with contextlib.suppress(Exception):
                keep()

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection and the cluster."""
        self._end.set()
        owned, self._owned = self._owned, None
        super().close(*args, **kwargs)
        if owned is not None:
            # Jobs may be gone already; what is left is ended below.
            with contextlib.suppress(Exception):
                owned.close()
            if self._ended is not None:
                with contextlib.suppress(ClusterError, OSError):
                    self._ended()


def wait_for_workers(
    client: Client, seconds: float, problem: Callable[[], str | None], said: Callable[[], str]
) -> None:
    """Wait for the first worker.

    Parameters
    ----------
    client : distributed.Client
    seconds : float
        At most.
    problem : callable
        Why none will come, as far as is known.
    said : callable
        What the batch system says at the end of the wait.

    Raises
    ------
    hsi_batch.errors.ClusterError
    """
    deadline = time.monotonic() + seconds
    while not client.nthreads():
        if (found := problem()) is not None:
            raise ClusterError(
                f"no worker comes up: {found}",
                hint="Change the cluster YAML; `hsi-batch cluster script FILE` prints the job"
                " script, `hsi-batch cluster check FILE` tries one worker.",
            )
        if time.monotonic() > deadline:
            raise ClusterError(
                f"no worker came up within {seconds:g} s. {said()}",
                hint="Raise `timeout` in the cluster YAML where waiting helps; ask for less memory"
                " or a shorter walltime, or use another queue, where it does not.",
            )
        time.sleep(_POLL_SECONDS if time.monotonic() + _POLL_SECONDS < deadline else 0.1)


def compare_versions(client: Client) -> None:
    """Compare the software of the workers with ours; a table is shown where it differs.

    Raises
    ------
    hsi_batch.errors.ClusterError
        They cannot work together.
    """
    found: Any = client.get_versions(check=False, packages=list(_PACKAGES))
    ours = _versions(found["client"])
    theirs = {address: _versions(one) for address, one in found["workers"].items() if one}
    differing, table = version_table(ours, theirs)
    if not differing:
        return
    text = f"the workers have other software than this process:\n{table}\n"
    if set(differing) & set(_DECISIVE):
        raise ClusterError(
            text.rstrip(),
            hint="Use one environment for both: `python` or `setup` in the cluster YAML name it.",
        )
    warnings.warn(f"{text}Results may differ in their last bits.", HsiBatchWarning, stacklevel=3)


def _versions(found: Mapping[str, Any]) -> dict[str, str]:
    known = {name: str(value or "missing") for name, value in found["packages"].items()}
    # The patch level of Python changes nothing.
    known["python"] = ".".join(known.get("python", "?").split(".")[:2])
    return known


def version_table(
    ours: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], str]:
    """Packages that differ, and a table of them for people.

    Examples
    --------
    >>> theirs = {"a": {"zarr": "3.0"}, "b": {"zarr": "3.1"}}
    >>> print(version_table({"zarr": "3.1"}, theirs)[1])
    package  here  workers
    zarr     3.1   3.0 (1 of 2, first a)
    """
    rows = [("package", "here", "workers")]
    for name in sorted(ours):
        other: dict[str, list[str]] = {}
        for address, versions in theirs.items():
            if versions.get(name, "missing") != ours[name]:
                other.setdefault(versions.get(name, "missing"), []).append(address)
        if other:
            each = (
                f"{version} ({len(at)} of {len(theirs)}, first {at[0]})"
                for version, at in other.items()
            )
            rows.append((name, ours[name], ", ".join(each)))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
    return [row[0] for row in rows[1:]], "\n".join(lines)
