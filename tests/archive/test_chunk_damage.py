"""Damaged and lost chunks are errors that name their place; writes are whole or did not happen."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest
from archive_helpers import add_session, cube_of, make_archive, run_script, start_script
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.archive import Session, open_archive
from hsi_batch.archive.chunk_layout import chunk_path, chunk_tail
from hsi_batch.archive.store import ARCHIVE, create_root
from hsi_batch.errors import HsiBatchError, SourceError

CHUNK = (0, 1, 0, 0)


@pytest.fixture(scope="module", params=["balanced", "fast"])
def damaged(tmp_path_factory, request):
    """An archive, the file of one chunk, and what that file should hold."""
    path = tmp_path_factory.mktemp("damage") / "a.zarr"
    make_archive(path, {"s": cube_of(1)}, lines=16, preset=request.param)
    chunk = chunk_path(Session.open(path, "s").cube, CHUNK)
    return path, chunk, chunk.read_bytes()


def read(path, start=16, stop=32, **options):
    return Session.open(path, "s").read(0, start, stop, **options)


def assert_refused(path, start=16, stop=32):
    for reuse in (False, True):
        with pytest.raises(SourceError) as caught:
            read(path, start, stop, reuse=reuse)
        assert isinstance(caught.value, HsiBatchError)
        text = str(caught.value)
        assert f"lines {start}:{stop} of s/cube cannot be read" in text
        assert str(path) in text
        assert "session s, frame 0" in text
        assert "hsi-batch verify --deep" in text


@given(data=st.data())
def test_any_flipped_bit_is_an_error_that_names_the_place(damaged, data):
    path, chunk, whole = damaged
    at = data.draw(st.integers(0, len(whole) - 1))
    raw = bytearray(whole)
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    chunk.write_bytes(raw)
    assert_refused(path)
    chunk.write_bytes(whole)
    assert np.array_equal(read(path), cube_of(1)[0, 16:32])


@given(data=st.data())
def test_any_cut_or_grown_chunk_is_an_error(damaged, data):
    path, chunk, whole = damaged
    cut = data.draw(st.integers(0, len(whole) - 1))
    chunk.write_bytes(data.draw(st.sampled_from([whole[:cut], whole + whole[: cut + 1]])))
    assert_refused(path)


def test_a_chunk_of_another_shape_is_an_error(damaged, tmp_path):
    path, chunk, _ = damaged
    make_archive(tmp_path / "b.zarr", {"s": cube_of(1, height=80)}, lines=32)
    other = chunk_path(Session.open(tmp_path / "b.zarr", "s").cube, CHUNK)
    chunk.write_bytes(other.read_bytes())
    assert_refused(path)


def test_other_chunks_of_a_damaged_array_are_read(damaged):
    path, chunk, whole = damaged
    chunk.write_bytes(whole[:-1])
    assert np.array_equal(read(path, 0, 16), cube_of(1)[0, :16])
    assert np.array_equal(read(path, 32, 40), cube_of(1)[0, 32:40])
    # Lines that reach into it, as a window with a halo does.
    assert_refused(path, 12, 20)


def test_a_lost_chunk_of_pixels_is_an_error_and_not_zeros(damaged):
    path, chunk, whole = damaged
    chunk.unlink(missing_ok=True)
    assert_refused(path)
    with pytest.raises(SourceError, match=f"{chunk} is missing"):
        read(path)
    assert_refused(path, 12, 20)
    assert_refused(path, 20, 36)
    assert np.array_equal(read(path, 0, 16), cube_of(1)[0, :16])
    chunk.write_bytes(whole)
    assert np.array_equal(read(path), cube_of(1)[0, 16:32])


def test_a_chunk_that_is_a_folder_is_an_error(damaged):
    path, chunk, whole = damaged
    chunk.unlink(missing_ok=True)
    chunk.mkdir()
    assert_refused(path)
    chunk.rmdir()
    chunk.write_bytes(whole)


def test_flags_that_were_never_written_mean_that_all_pixels_count(tmp_path):
    make_archive(tmp_path / "a.zarr", {"s": cube_of(2)}, lines=16, classes={0: "soil"})
    session = open_archive(tmp_path / "a.zarr").session("s")
    assert session.valid(0, 0, 16) is None
    assert (session.labels(0, 0, 16) == -1).all()
    assert not session.valid(0, 0, 16, "labelled-normal").any()


# --- writing ------------------------------------------------------------------------------------

FULL_DISK = """
import resource, sys
import numpy as np
from hsi_batch.archive import Session
from hsi_batch.archive.writer import write_lines, write_row
session = Session.open(sys.argv[1], "s", "r+")
rng = np.random.default_rng(0)
block = rng.integers(0, 65535, (16, 6, 3), dtype=np.uint16)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
try:
    write_lines(session.cube, session.key(0, 16, 32), block)
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


