"""Whole chunks of arrays, written without the copies of the general path.

The bytes are those that Zarr writes (a test compares them); arrays of other codecs go through Zarr.
A chunk is a file, or one of many in a shard; of remote stores they are put whole.
"""

from __future__ import annotations

import contextlib
import os
from math import prod
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from hsi_batch.archive.blosc_pieces import pack_pieces
from hsi_batch.archive.chunk_layout import layout_of
from hsi_batch.archive.shard_objects import ShardObject
from hsi_batch.archive.shards import PARTIAL, ShardFile, crc32c
from hsi_batch.places import Place

__all__ = ["LineWriter", "remove_partial", "write_lines"]


def write_lines(
    array: zarr.Array[Any],
    frame: int,
    start: int,
    stop: int,
    values: NDArray[Any],
    *,
    keep_empty: bool = True,
) -> None:
    """Write lines of a frame; a whole chunk, or the shard it is in, appears at once or not at all.

    Parameters
    ----------
    keep_empty : bool
        Store a chunk that holds nothing but the fill value too, so that a missing chunk is a
        missing block.
    """
    with LineWriter() as writer:
        writer.write(array, frame, start, stop, values, keep_empty=keep_empty)
        writer.commit()


class LineWriter:
    """Writes lines of arrays; the chunks of a shard appear together, at :meth:`commit`.

    Chunks that are files of their own are written at once. Of what a shard held before, chunks that
    are not written again are kept. Left without a commit, shards are as they were.
    """

    def __init__(self) -> None:
        self._shards: dict[Place, ShardFile | ShardObject] = {}

    def write(
        self,
        array: zarr.Array[Any],
        frame: int,
        start: int,
        stop: int,
        values: NDArray[Any],
        *,
        keep_empty: bool = True,
    ) -> str:
        """As :func:`write_lines`; gives its :func:`.chunk_tail`, "" of other codecs."""
        layout = layout_of(array)
        codec, index = layout.codec, layout.index(frame, start, stop)
        empty = not keep_empty and bool((values == array.fill_value).all())
        if codec is None or index is None or (empty and array.shards is None):
            target = array.with_config({"write_empty_chunks": keep_empty})
            target[frame, start:stop] = values
            return ""
        shape = layout.chunks[1:]
        values = np.broadcast_to(values, (stop - start, *shape[1:]))
        values = np.ascontiguousarray(values, dtype=layout.dtype)
        path, at = layout.place(index), layout.position(index)
        if at is not None and empty:
            self._shard(path, at[1]).add(at[0])
            return ""
        parts = pack_pieces(codec, values, prod(shape), array.fill_value)
        tail = crc32c(b"")
        for part in parts:
            tail = crc32c(part, tail)
        if at is None:
            _replace(path, *parts, tail)
        else:
            self._shard(path, at[1]).add(at[0], *parts, tail)
        return tail.hex()

    def _shard(self, path: Place, room: int) -> ShardFile | ShardObject:
        if path not in self._shards:
            made = ShardFile if isinstance(path, Path) else ShardObject
            # Each is made of its own kind of place, as the line above has it.
            self._shards[path] = made(path, room)  # type: ignore[arg-type]
        return self._shards[path]

    def commit(self) -> None:
        """Put all shards into their places."""
        while self._shards:
            path = next(iter(self._shards))
            self._shards[path].commit()
            del self._shards[path]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._shards.values():
            shard.discard()
        self._shards.clear()


def _replace(path: Place, *parts: bytes | memoryview) -> None:
    if not isinstance(path, Path):
        path.write_bytes(b"".join(parts))
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with _made(temporary) as file:
            for part in parts:
                file.write(part)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _made(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except FileNotFoundError:
        # The first of its folder.
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def remove_partial(group: zarr.Group) -> None:
    """Remove what killed workers left of chunks that they were writing."""
    store = group.store_path.store
    if isinstance(store, LocalStore):
        for path in (store.root / group.store_path.path).rglob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)
