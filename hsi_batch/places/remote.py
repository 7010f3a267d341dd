"""Objects of a remote store, with the verbs of ``pathlib``."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import PurePosixPath
from typing import Any

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from hsi_batch.places.url import name_of

__all__ = ["RemotePlace"]


class RemotePlace:
    """An object or prefix in a store that Zarr can write to; writing is whole or not at all.

    Parameters
    ----------
    url : str
        Of the root of the store.
    store : zarr.abc.store.Store
    key : str
        Below the root; empty for the root.
    """

    def __init__(self, url: str, store: Store, key: str = "") -> None:
        self.url = url
        self.store = store
        self.key = key

    def __truediv__(self, name: str) -> RemotePlace:
        return RemotePlace(self.url, self.store, f"{self.key}/{name}".strip("/"))

    def __str__(self) -> str:
        return f"{self.url}/{self.key}" if self.key else self.url

    __fspath__ = __str__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePlace) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: RemotePlace) -> bool:
        return str(self) < str(other)

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2] or name_of(self.url)

    @property
    def parent(self) -> RemotePlace:
        """The prefix above; the root of the store is above itself."""
        return RemotePlace(self.url, self.store, self.key.rpartition("/")[0])

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the key."""
        return tuple(self.key.split("/"))

    def relative_to(self, other: Any) -> PurePosixPath:
        """The key below another place."""
        return PurePosixPath(self.key).relative_to(other.key)

    def absolute(self) -> RemotePlace:
        """Itself."""
        return self

    resolve = absolute

    # -- reading -----------------------------------------------------------------------------

    def _get(self, part: ByteRequest | None = None) -> bytes:
        found = sync(self.store.get(self.key, default_buffer_prototype(), part))
        if found is None:
            raise FileNotFoundError(2, "there is no such object", str(self))
        return found.to_bytes()

    def read_bytes(self) -> bytes:
        """The whole object."""
        return self._get()

    def read_text(self) -> str:
        """The whole object as text."""
        return self._get().decode()

    def read_tail(self, size: int) -> bytes:
        """The last bytes of the object."""
        return self._get(SuffixByteRequest(size))

    def read_range(self, start: int, stop: int) -> bytes:
        """Some bytes of the object."""
        return self._get(RangeByteRequest(start, stop))

    def open(self, mode: str = "rb", **_: Any) -> io.BytesIO:
        """The whole object, to be read like a file."""
        assert mode == "rb", "objects are written whole"
        return io.BytesIO(self._get())

    def is_file(self) -> bool:
        """Whether this is an object."""
        return bool(self.key) and bool(sync(self.store.exists(self.key)))

    def is_dir(self) -> bool:
        """Whether there is anything below."""
        return next(self._listed(self.store.list_prefix(self._prefix), most=1), None) is not None

    def exists(self) -> bool:
        """Whether there is an object here, or anything below."""
        return self.is_file() or self.is_dir()

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def iterdir(self) -> Iterator[RemotePlace]:
        """Objects and prefixes directly below, in order."""
        names = {n.rstrip("/") for n in self._listed(self.store.list_dir(self.key))} - {""}
        return (self / name for name in sorted(names))

    def glob(self, pattern: str) -> Iterator[RemotePlace]:
        """Objects below that match a pattern of one part, or of one part and a name."""
        first, _, name = pattern.partition("/")
        for entry in self.iterdir():
            if fnmatch.fnmatchcase(entry.name, first) and (not name or (entry / name).is_file()):
                yield entry / name if name else entry

    def files(self) -> Iterator[RemotePlace]:
        """All objects below, at any depth, in order."""
        found = sorted(self._listed(self.store.list_prefix(self._prefix)))
        return (RemotePlace(self.url, self.store, key) for key in found)

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    @staticmethod
    def _listed(names: AsyncIterator[str], most: int | None = None) -> Iterator[str]:
        async def gathered() -> list[str]:
            found: list[str] = []
            async for name in names:
                found.append(name)
                if len(found) == most:
                    break
            return found

        return iter(sync(gathered()))

    # -- writing -----------------------------------------------------------------------------

    def write_bytes(self, raw: bytes) -> None:
        """Put the whole object."""
        sync(self.store.set(self.key, cpu.Buffer.from_bytes(raw)))

    def create(self, raw: bytes) -> bool:
        """Put the object unless there is one; whether this call put it.

        Parameters
        ----------
        raw : bytes
            No two callers may give the same.
        """
        sync(self.store.set_if_not_exists(self.key, cpu.Buffer.from_bytes(raw)))
        return self.read_bytes() == raw

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(2, "there is no such object", str(self))
        sync(self.store.delete(self.key))

    def mkdir(self, **_: Any) -> None:
        """Nothing: prefixes are there when something is below them."""

    def rmdir(self) -> None:
        """Nothing, as above."""

    def rmtree(self) -> None:
        """Delete everything below, and what stores that have folders keep of them."""
        sync(self.store.delete_dir(self.key))
