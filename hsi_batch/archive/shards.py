"""Files that hold many chunks: finding one of them, and writing them all one after the other.

The layout is that of Zarr's sharding codec: encoded chunks in any order, then an index of their
offsets and sizes, then its CRC32C. Zarr's own writer holds a shard whole, about three times; here
it is filled chunk by chunk, and appears when it is whole.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

__all__ = [
    "ABSENT",
    "CRC_BYTES",
    "PARTIAL",
    "Place",
    "ShardFile",
    "crc32c",
    "index_bytes",
    "index_in",
    "place_of",
    "shard_codec",
    "shard_of",
    "with_crc",
    "within",
]

#: Ends the names of files that are not whole yet.
PARTIAL = ".partial"
CRC_BYTES, _ENTRY_BYTES = 4, 16
#: Offset of a chunk that a shard does not hold.
ABSENT = np.uint64(2**64 - 1)


class Place(NamedTuple):
    """Where the bytes of a chunk are in a file."""

    offset: int
    size: int


def crc32c(body: Any, before: bytes | None = None) -> bytes:
    """CRC32C as Zarr's codec appends it; with ``before``, of what follows bytes that have that."""
    start = 0 if before is None else int.from_bytes(before, "little")
    value = int(google_crc32c.extend(start, np.frombuffer(body, np.uint8)))
    return value.to_bytes(CRC_BYTES, "little")


def shard_codec(array: zarr.Array[Any]) -> ShardingCodec | None:
    """The sharding codec of an array that is laid out as this module reads and writes it."""
    match getattr(array.metadata, "codecs", ()):
        case (ShardingCodec() as codec,):
            at_end = str(getattr(codec.index_location, "value", "")) == "end"
            match codec.index_codecs:
                case (BytesCodec() as raw, Crc32cCodec()):
                    little = str(getattr(raw.endian, "value", "")) == "little"
                    return codec if at_end and little else None
    return None


def shard_of(
    array: zarr.Array[Any], index: tuple[int, ...]
) -> tuple[tuple[int, ...], int, int] | None:
    """The shard that holds a chunk, its position in there, and the chunks a shard has room for.

    None where a chunk is a file of its own.
    """
    if array.shards is None:
        return None
    room = tuple(s // c for s, c in zip(array.shards, array.chunks, strict=True))
    shard = tuple(i // n for i, n in zip(index, room, strict=True))
    inner = tuple(i % n for i, n in zip(index, room, strict=True))
    return shard, int(np.ravel_multi_index(inner, room)), int(np.prod(room))


def place_of(file: IO[Any], at: tuple[int, int] | None) -> Place | None:
    """Place of a chunk in an open file.

    Parameters
    ----------
    file : file
        Open for reading.
    at : (int, int), optional
        Position in a shard, and the chunks it has room for; None for a chunk of its own.

    Returns
    -------
    Place or None
        None where the shard does not hold the chunk.

    Raises
    ------
    ValueError
        The index of the shard is damaged.
    """
    size = os.fstat(file.fileno()).st_size
    if at is None:
        return Place(0, size)
    position, room = at
    place = within(_index(file, size, room), position)
    if place is not None and place.offset + place.size > size:
        raise ValueError("the shard is shorter than its index says")
    return place


def within(index: NDArray[np.uint64], position: int) -> Place | None:
    """Place of a chunk by the index of its shard, which may name bytes that are not there."""
    offset, length = map(int, index[position])
    return None if offset == ABSENT else Place(offset, length)


def _index(file: IO[Any], size: int, room: int) -> NDArray[np.uint64]:
    length = index_bytes(room)
    return index_in(os.pread(file.fileno(), length, max(size - length, 0)), room)


def index_bytes(room: int) -> int:
    """Size of the index that ends a shard, with its checksum."""
    return room * _ENTRY_BYTES + CRC_BYTES


def index_in(raw: bytes, room: int) -> NDArray[np.uint64]:
    """The index of a shard, ``(room, 2)`` offsets and sizes.

    Raises
    ------
    ValueError
        It is damaged.
    """
    body = raw[:-CRC_BYTES]
    if len(raw) != index_bytes(room) or crc32c(body) != raw[-CRC_BYTES:]:
        raise ValueError("the checksum that ends the shard does not match its index")
    return np.frombuffer(body, dtype="<u8").reshape(room, 2)


def with_crc(body: bytes) -> bytes:
    """Bytes with their CRC32C."""
    return body + crc32c(body)


class ShardFile:
    """A shard that is being written; what it held before and is not written again is kept.

    Parameters
    ----------
    path : Path
    room : int
        Chunks that it has room for.
    """

    def __init__(self, path: Path, room: int) -> None:
        self.path = path
        self._index = np.full((room, 2), ABSENT, dtype="<u8")
        self._written = np.zeros(room, dtype=bool)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
        self._file = self._partial.open("wb")

    def add(self, position: int, *parts: bytes | memoryview) -> None:
        """Append an encoded chunk; without parts it is one that is not stored."""
        self._written[position] = True
        self._index[position] = ABSENT
        if parts:
            self._index[position, 0] = self._file.tell()
            self._index[position, 1] = sum(len(part) for part in parts)
            for part in parts:
                self._file.write(part)

    def commit(self) -> None:
        """Put the shard into its place."""
        self._keep()
        if (self._index[:, 0] == ABSENT).all():
            self.discard()
            self.path.unlink(missing_ok=True)
            return
        self._file.write(with_crc(self._index.tobytes()))
        self._file.close()
        self._partial.replace(self.path)

    def _keep(self) -> None:
        with suppress(FileNotFoundError), self.path.open("rb") as old:
            try:
                before = _index(old, os.fstat(old.fileno()).st_size, len(self._index))
            except ValueError:
                # Nothing in a shard without an index can be found any more.
                return
            for position in np.flatnonzero(~self._written & (before[:, 0] != ABSENT)):
                offset, size = map(int, before[position])
                self.add(int(position), os.pread(old.fileno(), size, offset))

    def discard(self) -> None:
        """Leave everything as it was."""
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)
