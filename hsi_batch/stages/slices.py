"""The three steps of a run, given one by one: init, slices on machines without Dask, finalise."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from distributed import Client, Scheduler, Worker
from distributed.deploy.spec import SpecCluster

from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.lock import StoreLock, is_dead, owner_of
from hsi_batch.archive.store import state_folder
from hsi_batch.engine.events import Observer, Progress, silent
from hsi_batch.engine.worker import set_up
from hsi_batch.errors import ConfigError, IncompleteError, StoreInUseError
from hsi_batch.files import write_atomically
from hsi_batch.stages.run import Failure, TaskReport, failed_frames
from hsi_batch.stages.status import observed, telling
from hsi_batch.wording import counted, some

__all__ = [
    "Slice",
    "SliceResult",
    "batched",
    "forget_slices",
    "in_this_process",
    "kept_hashes",
    "leased",
    "open_slices",
    "prepared_text",
    "read_slices",
    "refuse_missing",
    "refuse_open",
    "run_slice",
    "write_slices",
]

T = TypeVar("T")
_HERE = {
    "protocol": "inproc://",
    "nthreads": 1,
    "dashboard": False,
    "dashboard_address": "127.0.0.1:0",
    "silence_logs": logging.CRITICAL,
}
_TEXT = re.compile(r"^(\d{1,6})/(\d{1,6})$")
#: Bytes of pixels whose records share a file.
_BATCH_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Slice:
    """The share of one of several independent jobs.

    Attributes
    ----------
    number, of : int
        From 1.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``k/n``.

        Raises
        ------
        hsi_batch.errors.ConfigError

        Examples
        --------
        >>> Slice.parse("3/20")
        Slice(number=3, of=20)
        """
        match = _TEXT.match(text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"{text!r} is no slice.", hint="Write k/n with k from 1 to n: 3/20.")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """For files."""
        return f"slice-{self.number:06d}-of-{self.of:06d}"

    def of_items(self, items: Sequence[T], size_of: Callable[[T], int]) -> list[T]:
        """The items that are this slice's: neighbours, about as many bytes in each slice.

        Examples
        --------
        >>> [Slice(k, 2).of_items([4, 1, 1, 2], int) for k in (1, 2)]
        [[4], [1, 1, 2]]
        """
        total = sum(size_of(item) for item in items)
        if not total:
            return [item for i, item in enumerate(items) if i % self.of == self.number - 1]
        found, before = [], 0
        for item in items:
            middle = before + size_of(item) / 2
            if int(middle * self.of / total) == self.number - 1:
                found.append(item)
            before += size_of(item)
        return found


@dataclass(frozen=True)
class SliceResult:
    """What a slice did.

    Attributes
    ----------
    stage : str
    slice : str
        ``k/n``.
    blocks, bytes : int
    failures : tuple of Failure
    seconds : float
    """

    stage: str
    slice: str
    blocks: int
    bytes: int
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def failed(self) -> int:
        """Frames of which a block failed."""
        return failed_frames(*self.failures)

    def __str__(self) -> str:
        rate = self.bytes / 1e6 / max(self.seconds, 1e-9)
        failed = f", {counted(self.failed, 'frame')} failed" if self.failed else ""
        return (
            f"{self.stage}, slice {self.slice}: {counted(self.blocks, 'block')} in"
            f" {self.seconds:.1f} s, {rate:.0f} MB/s{failed}"
        )


def prepared_text(blocks: int, size: int, slices: int) -> str:
    """What an ``init`` has left to be done, in words."""
    work = f"{counted(blocks, 'block')}, {size / 1e6:.0f} MB"
    return f"{work}, prepared for {counted(slices, 'slice')}; then finalise"


@contextlib.contextmanager
def in_this_process() -> Iterator[Client]:
    """A client whose one worker is a thread here: for steps that do little, without sockets."""
    with (
        SpecCluster(
            scheduler={
                "cls": Scheduler,
                "options": {
                    "protocol": "inproc://",
                    "dashboard": False,
                    # Its page of metrics is the only socket.
                    "dashboard_address": "127.0.0.1:0",
                },
            },
            workers={"here": {"cls": Worker, "options": _HERE}},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=True) as client,
    ):
        yield client


# -- what init leaves for the slices -----------------------------------------------------------


def _held(store: str) -> Path | None:
    state = state_folder(store)
    return state / "slices" if isinstance(state, Path) else None


def _folder(store: str) -> Path:
    folder = _held(store)
    if folder is None:
        raise ConfigError(
            "slices need a store on a file system that all of them see.",
            path=store,
            hint="Convert or score there, or as one run.",
        )
    return folder


def write_slices(
    store: str, stage: str, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]
) -> None:
    """Write down what there is to do: a header, and a line per part."""
    text = "\n".join(json.dumps(line) for line in ({**header, "stage": stage}, *lines))
    _folder(store).mkdir(parents=True, exist_ok=True)
    write_atomically(_folder(store) / f"{stage}.jsonl", text + "\n")


def read_slices(store: str, stage: str, part: Slice) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What :func:`write_slices` wrote.

    Raises
    ------
    hsi_batch.errors.IncompleteError
        There was no ``init``, or it was for another number of slices.
    """
    try:
        text = (_folder(store) / f"{stage}.jsonl").read_text()
        header, *lines = (json.loads(line) for line in text.splitlines())
    except (OSError, ValueError):
        raise IncompleteError(
            f"nothing was prepared for slices of {stage}.",
            path=store,
            hint="Give `hsi-batch init` first; after `finalise` there is nothing left to do.",
        ) from None
    if header.get("slices") != part.of:
        raise IncompleteError(
            f"this is slice {part}, but {header.get('slices')} slices were prepared.",
            path=store,
            hint="Give the number of slices that `hsi-batch init` was given.",
        )
    return header, lines


