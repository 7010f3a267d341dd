"""One recording under several names is one session: a pixel never counts twice."""

import json

import numpy as np
import pytest
from recordings import scene, write_envi, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.store import open_root
from hsi_batch.stages.convert import convert

NM = np.arange(8) * 10.0 + 400


@pytest.fixture
def folder(tmp_path):
    """An npz and an ENVI recording with labels, and a link to their folder."""
    write_npz(tmp_path / "real" / "n.npz", scene(1)[0], wavelength=NM)
    cube, mask = scene(2)
    write_envi(tmp_path / "real" / "e.hdr", cube, wavelength=NM, mask=mask)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "folder").symlink_to(tmp_path / "real")
    return tmp_path


def by_files(folder):
    """Links to every file, not to the folder."""
    other = folder / "files"
    other.mkdir(exist_ok=True)
    for name in ("n.npz", "e.hdr", "e.raw", "e_mask.png"):
        if not (other / name).is_symlink():
            (other / name).symlink_to(folder / "real" / name)
    return other


WAYS = {
    "folder": lambda folder: folder / "real",
    "link": lambda folder: folder / "links" / "folder",
    "above": lambda folder: folder / "links",
    "files": by_files,
}


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_converting_again_by_another_name(folder, client, first, second):
    archive = folder / "a.zarr"
    made = convert(WAYS[first](folder), archive, client=client)
    assert (len(made.converted), made.failed) == (2, 0)
    names = list(open_archive(archive))
    again = convert(WAYS[second](folder), archive, client=client)
    assert (len(again.converted), again.up_to_date, again.failed) == (0, 2, 0)
    assert list(open_archive(archive)) == names


def test_all_names_in_one_command(folder, client):
    made = convert(
        [WAYS[way](folder) for way in WAYS], folder / "a.zarr", dry_run=True, client=client
    )
    assert made.plan is not None
    assert len(made.plan.todo) == 2


def test_an_archive_that_does_not_say_where_links_lead(folder, client):
    # As one written before `source.resolved` was.
    archive = folder / "a.zarr"
    convert(WAYS["link"](folder), archive, client=client)
    root = open_root(archive, "hsi-batch-archive", "r+")
    for name, group in root.groups():
        source = dict(group.attrs["source"])
        assert source.pop("resolved").startswith(str(folder / "real")), name
        group.attrs["source"] = source
    consolidate(root)
    assert convert(WAYS["folder"](folder), archive, client=client).up_to_date == 2


def test_a_recording_that_changed_is_the_same_session(folder, client):
    archive = folder / "a.zarr"
    convert(WAYS["link"](folder), archive, client=client)
    cube = scene(7)[0]
    write_npz(folder / "real" / "n.npz", cube, wavelength=NM)
    again = convert(WAYS["folder"](folder), archive, client=client)
    assert (again.changed, again.up_to_date) == (("n",), 1)
    convert(WAYS["folder"](folder), archive, replace=True, client=client)
    found = open_archive(archive)
    assert len(found) == 2
    name = next(n for n in found if n.endswith("n"))
    np.testing.assert_array_equal(found[name].cube[0], cube)


def test_one_header_for_several_data_files_is_several_recordings(folder, client):
    write_envi(folder / "flat" / "a.hdr", scene(3)[0])
    (folder / "flat" / "b.hdr").symlink_to("a.hdr")
    scene(4)[0].transpose(0, 2, 1).tofile(folder / "flat" / "b.raw")
    archive = folder / "a.zarr"
    assert len(convert(folder / "flat" / "a.hdr", archive, client=client).converted) == 1
    assert len(convert(folder / "flat" / "b.hdr", archive, client=client).converted) == 1
    found = open_archive(archive)
    assert list(found) == ["a", "b"]
    assert json.loads((archive / "b" / "zarr.json").read_text())["attributes"]["complete"]
    np.testing.assert_array_equal(found["b"].cube[0], scene(4)[0])
