"""One run at a time on a store."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import psutil

from hsi_batch.errors import StoreInUseError

__all__ = ["StoreLock"]


class StoreLock:
    """Exclusive use of a store, by a file in its run state that names the owner.

    A lock whose owner ran on this host and is no longer alive is taken over. A lock of another
    host is respected: whether its owner lives cannot be known from here.

    Parameters
    ----------
    folder : Path
        Run state folder of the store.
    purpose : str
        What the run does, for the message of whoever comes second.
    """

    def __init__(self, folder: Path, purpose: str) -> None:
        self.path = folder / "lock.json"
        self.purpose = purpose

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._take_over()
                continue
            with os.fdopen(handle, "w") as file:
                json.dump(_owner(self.purpose), file)
            return self
        raise StoreInUseError("the lock changes hands too fast.", path=str(self.path))

    def __exit__(self, *exception: object) -> None:
        owner = self._read()
        # Someone who thought this run dead may have given the store to another one.
        if owner is not None and _mine(owner):
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _take_over(self) -> None:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file, _one_at_a_time(file), contextlib.suppress(FileNotFoundError):
            # Another run that found the owner dead too may have been here in between.
            if self.path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                self._remove_if_dead()

    def _remove_if_dead(self) -> None:
        owner = self._read()
        if owner is None:
            return
        if owner.get("host") == socket.gethostname() and not _alive(owner):
            self.path.unlink(missing_ok=True)
            return
        raise StoreInUseError(
            f"another run uses this store: {owner.get('purpose')} by process {owner.get('pid')} on"
            f" {owner.get('host')} since {owner.get('since')}.",
            path=str(self.path.parent),
            hint="Wait for it or stop it. If that host is gone for good, delete"
            f" {self.path} and run again.",
        )

    def _read(self) -> dict[str, Any] | None:
        for _ in range(20):
            try:
                found = json.loads(self.path.read_text())
            except FileNotFoundError:
                return None
            except ValueError:
                # Its owner is writing it at this moment, or died in doing so.
                time.sleep(0.05)
                continue
            if isinstance(found, dict):
                return found
        return {"host": socket.gethostname(), "pid": -1, "purpose": "a run that died early"}


def _owner(purpose: str) -> dict[str, Any]:
    return {
        "purpose": purpose,
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": " ".join(sys.argv)[:500],
    }


def _mine(owner: dict[str, Any]) -> bool:
    return owner.get("pid") == os.getpid() and owner.get("host") == socket.gethostname()


@contextlib.contextmanager
def _one_at_a_time(file: IO[bytes]) -> Iterator[None]:
    """Hold the file among the processes of this host, where the file system can."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def _alive(owner: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(int(owner["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            # Killed, and nobody asked how it ended; common in containers.
            return False
        # The number may have been given to another process since.
        return abs(process.create_time() - float(owner.get("started", 0))) < 2.0
    except (psutil.Error, ValueError, KeyError, TypeError, OverflowError):
        return False
