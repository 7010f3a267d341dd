"""Chunks written directly are the bytes that zarr writes, and read back as what they were."""

from __future__ import annotations

import tempfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from archive_helpers import cube_of, keys_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.archive.chunk_layout import chunk_path, chunk_tail
from hsi_batch.archive.chunk_reader import read_lines
from hsi_batch.archive.chunk_writer import LineWriter, remove_partial, write_lines
from hsi_batch.archive.store import create_array
from hsi_batch.scratch import scratch

DTYPES = st.sampled_from(
    ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int64", "float16", "float32", "float64"]
)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.integers(1, 5))


def array_in(folder, cube, lines, name="cube", fill=0):
    return create_array(
        zarr.open_group(folder, mode="a", zarr_format=3),
        name,
        shape=cube.shape,
        chunks=(1, lines, *cube.shape[2:]),
        dtype=cube.dtype.name,
        dims=("frame", "y", "x", "channel")[: cube.ndim],
        fill=fill,
    )


def write_all(array, cube, lines):
    for key in keys_of(cube.shape, lines):
        write_lines(array, key.frame, key.start, key.stop, cube[key.frame, key.start : key.stop])


def files_of(array):
    root = array.store_path.store.root / array.store_path.path
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "zarr.json"
    }


@st.composite
def cubes(draw):
    """A cube, the height of its chunks and a fill value; also flat images, and constant ones."""
    shape = draw(SHAPES)
    dtype = draw(DTYPES)
    cube = cube_of(draw(st.integers(0, 99)), *shape, dtype=dtype)
    if draw(st.booleans()):
        cube = cube[..., 0]
    if draw(st.integers(0, 4)) == 0:
        cube = np.full_like(cube, draw(st.integers(0, 1)))
    return cube, draw(st.integers(1, shape[1])), draw(st.integers(0, 1))


# --- the same bytes -----------------------------------------------------------------------------


@settings(max_examples=40)
@given(cubes())
def test_written_bytes_are_those_of_zarr(case):
    cube, lines, fill = case
    with tempfile.TemporaryDirectory() as folder:
        ours = array_in(folder, cube, lines, "ours", fill)
        write_all(ours, cube, lines)
        theirs = array_in(folder, cube, lines, "theirs", fill)
        theirs.with_config({"write_empty_chunks": True})[:] = cube
        assert files_of(ours) == files_of(theirs)
        assert len(files_of(ours)) == len(keys_of(cube.shape, lines))


@settings(max_examples=30)
@given(cubes(), st.booleans())
def test_lines_are_read_as_they_were_written_by_whomever(case, directly):
    cube, lines, fill = case
    with tempfile.TemporaryDirectory() as folder:
        array = array_in(folder, cube, lines, fill=fill)
        if directly:
            write_all(array, cube, lines)
            assert np.array_equal(array[:], cube)
        else:
            array[:] = cube
        for key in keys_of(cube.shape, lines):
            span = (key.frame, key.start, key.stop)
            expected = cube[key.frame, key.start : key.stop]
            for reuse in (False, True, True):
                found = read_lines(array, *span, reuse=reuse)
                assert found.dtype == cube.dtype
                assert np.array_equal(found, expected)


