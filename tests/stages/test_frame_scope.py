"""Frame-scope nodes give the frame's answer, whatever the block height and the worker."""

import numpy as np
import pytest
import zarr
from graphs import chain, rx_per_frame, rx_quantile
from recordings import scene, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.nodes import (
    GridSubsample,
    MinMaxNormalizer,
    QuantileBinaryDecider,
    RXGlobal,
    RXPerBatch,
    ScoreUpsample,
)
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score


def mahalanobis(x):
    centred = x - x.mean(axis=0)
    inverse = np.linalg.inv(np.cov(x.T))
    return np.einsum("ij,jk,ik->i", centred, inverse, centred)


def per_image_scaled(cube):
    x = cube.astype(np.float64)
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    return (x - low) / np.maximum(high - low, 1e-6)


@pytest.fixture(params=[16, 32, "frame"])
def archive(request, tmp_path, client):
    for i in range(3):
        write_npz(tmp_path / "in" / f"s{i}.npz", scene(i, lines=90, samples=60)[0])
    convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=request.param, client=client)
    return open_archive(tmp_path / "a.zarr")


def scored(pipeline, archive, store, client, **options):
    fit(pipeline, archive, client=client)
    result = score(pipeline, archive, store, client=client, **options)
    assert result.failed == 0
    return {n: g["scores"][0] for n, g in zarr.open_group(store, mode="r").groups()}, {
        n: g["decisions"][0]
        for n, g in zarr.open_group(store, mode="r").groups()
        if "decisions" in g
    }


def test_rx_per_frame(archive, tmp_path, client):
    scores, _ = scored(chain(RXPerBatch(name="rx", eps=0.0)), archive, tmp_path / "s.zarr", client)
    for i in range(3):
        x = scene(i, lines=90, samples=60)[0].reshape(-1, 8).astype(np.float64)
        np.testing.assert_allclose(scores[f"s{i}"].ravel(), mahalanobis(x), rtol=1e-6)


def test_normalisation_rx_and_quantile_per_frame(archive, tmp_path, client):
    scores, decisions = scored(rx_per_frame(), archive, tmp_path / "s.zarr", client)
    for i in range(3):
        x = per_image_scaled(scene(i, lines=90, samples=60)[0]).reshape(-1, 8)
        expected = mahalanobis(x)
        np.testing.assert_allclose(scores[f"s{i}"].ravel(), expected, rtol=1e-6)
        q = np.quantile(scores[f"s{i}"].ravel().astype(np.float64), 0.98)
        np.testing.assert_array_equal(decisions[f"s{i}"] == 1, scores[f"s{i}"] >= q)
        # A fixed share of the frame is flagged, not of each block.
        assert int((decisions[f"s{i}"] == 1).sum()) == 108


def test_global_background_behind_a_normaliser_per_frame(archive, tmp_path, client):
    pipeline = chain(
        MinMaxNormalizer(name="norm", use_running_stats=False),
        RXGlobal(name="rx", eps=0.0),
        QuantileBinaryDecider(name="decider", quantile=0.98),
    )
    scores, _ = scored(pipeline, archive, tmp_path / "s.zarr", client)
    frames = [per_image_scaled(scene(i, lines=90, samples=60)[0]).reshape(-1, 8) for i in range(3)]
    x = np.concatenate(frames)
    inverse = np.linalg.inv(np.cov(x.T))
    for i, frame in enumerate(frames):
        centred = frame - x.mean(axis=0)
        expected = np.einsum("ij,jk,ik->i", centred, inverse, centred)
        np.testing.assert_allclose(scores[f"s{i}"].ravel(), expected, rtol=2e-5)


def test_invalid_pixels_do_not_enter_a_frame(tmp_path, client):
    cube = np.maximum(scene(0, lines=90, samples=60)[0], 1)
    dirty = cube.copy()
    dirty[10:14, 5:50] = 0
    write_npz(tmp_path / "in" / "dirty.npz", dirty)
    convert(tmp_path / "in", tmp_path / "a.zarr", nodata=0, block_lines=16, client=client)
    scores, decisions = scored(
        rx_per_frame(), open_archive(tmp_path / "a.zarr"), tmp_path / "s.zarr", client
    )
    invalid = np.zeros((90, 60), dtype=bool)
    invalid[10:14, 5:50] = True
    assert np.isnan(scores["dirty"][invalid]).all()
    assert (decisions["dirty"][invalid] == 255).all()
    x = cube.astype(np.float64)[~invalid]
    low, high = x.min(axis=0), x.max(axis=0)
    expected = mahalanobis((x - low) / (high - low))
    np.testing.assert_allclose(scores["dirty"][~invalid], expected, rtol=1e-6)
    assert int((decisions["dirty"] == 1).sum()) == int(np.ceil((5400 - 180) * 0.02 - 1e-9))


def test_apply_gives_the_frame_answer_on_any_chunking(archive, tmp_path, client):
    pipeline = rx_quantile()
    fit(pipeline, archive, client=client)
    score(pipeline, archive, tmp_path / "s.zarr", client=client)
    stored = zarr.open_group(tmp_path / "s.zarr", mode="r")["s1"]
    cube = archive["s1"].cube
    for chunks in ({}, {"y": 7}, {"y": 33, "x": 10, "channel": 3}):
        lazy = pipeline.apply(cube.chunk(chunks), ("scores", "decisions")).compute()
        np.testing.assert_array_equal(lazy.scores.values, stored["scores"][:])
        np.testing.assert_array_equal(lazy.decisions.values, stored["decisions"][:])


def test_a_coarse_grid_is_fitted_and_scored_and_comes_back(archive, tmp_path, client):
    pipeline = chain(GridSubsample(4, name="grid"), RXGlobal(name="rx", eps=0.0))
    up = ScoreUpsample("nearest", 4, name="up")
    pipeline.connect(
        (pipeline.nodes["rx"].outputs.scores, up.inputs.scores),
        (pipeline.source.outputs.cube, up.inputs.reference),
    )
    scores, _ = scored(pipeline, archive, tmp_path / "s.zarr", client)
    thin = [scene(i, lines=90, samples=60)[0][::4, ::4].astype(np.float64) for i in range(3)]
    whole = np.concatenate([cube.reshape(-1, 8) for cube in thin])
    assert pipeline.nodes["rx"].state["count"] == len(whole)
    expected = mahalanobis(whole).reshape(3, *thin[0].shape[:2])
    for i in range(3):
        np.testing.assert_allclose(scores[f"s{i}"][::4, ::4], expected[i], rtol=1e-6)
