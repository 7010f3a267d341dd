"""Stores that hold scores of several fits, of parts of frames, of nothing valid; damage in them."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from graphs import pca, rx_raw, rx_statistical
from recordings import scene, write_envi, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.archive.remove import remove_session
from hsi_batch.archive.store import state_folder
from hsi_batch.errors import DataWarning
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.report import report
from hsi_batch.stages.score import score
from hsi_batch.stages.verify import verify


@pytest.fixture
def archive(tmp_path, client):
    for i in range(3):
        cube, mask = scene(i, lines=70, samples=60)
        write_npz(tmp_path / "in" / f"s{i}.npz", cube, mask=mask)
    convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=32, client=client)
    return open_archive(tmp_path / "a.zarr")


def fitted(graph, archive, client, frames=None):
    pipeline = graph()
    result = fit(pipeline, archive, frames=frames, client=client)
    assert result.passes == 0 or result.blocks > 0
    return pipeline


def summary(store):
    return pd.read_parquet(state_folder(store) / "summary.parquet")


def test_scores_of_another_pipeline_are_left_out_and_named(archive, tmp_path, client):
    store = tmp_path / "s.zarr"
    first = fitted(rx_statistical, archive, client)
    assert score(first, archive, store, client=client).evaluated == 3
    second = fitted(rx_raw, archive, client, frames="s1")
    result = score(second, archive, store, frames="s1", client=client)
    assert result.stale == ("s0", "s2")
    assert "left out of the summary: s0, s2" in str(result)
    assert "precision" not in result.metrics, "this pipeline decides nothing"
    assert list(summary(store)["session"]) == ["s1"]
    report(store, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "left out" in page
    assert "1 frames of 1 sessions" in page
    damages = verify(store, deep=True, client=client).damages
    assert {d.place for d in damages} == {"s0", "s2"}
    assert all("another pipeline" in d.problem for d in damages)
    whole = score(second, archive, store, client=client)
    assert (whole.stale, whole.evaluated) == ((), 3)
    assert verify(store, deep=True, client=client).sound


def test_a_session_that_left_the_archive_leaves_the_summary(archive, tmp_path, client):
    store = tmp_path / "s.zarr"
    pipeline = fitted(rx_raw, archive, client)
    score(pipeline, archive, store, client=client)
    remove_session(tmp_path / "a.zarr", "s0")
    archive = open_archive(tmp_path / "a.zarr")
    with pytest.warns(DataWarning, match="since the pipeline was fitted: s0 is gone"):
        result = score(pipeline, archive, store, client=client)
    assert (result.blocks, result.stale) == (0, ("s0",))
    assert list(summary(store)["session"]) == ["s1", "s2"]


def values(store, session):
    return zarr.open_group(store, mode="r")[session]["scores"][0]


def test_selected_lines_alone_are_scored_and_what_was_stays(archive, tmp_path, client):
    pipeline = fitted(rx_raw, archive, client)
    score(pipeline, archive, tmp_path / "all.zarr", client=client)
    expected = values(tmp_path / "all.zarr", "s1")
    store = tmp_path / "s.zarr"
    result = score(pipeline, archive, store, frames="s1[0][y=10:40]", client=client)
    found = values(store, "s1")
    np.testing.assert_array_equal(found[10:40], expected[10:40])
    assert np.isnan(found[:10]).all()
    assert np.isnan(found[40:]).all()
    row = summary(store).iloc[0]
    assert (row["pixels"], row["valid"]) == (30 * 60, 30 * 60)
    labels = scene(1, lines=70, samples=60)[1][10:40]
    assert row["labelled"] == labels.size
    assert row["anomalous"] == labels.sum()
    assert result.blocks == 2
    again = score(pipeline, archive, store, frames="s1[0][y=12:30]", client=client)
    assert again.blocks == 0
    more = score(pipeline, archive, store, frames="s1[0][y=5:12]", client=client)
    assert more.blocks == 1
    found = values(store, "s1")
    np.testing.assert_array_equal(found[5:40], expected[5:40])
    assert np.isnan(found[:5]).all()
    assert verify(store, deep=True, client=client).sound
    rest = score(pipeline, archive, store, client=client)
    assert rest.blocks == 3 * 3
    np.testing.assert_array_equal(values(store, "s1"), expected)


def test_a_session_without_a_valid_pixel_has_a_row(tmp_path, client):
    write_envi(tmp_path / "in" / "good.hdr", scene(1, dtype="float32")[0])
    bad = np.full((20, 30, 8), np.nan, dtype=np.float32)
    write_envi(tmp_path / "in" / "bad.hdr", bad)
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    archive = open_archive(tmp_path / "a.zarr")
    store = tmp_path / "s.zarr"
    result = score(fitted(rx_raw, archive, client), archive, store, client=client)
    assert result.evaluated == 2
    rows = summary(store).set_index("session")
    assert rows.loc["bad", "valid"] == 0
    assert rows.loc["bad", "pixels"] == 600
    assert np.isnan(rows.loc["bad", "score_max"])
    report(store, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "2 frames of 2 sessions, 1800 pixels" in page
    assert "1200 (66.67 %)" in page
    assert "without a valid pixel" in page


@pytest.mark.parametrize("deep", [False, True])
def test_lost_and_exchanged_chunks_of_scores_are_found(archive, tmp_path, client, deep):
    store = tmp_path / "s.zarr"
    score(fitted(rx_statistical, archive, client), archive, store, client=client)
    assert verify(store, deep=deep, client=client).sound
    chunks = store / "s1" / "scores"
    (store / "s0" / "scores" / "c.0.1.0").unlink()
    for name in ("scores", "decisions"):
        (store / "s2" / name / "c.0.0.0").unlink()
    # A sound chunk in the wrong place.
    (chunks / "c.0.0.0").write_bytes((chunks / "c.0.1.0").read_bytes())
    found = {d.place: d.problem for d in verify(store, deep=deep, client=client).damages}
    assert set(found) == {"s0[0][y=32:64]", "s2[0][y=0:32]", "s1[0][y=0:32]"}
    assert "missing" in found["s0[0][y=32:64]"]
    assert "differs" in found["s1[0][y=0:32]"]


def test_a_copy_without_run_state_can_be_verified(archive, tmp_path, client):
    store = tmp_path / "s.zarr"
    score(fitted(rx_raw, archive, client), archive, store, client=client)
    copy = store.rename(tmp_path / "copy.zarr")
    assert verify(copy, deep=True, client=client).sound


def test_maps_of_another_shape_in_the_same_store(archive, tmp_path, client):
    """Workers live on between runs; what they hold of the last one must not be used."""
    store = tmp_path / "s.zarr"
    for components in (2, 4, 3):
        pipeline = pca(components)
        fit(pipeline, archive, client=client)
        score(pipeline, archive, store, outputs="pca.projected", client=client)
        maps = zarr.open_group(store, mode="r")["s0"]["pca.projected"]
        assert maps.shape[-1] == components
        assert np.isfinite(maps[:]).all()
        assert verify(store, deep=True, client=client).sound
        again = score(pipeline, archive, store, outputs="pca.projected", client=client)
        assert again.blocks == 0


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_stopped_before_its_summary_is_finished(archive, tmp_path, client, force):
    store = tmp_path / "s.zarr"
    pipeline = fitted(rx_raw, archive, client)
    if force:
        score(pipeline, archive, store, client=client)

    def stop(progress):
        if progress.stage == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(pipeline, archive, store, client=client, observer=stop, force=force)
    assert set(xr.open_datatree(store, engine="zarr").children) == {"s0", "s1", "s2"}
    again = score(pipeline, archive, store, client=client)
    assert (again.blocks, again.evaluated) == (0, 3)
    assert again.metrics["auc"] > 0.5
    assert len(summary(store)) == 3
