"""Whole chunks of arrays, read and written without the copies of the general path.

Zarr's own pipeline holds a chunk about three times on its way to and from the disk. Here a chunk is
held once beside its compressed bytes. The bytes are those that Zarr writes (a test compares them);
arrays of other codecs go through Zarr. A chunk is a file, or one of many in a shard; of remote
stores they are fetched, and put whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from hsi_batch.archive.scratch import scratch
from hsi_batch.archive.shard_objects import ShardObject, fetched, tail_of
from hsi_batch.archive.shards import PARTIAL, ShardFile, crc32c, place_of, shard_codec, shard_of
from hsi_batch.places import Place, RemotePlace

__all__ = [
    "PACKED",
    "UNREADABLE",
    "LineWriter",
    "chunk_index",
    "chunk_path",
    "chunk_place",
    "chunk_position",
    "chunk_tail",
    "lost_chunk",
    "read_lines",
    "read_rows",
    "remove_partial",
    "scratch",
    "store_path",
    "write_lines",
]

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
_SHUFFLE = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_CRC_BYTES, _BLOSC_HEADER = 4, 16
#: Flag of a Blosc buffer that holds its values as they are.
_BLOSC_PLAIN = 2


def _blosc_of(array: zarr.Array[Any]) -> BloscCodec | None:
    """The compressor, if the array is laid out as this module reads and writes it."""
    codecs = getattr(array.metadata, "codecs", ())
    if array.shards is not None:
        sharding = shard_codec(array)
        codecs = () if sharding is None else sharding.codecs
    match codecs:
        case (BytesCodec() as raw, BloscCodec() as codec, Crc32cCodec()):
            little = array.dtype.itemsize == 1 or str(getattr(raw.endian, "value", "")) == "little"
            return codec if little and np.little_endian else None
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
    store, shard = array.store_path.store, shard_of(array, index)
    key = array.metadata.encode_chunk_key(index if shard is None else shard[0])
    if isinstance(store, LocalStore):
        return store.root / array.store_path.path / key
    return RemotePlace(str(store), store, f"{array.store_path.path}/{key}")


def chunk_position(array: zarr.Array[Any], index: tuple[int, ...]) -> tuple[int, int] | None:
    """Position of a chunk in its shard, and how many that has room for; None without shards."""
    shard = shard_of(array, index)
    return None if shard is None else shard[1:]


def chunk_tail(array: zarr.Array[Any], index: tuple[int, ...]) -> str | None:
    """The CRC32C that ends a stored chunk, in hexadecimal; None if there is no such chunk."""
    path = chunk_place(array, index)
    try:
        if not isinstance(path, Path):
            return tail_of(path, chunk_position(array, index))
        with path.open("rb", buffering=0) as file:
            place = place_of(file, chunk_position(array, index))
            if place is None or place.size < _CRC_BYTES:
                return None
            at = place.offset + place.size - _CRC_BYTES
            return os.pread(file.fileno(), _CRC_BYTES, at).hex()
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


def chunk_index(
    array: zarr.Array[Any], frame: int, start: int, stop: int
) -> tuple[int, ...] | None:
    """Index of the chunk that holds exactly these lines, or None."""
    height, lines = array.shape[1], array.chunks[1]
    whole = start % lines == 0 and stop == min(start + lines, height)
    if not whole or array.chunks[0] != 1 or array.chunks[2:] != array.shape[2:]:
        return None
    return (frame, start // lines, *(0 for _ in array.shape[2:]))


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
    codec, index = _blosc_of(array), chunk_index(array, frame, start, stop)
    if codec is None or index is None:
        return np.asarray(array[frame, start:stop])
    shape = array.chunks[1:]
    chunk = scratch.decoded(shape, array.dtype) if reuse else np.empty(shape, array.dtype)
    if not _decode(array, index, codec, chunk):
        # What was never written reads as the fill value.
        return np.full((stop - start, *array.shape[2:]), array.fill_value, dtype=array.dtype)
    return chunk[: stop - start]


def read_rows(array: zarr.Array[Any], indices: Sequence[int]) -> NDArray[Any]:
    """Some rows along the first dimension, ``(len(indices), ...)``.

    Raises
    ------
    OSError, ValueError, RuntimeError
        A chunk is damaged. One that is missing reads as the fill value, but for those of arrays
        that are packed (see :mod:`hsi_batch.archive.packing`).
    """
    codec, inner, step = _blosc_of(array), array.shape[1:], array.chunks[0]
    local = isinstance(array.store_path.store, LocalStore)
    # Of a remote store Zarr asks for many at a time.
    if codec is None or not local or array.chunks[1:] != inner:
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
        if not _decode(array, (number, *(0 for _ in inner)), codec, part if straight else chunk):
            _refuse_lost(array, [number] if PACKED in array.attrs else [])
            part[...] = array.fill_value
        elif not straight:
            np.take(chunk, inside, axis=0, out=part)
    return rows


def _refuse_lost(array: zarr.Array[Any], numbers: Iterable[int]) -> None:
    for number in numbers:
        if chunk_tail(array, (number, *(0 for _ in array.shape[1:]))) is None:
            raise ValueError(f"chunk {number} of {array.path} is missing")


def _decode(
    array: zarr.Array[Any], index: tuple[int, ...], codec: BloscCodec, chunk: NDArray[Any]
) -> bool:
    """Read a chunk into memory; whether there is one."""
    path = chunk_place(array, index)
    try:
        if not isinstance(path, Path):
            found = fetched(path, chunk_position(array, index))
            if found is not None:
                _unpack(memoryview(found), codec, chunk)
            return found is not None
        with path.open("rb", buffering=0) as file:
            return _read_chunk(file, chunk_position(array, index), codec, chunk)
    except FileNotFoundError:
        return False


def _read_chunk(
    file: Any, at: tuple[int, int] | None, codec: BloscCodec, chunk: NDArray[Any]
) -> bool:
    """Read and decode a chunk; False if its shard does not hold it."""
    place = place_of(file, at)
    if place is None:
        return False
    if place.size < _BLOSC_HEADER + _CRC_BYTES:
        raise ValueError("the chunk is shorter than its header")
    head = os.pread(file.fileno(), _BLOSC_HEADER, place.offset)
    # Bytes 4 to 8 of a Blosc buffer are the size of what it holds.
    fits = int.from_bytes(head[4:8], "little") == chunk.nbytes
    plain = place.size == _BLOSC_HEADER + chunk.nbytes + _CRC_BYTES and head[2] & _BLOSC_PLAIN
    if fits and plain:
        # What is not compressed is read into its place.
        values, tail = chunk.reshape(-1).view(np.uint8).data, bytearray(_CRC_BYTES)
        size = os.preadv(file.fileno(), [values, tail], place.offset + _BLOSC_HEADER)
        if size != chunk.nbytes + _CRC_BYTES:
            raise OSError("the chunk was cut while it was read")
        _check(crc32c(values, crc32c(head)) == tail)
        return True
    stored = scratch.stored(place.size, chunk.nbytes)
    file.seek(place.offset)
    if file.readinto(stored) != len(stored):
        raise OSError("the chunk was cut while it was read")
    _unpack(stored, codec, chunk)
    return True


def _unpack(stored: memoryview, codec: BloscCodec, chunk: NDArray[Any]) -> None:
    body = stored[:-_CRC_BYTES]
    if len(stored) < _BLOSC_HEADER + _CRC_BYTES:
        raise ValueError("the chunk is shorter than its header")
    _check(crc32c(body) == stored[-_CRC_BYTES:])
    if int.from_bytes(body[4:8], "little") != chunk.nbytes:
        raise ValueError("the chunk holds another number of bytes than the array says")
    _numcodec(codec).decode(body, out=chunk)


def _check(same: bool) -> None:
    if not same:
        raise ValueError("the checksum that ends the chunk does not match its contents")


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
    ) -> None:
        """As :func:`write_lines`."""
        codec, index = _blosc_of(array), chunk_index(array, frame, start, stop)
        empty = not keep_empty and bool((values == array.fill_value).all())
        if codec is None or index is None or (empty and array.shards is None):
            target = array.with_config({"write_empty_chunks": keep_empty})
            target[frame, start:stop] = values
            return
        shape = array.chunks[1:]
        if values.shape != shape:
            padded = np.full(shape, array.fill_value, dtype=array.dtype)
            padded[: stop - start] = values
            values = padded
        values = np.ascontiguousarray(values, dtype=array.dtype)
        path, shard = chunk_place(array, index), shard_of(array, index)
        if shard is not None and empty:
            self._shard(path, shard[2]).add(shard[1])
            return
        body = _numcodec(codec).encode(values)
        if shard is None:
            _replace(path, body, crc32c(body))
        else:
            self._shard(path, shard[2]).add(shard[1], body, crc32c(body))

    def _shard(self, path: Place, room: int) -> ShardFile | ShardObject:
        if path not in self._shards:
            made = ShardFile if isinstance(path, Path) else ShardObject
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


def _numcodec(codec: BloscCodec) -> Any:
    return Blosc(codec.cname.value, codec.clevel, _SHUFFLE[codec.shuffle.value], codec.blocksize)


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
