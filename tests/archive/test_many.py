"""Archives of many sessions: what a worker opens of one does not grow with all."""

import json
import shutil
import sys

import numpy as np
import pytest
import zarr
from archive_helpers import cube_of, make_archive
from recordings import write_npz

from hsi_batch import Pipeline, convert, fit, open_archive, score
from hsi_batch.archive import gathering
from hsi_batch.archive.catalog import save_catalog
from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import ARCHIVE, open_member, open_root
from hsi_batch.errors import StoreError
from hsi_batch.nodes import AnomalyDataNode, PerPixelUnitNorm, RXGlobal


def test_a_session_is_opened_without_the_metadata_of_all(tmp_path, monkeypatch):
    make_archive(tmp_path / "a.zarr", {f"s{i}": cube_of(i, frames=1) for i in range(3)})
    read = []
    get = zarr.storage.LocalStore.get

    async def noted(self, key, *arguments, **options):
        read.append(key)
        return await get(self, key, *arguments, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", noted)
    session = Session.open(tmp_path / "a.zarr", "s1")
    assert (session.cube[:] == cube_of(1, frames=1)).all()
    assert read
    assert all(key.startswith("s1/") for key in read)


@pytest.mark.parametrize("name", ["", "s9", "s1/cube", "..", "/"])
def test_what_is_no_session(tmp_path, name):
    make_archive(tmp_path / "a.zarr", {"s1": cube_of(1, frames=1)})
    assert open_member(tmp_path / "a.zarr", name) is None
    with pytest.raises(StoreError, match="there is no such session"):
        Session.open(tmp_path / "a.zarr", name)
    with pytest.raises(StoreError, match="there is nothing here"):
        Session.open(tmp_path / "b.zarr", name)


_opened = []
_watching = []


def _hook(event, arguments):
    if event == "open" and _watching and isinstance(arguments[0], (str, bytes)):
        _opened.append(str(arguments[0]))


sys.addaudithook(_hook)


class Watched:
    """The files that are opened below a folder."""

    def __init__(self, folder):
        self.folder = f"{folder}/"

    def __enter__(self):
        _opened.clear()
        _watching.append(True)
        return self

    def __exit__(self, *_):
        _watching.clear()
        self.files = [file for file in _opened if file.startswith(self.folder)]


def graph():
    """A graph that cannot be fitted without a pass."""
    pipeline = Pipeline("g")
    data, norm, rx = AnomalyDataNode(name="d"), PerPixelUnitNorm(name="n"), RXGlobal(name="rx")
    pipeline.connect((data.outputs.cube, norm.data), (norm.normalized, rx.data))
    return pipeline


def test_plans_of_many_sessions_open_none_of_them(client, tmp_path):
    for i in range(12):
        write_npz(tmp_path / "in" / f"s{i}.npz", cube_of(i, frames=2))
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    pipeline = graph()
    done = fit(pipeline, tmp_path / "a.zarr", client=client)
    with Watched(tmp_path / "a.zarr") as watched:
        plan = fit(graph(), tmp_path / "a.zarr", dry_run=True, client=client)
        scoring = score(pipeline, tmp_path / "a.zarr", tmp_path / "s.zarr", dry_run=True)
        again = convert(tmp_path / "in", tmp_path / "a.zarr", dry_run=True, client=client)
    assert watched.files == []
    assert (plan.blocks, plan.bytes, plan.frames) == (done.blocks, done.bytes, 24)
    assert scoring.plan.blocks == done.blocks
    assert again.up_to_date == 12
    # A store that was copied has no catalog: what is planned is the same.
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "copy.zarr")
    copy = fit(graph(), tmp_path / "copy.zarr", dry_run=True, client=client)
    assert (copy.blocks, copy.bytes, copy.tasks) == (plan.blocks, plan.bytes, plan.tasks)


def test_the_root_gathers_what_zarr_would(tmp_path):
    root = make_archive(tmp_path / "a.zarr", {f"s{i}": cube_of(i, frames=1) for i in range(3)})
    ours = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())["consolidated_metadata"]
    with pytest.warns(zarr.errors.ZarrUserWarning, match="not part in the Zarr format 3"):
        zarr.consolidate_metadata(root.store)
    theirs = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())["consolidated_metadata"]
    assert ours == theirs
    assert list(ours["metadata"]) == list(theirs["metadata"])


def test_publishing_costs_what_is_new(tmp_path, monkeypatch):
    names = [f"s{i}" for i in range(6)]
    root = make_archive(tmp_path / "a.zarr", {n: cube_of(0, frames=1) for n in names})
    gathered = []
    below = gathering.metadata_below

    def gather(folder):
        gathered.append(folder.name)
        return below(folder)

    monkeypatch.setattr(gathering, "metadata_below", gather)
    Session.open(tmp_path / "a.zarr", "s3", "r+").group.attrs["flagged_pixels"] = 7
    consolidate(root)
    assert gathered == ["s3"]
    before = open_archive(tmp_path / "a.zarr").catalog
    with Watched(tmp_path / "a.zarr") as watched:
        save_catalog(tmp_path / "a.zarr", open_root(tmp_path / "a.zarr", ARCHIVE))
    below = {file.split("a.zarr/")[1] for file in watched.files}
    # Of the others only the heads are read.
    assert {f for f in below if not f.startswith("s3")} == {
        "zarr.json",
        *(f"{n}/zarr.json" for n in names if n != "s3"),
    }
    after = open_archive(tmp_path / "a.zarr").catalog
    assert after["flagged"].tolist() == [0, 0, 0, 7, 0, 0]
    columns = [c for c in after if c != "flagged"]
    assert after[columns].equals(before[columns])
    assert np.array_equal(after["session"], names)


def test_attributes_that_people_write_count_at_once(tmp_path):
    make_archive(tmp_path / "a.zarr", {n: cube_of(0, frames=1) for n in ("s0", "s1")})
    Session.open(tmp_path / "a.zarr", "s1", "r+").group.attrs["day"] = 3
    archive = open_archive(tmp_path / "a.zarr")
    assert archive.session("s1").attrs["day"] == 3
    assert "day" not in archive.session("s0").attrs


def test_a_session_that_was_taken_away_by_hand_is_told(tmp_path):
    make_archive(tmp_path / "a.zarr", {n: cube_of(0, frames=1) for n in ("s0", "s1")})
    shutil.rmtree(tmp_path / "a.zarr/s1")
    archive = open_archive(tmp_path / "a.zarr")
    for attempt in (lambda: archive.session("s1"), lambda: fit(graph(), archive, dry_run=True)):
        with pytest.raises(StoreError, match="metadata cannot be read") as caught:
            attempt()
        assert caught.value.session == "s1"
