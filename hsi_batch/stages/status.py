"""What a run tells other terminals, by a small file beside its lock."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distributed import Client

from hsi_batch.archive.lock import has_died, is_dead, owner_of
from hsi_batch.archive.records import Records
from hsi_batch.archive.store import state_folder
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.errors import StorageError, StoreError
from hsi_batch.files import remove_unfinished, write_atomically
from hsi_batch.places import Place, RemotePlace, place

__all__ = ["Status", "observed", "status", "tell_dashboard", "telling"]

_NAME = "status.json"
_INTERNAL = ("token", "ticks", "started", "machine", "beats", "seen")
#: It is written at most so often; an object, so often.
_SECONDS = 1.0
_REMOTE_SECONDS = 5.0
#: Of the cluster that this process uses.
_dashboard: ContextVar[str] = ContextVar("address of Dask's dashboard", default="")
_tell: ContextVar[Callable[[str], None] | None] = ContextVar("tells other terminals", default=None)


def tell_dashboard(client: Client) -> None:
    """Tell other terminals where the dashboard is, if there is one that they can look at."""
    with contextlib.suppress(Exception):
        link = str(client.dashboard_link or "")
        # Without bokeh there is a page of metrics and no dashboard.
        _dashboard.set(link if find_spec("bokeh") is not None else "")


@contextlib.contextmanager
def telling(folder: Place) -> Iterator[None]:
    """Tell the progress of what runs in this block in a run state; a killed run leaves its last."""
    file = folder / _NAME
    with _writing(file) if isinstance(file, Path) else _putting(file) as tell:
        token = _tell.set(tell)
        try:
            yield
        finally:
            _tell.reset(token)


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[Callable[[str], None]]:
    def write(text: str) -> None:
        # A full disk shows where something is lost by it.
        with contextlib.suppress(OSError):
            write_atomically(file, text, sync=False)

    try:
        yield write
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
            remove_unfinished(file.parent, _NAME)


@contextlib.contextmanager
def _putting(file: RemotePlace) -> Iterator[Callable[[str], None]]:
    """Put what was told last from a thread, so that no run waits for slow storage."""
    last: deque[str] = deque(maxlen=1)
    ended, there = threading.Event(), threading.Event()

    def put() -> None:
        while not ended.wait(_REMOTE_SECONDS):
            if last:
                # Storage that does not answer shows elsewhere, and is not asked again at the end.
                there.clear()
                with contextlib.suppress(StorageError, OSError):
                    file.write_bytes(last.pop().encode())
                    there.set()

    thread = threading.Thread(target=put, name="status", daemon=True)
    thread.start()
    try:
        yield last.append
    finally:
        ended.set()
        thread.join()
        if there.is_set():
            with contextlib.suppress(StorageError, OSError):
                file.unlink(missing_ok=True)


def observed(observer: Observer) -> Observer:
    """An observer that also tells other terminals, while :func:`telling`."""
    told = 0.0

    def observe(progress: Progress) -> None:
        nonlocal told
        tell, now = _tell.get(), time.monotonic()
        if tell is not None and now - told >= _SECONDS:
            told = now
            tell(json.dumps(_content(progress)))
        observer(progress)

    return observe


def _content(progress: Progress) -> dict[str, Any]:
    return {
        "stage": progress.stage,
        "done": progress.done,
        "failed": progress.failed,
        "total": progress.total,
        "text": str(progress),
        "dashboard": _dashboard.get(),
    }


@dataclass(frozen=True)
class Status:
    """What becomes of a store at this moment.

    Attributes
    ----------
    store : str
    state : {"running", "died", "idle"}
        ``died``: a run was killed; the same command goes on where it was.
    owner : dict
        Purpose, process, host, command and start of the run.
    progress : dict
        Stage, blocks done, failed and in all, as it was told last.
    records : dict
        Blocks ``done`` and ``failed`` in the records of each stage.
    """

    store: str
    state: str
    owner: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    records: dict[str, dict[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        owner = self.owner
        who = (
            f"{owner.get('purpose')} by process {owner.get('pid')} on {owner.get('host')} since"
            f" {owner.get('since')}"
        )
        lines = {
            "running": [f"{self.store}: {who}"],
            "died": [
                f"{self.store}: no run; the last one died: {who}",
                f"To go on, run again: {owner.get('command')}",
            ],
            "idle": [f"{self.store}: no run"],
        }[self.state]
        if self.progress:
            lines.append(str(self.progress.get("text")))
            if self.state == "running" and self.progress.get("dashboard"):
                lines.append(f"dashboard: {self.progress['dashboard']}")
        lines += [
            f"{stage}: {counts['done']} blocks recorded, {counts['failed']} failed"
            for stage, counts in self.records.items()
        ]
        return "\n".join(lines)


def status(store: str | Place) -> Status:
    """Whether a run uses a store, or what it writes, and how far it is; disturbs nobody.

    Parameters
    ----------
    store : path or URL
        Archive, scores, or fitted pipeline.

    Raises
    ------
    hsi_batch.errors.StoreError
        There is neither such a store nor a run that makes it.
    """
    where = place(store)
    state = state_folder(where)
    if not where.exists() and not state.exists():
        raise StoreError(
            "there is nothing here, and no run that would write it.",
            path=str(where),
            hint="Check the path.",
        )
    lock = state / "lock.json"
    owner = owner_of(lock) or {}
    found = "idle"
    if owner:
        dead = is_dead(lock, owner) if isinstance(lock, Path) else has_died(owner)
        found = "died" if dead else "running"
    shown = {k: v for k, v in owner.items() if k not in _INTERNAL}
    return Status(str(where), found, shown, _progress(state), _recorded(state))


def _progress(state: Place) -> dict[str, Any]:
    try:
        found = json.loads((state / _NAME).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _recorded(state: Place) -> dict[str, dict[str, int]]:
    counts = {}
    folder = state / "records"
    stages: list[Place] = [*folder.iterdir()] if folder.is_dir() else []
    for stage in sorted(stages, key=str):
        outcomes = [record.outcome for record in Records(stage).load().values()]
        counts[stage.name] = {kind: outcomes.count(kind) for kind in ("done", "failed")}
    return counts
