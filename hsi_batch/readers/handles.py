"""Recordings that open themselves where and when they are read: picklable, shared by threads.

What travels between processes is the path and the mode; the source is opened again on the other
side. A process keeps only so many sources open, and closes the one not read for the longest time.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.protocol import Frame, Source, SourceInfo
from hsi_batch.readers.registry import open_source

__all__ = ["SourceHandle"]


class _Pool:
    """The sources that are open in this process, oldest use first.

    Parameters
    ----------
    limit : int
        How many may be open.
    lock : context manager, optional
        One lock for all of them, where a library must not be called by two threads at once.
    """

    def __init__(self, limit: int, lock: AbstractContextManager[Any] | None = None) -> None:
        self.limit = limit
        self.lock = lock
        self._guard = threading.RLock()
        self._open: WeakValueDictionary[int, SourceHandle] = WeakValueDictionary()

    def used(self, handle: SourceHandle) -> None:
        """Note that ``handle`` is open and just used; close others beyond the limit."""
        with self._guard:
            self._open.pop(id(handle), None)
            self._open[id(handle)] = handle
            for key, other in list(self._open.items()):
                if len(self._open) <= self.limit:
                    break
                if other is not handle and other.close_if_idle():
                    self._open.pop(key, None)

    def closed(self, handle: SourceHandle) -> None:
        """Note that ``handle`` is closed."""
        with self._guard:
            self._open.pop(id(handle), None)


_FILES = _Pool(limit=64)
# More than a handful of sessions at once exhaust the SDK, and it is not safe for threads.
_SDK = _Pool(limit=4, lock=threading.RLock())


class SourceHandle:
    """A recording, opened on first use; pickles as path and mode.

    Parameters
    ----------
    path : str
        The file that names the recording.
    mode : str, optional
        Processing mode, for formats that have them.

    Examples
    --------
    >>> import numpy as np, pickle, tempfile
    >>> path = tempfile.mkdtemp() + "/scene.npz"
    >>> np.savez(path, cube=np.arange(24, dtype="u2").reshape(3, 4, 2))
    >>> handle = pickle.loads(pickle.dumps(SourceHandle(path)))
    >>> handle.read(0, 1, 2)[0, 0].tolist()
    [8, 9]
    >>> handle.close()
    """

    def __init__(self, path: str, mode: str | None = None) -> None:
        self.path = path
        self.mode = mode
        self._described: tuple[Any, ...] | None = None
        self._prepare()

    def _prepare(self) -> None:
        self._pool = _SDK if Path(self.path).suffix.lower() == ".cu3s" else _FILES
        self._lock: Any = self._pool.lock or threading.RLock()
        self._source: Source | None = None
        self._frame: Frame | None = None
        self._index = -1
        self._next = 0

    @property
    def info(self) -> SourceInfo:
        """What is known of the recording; opens it."""
        with self._lock:
            return self._opened().info

    def read(self, frame: int, start: int, stop: int) -> NDArray[Any]:
        """Lines ``start:stop`` of a frame, ``(lines, x, channel)``, in whatever order asked for.

        Where the format can only be read in order, going back opens the frame anew.

        Raises
        ------
        hsi_batch.errors.SourceError
            If the recording cannot be read, or is not what it was when it was opened first.
        """
        with self._lock:
            source = self._opened()
            back = source.info.access == "sequential" and start < self._next
            current = self._frame
            if current is None or self._index != frame or back:
                self._frame = current = None  # two whole frames are never held at once
                current = source.frame(frame)
            self._frame = None  # kept only if all goes well
            lines = current.read(start, stop)
            self._frame, self._index, self._next = current, frame, stop
            return lines

    def close(self) -> None:
        """Close the recording; reading it again opens it again."""
        with self._lock:
            source, self._source, self._frame = self._source, None, None
            if source is not None:
                source.close()
        self._pool.closed(self)

    def close_if_idle(self) -> bool:
        """Close the recording unless another thread is reading it; whether it is closed now."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            source, self._source, self._frame = self._source, None, None
            if source is not None:
                source.close()
        finally:
            self._lock.release()
        return True

    def _opened(self) -> Source:
        source = self._source
        if source is None:
            source = open_source(self.path, self.mode)
            info = source.info
            described = (info.frames, info.shape, info.dtype)
            if self._described not in (None, described):
                source.close()
                raise SourceError(
                    "the recording is not what it was when it was opened first: it has "
                    f"{_words(described)}, expected {_words(self._described)}.",
                    path=self.path,
                    hint="Open the dataset again.",
                )
            self._described = described
            self._source = source
        self._pool.used(self)
        return source

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "mode": self.mode, "_described": self._described}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __del__(self) -> None:
        # No lock: nobody else holds the handle any more, and collection may happen inside a lock.
        source = getattr(self, "_source", None)
        if source is not None:
            source.close()


def _words(described: tuple[Any, ...] | None) -> str:
    assert described is not None
    frames, shape, dtype = described
    return f"{frames} frames of {' x '.join(map(str, shape))} {dtype}"
