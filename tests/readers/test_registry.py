"""Which reader opens a file, and which recordings a command line names."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readers.envi_files import random_cube, shared_data, write_envi

from hsi_batch.errors import ConfigError, HsiBatchWarning, SourceError
from hsi_batch.readers import registry
from hsi_batch.readers.envi import EnviReader
from hsi_batch.readers.npz import NpzReader
from hsi_batch.readers.registry import (
    discover,
    known_suffixes,
    natural_key,
    open_source,
    reader_for,
)

CUBE = random_cube((4, 3, 2), "u2")


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, cube=CUBE)
    return str(path)


def names(discovery, folder):
    return [os.path.relpath(path, folder) for path in discovery.recordings]


# --- readers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a.hdr", EnviReader), ("A.HDR", EnviReader), ("a.raw.hdr", EnviReader), ("a.Npz", NpzReader)],
)
def test_reader_by_suffix(path, kind):
    assert isinstance(reader_for(path), kind)
    assert isinstance(reader_for(Path(path)), kind)


def test_cu3s_is_known_without_its_library():
    assert reader_for("a.cu3s").name == "cu3s"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a.cu3", "no reader for '.cu3' files; known are .cu3s, .hdr, .npz. Did you mean '.cu3s'?"),
        ("a.tif", "no reader for '.tif' files; known are .cu3s, .hdr, .npz."),
        ("folder/a", "no reader for a file without suffix; known are"),
    ],
)
def test_suffixes_that_are_not_known(path, words):
    with pytest.raises(SourceError) as caught:
        reader_for(path)
    assert str(caught.value).startswith(f"{path}: {words}")


def test_the_data_file_is_named_instead_of_its_header(tmp_path):
    write_envi(tmp_path, CUBE, name="a")
    write_envi(tmp_path, CUBE, name="b.img", data="")
    for data, header in (("a.raw", "a.hdr"), ("b.img", "b.img.hdr")):
        with pytest.raises(SourceError, match=f"Name the ENVI header instead: {header}."):
            reader_for(tmp_path / data)


def test_open_source(tmp_path):
    for path in (save(tmp_path / "a.npz"), write_envi(tmp_path, CUBE), tmp_path / "a.npz"):
        with open_source(path) as source:
            assert np.array_equal(source.frame(0).read(1, 3), CUBE[1:3])
    with pytest.raises(ConfigError, match="no processing modes"):
        open_source(tmp_path / "a.npz", mode="Raw")
    with pytest.raises(SourceError, match=r"missing.npz: no such file. Check the path"):
        open_source(tmp_path / "missing.npz")
    (tmp_path / "link.npz").symlink_to("nowhere.npz")
    with pytest.raises(SourceError, match=r"link.npz: a broken symbolic link"):
        open_source(tmp_path / "link.npz")


def test_readers_are_imported_when_they_are_needed():
    code = (
        "import sys; from hsi_batch.readers import registry; registry.reader_for('a.npz');"
        "heavy = {'spectral', 'PIL', 'xarray', 'pycocotools', 'cuvis', 'dask', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- readers of other packages ------------------------------------------------------------------

PLUGIN = """
class Reader:
    name = "toy"
    suffixes = (".Toy", ".NPZ")
    def skip_reason(self, path):
        raise RuntimeError("not now")
    def open(self, path, *, mode=None):
        return (path, mode)

instance = Reader()

class Lacking:
    name = "lacking"