def forget_slices(store: str) -> None:
    """Remove what was prepared, when all of it is done."""
    folder = _held(store)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


# -- leases ------------------------------------------------------------------------------------


def open_slices(store: str) -> list[str]:
    """Slices of a store that run at this moment."""
    found = []
    folder = _held(store)
    for lock in [] if folder is None else sorted(folder.glob("*/lock.json")):
        owner = owner_of(lock)
        if owner is not None and not is_dead(lock, owner):
            found.append(f"{owner.get('purpose')} on {owner.get('host')}")
    return found


@contextlib.contextmanager
def leased(store: str, stage: str, part: Slice) -> Iterator[Path]:
    """Hold a slice; nobody else does it, and no whole run is on the store.

    Raises
    ------
    hsi_batch.errors.StoreInUseError
    """
    folder = _folder(store) / part.name
    with StoreLock(folder, f"slice {part} of {stage}"), telling(folder):
        # Whole runs take their lock and then look for leases; one of both sees the other.
        lock = _folder(store).parent / "lock.json"
        owner = owner_of(lock)
        if owner is not None and not is_dead(lock, owner):
            raise StoreInUseError(
                f"another run uses this store: {owner.get('purpose')} by process"
                f" {owner.get('pid')} on {owner.get('host')}.",
                path=store,
                hint="Wait for it.",
            )
        yield folder


def refuse_open(store: str) -> None:
    """Refuse a whole run while slices are at work.

    Raises
    ------
    hsi_batch.errors.StoreInUseError
    """
    if found := open_slices(store):
        raise StoreInUseError(
            f"slices of another run are at work: {some(found)}.",
            path=store,
            hint="Wait for them, or end their jobs.",
        )


def refuse_missing(store: str, stage: str, missing: Sequence[BlockKey]) -> None:
    """Refuse to finalise what is not all there.

    Raises
    ------
    hsi_batch.errors.IncompleteError
    """
    if missing:
        raise IncompleteError(
            f"{counted(len(missing), 'block')} of {stage} are not done, the first is {missing[0]}.",
            path=store,
            hint="Run the slices that are missing, or the whole stage, which does the rest.",
        )


# -- running one -------------------------------------------------------------------------------


def run_slice(
    store: str,
    stage: str,
    part: Slice,
    batches: Iterable[Sequence[T]],
    function: Callable[[Sequence[T], str], TaskReport],
    *,
    total: tuple[int, int],
    warm: str,
    observer: Observer | None = None,
) -> SliceResult:
    """Do the batches of a slice one after the other, in this process.

    Parameters
    ----------
    store, stage : str
    part : Slice
    batches : iterable of sequences
        Of items; the same ones whenever this slice is run.
    function : callable
        Does a batch, under a name of its own, and skips what an earlier attempt has done.
    total : (int, int)
        Blocks and bytes.
    warm : str
        As for :class:`~hsi_batch.engine.worker.WorkerSetup`.
    observer : callable, optional
    """
    begun = time.monotonic()
    set_up(warm)
    progress = Progress(f"{stage}, slice {part}", *total)
    told = observed(observer or silent)
    told(progress)
    failures: list[Failure] = []
    hashes: dict[str, dict[str, str]] = {}
    for number, items in enumerate(batches):
        report = function(items, f"{part.name}-{number:06d}")
        failures.extend(report.failures)
        progress.done += report.done
        progress.done_bytes += report.done_bytes
        progress.failed += len(report.failures)
        for session, found in getattr(report, "hashes", {}).items():
            hashes.setdefault(session, {}).update(found)
        told(progress)
    if hashes:
        write_atomically(_folder(store) / f"hashes-{part.name}.json", json.dumps(hashes))
    return SliceResult(
        stage,
        str(part),
        progress.done,
        progress.done_bytes,
        tuple(failures),
        time.monotonic() - begun,
    )


def kept_hashes(store: str) -> dict[str, dict[str, str]]:
    """Hashes of source files that slices have taken, by session and file."""
    found: dict[str, dict[str, str]] = {}
    folder = _held(store)
    for file in [] if folder is None else sorted(folder.glob("hashes-*.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for session, hashes in json.loads(file.read_text()).items():
                found.setdefault(session, {}).update(hashes)
    return found


def batched(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Neighbours of about 128 MB together."""
    group: list[T] = []
    held = 0
    for item in items:
        group.append(item)
        held += size_of(item)
        if held >= _BATCH_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group
