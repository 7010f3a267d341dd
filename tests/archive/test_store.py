"""Opening: what is no archive is refused with the reason; plain xarray opens what is one."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from archive_helpers import cube_of, make_archive

from hsi_batch.archive import Session, open_archive, store
from hsi_batch.archive.leftovers import remove_leftovers
from hsi_batch.archive.store import ARCHIVE, SCORES, create_root, open_root, state_folder
from hsi_batch.errors import StoreError

WAVELENGTH = np.array([400.0, 550.5, 900.25])


@pytest.fixture
def archive(tmp_path):
    cubes = {"s9": cube_of(1), "s10": cube_of(2, frames=1, dtype="float32")}
    make_archive(tmp_path / "a.zarr", cubes, lines=16, wavelength=WAVELENGTH, classes={0: "soil"})
    return tmp_path / "a.zarr", cubes


# --- refused ------------------------------------------------------------------------------------


def nothing(path):
    return path


def a_file(path):
    path.write_text("x")


def an_empty_folder(path):
    path.mkdir()


def a_folder_of_files(path):
    path.mkdir()
    (path / "notes.txt").write_text("x")


def zarr_two(path):
    zarr.create_group(str(path), zarr_format=2)


def an_array(path):
    zarr.create_array(str(path), shape=(2,), dtype="u1")


def torn_metadata(path):
    path.mkdir()
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_ty')


def another_document(path):
    path.mkdir()
    (path / "zarr.json").write_text("[1]")


def another_group(path):
    zarr.create_group(str(path), attributes={"format": "of someone else"})


def scores(path):
    create_root(path, SCORES)


def newer(path):
    create_root(path, ARCHIVE).attrs["format_version"] = 2


def no_version(path):
    zarr.create_group(str(path), attributes={"format": ARCHIVE})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (nothing, "there is nothing here; an archive .* convert first"),
        (a_file, "this is a file; an archive"),
        (an_empty_folder, "not a Zarr v3 group"),
        (a_folder_of_files, "not a Zarr v3 group"),
        (zarr_two, "not a Zarr v3 group"),
        (an_array, "not a Zarr v3 group"),
        (torn_metadata, "not a Zarr v3 group"),
        (another_document, "not a Zarr v3 group"),
        (another_group, "a Zarr group of format 'of someone else'; an archive was expected"),
        (scores, "this is a score store; an archive was expected"),
        (newer, r"format version 2; this software reads version 1\. Use the version"),
        (no_version, "format version None; this software reads version 1"),
    ],
)
def test_what_is_no_archive_is_refused_with_the_reason(tmp_path, make, says):
    path = tmp_path / "x.zarr"
    make(path)
    for mode in ("r", "r+"):
        with pytest.raises(StoreError, match=says) as caught:
            open_root(path, ARCHIVE, mode)
        assert str(caught.value).startswith(str(path))
        assert caught.value.exit_code == 3
    with pytest.raises(StoreError, match=says):
        open_archive(path)


def test_an_archive_is_no_score_store(archive):
    with pytest.raises(StoreError, match="this is an archive; a score store was expected"):
        open_root(archive[0], SCORES)


@pytest.mark.parametrize("make", [a_file, a_folder_of_files, another_group, scores, newer])
def test_nothing_is_made_where_something_else_is(tmp_path, make):
    path = tmp_path / "x.zarr"
    make(path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(StoreError):
        create_root(path, ARCHIVE)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_store_is_made_in_a_folder_that_a_killed_run_left_empty(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    create_root(tmp_path / "a.zarr", ARCHIVE)
    assert open_archive(tmp_path / "a.zarr").path == tmp_path / "a.zarr"


def test_a_store_that_is_there_is_opened_and_kept(archive):
    path, cubes = archive
    root = create_root(path, ARCHIVE, {"format_version": 7})
    assert root.attrs["format_version"] == 1
    assert set(open_archive(path)) == set(cubes)


# --- sessions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s8", "", "s9/cube", "../x", "zarr.json", "s9/"])
def test_a_session_that_is_not_there_is_named(archive, name):
    path, _ = archive
    with pytest.raises(StoreError, match="there is no session"):
        open_archive(path).session(name)
    with pytest.raises(StoreError, match="no such session"):
        Session.open(path, name)


def test_the_nearest_session_is_named(archive):
    with pytest.raises(StoreError, match=r"no session 's11'\..* Did you mean 's10'\?"):
        open_archive(archive[0])["s11"]


def test_a_session_that_is_not_finished_is_not_in_the_archive(archive):
    path, _ = archive
    zarr.open_group(path)["s9"].attrs["complete"] = False
    # The catalog is stamped with the store; here it is a copy without run state.
    state_folder(path).rename(path.with_name("elsewhere"))
    found = open_archive(path)
    assert list(found) == ["s10"]
    assert found.incomplete == ("s9",)
    assert "1 not finished" in repr(found)
    with pytest.raises(StoreError, match=r"no session 's9'\. Its conversion is not finished"):
        found.session("s9")


def test_a_session_without_its_cube_is_one_clear_error(archive):
    path, _ = archive
    del zarr.open_group(path)["s9"]["cube"]
    with pytest.raises(StoreError, match=r"the array 'cube' is missing.*convert again"):
        _ = Session.open(path, "s9").geometry


# --- what others read ---------------------------------------------------------------------------


def test_plain_xarray_opens_a_session_without_a_warning(archive):
    path, cubes = archive
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, cube in cubes.items():
            with xr.open_zarr(path, group=name) as dataset:
                assert dataset.cube.dims == ("frame", "y", "x", "channel")
                # Nothing is decoded unasked: stored values stay what they are.
                assert dataset.cube.dtype == cube.dtype
                assert np.array_equal(dataset.cube.values, cube)
                assert dataset.wavelength.values.tolist() == WAVELENGTH.tolist()
                assert "wavelength" in dataset.cube.coords
                assert dataset.label.dtype == np.int16
                assert (dataset.label.values == -1).all()


def test_plain_xarray_opens_the_tree_without_a_warning(archive):
    path, cubes = archive
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_datatree(path, engine="zarr", chunks={}) as tree:
            assert tree.attrs["format"] == ARCHIVE
            assert set(tree.children) == set(cubes)
            for name, cube in cubes.items():
                assert tree[name].cube.chunks[1][0] == 16
                assert np.array_equal(tree[name].cube.values, cube)


def test_all_metadata_are_in_the_root(archive):
    path, cubes = archive
    found = json.loads((path / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert {name for name in found if "/" not in name} == set(cubes)
    assert {f"{name}/cube" for name in cubes} <= set(found)


def test_ours_is_lazy_and_leaves_out_what_serves_fits(archive):
    path, cubes = archive
    found = open_archive(path)
    for name, cube in found.items():
        assert cube.cube.chunks is not None
        assert cube.attrs["session"] == name
        assert not {"moments", "extrema", "sample", "checksum"} & set(cube.variables)
        assert np.array_equal(cube.cube.values, cubes[name])


@pytest.mark.parametrize("limit", [100_000, 5])
def test_chunks_lie_beside_each_other_unless_they_are_too_many(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(store, "_FLAT_FILES", limit)
    cube = cube_of(1, frames=2, height=48)
    make_archive(tmp_path / "a.zarr", {"s": cube}, lines=16)
    found = sorted(path.name for path in (tmp_path / "a.zarr/s/cube").iterdir())
    flat = [f"c.{frame}.{block}.0.0" for frame in range(2) for block in range(3)]
    assert found == ([*flat, "zarr.json"] if limit > 6 else ["c", "zarr.json"])
    assert np.array_equal(open_archive(tmp_path / "a.zarr")["s"].cube.values, cube)
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr/s/cube")[:], cube)


def test_a_file_that_does_not_belong_is_passed_over_without_a_warning(archive):
    path, cubes = archive
    (path / ".DS_Store").write_text("x")
    (path / "notes.txt").write_text("x")
    (path / "empty").mkdir()
    state_folder(path).rename(path.with_name("elsewhere"))
    assert set(open_archive(path)) == set(cubes)


def test_metadata_that_a_killed_process_left_half_written_are_removed(archive):
    archive, _ = archive
    session = archive / "s9"
    state_folder(archive).mkdir(exist_ok=True)
    left = [folder / ".zarr.json.ab3_x9zz" for folder in (archive, session, state_folder(archive))]
    other = session / ".notes.of.mine"
    for path in (*left, other):
        path.write_text("{")
    remove_leftovers(archive)
    assert [path for path in (*left, other) if path.exists()] == [other]
    remove_leftovers(archive.with_name("none.zarr"))
