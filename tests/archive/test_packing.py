"""Rows of statistics survive being packed and unpacked, whenever that is interrupted."""

from __future__ import annotations

import numpy as np
import pytest
from archive_helpers import add_session, cube_of, make_archive
from recordings import write_npz

from hsi_batch import convert, fit, open_archive
from hsi_batch.archive import packing
from hsi_batch.archive.chunk_reader import read_rows
from hsi_batch.archive.packing import ROWS, pack_rows, row_array, rows_per_chunk, unpack_rows
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import ARCHIVE, create_root
from hsi_batch.errors import StoreError
from hsi_batch.nodes import AnomalyDataNode, RXGlobal
from hsi_batch.pipeline import Pipeline

BLOCKS = 9


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A session with a row for each of nine blocks, four in a chunk, and the rows."""
    root = create_root(tmp_path / "a.zarr", ARCHIVE)
    cube = cube_of(0, frames=BLOCKS, height=64, width=64, channels=3)
    session = add_session(root, "s", cube, classes={0: "a", 1: "b"})
    assert session.geometry.row_frames is None
    monkeypatch.setattr(packing, "_CHUNK_BYTES", 4 * session.geometry.terms * 8)
    rng = np.random.default_rng(0)
    expected = {}
    for name in ROWS:
        array = session.optional(row_array(name))
        expected[name] = rng.integers(1, 99, array.shape).astype(array.dtype)
        expected[name][5] = 0
        array[:] = expected[name]
    return session, expected


def check(session, expected, name=str):
    for key, values in expected.items():
        array = session.optional(name(key))
        assert array is not None, name(key)
        np.testing.assert_array_equal(read_rows(array, range(BLOCKS)), values)
        np.testing.assert_array_equal(read_rows(array, [1, 2, 5, 8]), values[[1, 2, 5, 8]])
        np.testing.assert_array_equal(array[:], values)


def files(session, name):
    folder = session.group.store.root / session.name / name
    return sorted(f.name for f in folder.rglob("*") if f.is_file() and f.name != "zarr.json")


def test_packed_and_unpacked(rows):
    session, expected = rows
    pack_rows(session)
    check(session, expected)
    for name in ROWS:
        held = session.optional(name)
        assert held.chunks[0] == rows_per_chunk(held)
        assert len(files(session, name)) == -(-BLOCKS // held.chunks[0])
        assert not (session.group.store.root / "s" / row_array(name)).exists()
    pack_rows(session)
    check(session, expected)
    unpack_rows(session, ())
    check(session, expected, row_array)
    assert session.optional("moments") is None
    pack_rows(session)
    check(session, expected)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("work", ["pack", "unpack"])
@pytest.mark.parametrize("step", range(24))
def test_killed_at_any_step(rows, monkeypatch, work, step):
    session, expected = rows
    if work == "unpack":
        pack_rows(session)
    run = pack_rows if work == "pack" else lambda s: unpack_rows(s, ())
    left = [step]

    def dying(function):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("create_array", "read_rows", "_finish", "remove_tree"):
            patched.setattr(packing, name, dying(getattr(packing, name)))
        try:
            run(session)
        except Killed:
            pass
        else:
            assert step > 12, "the steps that are interrupted are not those that there are"
    # The next run may have blocks to do, or only to finish.
    again = Session("s", session.group)
    if step % 2:
        unpack_rows(again, ())
        check(again, expected, row_array)
    pack_rows(again)
    check(again, expected)


def test_rows_that_are_lost_are_never_zeros(rows):
    session, _ = rows
    pack_rows(session)
    (session.group.store.root / "s/moments/c.1.0").unlink()
    with pytest.raises(ValueError, match="chunk 1 of s/moments is missing"):
        read_rows(session.optional("moments"), [4])
    assert (read_rows(session.optional("moments"), [3]) > 0).any()
    with pytest.raises(StoreError, match="the moments of blocks 4 to 7 are missing"):
        unpack_rows(session, {4, 5, 6})
    # Those that are done again may be lost.
    unpack_rows(session, {4, 5, 6, 7})


def test_a_fit_says_that_statistics_are_lost(client, tmp_path):
    write_npz(tmp_path / "in" / "s.npz", cube_of(0, frames=4, height=64, width=64, channels=3))
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    (tmp_path / "a.zarr/s/moments/c.0.0").unlink()
    pipeline = Pipeline("rx")
    data, rx = AnomalyDataNode(name="d"), RXGlobal(name="rx")
    pipeline.connect((data.outputs.cube, rx.data))
    with pytest.raises(StoreError, match="statistics of blocks 0 to 3 cannot be read") as caught:
        fit(pipeline, tmp_path / "a.zarr", client=client)
    assert caught.value.session == "s"
    assert "repair" in caught.value.hint


def test_few_files_hold_the_statistics_of_many_frames(client, tmp_path):
    write_npz(tmp_path / "in" / "s.npz", cube_of(0, frames=64, height=64, width=64, channels=3))
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    session = open_archive(tmp_path / "a.zarr").session("s")
    assert session.geometry.rows == 64
    assert len(files(session, "moments")) == 1
    assert not (tmp_path / "a.zarr/s/moments_rows").exists()


def test_archives_whose_rows_are_files_are_read_as_before(tmp_path):
    root = make_archive(tmp_path / "a.zarr", {})
    session = add_session(root, "s", cube_of(0, frames=2, height=64, width=64, channels=3))
    rows = session.optional(row_array("moments"))
    rows[0] = 7
    # A block without any valid pixel left no file.
    np.testing.assert_array_equal(read_rows(rows, [0, 1])[:, 0], [7, 0])
