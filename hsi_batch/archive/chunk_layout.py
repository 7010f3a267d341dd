"""Where the chunks of an array lie, and how they are compressed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from hsi_batch.archive.shard_objects import tail_of
from hsi_batch.archive.shards import CRC_BYTES, place_of, shard_codec, shard_of
from hsi_batch.places import Place, RemotePlace
from hsi_batch.recent import Recent

__all__ = [
    "ChunkLayout",
    "chunk_path",
    "chunk_place",
    "chunk_tail",
    "layout_of",
    "lost_chunk",
    "store_path",
]

_SHUFFLE = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class ChunkLayout:
    """What all chunks of an array have in common.

    Zarr works it out anew whenever it is asked, which for each block takes longer than all else
    that is not computing.

    Parameters
    ----------
    array : zarr.Array

    Attributes
    ----------
    array : zarr.Array
    chunks : tuple of int
    dtype : numpy.dtype
    codec : numcodecs.Blosc or None
        The compressor, if chunks are laid out as :mod:`.chunk_reader` and :mod:`.chunk_writer`
        read and write them.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.chunks: tuple[int, ...] = array.chunks
        self.dtype: np.dtype[Any] = array.dtype
        self.codec = _codec_of(array)
        self._sharded = array.shards is not None
        self._height = array.shape[1] if array.ndim > 1 else 1
        self._inner = (0,) * (array.ndim - 2)
        self._whole = self.chunks[0] == 1 and self.chunks[2:] == array.shape[2:]
        store, path = array.store_path.store, array.store_path.path
        self._store, self._path = store, path
        self._folder = store.root / path if isinstance(store, LocalStore) else None
        self._key = array.metadata.encode_chunk_key

    def index(self, frame: int, start: int, stop: int) -> tuple[int, ...] | None:
        """Index of the chunk that holds exactly these lines, or None."""
        lines = self.chunks[1]
        whole = start % lines == 0 and stop == min(start + lines, self._height)
        return (frame, start // lines, *self._inner) if whole and self._whole else None

    def place(self, index: tuple[int, ...]) -> Place:
        """File or object of a chunk, or of the shard that it is in."""
        shard = shard_of(self.array, index) if self._sharded else None
        key = self._key(index if shard is None else shard[0])
        if self._folder is not None:
            return self._folder / key
        return RemotePlace(str(self._store), self._store, f"{self._path}/{key}")

    def position(self, index: tuple[int, ...]) -> tuple[int, int] | None:
        """Position of a chunk in its shard, and how many that has room for; None without shards."""
        shard = shard_of(self.array, index) if self._sharded else None
        return None if shard is None else shard[1:]


_layouts: Recent[ChunkLayout] = Recent(16)


def layout_of(array: zarr.Array[Any]) -> ChunkLayout:
    """The layout of an array, whose frames may become more, but not its lines or its codecs."""
    # A layout holds its array, so no other one has its id while it is kept.
    return _layouts.get(id(array), lambda: ChunkLayout(array))


def _codec_of(array: zarr.Array[Any]) -> Blosc | None:
    codecs = getattr(array.metadata, "codecs", ())
    if array.shards is not None:
        sharding = shard_codec(array)
        codecs = () if sharding is None else sharding.codecs
    match codecs:
        case (BytesCodec() as raw, BloscCodec() as codec, Crc32cCodec()):
            little = array.dtype.itemsize == 1 or str(getattr(raw.endian, "value", "")) == "little"
            if little and np.little_endian:
                shuffle = _SHUFFLE[codec.shuffle.value]
                return Blosc(codec.cname.value, codec.clevel, shuffle, codec.blocksize)
    return None


def store_path(array: zarr.Array[Any]) -> str:
    """Where the store of an array is, as people write it."""
    store = array.store_path.store
    return str(store.root) if isinstance(store, LocalStore) else str(store)


def chunk_path(array: zarr.Array[Any], index: tuple[int, ...]) -> Path:
    """File of a chunk of a local store, or of the shard that it is in."""
    path = chunk_place(array, index)
    assert isinstance(path, Path)
    return path


def chunk_place(array: zarr.Array[Any], index: tuple[int, ...]) -> Place:
    """File or object of a chunk, or of the shard that it is in."""
    return layout_of(array).place(index)


def chunk_tail(array: zarr.Array[Any], index: tuple[int, ...]) -> str | None:
    """The CRC32C that ends a stored chunk, in hexadecimal; None if there is no such chunk."""
    layout = layout_of(array)
    path, at = layout.place(index), layout.position(index)
    try:
        if not isinstance(path, Path):
            return tail_of(path, at)
        with path.open("rb", buffering=0) as file:
            place = place_of(file, at)
            if place is None or place.size < CRC_BYTES:
                return None
            end = place.offset + place.size
            return os.pread(file.fileno(), CRC_BYTES, end - CRC_BYTES).hex()
    except (OSError, ValueError):
        return None


def lost_chunk(array: zarr.Array[Any], frame: int, start: int, stop: int) -> Place | None:
    """First file that is missing of the chunks that hold these lines; None if all are there.

    To be asked of arrays whose empty chunks are stored; others read as the fill value.
    """
    if array.chunks[2:] != array.shape[2:]:
        return None
    inner = (0,) * (array.ndim - 2)
    for part in range(start // array.chunks[1], -(-stop // array.chunks[1])):
        index = (frame // array.chunks[0], part, *inner)
        path = chunk_place(array, index)
        if not (path.exists() if isinstance(path, Path) else path.is_file()):
            return path
        if array.shards is not None and chunk_tail(array, index) is None:
            return path
    return None
