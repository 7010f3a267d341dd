"""Whole chunks of arrays, read without the copies of the general path.

Zarr's own pipeline holds a chunk about three times on its way from the disk. Here it is held once
beside a piece of its compressed bytes; arrays of other codecs go through Zarr. A chunk is a file,
or one of many in a shard; of remote stores they are fetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from hsi_batch.archive.blosc_pieces import (
    HEADER_BYTES,
    INDEX_BYTES,
    is_plain,
    unpack_pieces,
    value_bytes,
)
from hsi_batch.archive.chunk_layout import ChunkLayout, chunk_tail, layout_of, lost_chunk
from hsi_batch.archive.shard_objects import fetched
from hsi_batch.archive.shards import CRC_BYTES, Place, crc32c, place_of
from hsi_batch.scratch import scratch

__all__ = ["PACKED", "UNREADABLE", "read_lines", "read_rows"]

#: What Zarr raises of chunks and metadata that are damaged; the last two of impossible shapes.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    RuntimeError,
    zarr.errors.BaseZarrError,
    MemoryError,
    ArithmeticError,
)

#: Attribute of arrays all chunks of which are stored, also those of nothing but the fill value.
PACKED = "packed"


def read_lines(
    array: zarr.Array[Any],
    frame: int,
    start: int,
    stop: int,
    *,
    reuse: bool = False,
    stored: bool = False,
) -> NDArray[Any]:
    """Lines of a frame, ``(stop - start, x, ...)``.

    Parameters
    ----------
    reuse : bool
        Give memory that the next call with ``reuse`` in this thread writes over.
    stored : bool
        Every chunk is stored, also one of nothing but the fill value: one that is missing is lost.
        By default it reads as the fill value.

    Raises
    ------
    OSError, ValueError, RuntimeError
        The chunk is damaged, or lost.
    """
    layout = layout_of(array)
    index = layout.index(frame, start, stop)
    if layout.codec is None or index is None:
        if stored and (lost := lost_chunk(array, frame, start, stop)) is not None:
            raise FileNotFoundError(f"{lost} is missing")
        return np.asarray(array[frame, start:stop])
    shape = layout.chunks[1:]
    chunk = scratch.decoded(shape, layout.dtype) if reuse else np.empty(shape, layout.dtype)
    if not _decode(layout, index, chunk):
        if stored:
            raise FileNotFoundError(f"{layout.place(index)} is missing")
        chunk[...] = array.fill_value
    return chunk[: stop - start]


def read_rows(array: zarr.Array[Any], indices: Sequence[int]) -> NDArray[Any]:
    """Some rows along the first dimension, ``(len(indices), ...)``.

    Raises
    ------
    OSError, ValueError, RuntimeError
        A chunk is damaged. One that is missing reads as the fill value, but for those of arrays
        that are packed (see :mod:`hsi_batch.archive.packing`).
    """
    layout, inner, step = layout_of(array), array.shape[1:], array.chunks[0]
    local = isinstance(array.store_path.store, LocalStore)
    # Of a remote store Zarr asks for many at a time.
    if layout.codec is None or not local or array.chunks[1:] != inner:
        if PACKED in array.attrs:
            _refuse_lost(array, sorted({index // step for index in indices}))
        return np.asarray(array.oindex[np.asarray(indices, dtype=np.intp)])
    rows = np.empty((len(indices), *inner), dtype=array.dtype)
    chunk = np.empty((step, *inner), dtype=array.dtype)
    done = 0
    for number, group in groupby(indices, lambda index: index // step):
        inside = [index - number * step for index in group]
        part = rows[done : done + len(inside)]
        done += len(inside)
        # Whole chunks go straight to their place.
        straight = inside == list(range(step))
        if not _decode(layout, (number, *(0 for _ in inner)), part if straight else chunk):
            _refuse_lost(array, [number] if PACKED in array.attrs else [])
            part[...] = array.fill_value
        elif not straight:
            np.take(chunk, inside, axis=0, out=part)
    return rows


def _refuse_lost(array: zarr.Array[Any], numbers: Iterable[int]) -> None:
    for number in numbers:
        if chunk_tail(array, (number, *(0 for _ in array.shape[1:]))) is None:
            raise ValueError(f"chunk {number} of {array.path} is missing")


def _decode(layout: ChunkLayout, index: tuple[int, ...], chunk: NDArray[Any]) -> bool:
    """Read a chunk into memory; whether there is one."""
    path, at, codec = layout.place(index), layout.position(index), layout.codec
    try:
        if not isinstance(path, Path):
            found = fetched(path, at)
            if found is not None:
                _unpack(memoryview(found), codec, chunk)
            return found is not None
        with path.open("rb", buffering=0) as file:
            return _read_chunk(file, at, codec, chunk)
    except FileNotFoundError:
        return False


def _read_chunk(file: Any, at: tuple[int, int] | None, codec: Any, chunk: NDArray[Any]) -> bool:
    """Read and decode a chunk; False if its shard does not hold it."""
    place = place_of(file, at)
    if place is None:
        return False
    if place.size < HEADER_BYTES + CRC_BYTES:
        raise ValueError("the chunk is shorter than its header")
    head = os.pread(file.fileno(), min(INDEX_BYTES, place.size - CRC_BYTES), place.offset)
    if value_bytes(head) == chunk.nbytes:
        values = chunk.reshape(-1).view(np.uint8)
        if is_plain(head) and place.size == HEADER_BYTES + chunk.nbytes + CRC_BYTES:
            # What is not compressed is read into its place.
            tail = bytearray(CRC_BYTES)
            size = os.preadv(file.fileno(), [values.data, tail], place.offset + HEADER_BYTES)
            if size != chunk.nbytes + CRC_BYTES:
                raise OSError("the chunk was cut while it was read")
            _check(crc32c(values, crc32c(head[:HEADER_BYTES])) == tail)
            return True
        body = Place(place.offset, place.size - CRC_BYTES)
        crc = unpack_pieces(file.fileno(), body, head, codec, values)
        if crc is not None:
            _check(crc == os.pread(file.fileno(), CRC_BYTES, place.offset + body.size))
            return True
    stored = scratch.stored(place.size, chunk.nbytes)
    file.seek(place.offset)
    if file.readinto(stored) != len(stored):
        raise OSError("the chunk was cut while it was read")
    _unpack(stored, codec, chunk)
    return True


def _unpack(stored: memoryview, codec: Any, chunk: NDArray[Any]) -> None:
    body = stored[:-CRC_BYTES]
    if len(stored) < HEADER_BYTES + CRC_BYTES:
        raise ValueError("the chunk is shorter than its header")
    _check(crc32c(body) == stored[-CRC_BYTES:])
    if value_bytes(body) != chunk.nbytes:
        raise ValueError("the chunk holds another number of bytes than the array says")
    codec.decode(body, out=chunk)


def _check(same: bool) -> None:
    if not same:
        raise ValueError("the checksum that ends the chunk does not match its contents")
