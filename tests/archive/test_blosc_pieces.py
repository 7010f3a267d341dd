"""Buffers that are packed or unpacked piece by piece are those of c-blosc, and hold the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numcodecs import Blosc, blosc

from hsi_batch.archive import blosc_pieces
from hsi_batch.archive.blosc_pieces import INDEX_BYTES, pack_pieces, unpack_pieces
from hsi_batch.archive.shards import Place, crc32c

DTYPES = st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"])


class Counted:
    """A codec that counts what it unpacks."""

    def __init__(self):
        self.codec = Blosc()
        self.pieces = 0

    def decode(self, buffer, out):
        self.pieces += 1
        return self.codec.decode(buffer, out=out)


def values_of(seed, size, dtype):
    """Values that compress, but not all alike."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-3, 4, size).cumsum() + 100
    return steps.astype(dtype)


def unpacked(buffer, values, before=b"", piece=None, cut=0):
    """Through a file, behind other bytes; the CRC32C, the values and the pieces."""
    found, codec = np.full(values.nbytes, 0xAA, np.uint8), Counted()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "buffer")
        path.write_bytes(before + buffer[: len(buffer) - cut])
        with (
            path.open("rb") as file,
            patch.object(blosc_pieces, "_PIECE_BYTES", piece or blosc_pieces._PIECE_BYTES),
        ):
            place = Place(len(before), len(buffer))
            head = buffer[: min(INDEX_BYTES, len(buffer))]
            crc = unpack_pieces(file.fileno(), place, head, codec, found)
    return crc, found, codec.pieces


@settings(max_examples=150)
@given(
    st.integers(0, 99),
    st.integers(1, 60_000),
    DTYPES,
    st.sampled_from(["lz4", "zstd", "blosclz"]),
    st.integers(0, 2),
    st.sampled_from([128, 256, 1024, 4096, 16384]),
    st.integers(1, 40_000),
    st.binary(max_size=9),
)
def test_pieces_are_what_the_whole_is(seed, size, dtype, name, shuffle, block, piece, before):
    values = values_of(seed, size, dtype)
    buffer = bytes(Blosc(name, 5, shuffle, block).encode(values))
    crc, found, pieces = unpacked(buffer, values, before, piece)
    block = int.from_bytes(buffer[8:12], "little")
    if crc is None:
        # Little, or not compressed, or too many blocks for the first bytes.
        offsets = 16 + 4 * -(-values.nbytes // block)
        assert values.nbytes < 2 * max(piece, block) or buffer[2] & 2 or offsets > INDEX_BYTES
        return
    assert crc == crc32c(buffer)
    assert np.array_equal(found.view(values.dtype), values)
    assert pieces >= 2
    # A short last block may go with the piece before it.
    assert abs(pieces - values.nbytes / (max(piece // block, 1) * block)) <= 1


def test_a_chunk_of_an_archive_is_read_in_pieces_of_two_megabytes():
    values = values_of(1, 5 * 2**20, "uint16")
    buffer = bytes(Blosc("lz4", 5).encode(values))
    crc, found, pieces = unpacked(buffer, values)
    assert crc == crc32c(buffer)
    assert np.array_equal(found.view("uint16"), values)
    assert pieces == 5


def test_blocks_that_do_not_follow_each_other_are_left_to_blosc():
    values = values_of(2, 2**16, "uint16")
    buffer = bytearray(Blosc("lz4", 5, 1, 16384).encode(values))
    count = values.nbytes // int.from_bytes(buffer[8:12], "little")
    offsets = np.frombuffer(buffer, "<u4", count, 16)
    order = [1, 0, *range(2, count)]
    ends = [*offsets[1:], len(buffer)]
    bodies = [bytes(buffer[a:b]) for a, b in zip(offsets, ends, strict=True)]
    places, at = {}, int(offsets[0])
    for number in order:
        places[number] = at
        at += len(bodies[number])
    moved = bytes(buffer[:16]) + np.array([places[i] for i in range(count)], "<u4").tobytes()
    moved += b"".join(bodies[number] for number in order)
    assert np.array_equal(np.frombuffer(blosc.decompress(moved), "uint16"), values)
    assert unpacked(moved, values, piece=16384)[0] is None
    assert unpacked(bytes(buffer), values, piece=16384)[0] == crc32c(bytes(buffer))


@settings(max_examples=150)
@given(
    st.integers(0, 99), st.integers(0, 2**16), st.integers(1, 255), st.sampled_from(["lz4", "zstd"])
)
def test_a_buffer_that_was_changed_has_another_checksum_or_is_left_alone(seed, at, bits, name):
    values = values_of(seed, 2**14, "uint16")
    buffer = bytearray(Blosc(name, 5, 1, 4096).encode(values))
    whole = crc32c(bytes(buffer))
    assume(at < len(buffer))
    buffer[at] ^= bits
    assert unpacked(bytes(buffer), values, piece=8192)[0] != whole


@pytest.mark.parametrize("cut", [1, 3000])
def test_a_file_that_ends_too_early_is_told(cut):
    values = values_of(3, 2**16, "uint16")
    buffer = bytes(Blosc("lz4", 5, 1, 16384).encode(values))
    with pytest.raises(OSError, match="cut while it was read"):
        unpacked(buffer, values, piece=16384, cut=cut)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(1, 2**21),
    DTYPES,
    st.sampled_from([("lz4", 5), ("lz4", 1), ("zstd", 1), ("zstd", 9), ("blosclz", 5)]),
    st.integers(0, 2),
    st.sampled_from([0, 0, 0, 4096, 65536, 3000]),
    st.sampled_from([2**16, 2**18, 2**20]),
    st.sampled_from(["steps", "alike", "noise", "noise at the end"]),
    st.sampled_from([0, 0, 1, 70_000]),
)
def test_what_is_packed_in_pieces_are_the_bytes_of_blosc(
    seed, size, dtype, codec, shuffle, block, piece, kind, missing
):
    values = values_of(seed, size, dtype)
    if kind == "alike":
        values[...] = 7
    elif kind.startswith("noise"):
        part = values if kind == "noise" else values[-size // 3 :]
        part.view(np.uint8)[...] = np.random.default_rng(seed).integers(0, 256, part.nbytes)
    blosc_codec = Blosc(*codec, shuffle, block)
    # No smaller than the blocks that Blosc takes by itself of much.
    if block == 0:
        piece = 2**21
    with patch.object(blosc_pieces, "_PIECE_BYTES", piece):
        parts = pack_pieces(blosc_codec, values, size + missing, 3)
    whole = np.concatenate([values, np.full(missing, 3, dtype)])
    assert b"".join(parts) == blosc_codec.encode(whole)


def test_a_chunk_of_an_archive_is_packed_in_pieces():
    values = values_of(1, 5 * 2**20, "uint16").reshape(5, -1, 4)
    codec = Blosc("lz4", 5)
    parts = pack_pieces(codec, values, values.size)
    assert len(parts) == 1 + 5
    assert b"".join(parts) == codec.encode(values)