@settings(max_examples=30)
@given(cubes())
def test_the_tail_of_a_chunk_is_known_when_it_is_written(case):
    cube, lines, fill = case
    with tempfile.TemporaryDirectory() as folder:
        array = array_in(folder, cube, lines, fill=fill)
        with LineWriter() as writer:
            for key in keys_of(cube.shape, lines):
                span = (key.frame, key.start, key.stop)
                tail = writer.write(array, *span, cube[key.frame, key.start : key.stop])
                index = (key.frame, key.start // lines, *(0 for _ in cube.shape[2:]))
                assert tail == chunk_tail(array, index)


@settings(max_examples=30)
@given(cubes(), st.data())
def test_any_lines_can_be_read(case, data):
    cube, lines, fill = case
    start = data.draw(st.integers(0, cube.shape[1] - 1))
    stop = data.draw(st.integers(start + 1, cube.shape[1]))
    with tempfile.TemporaryDirectory() as folder:
        array = array_in(folder, cube, lines, fill=fill)
        write_all(array, cube, lines)
        for frame in range(cube.shape[0]):
            assert np.array_equal(read_lines(array, frame, start, stop), cube[frame, start:stop])


@pytest.mark.parametrize("order", ["strided", "fortran", "reversed", "big endian", "read-only"])
def test_values_may_lie_in_memory_in_any_way(tmp_path, order):
    cube = cube_of(1, frames=1, height=16)
    given = {
        "strided": np.repeat(cube[0], 2, axis=1)[:, ::2],
        "fortran": np.asfortranarray(cube[0]),
        "reversed": np.ascontiguousarray(cube[0, ::-1])[::-1],
        "big endian": cube[0].astype(">u2"),
        "read-only": np.frombuffer(cube[0].tobytes(), np.uint16).reshape(cube[0].shape),
    }[order]
    array, plain = (array_in(tmp_path, cube, 16, name) for name in ("a", "b"))
    write_lines(array, 0, 0, 16, given)
    write_lines(plain, 0, 0, 16, cube[0])
    assert files_of(array) == files_of(plain)


def test_arrays_of_other_codecs_go_through_zarr(tmp_path):
    cube = cube_of(2, frames=2, height=20)
    array = zarr.create_array(
        str(tmp_path / "x"), shape=cube.shape, chunks=(1, 8, *cube.shape[2:]), dtype="uint16"
    )
    write_all(array, cube, 8)
    assert np.array_equal(array[:], cube)
    assert np.array_equal(read_lines(array, 1, 8, 16), cube[1, 8:16])


# --- chunks that are not there ------------------------------------------------------------------


@pytest.mark.parametrize("keep_empty", [True, False])
def test_an_empty_chunk_is_stored_unless_told_otherwise(tmp_path, keep_empty):
    cube = np.full((1, 20, 4, 2), 3, dtype=np.uint8)
    array = array_in(tmp_path, cube, 8, fill=3)
    for start in (0, 8, 16):
        stop = min(start + 8, 20)
        write_lines(array, 0, start, stop, cube[0, start:stop], keep_empty=keep_empty)
    assert len(files_of(array)) == (3 if keep_empty else 0)
    assert np.array_equal(read_lines(array, 0, 8, 16), cube[0, 8:16])


def test_an_empty_chunk_replaces_what_was_there(tmp_path):
    cube = cube_of(3, frames=1, height=8)
    array = array_in(tmp_path, cube, 8)
    write_lines(array, 0, 0, 8, cube[0])
    write_lines(array, 0, 0, 8, np.zeros_like(cube[0]), keep_empty=False)
    assert not read_lines(array, 0, 0, 8).any()


def test_the_padding_of_the_last_chunk_is_the_fill_value(tmp_path):
    cube = cube_of(4, frames=1, height=10, dtype="int16")
    array = array_in(tmp_path, cube, 8, fill=-1)
    write_all(array, cube, 8)
    grown = zarr.open_array(str(tmp_path / "cube"), mode="r+")
    grown.resize((1, 16, *cube.shape[2:]))
    assert (grown[0, 10:] == -1).all()


def test_the_tail_is_the_checksum_of_the_chunk(tmp_path):
    cube = cube_of(5, frames=1, height=8)
    array = array_in(tmp_path, cube, 8)
    assert chunk_tail(array, (0, 0, 0, 0)) is None
    write_all(array, cube, 8)
    raw = chunk_path(array, (0, 0, 0, 0)).read_bytes()
    assert chunk_tail(array, (0, 0, 0, 0)) == raw[-4:].hex()
    assert int.from_bytes(raw[-4:], "little") == google_crc32c.value(raw[:-4])


# --- memory that is used again ------------------------------------------------------------------


def test_only_reading_with_reuse_hands_out_the_same_memory(tmp_path):
    cube = cube_of(6, frames=2, height=8)
    array = array_in(tmp_path, cube, 8)
    write_all(array, cube, 8)
    own = read_lines(array, 0, 0, 8)
    shared = read_lines(array, 0, 0, 8, reuse=True)
    read_lines(array, 1, 0, 8, reuse=True)
    assert np.array_equal(own, cube[0])
    assert np.array_equal(shared, cube[1])
    scratch.release()
    assert np.array_equal(read_lines(array, 0, 0, 8, reuse=True), cube[0])
    assert np.array_equal(shared, cube[1])


# --- files that are not whole -------------------------------------------------------------------


def test_partial_files_are_ignored_and_removed(tmp_path):
    cube = cube_of(7)
    array = array_in(tmp_path, cube, 16)
    write_all(array, cube, 16)
    before = files_of(array)
    path = chunk_path(array, (0, 0, 0, 0))
    left = [path.with_name(f"0.{pid}.partial") for pid in (1, 77)]
    for partial in left:
        partial.write_bytes(b"half a chunk")
    assert np.array_equal(read_lines(array, 0, 0, 16), cube[0, :16])
    assert np.array_equal(zarr.open_group(tmp_path, mode="r")["cube"][:], cube)
    remove_partial(zarr.open_group(tmp_path))
    assert files_of(array) == before


def test_only_the_partial_files_of_the_group_are_removed(tmp_path):
    cube = cube_of(8)
    for name in ("a", "b"):
        write_all(array_in(tmp_path / "store" / name, cube, 16), cube, 16)
        Path(tmp_path / "store" / name / "cube" / "0.1.partial").touch()
    remove_partial(zarr.open_group(tmp_path / "store")["a"])
    assert [p.parent.parent.name for p in tmp_path.rglob("*.partial")] == ["b"]