class Wrong(Reader):
    suffixes = ".toy"
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Install entry points as a package would, in a folder on the path."""

    def install(**entries):
        folder = tmp_path / "site"
        (folder / "toys-1.0.dist-info").mkdir(parents=True)
        (folder / "toy_plugin.py").write_text(PLUGIN)
        (folder / "toys-1.0.dist-info" / "METADATA").write_text("Name: toys\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        text = f"[hsi_batch.readers]\n{lines}"
        (folder / "toys-1.0.dist-info" / "entry_points.txt").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        registry._plugins.cache_clear()

    yield install
    sys.modules.pop("toy_plugin", None)
    registry._plugins.cache_clear()


@pytest.mark.parametrize("value", ["toy_plugin:Reader", "toy_plugin:instance"])
def test_a_reader_of_another_package(plugins, tmp_path, value):
    plugins(toy=value)
    (tmp_path / "a.TOY").touch()
    assert reader_for("a.TOY").name == "toy"
    assert reader_for("a.npz").name == "npz"  # ours come first
    assert ".toy" in known_suffixes()
    assert open_source(tmp_path / "a.TOY", mode="m") == (str(tmp_path / "a.TOY"), "m")
    # What it raises while a folder is searched is no reason to leave its files out.
    assert names(discover([tmp_path]), tmp_path) == ["a.TOY"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_module:Reader", "ModuleNotFoundError"),
        ("toy_plugin:Nothing", "AttributeError"),
        ("toy_plugin:Lacking", "it is not a reader, it has no suffixes, skip_reason, open"),
        ("toy_plugin:Wrong", "its suffixes are '.toy'; expected a tuple"),
    ],
)
def test_a_broken_reader_does_not_break_the_others(plugins, value, words):
    plugins(broken=value, good="toy_plugin:Reader")
    with pytest.warns(HsiBatchWarning, match=rf"reader 'broken' \({value}\).*{words}"):
        assert reader_for("a.toy").name == "toy"
    assert reader_for("b.toy").name == "toy"  # and it is told once


# --- natural order ------------------------------------------------------------------------------


def test_numbers_count_as_numbers():
    ordered = ["a/b2", "a/b10", "a/b10c", "a_1/b1", "B", "b01", "b1", "b001x", "b20", "c"]
    assert sorted(set(ordered), key=natural_key) == ordered
    assert sorted({"s10/f2", "s9/f10", "s9/f9"}, key=natural_key) == ["s9/f9", "s9/f10", "s10/f2"]


@given(st.sets(st.text("ab019_/.", max_size=8)), st.randoms())
def test_any_names_have_one_order(texts, random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    shuffled.sort(key=natural_key)
    assert shuffled == sorted(texts, key=natural_key)


# --- discovery ----------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path, monkeypatch):
    for name in ("s10/scan_2", "s9/scan_10", "s9/scan_9", "s9/deep/er/scan_1"):
        save(tmp_path / f"{name}.npz")
    write_envi(tmp_path / "s9", CUBE, name="line")
    (tmp_path / "s9" / "notes.txt").touch()
    for hidden in (".hidden/a.npz", "s9/.a.npz", "out.zarr/a.npz", "out.zarr.hsi-batch/a.npz"):
        save(tmp_path / hidden)
    monkeypatch.chdir(tmp_path)
    return tmp_path


EVERYTHING = [
    "s9/deep/er/scan_1.npz",
    "s9/line.hdr",
    "s9/scan_9.npz",
    "s9/scan_10.npz",
    "s10/scan_2.npz",
]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["."], EVERYTHING),
        (["s9", "s10"], EVERYTHING),
        (["s10/../s9", "./s10/", "s9/scan_9.npz", "s*/scan_*.npz"], EVERYTHING),
        (["**/*.npz"], [name for name in EVERYTHING if name.endswith("npz")]),
        (["**"], EVERYTHING),
        (["*"], EVERYTHING),
        (["s9/*"], [name for name in EVERYTHING if name.startswith("s9")]),
        (["s9/scan_?.npz"], ["s9/scan_9.npz"]),
        (["s[19]*/scan_[29].npz"], ["s9/scan_9.npz", "s10/scan_2.npz"]),
        (["s9/line.hdr"], ["s9/line.hdr"]),
    ],
)
def test_patterns(archive, patterns, expected):
    found = discover(patterns)
    assert names(found, archive) == expected
    assert all(Path(path).is_absolute() for path in found.recordings)
    assert found.skipped == found.missing == ()


def test_paths_are_taken_as_well(archive):
    assert names(discover([archive / "s10"]), archive) == ["s10/scan_2.npz"]


def test_the_home_folder(archive, monkeypatch):
    monkeypatch.setenv("HOME", str(archive / "s9"))
    assert names(discover(["~/deep"]), archive) == ["s9/deep/er/scan_1.npz"]


def test_what_matches_nothing(archive):
    (archive / "empty").mkdir()
    found = discover(["no/such", "*.cu3s", "empty", "s10", "s9/*.txt"])
    assert found.missing == ("no/such", "*.cu3s", "empty", "s9/*.txt")
    assert names(found, archive) == ["s10/scan_2.npz"]


def test_wildcards_in_real_names(archive):
    save(archive / "run[1]" / "a*.npz")
    assert names(discover(["run[1]"]), archive) == ["run[1]/a*.npz"]
    assert names(discover(["run[1]/a*.npz"]), archive) == ["run[1]/a*.npz"]
    os.chdir(archive / "run[1]")
    assert names(discover(["*.npz"]), archive) == ["run[1]/a*.npz"]


def test_what_is_skipped(archive):
    write_envi(archive / "s9", CUBE, name="WHITEREF_line")
    (archive / "s9" / "map.hdr").write_text("BYTEORDER I\nNROWS 5\nNCOLS 5\n")
    np.savez(archive / "s9" / "other.npz", data=CUBE)
    found = discover(["s9", "s9/notes.txt", "s9/line.raw", "out.zarr"])
    assert "s9/line.hdr" in names(found, archive)
    reasons = {os.path.relpath(path, archive): reason for path, reason in found.skipped}
    assert list(reasons) == [
        "out.zarr",
        "s9/line.raw",
        "s9/map.hdr",
        "s9/notes.txt",
        "s9/other.npz",
        "s9/WHITEREF_line.hdr",
    ]
    assert reasons["out.zarr"] == "a store, not a folder of recordings"
    assert "Name the ENVI header instead: line.hdr" in reasons["s9/line.raw"]
    assert "Esri" in reasons["s9/map.hdr"]
    assert "no reader for '.txt' files" in reasons["s9/notes.txt"]
    assert "no array 'cube'" in reasons["s9/other.npz"]
    assert "white reference" in reasons["s9/WHITEREF_line.hdr"]
    assert found.missing == ()


def test_broken_recordings_are_not_skipped(archive):
    (archive / "s10" / "bad.npz").write_bytes(b"")
    (archive / "s10" / "bad.hdr").write_bytes(b"")
    found = names(discover(["s10"]), archive)
    assert found == ["s10/bad.hdr", "s10/bad.npz", "s10/scan_2.npz"]


def test_broken_links(archive):
    (archive / "s10" / "gone.npz").symlink_to("nowhere.npz")
    (archive / "s10" / "gone.txt").symlink_to("nowhere.txt")
    (archive / "s10" / "loop.npz").symlink_to("loop.npz")
    for patterns in (["s10"], ["s10/*.npz"], ["s10/gone.npz", "s10/loop.npz", "s10/scan_2.npz"]):
        found = discover(patterns)
        assert [(os.path.relpath(p, archive), r) for p, r in found.skipped] == [
            ("s10/gone.npz", "a broken symbolic link to nowhere.npz"),
            ("s10/loop.npz", "a broken symbolic link to loop.npz"),
        ]
        assert names(found, archive) == ["s10/scan_2.npz"]


def test_linked_folders(archive):
    (archive / "s10" / "up").symlink_to("..")
    (archive / "t").symlink_to("s10")
    assert len(discover(["."]).recordings) == len(EVERYTHING)
    assert "t/scan_2.npz" in names(discover(["t"]), archive)
    assert len(discover(["t", "s10"]).recordings) == len(EVERYTHING)


def test_linked_files(archive):
    (archive / "s10" / "same.npz").symlink_to("scan_2.npz")
    found = discover(["s10"])
    assert names(found, archive) == ["s10/scan_2.npz"]
    assert found.skipped[0][1] == f"a link to {archive / 's10/scan_2.npz'}, which is taken already"
    # A link into a place that is not searched is the recording.
    (archive / "s10" / "pool.npz").symlink_to("../.hidden/a.npz")
    assert names(discover(["s10"]), archive) == ["s10/pool.npz", "s10/scan_2.npz"]


def test_one_header_linked_for_several_data_files(archive):
    (archive / "s9" / "line_2.raw").write_bytes(bytes(48))
    (archive / "s9" / "line_2.hdr").symlink_to("line.hdr")
    assert names(discover(["s9/*.hdr"]), archive) == ["s9/line.hdr", "s9/line_2.hdr"]


def test_a_name_that_is_too_long(archive):
    found = discover(["x" * 300, "s10"])
    assert "cannot be reached" in found.skipped[0][1]
    assert names(found, archive) == ["s10/scan_2.npz"]


def test_nothing():
    assert discover([]) == registry.Discovery((), (), ())


def test_real_folder():
    found = discover([shared_data()])
    assert len(found.recordings) == 9
    assert [Path(path).name for path, _ in found.skipped] == ["arcgis.hdr"]
