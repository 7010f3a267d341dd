"""Init, slices in processes of their own, finalise: the same three steps, and the same result."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from commands import command, start
from comparing import assert_same, maps_of
from hypothesis import given
from hypothesis import strategies as st
from recordings import scene, write_envi

from hsi_batch.archive.store import state_folder
from hsi_batch.errors import ConfigError
from hsi_batch.stages.slices import Slice
from hsi_batch.stages.verify import verify
from hsi_batch.workflow import run_workflow
from hsi_batch.workflow_steps import finalise_stage, init_stage

PIPELINE = Path(__file__).parents[2] / "workflows" / "pipelines" / "rx_statistical.yaml"


def make_site(folder, sessions=3, lines=40):
    folder.mkdir()
    for index in range(sessions):
        cube, mask = scene(index, lines=lines)
        axis = np.linspace(400, 900, cube.shape[-1])
        write_envi(folder / "rec" / f"s{index}.hdr", cube, wavelength=axis, mask=mask)
    path = folder / "workflow.yaml"
    path.write_text(
        f"archive: a.zarr\nsources: rec\npipeline: {PIPELINE}\n"
        "fit: {out: fitted.yaml}\nscore: {out: s.zarr}\n"
    )
    return path


def owned(lease):
    with contextlib.suppress(FileNotFoundError, ValueError):
        return bool(json.loads(lease.read_text()))
    return False


def steps(path, stage, count, numbers=None):
    prepared = init_stage(path, stage, count)
    assert prepared.prepared == count
    assert "then finalise" in str(prepared)
    for number in numbers or range(1, count + 1):
        done = command("slice", f"{number}/{count}", path, "--stage", stage)
        assert done.code == 0, done
    return finalise_stage(path, stage)


@pytest.mark.timeout(600)
def test_slices_give_what_a_run_gives(tmp_path, client):
    whole, sliced = (make_site(tmp_path / name) for name in ("whole", "sliced"))
    run_workflow(whole, client=client)
    assert steps(sliced, "convert", 2).failed == 0
    fit = ["--set", "score=null"]
    run_workflow(sliced, fit[1:], client=client)
    assert steps(sliced, "score", 2, (2, 1)).failed == 0
    for store in ("a.zarr", "s.zarr"):
        assert_same(maps_of(whole.parent / store), maps_of(sliced.parent / store))
        assert not (state_folder(sliced.parent / store) / "slices").exists()
    # Hashes of sources, labels, flags: all that only one process may write.
    for session in ("s0", "s1", "s2"):
        first, second = (
            json.loads((p.parent / "a.zarr" / session / "zarr.json").read_text())["attributes"]
            for p in (whole, sliced)
        )
        assert first["source"]["sha256"] == second["source"]["sha256"] != ""
        for name in ("complete", "flagged_pixels", "flags", "labelled_frames", "failed_frames"):
            assert first[name] == second[name], name
        assert second["complete"] is True
    again = run_workflow(sliced, client=client)
    assert again.convert.blocks == again.score.blocks == 0
    for store in ("a.zarr", "s.zarr"):
        assert verify(sliced.parent / store, deep=True, client=client).damages == ()


@pytest.mark.timeout(600)
def test_what_is_missing_killed_or_taken_is_told(tmp_path, client):
    path = make_site(tmp_path / "site", sessions=4, lines=400)
    early = command("slice", "1/2", path)
    assert early.code == 3
    assert "init" in early.err
    init_stage(path, "convert", 2)
    assert "2 slices were prepared" in command("slice", "1/3", path).err
    assert command("slice", "1/2", path).code == 0
    missing = command("finalise", path)
    assert missing.code == 3
    assert "are not done, the first is s2" in missing.err
    # A slice that is killed is done again, and its lease is that of a dead one.
    process = start("slice", "2/2", path)
    lease = state_folder(path.parent / "a.zarr") / "slices" / "slice-000002-of-000002" / "lock.json"
    deadline = time.monotonic() + 60
    # Wholly written, or it would be nobody's; without a pause, for the slice is done soon.
    while not (lease.exists() and owned(lease)) and time.monotonic() < deadline:
        assert process.poll() is None
    process.send_signal(signal.SIGSTOP)
    second, whole = command("slice", "2/2", path), command("finalise", path)
    assert (second.code, whole.code) == (3, 3)
    assert "slice 2/2 of convert" in second.err
    assert "slices of another run are at work" in whole.err
    process.kill()
    process.communicate()
    assert command("slice", "2/2", path).code == 0
    said = command("finalise", path)
    assert (said.code, "4 sessions converted" in said.out) == (0, True)
    reference = make_site(tmp_path / "reference", sessions=4, lines=400)
    run_workflow(reference, ["fit=null", "score=null"], client=client)
    assert_same(maps_of(reference.parent / "a.zarr"), maps_of(path.parent / "a.zarr"))


@given(st.lists(st.integers(0, 10**9)), st.integers(1, 40))
def test_every_item_is_in_one_slice(sizes, count):
    items = list(enumerate(sizes))
    found = [Slice(k, count).of_items(items, lambda item: item[1]) for k in range(1, count + 1)]
    assert sorted(item for part in found for item in part) == items


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_what_is_no_slice_is_refused(text):
    with pytest.raises(ConfigError, match="no slice"):
        Slice.parse(text)
