"""What docs/archive.md recommends opens stores without a warning, and shows them as they are."""

import json
import os
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from graphs import rx_quantile, rx_raw
from recordings import scene, write_cu3s, write_npz
from simulated_cuvis import Fault

from hsi_batch.archive import open_archive
from hsi_batch.archive.remove import remove_session
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

NM = np.arange(8) * 10.0 + 400


def opened(store):
    """Every session, opened in all three ways, which must show the same; arrays by session."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_datatree(store, engine="zarr", chunks={}) as tree:
            for name in tree.children:
                whole = tree[name].to_dataset(inherit=False).load()
                alone = xr.open_zarr(store / name).load()
                inside = xr.open_zarr(store, group=name).load()
                xr.testing.assert_identical(alone, whole)
                xr.testing.assert_identical(inside, whole)
                found[name] = alone
    for name, dataset in found.items():
        # And all that is there: each array has a file of metadata of its own.
        on_disk = {path.parent.name for path in (store / name).glob("*/zarr.json")}
        assert set(dataset.variables) == on_disk
        assert dataset.attrs["complete"]
    return found


@pytest.fixture
def archive(tmp_path, client):
    for i in range(3):
        write_npz(tmp_path / "in" / f"s{i}.npz", scene(i)[0], wavelength=NM)
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    return tmp_path / "a.zarr"


def test_archives(archive, tmp_path, client):
    assert {name: d.cube.shape for name, d in opened(archive).items()} == {
        f"s{i}": (1, 40, 30, 8) for i in range(3)
    }
    remove_session(archive, "s1")
    assert list(opened(archive)) == ["s0", "s2"]
    # Another shape, with labels and with flagged pixels, without wavelengths.
    cube, mask = scene(9, lines=24, bands=5)
    cube[3, 4] = 0
    write_npz(tmp_path / "in" / "s0.npz", cube, mask=mask)
    done = convert(tmp_path / "in", archive, nodata=0, replace=True, client=client)
    assert done.failed == 0
    found = opened(archive)
    assert list(found) == ["s0", "s1", "s2"]
    np.testing.assert_array_equal(found["s0"].cube[0], cube)
    np.testing.assert_array_equal(found["s0"].label[0], mask)
    assert {"quality", "label"} <= set(found["s0"].variables)
    assert "wavelength" not in found["s0"].variables


def test_frames_that_are_tried_again(tmp_path, client):
    frames = [scene(i)[0] for i in range(3)]
    path = write_cu3s(tmp_path / "s.cu3s", frames, faults=[Fault("get_mesu", frame=1)])
    archive = tmp_path / "a.zarr"
    assert convert(path, archive, client=client).failed == 1
    assert opened(archive)["s"].quality.any(("y", "x")).values.tolist() == [False, True, False]
    # What kept the frame from being read is mended; the file keeps its size and time stamp.
    stamp, size = path.stat(), len(path.read_bytes())
    write_cu3s(path, frames)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert convert(path, archive, only_failed=True, client=client).failed == 0
    # Nothing is flagged any more, so the array of flags is gone.
    assert "quality" not in opened(archive)["s"].variables


def test_a_run_that_is_killed_before_it_publishes(archive, tmp_path, client, monkeypatch):
    write_npz(tmp_path / "in" / "s9.npz", scene(9)[0], wavelength=NM)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hsi_batch.stages.convert.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "in", archive, client=client)
    assert list(open_archive(archive)) == ["s0", "s1", "s2", "s9"]
    assert convert(tmp_path / "in", archive, client=client).up_to_date == 4
    assert list(opened(archive)) == ["s0", "s1", "s2", "s9"]


def test_scores(archive, tmp_path, client):
    pipeline = rx_raw()
    fit(pipeline, archive, client=client)
    scores = tmp_path / "s.zarr"
    score(pipeline, archive, scores, frames="s0", client=client)
    assert {n: set(d.variables) for n, d in opened(scores).items()} == {"s0": {"scores"}}
    score(pipeline, archive, scores, client=client)
    first = opened(scores)
    assert list(first) == ["s0", "s1", "s2"]
    # Other outputs: every session is made again.
    other = rx_quantile()
    fit(other, archive, client=client)
    score(other, archive, scores, client=client)
    second = opened(scores)
    assert {n: set(d.variables) for n, d in second.items()} == {
        name: {"scores", "decisions"} for name in first
    }


def test_metadata_that_were_gathered_and_are_no_longer_true(archive):
    # Someone added an array through plain zarr.
    group = zarr.open_group(archive / "s0", mode="r+", use_consolidated=False)
    group.create_array("mine", shape=(3,), dtype="f4", dimension_names=("a",))
    assert open_archive(archive).session("s0").optional("mine") is not None
    meta = json.loads((archive / "s0" / "zarr.json").read_text())
    assert meta["attributes"]["complete"]
