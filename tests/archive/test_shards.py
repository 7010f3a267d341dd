"""Shards written directly are what zarr reads; what is in them is found, kept and replaced."""

from __future__ import annotations

import os
import tempfile
from itertools import pairwise

import numpy as np
import pytest
import zarr
from archive_helpers import cube_of, keys_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.archive import read_ahead
from hsi_batch.archive.chunk_layout import chunk_path, chunk_tail, lost_chunk
from hsi_batch.archive.chunk_reader import read_lines
from hsi_batch.archive.chunk_writer import LineWriter
from hsi_batch.archive.storage import PRESETS
from hsi_batch.archive.store import create_array
from hsi_batch.errors import ConfigError

SHARDS = st.tuples(st.integers(1, 3), st.integers(1, 4))


def sharded(folder, cube, lines, shard, name="cube", preset="sharded", fill=0):
    return create_array(
        zarr.open_group(folder, mode="a", zarr_format=3),
        name,
        shape=cube.shape,
        chunks=(1, lines, *cube.shape[2:]),
        dtype=cube.dtype.name,
        dims=("frame", "y", "x", "channel")[: cube.ndim],
        fill=fill,
        preset=PRESETS[preset],
        shards=(*shard, *(1 for _ in cube.shape[2:])),
    )


def fill_all(array, cube, lines, keys=None):
    with LineWriter() as writer:
        for key in keys if keys is not None else keys_of(cube.shape, lines):
            values = cube[key.frame, key.start : key.stop]
            writer.write(array, key.frame, key.start, key.stop, values)
        writer.commit()


