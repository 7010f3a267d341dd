"""One run at a time on a store."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import psutil

from hsi_batch.errors import StoreInUseError
from hsi_batch.places import Place

__all__ = ["StoreLock", "has_died", "is_dead", "owner_of"]

#: The owner touches its lock so often.
BEAT_SECONDS = 15.0
#: A lock of another host whose last touch is older, by the clock of the file system, and that is
#: not touched while it is watched, is of a dead run.
STALE_SECONDS = 600.0
WATCH_SECONDS = 3 * BEAT_SECONDS
_TICKS = 19  # start time among the fields that follow the name in /proc/PID/stat


class StoreLock:
    """Exclusive use of a store, by a file in its run state that names the owner.

    A lock is taken over if its owner is provably dead: one of this machine whose process is gone
    (the number and the moment it started), one of another machine that has not touched it for ten
    minutes, and does not while it is watched. Who lost the lock all the same, because the machine
    slept, is stopped.

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
        self._token = uuid.uuid4().hex
        self._end = threading.Event()
        self._lost = False

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._take_over()
                continue
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(_owner(self.purpose, self._token), file)
            except OSError:
                # The disk is full; an empty lock is nobody's.
                self.path.unlink(missing_ok=True)
                raise
            threading.Thread(target=self._beat, name="hsi-batch-lock", daemon=True).start()
            return self
        raise StoreInUseError(
            "the lock changes hands too fast.",
            path=str(self.path),
            hint="Run the same command again.",
        )

    def __exit__(self, kind: object, *exception: object) -> None:
        self._end.set()
        owner = owner_of(self.path)
        # Someone who thought this run dead may have given the store to another one.
        if owner is not None and owner.get("token") == self._token:
            with contextlib.suppress(OSError):
                self.path.unlink()
        if self._lost and kind is KeyboardInterrupt:
            raise StoreInUseError(
                "this run was thought dead, and another one took the store.",
                path=str(self.path.parent),
                hint="If no other run is there, run the same command again.",
            )

    def _beat(self) -> None:
        """Touch the lock, from a thread, as long as it is ours."""
        while not self._end.wait(BEAT_SECONDS):
            owner = owner_of(self.path)
            if owner is not None and owner.get("token") != self._token:
                self._lost = True
                # Like Ctrl-C; what the main thread waits for is interrupted too.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _take_over(self) -> None:
        owner = owner_of(self.path)
        if owner is not None and not is_dead(self.path, owner, watch=True):
            raise self._in_use(owner)
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file, _one_at_a_time(file), contextlib.suppress(FileNotFoundError):
            # Another run that found the owner dead too may have been here in between.
            if self.path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                self._remove_if_dead()

    def _remove_if_dead(self) -> None:
        owner = owner_of(self.path)
        if owner is None:
            return
        if is_dead(self.path, owner):
            self.path.unlink(missing_ok=True)
            return
        raise self._in_use(owner)

    def _in_use(self, owner: dict[str, Any]) -> StoreInUseError:
        return StoreInUseError(
            f"another run uses this store: {owner.get('purpose')} by process {owner.get('pid')} on"
            f" {owner.get('host')} since {owner.get('since')}.",
            path=str(self.path.parent),
            hint="Wait for it or stop it. If that host is gone for good, delete"
            f" {self.path} and run again.",
        )


def owner_of(path: Place) -> dict[str, Any] | None:
    """Who holds a lock; None if there is none, somebody dead if it was never wholly written."""
    for _ in range(20):
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            # Its owner is writing it at this moment, or died in doing so.
            time.sleep(0.05)
            continue
        if isinstance(found, dict):
            return found
    return {"host": socket.gethostname(), "pid": -1, "purpose": "a run that died early"}


def is_dead(path: Path, owner: dict[str, Any], *, watch: bool = False) -> bool:
    """Whether the owner of a lock is provably dead.

    Parameters
    ----------
    path : Path
        The lock.
    owner : dict
        What stands in it.
    watch : bool
        Wait whether one of another machine touches it, which takes a while.
    """
    if _is_here(owner):
        return not _alive(owner)
    try:
        if _age(path) < STALE_SECONDS:
            return False
        before = path.stat().st_mtime_ns
        if watch:
            # The clock of the file system may have jumped.
            time.sleep(WATCH_SECONDS)
        return path.stat().st_mtime_ns == before
    except OSError:
        return False


def has_died(owner: dict[str, Any]) -> bool:
    """Whether an owner was of this machine, and is gone; that tells nothing of another one's."""
    return _is_here(owner) and not _alive(owner)


def _is_here(owner: dict[str, Any]) -> bool:
    same = owner.get("host") == socket.gethostname()
    return same and owner.get("machine") in (None, _machine())


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock that it was touched with."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        # On network file systems what an open file says is fresher.
        with path.open("rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
        os.utime(now.fileno())
        return os.fstat(now.fileno()).st_mtime - touched


def _owner(purpose: str, token: str) -> dict[str, Any]:
    pid = os.getpid()
    return {
        "purpose": purpose,
        "pid": pid,
        "ticks": _ticks(pid),
        "started": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "machine": _machine(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": " ".join(sys.argv)[:500],
        "token": token,
    }


def _machine() -> str | None:
    """Names this start of this machine, and the processes that can be seen from here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _ticks(pid: int) -> int | None:
    """When a process started, counted from the start of the machine: no clock changes it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[_TICKS])
    except (OSError, ValueError, IndexError):
        return None


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
        if owner.get("ticks") is not None:
            return bool(_ticks(process.pid) == owner["ticks"])
        return abs(process.create_time() - float(owner.get("started", 0))) < 2.0
    except (psutil.Error, ValueError, KeyError, TypeError, OverflowError):
        return False
