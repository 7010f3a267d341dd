"""One run at a time on a remote store: an object that only one of two can create."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar, Self

from hsi_batch.archive.lock import StoreLock, _owner, has_died
from hsi_batch.errors import StorageError, StoreInUseError
from hsi_batch.places import Place, RemotePlace

__all__ = ["ObjectLock", "store_lock"]

#: Seconds between signs of life.
_BEAT = 20.0


def store_lock(folder: Place, purpose: str) -> StoreLock | ObjectLock:
    """The lock of a store, by its run state."""
    return StoreLock(folder, purpose) if isinstance(folder, Path) else ObjectLock(folder, purpose)


class ObjectLock:
    """Exclusive use of a remote store, by an object that names the owner and shows that it lives.

    The object is made by a conditional put. That of an owner on this host that is no longer alive
    is taken over by whoever first creates the object that says so; that of another host is
    respected, for whether its owner lives cannot be known from here.

    Parameters
    ----------
    folder : RemotePlace
        Run state of the store.
    purpose : str
    """

    #: Tokens of the locks that this process holds.
    _held: ClassVar[set[str]] = set()

    def __init__(self, folder: RemotePlace, purpose: str) -> None:
        self.path = folder / "lock.json"
        self.purpose = purpose
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._beats = 0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._held.add(self._token)
        try:
            if not self.path.create(self._told()):
                self._take_over()
        except BaseException:
            self._held.discard(self._token)
            raise
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self._mine():
                self.path.unlink(missing_ok=True)
        finally:
            # What storage that does not answer keeps of it is nobody's from here on.
            self._held.discard(self._token)

    def _told(self) -> bytes:
        beat = {"beats": self._beats, "seen": time.time()}
        return json.dumps({**_owner(self.purpose, self._token), **beat}).encode()

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _mine(self) -> bool:
        return self._read().get("token") == self._token

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            # Storage that fails for a while shows elsewhere; a lock that went to another stays so.
            with contextlib.suppress(StorageError, OSError):
                if not self._mine():
                    return
                self._beats += 1
                self.path.write_bytes(self._told())

    def _was_left(self, owner: dict[str, Any]) -> bool:
        """Whether this process held it once, and could not remove it."""
        me = _owner(self.purpose, self._token)
        names = ("pid", "ticks", "host", "machine")
        mine = all(name in owner and owner[name] == me[name] for name in names)
        return mine and owner.get("token") not in self._held

    def _take_over(self) -> None:
        owner = self._read()
        if has_died(owner) or self._was_left(owner):
            grave = self.path.parent / f"lock-{owner.get('token', 'none')}.dead"
            if grave.create(f"{self._token} {os.getpid()}".encode()):
                self.path.write_bytes(self._told())
                grave.unlink(missing_ok=True)
                return
        elif not owner and self.path.create(self._told()):
            # Given back in between.
            return
        raise StoreInUseError(
            f"another run uses this store: {owner.get('purpose')} by process {owner.get('pid')} on"
            f" {owner.get('host')} since {owner.get('since')}, last seen"
            f" {max(0, time.time() - float(owner.get('seen', 0))):.0f} s ago.",
            path=str(self.path.parent),
            hint="Wait for it or stop it. If that host is gone for good, delete"
            f" {self.path} and run again.",
        )
