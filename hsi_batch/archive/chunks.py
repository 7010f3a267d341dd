"""Whole chunks of arrays, read and written without the copies of the general path.

Zarr's own pipeline holds a chunk about three times on its way to and from the disk. Here a chunk is
held once beside its compressed bytes. The bytes are those that Zarr writes (a test compares them);
arrays of other codecs go through Zarr. Chunks of remote stores are fetched and put whole.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from hsi_batch.errors import StorageError
from hsi_batch.places import Place, RemotePlace

__all__ = [
    "chunk_path",
    "chunk_tail",
    "lost_chunk",
    "read_lines",
    "remove_partial",
    "scratch",
    "store_path",
    "write_lines",
]

_SHUFFLE = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_CRC_BYTES, _BLOSC_HEADER = 4, 16
#: Ends the names of files that are not whole yet.
PARTIAL = ".partial"


def _blosc_of(array: zarr.Array[Any]) -> BloscCodec | None:
    """The compressor, if the array is laid out as this module reads and writes it."""
    match getattr(array.metadata, "codecs", ()):
        case (BytesCodec() as raw, BloscCodec() as codec, Crc32cCodec()):
            little = array.dtype.itemsize == 1 or str(getattr(raw.endian, "value", "")) == "little"
            return codec if little and np.little_endian else None
    return None


def store_path(array: zarr.Array[Any]) -> str:
    """Where the store of an array is, as people write it."""
    store = array.store_path.store
    return str(store.root) if isinstance(store, LocalStore) else str(store)


def chunk_path(array: zarr.Array[Any], index: tuple[int, ...]) -> Path:
    """File of a chunk of a local store."""
    path = _chunk_place(array, index)
    assert isinstance(path, Path)
    return path


def _chunk_place(array: zarr.Array[Any], index: tuple[int, ...]) -> Place:
    store, key = array.store_path.store, array.metadata.encode_chunk_key(index)
    if isinstance(store, LocalStore):
        return store.root / array.store_path.path / key
    return RemotePlace(str(store), store, f"{array.store_path.path}/{key}")


def chunk_tail(array: zarr.Array[Any], index: tuple[int, ...]) -> str | None:
    """The CRC32C that ends a stored chunk, in hexadecimal; None if there is no such chunk."""
    try:
        path = _chunk_place(array, index)
        if not isinstance(path, Path):
            return path.read_tail(_CRC_BYTES).hex()
        with path.open("rb") as file:
            file.seek(-_CRC_BYTES, os.SEEK_END)
            return file.read(_CRC_BYTES).hex()
    except StorageError:
        # A store that does not answer has lost nothing.
        raise
    except OSError:
        return None


def lost_chunk(array: zarr.Array[Any], frame: int, start: int, stop: int) -> Place | None:
    """First file that is missing of the chunks that hold these lines; None if all are there.

    To be asked of arrays whose empty chunks are stored; others read as the fill value.
    """
    if array.shards is not None or array.chunks[2:] != array.shape[2:]:
        return None
    inner = (0,) * (array.ndim - 2)
    for part in range(start // array.chunks[1], -(-stop // array.chunks[1])):
        path = _chunk_place(array, (frame // array.chunks[0], part, *inner))
        if not (path.exists() if isinstance(path, Path) else path.is_file()):
            return path
    return None


def _index(array: zarr.Array[Any], frame: int, start: int, stop: int) -> tuple[int, ...] | None:
    """Index of the chunk that holds exactly these lines, or None."""
    height, lines = array.shape[1], array.chunks[1]
    whole = start % lines == 0 and stop == min(start + lines, height)
    if not whole or array.chunks[0] != 1 or array.chunks[2:] != array.shape[2:]:
        return None
    return (frame, start // lines, *(0 for _ in array.shape[2:]))


class Scratch(threading.local):
    """Memory of a thread that is used again for every chunk.

    Blocks that come and go leave holes between what is kept, and a heap that grows.
    """

    def __init__(self) -> None:
        self._stored = np.empty(0, dtype=np.uint8)
        self._decoded = np.empty(0, dtype=np.uint8)

    def stored(self, size: int, most: int) -> memoryview:
        """Bytes for a compressed chunk; no chunk of its array takes much more than ``most``."""
        if len(self._stored) < size:
            self._stored = np.empty(0, dtype=np.uint8)
            # Pages that are not written to take no memory.
            self._stored = np.empty(max(size, most + most // 8), dtype=np.uint8)
        return self._stored[:size].data

    def decoded(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Values of a chunk; the next call hands out the same memory."""
        size = int(np.prod(shape)) * dtype.itemsize
        if self._decoded.nbytes < size:
            self._decoded = np.empty(0, dtype=np.uint8)
            self._decoded = np.empty(size, dtype=np.uint8)
        return self._decoded[:size].view(dtype).reshape(shape)

    def release(self) -> None:
        """Let go of the memory until it is needed again."""
        self.__init__()  # type: ignore[misc]