def test_a_full_disk_is_one_clear_error_and_the_old_chunk_stays(tmp_path):
    make_archive(tmp_path / "a.zarr", {"s": cube_of(1)}, lines=16)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = run_script(FULL_DISK, tmp_path / "a.zarr")
    assert done.returncode == 1
    last = done.errors.strip().splitlines()[-1]
    assert last.startswith("hsi_batch.errors.StoreError: ")
    assert "there is no space left to write to" in last
    assert "Make space and run the same command again" in last
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


WRITING = """
import sys
import numpy as np
from hsi_batch.archive import Session
from hsi_batch.archive.writer import write_lines
session = Session.open(sys.argv[1], "s", "r+")
print("ready", flush=True)
for value in range(10**9):
    for key in session.geometry.keys("s"):
        write_lines(session.cube, key, np.full((key.stop - key.start, 64, 32), value, np.uint16))
"""


def test_a_writer_killed_at_any_instant_leaves_whole_chunks(tmp_path):
    path = tmp_path / "a.zarr"
    shape = {"frames": 1, "height": 128, "width": 64, "channels": 32}
    make_archive(path, {"s": np.zeros_like(cube_of(1, **shape))}, lines=64)
    seen = set()
    for _ in range(3):
        writer = start_script(WRITING, path)
        assert writer.stdout.readline() == "ready\n"
        session = Session.open(path, "s")
        first = {chunk_tail(session.cube, (0, i, 0, 0)) for i in range(2)}
        # Readers meet whole chunks while another process replaces them.
        while {chunk_tail(session.cube, (0, i, 0, 0)) for i in range(2)} & first:
            assert len(np.unique(session.read(0, 0, 64))) == 1
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        for start in (0, 64):
            values = np.unique(session.read(0, start, start + 64))
            assert len(values) == 1
            seen.add(int(values[0]))
    assert max(seen) > 0


def test_a_session_that_is_made_again_holds_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "a.zarr"
    make_archive(path, {"s": cube_of(1, frames=3, height=80)}, lines=16)
    add_session(create_root(path, ARCHIVE), "s", cube_of(2, frames=1, height=20), lines=16)
    session = Session.open(path, "s")
    chunks = list((path / "s" / "cube").glob("c.*"))
    assert len(chunks) == session.geometry.blocks == 2
    assert np.array_equal(session.read(0, 0, 16), cube_of(2, frames=1, height=20)[0, :16])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r'"shape": \[\s*2,\s*40,\s*6,\s*3\s*\]', '"shape": [2, 40, 6, 2147483648]'),
        (r'"chunk_shape": \[\s*1,\s*16,', '"chunk_shape": [1, 0,'),
    ],
)
def test_metadata_of_an_impossible_shape_are_an_error(tmp_path, old, new):
    path = tmp_path / "a.zarr"
    make_archive(path, {"s": cube_of(1)}, lines=16)
    file = path / "s" / "cube" / "zarr.json"
    text, count = re.subn(old, new, file.read_text())
    assert count == 1
    file.write_text(text)
    # What the archive knows of the session is as it was.
    session = open_archive(path).session("s")
    assert session.geometry.shape == (40, 6, 3)
    with pytest.raises(HsiBatchError, match="hsi-batch verify --deep"):
        session.read(0, 0, 16)
