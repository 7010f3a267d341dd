"""The catalog says what the store holds, whether it was saved or not; removing keeps the rest."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import zarr
from archive_helpers import add_session, cube_of, make_archive, publish

from hsi_batch.archive import BlockKey, open_archive
from hsi_batch.archive.catalog import load_catalog, save_catalog
from hsi_batch.archive.lock import StoreLock
from hsi_batch.archive.partials import partials_of
from hsi_batch.archive.records import BlockRecord, Records, RecordWriter
from hsi_batch.archive.remove import remove_session, split_path
from hsi_batch.archive.store import ARCHIVE, create_root, open_root, state_folder
from hsi_batch.errors import ConfigError, StoreError, StoreInUseError

CUBES = {
    "s9": cube_of(1, frames=2, height=40, width=6, channels=3),
    "s10": cube_of(2, frames=1, height=16, width=4, channels=3, dtype="float32"),
}


@pytest.fixture
def path(tmp_path):
    root = make_archive(tmp_path / "a.zarr", {})
    add_session(root, "s9", CUBES["s9"], wavelength=np.array([400.0, 550.5, 900.25]), sensor="FX17")
    add_session(root, "s10", CUBES["s10"], flagged_pixels=5, failed_frames={"0": "x"})
    publish(tmp_path / "a.zarr", root)
    return tmp_path / "a.zarr"


def test_a_row_says_what_the_session_is(path):
    rows = open_archive(path).catalog.set_index("session")
    nine, ten = rows.loc["s9"], rows.loc["s10"]
    assert nine[["frames", "lines", "samples", "bands"]].tolist() == [2, 40, 6, 3]
    assert (nine.dtype, ten.dtype) == (object, object)
    assert rows["dtype"].to_dict() == {"s9": "uint16", "s10": "float32"}
    assert (nine.sensor, nine.wavelength_min, nine.wavelength_max) == ("FX17", 400.0, 900.25)
    assert pd.isna(ten.sensor)
    assert pd.isna(ten.wavelength_min)
    assert (nine.pixels, ten.pixels) == (480, 64)
    assert (ten.flagged, ten.failed_frames) == (5, 1)


def test_the_saved_catalog_is_that_of_the_store(path):
    saved = open_archive(path).catalog
    shutil.copytree(path, path.with_name("copy.zarr"))
    read = open_archive(path.with_name("copy.zarr")).catalog
    pd.testing.assert_frame_equal(saved, read)


@pytest.mark.parametrize("file", ["catalog.parquet", "catalog.json"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "removed"])
def test_a_damaged_catalog_is_read_from_the_store_instead(path, file, damage):
    before = open_archive(path).catalog
    target = state_folder(path) / file
    raw = target.read_bytes()
    if damage == "removed":
        target.unlink()
    else:
        target.write_bytes(
            {"cut": raw[: len(raw) // 2], "garbage": raw[::-1], "empty": b""}[damage]
        )
    pd.testing.assert_frame_equal(open_archive(path).catalog, before)


def test_a_catalog_of_another_state_of_the_store_is_not_believed(path):
    kept = state_folder(path).rename(path.with_name("kept"))
    root = create_root(path, ARCHIVE)
    add_session(root, "new", CUBES["s9"])
    publish(path, root)
    shutil.rmtree(state_folder(path))
    kept.rename(state_folder(path))
    assert set(open_archive(path)) == {"s9", "s10", "new"}


def test_the_catalog_is_saved_whole_and_alone(path):
    save_catalog(path, open_root(path, ARCHIVE))
    assert sorted(p.name for p in state_folder(path).iterdir()) == [
        "catalog.json",
        "catalog.parquet",
    ]


def test_a_session_whose_arrays_are_not_made_yet_is_passed_over(path):
    root = open_root(path, ARCHIVE, "r+")
    root.create_group("begun")
    assert set(load_catalog(path, lambda: root)["session"]) == {"s9", "s10"}
    shutil.rmtree(state_folder(path))
    assert set(open_archive(path)) == {"s9", "s10"}


def test_an_empty_archive_is_an_archive(tmp_path):
    make_archive(tmp_path / "e.zarr", {})
    for _ in range(2):
        archive = open_archive(tmp_path / "e.zarr")
        assert len(archive) == 0
        assert list(archive) == []
        assert "x" not in archive
        assert "0 sessions" in repr(archive)
        assert "0 sessions" in archive._repr_html_()
        shutil.rmtree(state_folder(tmp_path / "e.zarr"), ignore_errors=True)


def test_what_is_shown_names_the_sessions(path):
    archive = open_archive(path)
    assert "2 sessions, 3 frames" in repr(archive)
    for text in (repr(archive), archive._repr_html_()):
        assert "s9" in text
        assert "float32" in text


# --- removing -----------------------------------------------------------------------------------


def test_removing_takes_the_session_everywhere_and_nothing_else(path):
    stored = Records(state_folder(path) / "records" / "convert")
    records = [BlockRecord(BlockKey(n, 0, 0, 16), "done", "d") for n in ("s9", "s10")]
    with RecordWriter(stored.new_run(), "t") as writer:
        writer.write(*records)
    (partials_of(path, "s9")).mkdir(parents=True)
    files = {p: p.read_bytes() for p in (path / "s10").rglob("*") if p.is_file()}
    remove_session(path, "s9")
    assert set(open_archive(path)) == {"s10"}
    assert not (path / "s9").exists()
    assert not partials_of(path, "s9").exists()
    assert stored.load() == {records[1].key: records[1]}
    assert {p: p.read_bytes() for p in (path / "s10").rglob("*") if p.is_file()} == files
    assert not (state_folder(path) / "lock.json").exists()
    metadata = zarr.open_group(path, mode="r").metadata.consolidated_metadata.metadata
    assert set(metadata) == {"s10"}


def test_the_last_session_can_be_removed_and_come_again(path):
    for name in ("s9", "s10"):
        remove_session(path, name)
    assert len(open_archive(path)) == 0
    root = create_root(path, ARCHIVE)
    add_session(root, "s9", CUBES["s9"])
    publish(path, root)
    assert np.array_equal(open_archive(path)["s9"].cube.values, CUBES["s9"])


@pytest.mark.parametrize("name", ["s8", "", "..", "s9/cube", "zarr.json"])
def test_what_is_not_there_is_not_removed(path, name):
    with pytest.raises(ConfigError, match="there is no session"):
        remove_session(path, name)
    assert set(open_archive(path)) == {"s9", "s10"}


def test_nothing_is_removed_from_an_archive_in_use_or_from_something_else(path, tmp_path):
    with (
        StoreLock(state_folder(path), "convert"),
        pytest.raises(StoreInUseError, match=f"convert by process {os.getpid()}"),
    ):
        remove_session(path, "s9")
    with pytest.raises(StoreError, match="there is nothing here"):
        remove_session(tmp_path / "other.zarr", "s9")
    assert not state_folder(tmp_path / "other.zarr").exists()
    assert set(open_archive(path)) == {"s9", "s10"}


def test_a_store_and_its_session_are_told_apart(path):
    assert split_path(path) == (path, None)
    assert split_path(path / "s9") == (path, "s9")
    assert split_path(path / "s11") == (path, "s11")
    assert split_path("no/such.zarr/s") == (path.__class__("no/such.zarr"), "s")
    assert split_path("no/such.zarr") == (path.__class__("no/such.zarr"), None)