def files_of(array):
    root = array.store_path.store.root / array.store_path.path
    return sorted(p for p in root.rglob("*") if p.is_file() and p.name != "zarr.json")


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 7), st.integers(1, 4)),
    SHARDS,
    st.data(),
)
def test_zarr_reads_what_was_written_and_the_other_way_round(shape, shard, data):
    lines = data.draw(st.integers(1, shape[1]))
    cube = cube_of(data.draw(st.integers(0, 99)), *shape)
    with tempfile.TemporaryDirectory() as folder:
        ours = sharded(folder, cube, lines, shard, "ours")
        order = data.draw(st.permutations(keys_of(cube.shape, lines)))
        fill_all(ours, cube, lines, order)
        assert np.array_equal(zarr.open_array(f"{folder}/ours", mode="r")[:], cube)
        theirs = sharded(folder, cube, lines, shard, "theirs")
        theirs.with_config({"write_empty_chunks": True})[:] = cube
        assert len(files_of(ours)) == len(files_of(theirs))
        for array in (ours, theirs):
            for key in keys_of(cube.shape, lines):
                span = (key.frame, key.start, key.stop)
                expected = cube[key.frame, key.start : key.stop]
                assert lost_chunk(array, *span) is None
                for reuse in (False, True):
                    assert np.array_equal(read_lines(array, *span, reuse=reuse), expected)
        index = [(k.frame, k.start // lines, 0, 0) for k in keys_of(cube.shape, lines)]
        assert [chunk_tail(ours, i) for i in index] == [chunk_tail(theirs, i) for i in index]


def test_the_chunks_of_a_shard_are_those_of_files_of_their_own(tmp_path):
    cube = cube_of(1, frames=2, height=40)
    array = sharded(tmp_path, cube, 16, (2, 3), "many")
    plain = create_array(
        zarr.open_group(tmp_path, mode="a"),
        "plain",
        shape=cube.shape,
        chunks=(1, 16, *cube.shape[2:]),
        dtype="uint16",
        dims=("frame", "y", "x", "channel"),
    )
    fill_all(array, cube, 16)
    fill_all(plain, cube, 16)
    (shard,) = files_of(array)
    raw = shard.read_bytes()
    assert all(path.read_bytes() in raw for path in files_of(plain))
    for part in range(3):
        assert chunk_tail(array, (1, part, 0, 0)) == chunk_tail(plain, (1, part, 0, 0))


def test_what_is_not_written_again_is_kept(tmp_path):
    first, second = cube_of(2, frames=1, height=40), cube_of(3, frames=1, height=40)
    array = sharded(tmp_path, first, 8, (1, 5))
    keys = keys_of(first.shape, 8)
    fill_all(array, first, 8)
    before = [chunk_tail(array, (0, part, 0, 0)) for part in range(5)]
    fill_all(array, second, 8, [keys[3], keys[1]])
    expected = first.copy()
    for key in (keys[1], keys[3]):
        expected[0, key.start : key.stop] = second[0, key.start : key.stop]
    assert np.array_equal(zarr.open_array(str(tmp_path / "cube"), mode="r")[:], expected)
    after = [chunk_tail(array, (0, part, 0, 0)) for part in range(5)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, False, True]


def test_a_writer_that_is_left_changes_nothing(tmp_path):
    cube = cube_of(4, frames=1, height=16)
    array = sharded(tmp_path, cube, 8, (1, 2))
    fill_all(array, cube, 8)
    before = files_of(array)[0].read_bytes()
    with LineWriter() as writer:
        writer.write(array, 0, 0, 8, cube[0, 8:])
        assert len(files_of(array)) == 2
    assert [path.read_bytes() for path in files_of(array)] == [before]


def test_empty_chunks_are_left_out_where_that_is_wanted(tmp_path):
    cube = np.zeros((1, 24, 5), np.uint8)
    cube[0, 9] = 4
    array = sharded(tmp_path, cube, 8, (1, 3))
    with LineWriter() as writer:
        for start in (0, 8, 16):
            part = cube[0, start : start + 8]
            writer.write(array, 0, start, start + 8, part, keep_empty=False)
        writer.commit()
    assert [chunk_tail(array, (0, i, 0)) is None for i in range(3)] == [True, False, True]
    assert np.array_equal(read_lines(array, 0, 0, 8), cube[0, :8])
    assert np.array_equal(zarr.open_array(str(tmp_path / "cube"), mode="r")[:], cube)
    with LineWriter() as writer:
        writer.write(array, 0, 8, 16, np.zeros_like(cube[0, :8]), keep_empty=False)
        writer.commit()
    assert files_of(array) == []


def test_damage_is_told_apart_from_absence(tmp_path):
    cube = cube_of(5, frames=1, height=24)
    array = sharded(tmp_path, cube, 8, (1, 3))
    keys = keys_of(cube.shape, 8)
    fill_all(array, cube, 8, keys[:2])
    path = chunk_path(array, (0, 2, 0, 0))
    assert lost_chunk(array, 0, 16, 24) == path
    assert lost_chunk(array, 0, 0, 16) is None
    raw = bytearray(path.read_bytes())
    raw[10] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="checksum that ends the chunk"):
        read_lines(array, 0, 0, 8)
    assert np.array_equal(read_lines(array, 0, 8, 16), cube[0, 8:16])
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="checksum that ends the shard"):
        read_lines(array, 0, 8, 16)
    assert chunk_tail(array, (0, 1, 0, 0)) is None
    path.write_bytes(raw[:7])
    with pytest.raises(ValueError, match="checksum that ends the shard"):
        read_lines(array, 0, 8, 16)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_writes_what_zarr_writes(tmp_path, preset):
    for dtype in ("uint16", "uint8", "float32"):
        cube = cube_of(6, frames=1, height=20, dtype=dtype)
        ours = sharded(tmp_path, cube, 8, (1, 1), f"ours-{dtype}", preset)
        theirs = sharded(tmp_path, cube, 8, (1, 1), f"theirs-{dtype}", preset)
        fill_all(ours, cube, 8)
        theirs.with_config({"write_empty_chunks": True})[:] = cube
        a, b = ([p.read_bytes() for p in files_of(array)] for array in (ours, theirs))
        assert a == b


def test_what_is_announced_is_asked_of_the_system(tmp_path, monkeypatch):
    cube = cube_of(7, frames=1, height=32)
    array = sharded(tmp_path, cube, 8, (1, 4))
    fill_all(array, cube, 8)
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _f, at, size, _a: asked.append((at, size)))
    monkeypatch.setattr(read_ahead, "_READ_AHEAD", 100)
    # What was just written is in memory.
    read_ahead.announce(array, 0, 8, 16)
    assert asked == []
    monkeypatch.delattr(os, "RWF_NOWAIT")
    read_ahead.announce(array, 0, 8, 16)
    body = files_of(array)[0].read_bytes()[asked[0][0] : asked[-1][0] + asked[-1][1]]
    assert body[-4:].hex() == chunk_tail(array, (0, 1, 0, 0))
    assert sum(size for _, size in asked) == len(body)
    assert all(a + n == b for (a, n), (b, _) in pairwise(asked))
    asked.clear()
    read_ahead.announce(array, 0, 3, 9)
    assert asked == []


def test_other_presets_are_refused():
    from hsi_batch.archive.storage import preset_of

    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        preset_of("smal")
