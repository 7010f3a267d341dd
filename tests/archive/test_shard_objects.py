"""Shards of remote stores have the bytes that they have on a disk, and are read in parts."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
import zarr
from archive_helpers import cube_of, keys_of
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import cpu
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from hsi_batch.archive.chunk_layout import chunk_tail, lost_chunk
from hsi_batch.archive.chunk_reader import read_lines
from hsi_batch.archive.chunk_writer import LineWriter
from hsi_batch.archive.storage import PRESETS
from hsi_batch.archive.store import create_array
from hsi_batch.places import RemotePlace


def sharded(store, shape, lines, shard):
    return create_array(
        zarr.open_group(store, mode="a", zarr_format=3),
        "cube",
        shape=shape,
        chunks=(1, lines, *shape[2:]),
        dtype="uint16",
        dims=("frame", "y", "x", "channel"),
        preset=PRESETS["sharded"],
        shards=(*shard, 1, 1),
    )


def objects(store):
    found = {place.key: place.read_bytes() for place in RemotePlace("m://", store).files()}
    return {key: raw for key, raw in found.items() if not key.endswith("zarr.json")}


def files(folder):
    return {f"cube/{path.name}": path.read_bytes() for path in (folder / "cube").glob("c.*")}


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 5), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.data(),
)
def test_both_hold_the_same_bytes_after_any_writes(shape, shard, data):
    lines = data.draw(st.integers(1, shape[1]))
    keys = keys_of(shape, lines)
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        arrays = [sharded(at, shape, lines, shard) for at in (folder, store)]
        expected = np.zeros(shape, np.uint16)
        for turn in range(data.draw(st.integers(1, 3))):
            cube = cube_of(turn, *shape) if data.draw(st.booleans()) else np.zeros_like(expected)
            chosen = data.draw(st.lists(st.sampled_from(keys), unique=True))
            for array in arrays:
                with LineWriter() as writer:
                    for key in chosen:
                        values = cube[key.frame, key.start : key.stop]
                        span = (key.frame, key.start, key.stop)
                        writer.write(array, *span, values, keep_empty=turn == 1)
                    writer.commit()
            for key in chosen:
                expected[key.frame, key.start : key.stop] = cube[key.frame, key.start : key.stop]
        local, remote = arrays
        base = local.store_path.store.root
        assert objects(store) == files(base)
        assert np.array_equal(remote[:], expected)
        for key in keys:
            span, index = (key.frame, key.start, key.stop), (key.frame, key.start // lines, 0, 0)
            assert np.array_equal(
                read_lines(remote, *span), expected[key.frame, key.start : key.stop]
            )
            assert chunk_tail(remote, index) == chunk_tail(local, index)
            assert (lost_chunk(remote, *span) is None) == (lost_chunk(local, *span) is None)


def test_damage_and_absence_are_told_as_on_a_disk():
    store, cube = MemoryStore(), cube_of(5, frames=1, height=24)
    array = sharded(store, cube.shape, 8, (1, 3))

    def put(raw):
        sync(store.set(key, cpu.Buffer.from_bytes(bytes(raw))))

    with LineWriter() as writer:
        for start in (0, 8):
            writer.write(array, 0, start, start + 8, cube[0, start : start + 8])
        assert objects(store) == {}
        writer.commit()
    ((key, whole),) = objects(store).items()
    assert str(lost_chunk(array, 0, 16, 24)).endswith(key)
    assert not read_lines(array, 0, 16, 24).any()
    raw = bytearray(whole)
    raw[10] ^= 1
    put(raw)
    with pytest.raises(ValueError, match="checksum that ends the chunk"):
        read_lines(array, 0, 0, 8)
    assert np.array_equal(read_lines(array, 0, 8, 16), cube[0, 8:16])
    for broken in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:7]):
        put(broken)
        with pytest.raises(ValueError, match="checksum that ends the shard"):
            read_lines(array, 0, 8, 16)
        assert chunk_tail(array, (0, 1, 0, 0)) is None
    # Nothing in such a shard can be found: what is written now is all it holds.
    with LineWriter() as writer:
        writer.write(array, 0, 8, 16, cube[0, 8:16])
        writer.commit()
    assert np.array_equal(array[0, 8:16], cube[0, 8:16])
    assert chunk_tail(array, (0, 0, 0, 0)) is None


def test_a_writer_that_is_left_puts_nothing():
    store, cube = MemoryStore(), cube_of(4, frames=1, height=16)
    array = sharded(store, cube.shape, 8, (1, 2))
    with LineWriter() as writer:
        writer.write(array, 0, 0, 8, cube[0, :8])
    assert objects(store) == {}