#: Of the chunks that this process reads.
scratch = Scratch()


def read_lines(
    array: zarr.Array[Any], frame: int, start: int, stop: int, *, reuse: bool = False
) -> NDArray[Any]:
    """Lines of a frame, ``(stop - start, x, ...)``.

    Parameters
    ----------
    reuse : bool
        Give memory that the next call with ``reuse`` in this thread writes over.

    Raises
    ------
    OSError, ValueError, RuntimeError
        The chunk is damaged. One that is missing reads as the fill value.
    """
    codec, index = _blosc_of(array), _index(array, frame, start, stop)
    if codec is None or index is None:
        return np.asarray(array[frame, start:stop])
    try:
        path = _chunk_place(array, index)
        if not isinstance(path, Path):
            return _decoded(memoryview(path.read_bytes()), array, codec, stop - start, reuse=reuse)
        with path.open("rb", buffering=0) as file:
            whole = int(np.prod(array.chunks)) * array.dtype.itemsize
            stored = scratch.stored(os.fstat(file.fileno()).st_size, whole)
            if file.readinto(stored) != len(stored):
                raise OSError("the chunk was cut while it was read")
    except FileNotFoundError:
        # What was never written reads as the fill value.
        return np.asarray(array[frame, start:stop])
    return _decoded(stored, array, codec, stop - start, reuse=reuse)


def _decoded(
    stored: memoryview, array: zarr.Array[Any], codec: BloscCodec, lines: int, *, reuse: bool
) -> NDArray[Any]:
    body = stored[:-_CRC_BYTES]
    if len(stored) < _BLOSC_HEADER + _CRC_BYTES or _crc(body) != stored[-_CRC_BYTES:]:
        raise ValueError("the checksum that ends the chunk does not match its contents")
    shape = array.chunks[1:]
    chunk = scratch.decoded(shape, array.dtype) if reuse else np.empty(shape, array.dtype)
    # Bytes 4 to 8 of a Blosc buffer are the size of what it holds.
    if int.from_bytes(body[4:8], "little") != chunk.nbytes:
        raise ValueError("the chunk holds another number of bytes than the array says")
    _numcodec(codec).decode(body, out=chunk)
    return chunk[:lines]


def write_lines(
    array: zarr.Array[Any],
    frame: int,
    start: int,
    stop: int,
    values: NDArray[Any],
    *,
    keep_empty: bool = True,
) -> None:
    """Write lines of a frame; a whole chunk appears at once or not at all.

    Parameters
    ----------
    keep_empty : bool
        Store a chunk that holds nothing but the fill value too, so that a missing chunk is a
        missing block.
    """
    codec, index = _blosc_of(array), _index(array, frame, start, stop)
    if codec is None or index is None or not keep_empty:
        target = array.with_config({"write_empty_chunks": keep_empty})
        target[frame, start:stop] = values
        return
    shape = array.chunks[1:]
    if values.shape != shape:
        padded = np.full(shape, array.fill_value, dtype=array.dtype)
        padded[: stop - start] = values
        values = padded
    body = _numcodec(codec).encode(np.ascontiguousarray(values, dtype=array.dtype))
    _replace(_chunk_place(array, index), body, _crc(body))


def _numcodec(codec: BloscCodec) -> Any:
    return Blosc(codec.cname.value, codec.clevel, _SHUFFLE[codec.shuffle.value], codec.blocksize)


def _crc(body: Any) -> bytes:
    return int(google_crc32c.value(np.frombuffer(body, np.uint8))).to_bytes(_CRC_BYTES, "little")


def _replace(path: Place, *parts: bytes) -> None:
    if not isinstance(path, Path):
        path.write_bytes(b"".join(parts))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_partial(group: zarr.Group) -> None:
    """Remove what killed workers left of chunks that they were writing."""
    store = group.store_path.store
    if isinstance(store, LocalStore):
        for path in (store.root / group.store_path.path).rglob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)
