"""Names of sessions are safe, unique and stable, whatever the files are called."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np
import pytest
from archive_helpers import cube_of, make_archive
from hypothesis import example, given
from hypothesis import strategies as st

from hsi_batch.archive import open_archive
from hsi_batch.archive.names import session_names
from hsi_batch.errors import ConfigError

SAFE = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]*")
#: Parts of paths that are likely to collide, and anything else that a file system takes.
PARTS = st.sampled_from(
    [
        "a",
        "A",
        "a-2",
        "a_2",
        "a 2",
        "a-b",
        "b",
        "ä",
        "é",
        "_",
        "__a",
        ".a",
        "_.",
        "_..",
        "zarr.json",
    ]
) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=120
).filter(lambda part: part not in (".", ".."))
PATHS = st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def files(paths, suffix=".hdr"):
    return [path + suffix for path in paths]


@given(st.lists(PATHS, max_size=12, unique=True).map(files))
@example(["/_...hdr"])
@example(["/_..hdr", "/x.hdr"])
@example(["/zarr.json.hdr"])
@example([f"/{'a' * 300}.hdr", f"/{'a' * 301}.hdr"])
def test_names_are_unique_and_safe_for_any_files(paths):
    names = session_names(paths)
    assert names.keys() == set(paths)
    # Some file systems fold case.
    assert len({name.casefold() for name in names.values()}) == len(paths)
    for name in names.values():
        assert SAFE.fullmatch(name)
        # A file system's limit is 255; `.hsi-batch` and the like are appended.
        assert len(name) <= 200
        assert name.casefold() != "zarr.json"


@given(st.lists(PATHS, max_size=8, unique=True).map(files), st.randoms(use_true_random=False))
def test_names_do_not_depend_on_the_order_of_the_files(paths, random):
    assert session_names(random.sample(paths, len(paths))) == session_names(paths)


@given(st.lists(PATHS, min_size=1, max_size=8, unique=True).map(files), st.data())
def test_files_keep_the_names_they_have(paths, data):
    first = data.draw(st.lists(st.sampled_from(paths), unique=True))
    before = session_names(first, "/")
    after = session_names(paths, "/", {name: path for path, name in before.items()})
    assert {path: after[path] for path in first} == before
    assert len({name.casefold() for name in after.values()}) == len(paths)


@given(st.lists(PATHS, min_size=1, max_size=6).map(files))
def test_a_file_given_twice_is_one_session(paths):
    assert session_names([*paths, *paths]) == session_names(dict.fromkeys(paths))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/d/a/r.hdr", "/d/b/r.hdr"], ["a-r", "b-r"]),
        (["/d/r.hdr", "/d/r.npz"], ["r", "r-2"]),
        (["/d/Scan.hdr", "/d/scan.hdr"], ["Scan", "scan-2"]),
        (["/d/a/b.hdr", "/d/a-b.hdr"], ["a-b", "a-b-2"]),
        (["/d/two words.hdr"], ["two_words"]),
        (["/d/ä.hdr", "/d/ö.hdr"], ["x", "x-2"]),
        (["/d/2024.05.01.hdr"], ["2024.05.01"]),
        (["/d/x/.hidden/r.hdr"], ["r"]),
        (["/d/_private.hdr"], ["private"]),
    ],
)
def test_names_say_where_the_file_is(paths, names):
    assert sorted(session_names(paths).values()) == names


def test_names_are_counted_from_the_root_that_is_given():
    assert session_names(["/d/a/r.hdr"], "/d") == {"/d/a/r.hdr": "a-r"}
    with pytest.raises(ConfigError, match=r"/d/a/r\.hdr is not below the root /e"):
        session_names(["/d/a/r.hdr"], "/e")


def test_a_root_that_is_the_file_itself_is_refused():
    with pytest.raises(ConfigError, match=r"/d/r\.hdr is not below the root /d/r\.hdr"):
        session_names(["/d/r.hdr"], "/d/r.hdr")


def test_names_of_odd_files_work_as_groups_of_a_store(tmp_path):
    stems = ["_..", "zarr.json", "ä ö", "a" * 250, "b" * 250 + "1", "b" * 250 + "2", "-x", "CON"]
    paths = [f"/{stem}.hdr" for stem in stems]
    names = session_names(paths)
    cubes = {names[path]: cube_of(i, frames=1) for i, path in enumerate(paths)}
    make_archive(tmp_path / "a.zarr", cubes)
    archive = open_archive(tmp_path / "a.zarr")
    assert set(archive) == set(cubes)
    for name, cube in cubes.items():
        assert np.array_equal(archive[name].cube.values, cube)
        assert (tmp_path / "a.zarr" / name / "zarr.json").is_file()
    assert len(archive.select(",".join(names.values()))) == len(paths)


def test_long_names_keep_their_beginning():
    (name,) = session_names([f"/d/{'/'.join(['folder'] * 60)}/scan.hdr"], "/d").values()
    assert name.startswith("folder-folder-")
    assert PurePosixPath(name).name == name
