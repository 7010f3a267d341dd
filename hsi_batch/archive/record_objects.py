"""Records of remote stores: numbered objects that are never changed, in batches of a second."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import TypeAlias

from hsi_batch.archive.records import BlockRecord, RecordWriter, read_records
from hsi_batch.files import Closing
from hsi_batch.places import Place, RemotePlace

__all__ = ["ObjectRecordWriter", "Writer", "record_writer"]

#: Records wait so long at most, or until there are so many.
_SECONDS, _MOST = 1.0, 2000


def record_writer(folder: Place, name: str) -> Writer:
    """A writer of the records of one task, into a folder or below a prefix.

    Parameters
    ----------
    folder : Place
        Of the run.
    name : str
        Of the task.
    """
    if isinstance(folder, Path):
        return RecordWriter(folder, name)
    return ObjectRecordWriter(folder, name)


class ObjectRecordWriter(Closing):
    """Puts the records of a task as objects ``task.number-random.jsonl``.

    An object holds what was written within a second. The random part keeps a worker that was
    thought lost from writing over what its successor wrote.

    Parameters
    ----------
    folder : RemotePlace
    name : str

    Attributes
    ----------
    earlier : dict
        What an earlier attempt of this task did.
    """

    def __init__(self, folder: RemotePlace, name: str) -> None:
        self._folder = folder
        self._name = name
        # As on a file system: the whole that a task was cut from wrote under its own name.
        whole = name.partition(".")[0]
        mine = [f for f in folder.iterdir() if f.name.rsplit(".", 2)[0] in (whole, name)]
        self.earlier = {record.key: record for file in mine for record in read_records(file)}
        self._number = len(mine)
        self._token = uuid.uuid4().hex[:8]
        self._waiting: list[BlockRecord] = []
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None
        self._broken: Exception | None = None

    def write(self, *records: BlockRecord) -> None:
        """Take records; they are in the store after a second, or at the end of the task.

        Raises
        ------
        hsi_batch.errors.StorageError
            Those before could not be put.
        """
        with self._guard:
            if self._broken is not None:
                raise self._broken
            self._waiting.extend(records)
            if len(self._waiting) >= _MOST:
                self._put()
            elif self._timer is None:
                self._timer = threading.Timer(_SECONDS, self._in_time)
                self._timer.daemon = True
                self._timer.start()

    def _in_time(self) -> None:
        with self._guard:
            self._timer = None
            try:
                self._put()
            except Exception as error:  # noqa: BLE001 - told by the next call, on its own thread
                self._broken = error

    def _put(self) -> None:
        if not self._waiting:
            return
        text = "".join(record.to_json() + "\n" for record in self._waiting)
        file = f"{self._name}.{self._number:06d}-{self._token}.jsonl"
        (self._folder / file).write_bytes(text.encode())
        self._number += 1
        self._waiting.clear()

    def close(self) -> None:
        """Put what waits."""
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._put()


#: Of the records of one task, wherever they lie.
Writer: TypeAlias = RecordWriter | ObjectRecordWriter
