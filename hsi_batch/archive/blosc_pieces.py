"""Stored Blosc buffers, packed and unpacked piece by piece.

What was read is still in the cache when its checksum is taken and when it is unpacked (7 % of a
pass over an archive), and no single piece of memory is needed for a whole compressed chunk: large
ones that come and go, with small ones that stay between them, leave holes, and the heap grows.

A buffer of Blosc 1 is a header of 16 bytes (flags are byte 2; the bytes of all values, of the
values of a block, and of the buffer are uint32 at 4, 8 and 12), then the offset of each block,
then the blocks, which are packed one by one. So some of the blocks, behind a header and offsets of
their own, are a buffer too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.shards import Place, crc32c
from hsi_batch.scratch import scratch

__all__ = [
    "HEADER_BYTES",
    "INDEX_BYTES",
    "is_plain",
    "pack_pieces",
    "unpack_pieces",
    "value_bytes",
]

HEADER_BYTES = 16
#: Read of each buffer at first: the offsets of some thousand blocks.
INDEX_BYTES = 4096
_OFFSET = np.dtype("<u4")
#: Flag of a buffer that holds its values as they are.
_PLAIN = 2
# Values of a piece: of 1 to 4 MB all are as fast; half of what a core has of most caches.
_PIECE_BYTES = 2**21
#: Part of the bytes of a piece above which all is packed at once.
_WORTH = 0.97


def value_bytes(head: bytes | memoryview) -> int:
    """Bytes of the values of a buffer, by its header."""
    return int.from_bytes(head[4:8], "little")


def is_plain(head: bytes | memoryview) -> bool:
    """Whether a buffer holds its values as they are."""
    return bool(head[2] & _PLAIN)


def pack_pieces(
    codec: Any, values: NDArray[Any], count: int, fill: Any = 0
) -> list[bytes | memoryview]:
    """Pack values; gives the parts of the buffer, which are the bytes of ``codec.encode``.

    Parameters
    ----------
    codec : numcodecs.Blosc
    values : numpy.ndarray
        C-contiguous.
    count : int
        Values of the buffer; those that are not given are ``fill``.
    """
    flat = values.reshape(-1)

    def whole() -> list[bytes | memoryview]:
        return [codec.encode(_padded(flat, 0, count, fill))]

    step, total = _PIECE_BYTES // flat.itemsize, count * flat.itemsize
    if total < 2 * _PIECE_BYTES or _PIECE_BYTES % flat.itemsize:
        return whole()
    # What is left at the end goes with the last piece: none is smaller than the others.
    starts = range(0, count - step + 1, step)
    head, size = b"", 0
    bodies: list[bytes | memoryview] = []
    offsets = []
    for first in starts:
        piece = _padded(flat, first, count if first == starts[-1] else first + step, fill)
        packed = codec.encode(piece)
        head = head or packed[:12]
        blocks = None if head[:4] != packed[:4] else _blocks(len(packed), packed, 0)
        alike = blocks is not None and packed[8:12] == head[8:12]
        # Blosc keeps what it cannot make smaller as it is, and decides that for the whole.
        worth = len(packed) <= piece.nbytes * _WORTH
        if blocks is None or not alike or not worth or _PIECE_BYTES % blocks.size:
            return whole()
        begin = int(blocks.offsets[0])
        offsets.append(blocks.offsets[:-1] + (size - begin))
        bodies.append(memoryview(packed)[begin:])
        size += len(packed) - begin
    index = np.concatenate(offsets)
    own = HEADER_BYTES + _OFFSET.itemsize * len(index)
    sizes = (total.to_bytes(4, "little"), head[8:12], (own + size).to_bytes(4, "little"))
    return [b"".join((head[:4], *sizes, (index + own).astype(_OFFSET).tobytes())), *bodies]


def _padded(flat: NDArray[Any], first: int, last: int, fill: Any) -> NDArray[Any]:
    """Values ``first:last``, of which the last ones may not be there."""
    if last <= len(flat):
        return flat[first:last]
    found = np.full(last - first, fill, dtype=flat.dtype)
    found[: max(len(flat) - first, 0)] = flat[first:]
    return found


class _Blocks(NamedTuple):
    """Where the blocks of a buffer begin, and where the last one ends."""

    head: bytes
    size: int
    offsets: NDArray[np.int64]


def unpack_pieces(
    descriptor: int, place: Place, head: bytes, codec: Any, values: NDArray[Any]
) -> bytes | None:
    """Unpack a buffer of a file; gives its CRC32C, which is to be compared.

    None if this is not the way: the buffer is small, its blocks do not follow each other, or it is
    damaged.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    place : Place
        Of the buffer, without what follows it.
    head : bytes
        The first :data:`INDEX_BYTES` of the buffer, or all of it.
    codec : numcodecs.Blosc
    values : numpy.ndarray of uint8
        Written to; as long as the header says.

    Raises
    ------
    OSError
        The file ends before the buffer does.
    """
    blocks = _blocks(place.size, head, 2 * _PIECE_BYTES)
    if blocks is None:
        return None
    crc = crc32c(head[: int(blocks.offsets[0])])
    for first, last in _pieces(blocks, len(values)):
        begin, end = int(blocks.offsets[first]), int(blocks.offsets[last])
        top, bottom = first * blocks.size, min(last * blocks.size, len(values))
        own = HEADER_BYTES + _OFFSET.itemsize * (last - first)
        piece = scratch.stored(own + end - begin, _PIECE_BYTES)
        if os.preadv(descriptor, [piece[own:]], place.offset + begin) != end - begin:
            raise OSError("the chunk was cut while it was read")
        crc = crc32c(piece[own:], crc)
        offsets = blocks.offsets[first:last] + (own - begin)
        piece[:own] = b"".join(
            (
                blocks.head[:4],
                (bottom - top).to_bytes(4, "little"),
                blocks.head[8:12],
                len(piece).to_bytes(4, "little"),
                offsets.astype(_OFFSET).tobytes(),
            )
        )
        try:
            codec.decode(piece, out=values[top:bottom])
        except RuntimeError:
            return None
    return crc


def _blocks(size: int, head: bytes, least: int) -> _Blocks | None:
    total, block = value_bytes(head), int.from_bytes(head[8:12], "little")
    if is_plain(head) or block == 0 or total < max(2 * block, least):
        return None
    count = -(-total // block)
    first = HEADER_BYTES + _OFFSET.itemsize * count
    if first > len(head):
        return None
    offsets = np.empty(count + 1, dtype=np.int64)
    offsets[:-1] = np.frombuffer(head, _OFFSET, count, HEADER_BYTES)
    offsets[-1] = size
    # Threads that pack together write blocks in the order in which they are done.
    follow = offsets[0] == first and bool((offsets[1:] > offsets[:-1]).all())
    return _Blocks(head, block, offsets) if follow else None


def _pieces(blocks: _Blocks, total: int) -> Iterator[tuple[int, int]]:
    """First and last block, exclusive, of each piece."""
    count, step = len(blocks.offsets) - 1, max(_PIECE_BYTES // blocks.size, 1)
    for first in range(0, count, step):
        left = count - first - step
        # A short block is packed in another way than one that is alone.
        with_last = left == 1 and total % blocks.size
        yield first, count if left <= 0 or with_last else first + step
        if with_last:
            return
