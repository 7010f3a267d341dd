"""What became of every block, kept beside the store and durable after each block."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import google_crc32c

from hsi_batch.archive.layout import BlockKey
from hsi_batch.files import Closing, write_atomically
from hsi_batch.places import Place

__all__ = ["BlockRecord", "RecordWriter", "Records", "read_records"]

_CRC = ',"crc":'
#: A record is on the disk so many seconds after it was written, also of a task that takes long.
_SYNC_SECONDS = 0.9
#: What a line that is no record raises.
_TORN = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class BlockRecord:
    """The durable line that says what became of a block in a stage.

    Attributes
    ----------
    key : BlockKey
    outcome : {"done", "failed"}
    digest : str
        Of everything the result depends on: source, settings, pipeline.
    tail : str
        Last bytes of the stored chunk (its CRC32C), in hexadecimal; the chunk must still end so.
    checksum : int
        CRC32C of the block's values.
    reason : str
        Why it failed.
    traceback : str
        Where, for those who mend the program.
    seconds : float
        That it took.
    at : float
        When it ended, in seconds since 1970 by the worker's clock; nothing is decided by it.
    worker : str
    info : dict
        What else the stage wants to keep.
    """

    key: BlockKey
    outcome: Literal["done", "failed"]
    digest: str
    tail: str = ""
    checksum: int = 0
    reason: str = ""
    traceback: str = ""
    seconds: float = 0.0
    at: float = field(default_factory=lambda: round(time.time(), 3), compare=False)
    worker: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> tuple[int, int]:
        """First line and end of what was done of the block; all of it unless noted."""
        first, last = self.info.get("lines", (self.key.start, self.key.stop))
        return int(first), int(last)

    def to_json(self) -> str:
        """One line, ending in the CRC32C of the rest of it."""
        # Not `asdict`, which copies deeply: a run has hundreds of thousands of these.
        k = self.key
        key = {"session": k.session, "frame": k.frame, "start": k.start, "stop": k.stop}
        values = {**vars(self), "key": key, "info": dict(self.info)}
        line = json.dumps(values, separators=(",", ":"))[:-1]
        return f"{line}{_CRC}{google_crc32c.value(line.encode())}}}"

    @classmethod
    def from_json(cls, line: str) -> BlockRecord:
        """Inverse of :meth:`to_json`; raises ValueError, KeyError or TypeError on other text.

        Lines of versions that wrote no checksum are taken as they are.
        """
        data = json.loads(line)
        crc = data.pop("crc", None)
        if crc is not None and crc != google_crc32c.value(line.rpartition(_CRC)[0].encode()):
            raise ValueError("the checksum of the line is wrong")
        key = BlockKey(**data["key"])
        numbers = (key.frame, key.start, key.stop)
        if not isinstance(key.session, str) or not all(type(n) is int for n in numbers):
            raise TypeError("the key is no address of a block")
        return cls(**{**data, "key": key})


class RecordWriter(Closing):
    """Appends records to a file of its own; each line is in the kernel's hands before the next.

    Lines are on the disk, also if the machine loses its power, a second later at most.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    name : str
        Name of the task; no other task writes this file.

    Attributes
    ----------
    earlier : dict
        What an earlier attempt of this task, whose worker was lost, did before it died.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # A task that was cut into parts is named task.part; the whole wrote under its own name.
        whole = name.partition(".")[0]
        self.earlier = {
            record.key: record
            for file in dict.fromkeys((folder / f"{whole}.jsonl", folder / f"{name}.jsonl"))
            for record in read_records(file)
        }
        self._file = (folder / f"{name}.jsonl").open("a+b", buffering=0)
        self._syncing = threading.Lock()
        self._timer: threading.Timer | None = None
        if self._file.tell():
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                # A crash tore the last line; what follows must not hang on to it.
                self._append(b"\n")

    def write(self, *records: BlockRecord) -> None:
        """Append records."""
        self._append("".join(record.to_json() + "\n" for record in records).encode())

    def _append(self, raw: bytes) -> None:
        # Unbuffered writing may take only a part, as when the disk is nearly full.
        while raw:
            raw = raw[self._file.write(raw) :]
        with self._syncing:
            if self._timer is None:
                self._timer = threading.Timer(_SYNC_SECONDS, self._sync)
                self._timer.daemon = True
                self._timer.start()

    def _sync(self) -> None:
        with self._syncing:
            self._timer = None
            if not self._file.closed:
                # An error shows again as the file is closed.
                with contextlib.suppress(OSError):
                    os.fsync(self._file.fileno())

    def close(self) -> None:
        """Make sure that the records are on the disk."""
        with self._syncing:
            if self._timer is not None:
                self._timer.cancel()
            try:
                os.fsync(self._file.fileno())
            finally:
                self._file.close()


def read_records(file: Place) -> Iterator[BlockRecord]:
    """The records in a file; lines that are torn or damaged count for nothing."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                yield BlockRecord.from_json(line.decode())
            except _TORN:
                # By a crash, or damaged; the block is done again.
                continue


class Records:
    """All records of one stage of a store.

    Runs are numbered folders; later runs win. A finished run is packed into one file.

    Parameters
    ----------
    folder : Path
        ``<store>.hsi-batch/records/<stage>``.
    """

    def __init__(self, folder: Place) -> None:
        self.folder = folder

    def new_run(self) -> Place:
        """Make and return the folder of a new run."""
        taken = [int(path.name) for path in self._runs()]
        folder = self.folder / f"{max(taken, default=0) + 1:06d}"
        folder.mkdir(parents=True)
        return folder

    def _runs(self) -> list[Place]:
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if path.name.isdigit()]
        return sorted(found, key=str)

    @property
    def unpacked(self) -> bool:
        """Whether a run was killed before its records were packed."""
        return bool(self._runs())

    def load(self) -> dict[BlockKey, BlockRecord]:
        """The latest record of each block. A line that was torn by a crash counts for nothing."""
        files = [self.folder / "packed.jsonl"]
        for run in self._runs():
            files.extend(sorted(run.glob("*.jsonl"), key=str))
        return {record.key: record for file in files for record in read_records(file)}

    def damaged(self) -> list[int]:
        """Numbers (from 1) of the lines of the packed file that are not as they were written."""
        file, found = self.folder / "packed.jsonl", []
        if not file.exists():
            return []
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    text = line.decode()
                    whole = BlockRecord.from_json(text).to_json()
                    # Earlier versions wrote no checksum.
                    bare = f"{whole.rpartition(_CRC)[0]}}}"
                    good = text in (whole + "\n", bare + "\n")
                except _TORN:
                    good = False
                if not good:
                    found.append(number)
        return found

    def pack(self, records: Iterable[BlockRecord]) -> None:
        """Replace everything by these records, in one file."""
        lines = "".join(r.to_json() + "\n" for r in sorted(records, key=lambda r: r.key))
        write_atomically(self.folder / "packed.jsonl", lines)
        for run in self._runs():
            for file in run.iterdir():
                file.unlink()
            run.rmdir()
