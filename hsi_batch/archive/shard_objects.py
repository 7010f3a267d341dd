"""Chunks of remote stores: objects of their own, or parts of an object that is a shard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.shards import (
    ABSENT,
    CRC_BYTES,
    Place,
    index_bytes,
    index_in,
    with_crc,
    within,
)
from hsi_batch.places import RemotePlace

__all__ = ["ShardObject", "fetched", "tail_of"]


def fetched(where: RemotePlace, at: tuple[int, int] | None) -> bytes | None:
    """The bytes of a chunk.

    Parameters
    ----------
    where : RemotePlace
        Of the chunk, or of its shard.
    at : (int, int), optional
        Position in a shard, and the chunks it has room for; None for a chunk of its own.

    Returns
    -------
    bytes or None
        None where the shard does not hold the chunk.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    ValueError
        The index of the shard is damaged, or names bytes that are not there.
    """
    if at is None:
        return where.read_bytes()
    place = _found(where, at)
    if place is None:
        return None
    raw = where.read_range(place.offset, place.offset + place.size)
    if len(raw) != place.size:
        raise ValueError("the shard is shorter than its index says")
    return raw


def tail_of(where: RemotePlace, at: tuple[int, int] | None) -> str | None:
    """The last four bytes of a chunk, in hexadecimal; None where the shard does not hold it.

    Parameters and errors are those of :func:`fetched`.
    """
    if at is None:
        return where.read_tail(CRC_BYTES).hex()
    place = _found(where, at)
    if place is None or place.size < CRC_BYTES:
        return None
    end = place.offset + place.size
    return where.read_range(end - CRC_BYTES, end).hex()


def _found(where: RemotePlace, at: tuple[int, int]) -> Place | None:
    position, room = at
    return within(index_in(where.read_tail(index_bytes(room)), room), position)


class ShardObject:
    """A shard that is gathered in memory and put whole; what it held before is kept.

    Parameters
    ----------
    where : RemotePlace
    room : int
        Chunks that it has room for.
    """

    def __init__(self, where: RemotePlace, room: int) -> None:
        self.where = where
        self._room = room
        self._chunks: dict[int, bytes] = {}

    def add(self, position: int, *parts: bytes | memoryview) -> None:
        """Take an encoded chunk; without parts it is one that is not stored."""
        self._chunks[position] = b"".join(parts)

    def commit(self) -> None:
        """Put the shard into its place."""
        index: NDArray[np.uint64] = np.full((self._room, 2), ABSENT, dtype="<u8")
        whole = bytearray()
        for position, chunk in {**self._chunks, **self._kept()}.items():
            if chunk:
                index[position] = len(whole), len(chunk)
                whole += chunk
        if not whole:
            self.where.unlink(missing_ok=True)
            return
        self.where.write_bytes(bytes(whole) + with_crc(index.tobytes()))

    def _kept(self) -> dict[int, bytes]:
        try:
            old = self.where.read_bytes()
            index = index_in(old[-index_bytes(self._room) :], self._room)
        except (FileNotFoundError, ValueError):
            # Nothing in a shard without an index can be found any more.
            return {}
        places = {k: within(index, k) for k in range(self._room) if k not in self._chunks}
        return {k: old[p.offset : p.offset + p.size] for k, p in places.items() if p is not None}

    def discard(self) -> None:
        """Leave everything as it was."""
        self._chunks.clear()
