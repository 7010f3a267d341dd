"""Coarser grids and the way back, against NumPy slices and torch's interpolation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from graph_helpers import Box, box, extra_nodes, fit, flat, labelled, mahalanobis, run, scene  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import (
    BinaryDecider,
    ChannelAxis,
    CU3SDataNode,
    GridSubsample,
    KMeansClusterer,
    MinMaxNormalizer,
    RXGlobal,
    RXPerBatch,
    ScoreMapFusion,
    ScoreToLogit,
    ScoreUpsample,
    SpectralValidity,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit


def coarse(*nodes, stride=3, before=(), mode="bilinear", step=None):
    """data -> before -> grid -> nodes -> up, with the cube as reference."""
    pipeline = Pipeline("test")
    data = CU3SDataNode(name="data")
    last = data.outputs.cube
    for node in (*before, GridSubsample(stride, name="grid"), *nodes):
        pipeline.connect((last, node.inputs[next(iter(node.INPUT_SPECS))]))
        ends = node.AFFINE or node.QUADRATIC
        last = node.outputs[ends[1] if ends else next(iter(node.OUTPUT_SPECS))]
    up = ScoreUpsample(mode, step, name="up")
    pipeline.connect((last, up.inputs.scores), (data.outputs.cube, up.inputs.reference))
    return pipeline


def resized(values, size, mode="bilinear"):
    maps = torch.from_numpy(np.asarray(values, np.float64)).permute(2, 0, 1)[None]
    align = None if mode == "nearest" else False
    found = F.interpolate(maps, size=size, mode=mode, align_corners=align)
    return found[0].permute(1, 2, 0).numpy()


@settings(max_examples=12)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 70),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from([None, 1, 2]),
    st.sampled_from(["bilinear", "bicubic", "nearest"]),
)
def test_values_of_the_grid_come_back_at_full_size(seed, height, width, stride, block, mode):
    cube = scene(height, width, 2, seed, "float32")
    pipeline = coarse(stride=stride, mode=mode)
    pipeline.resolve(ChannelAxis(2))
    found = run(pipeline, "up.scores", cube=cube, block=block)
    assert found.shape == cube.shape
    expected = resized(cube[::stride, ::stride], (height, width), mode)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 20]), st.sampled_from([None, 1]))
def test_fits_behind_it_count_its_pixels_alone(seed, stride, block):
    cubes = [scene(70, 33, 3, seed), scene(41, 33, 3, seed + 1)]
    node = RXGlobal(eps=0.0, loading=1e-6, name="rx")
    pipeline = coarse(node, stride=stride, before=(MinMaxNormalizer(name="norm"),))
    assert fit(pipeline, *cubes, block=block).passes == 2
    thin = np.concatenate([flat(cube[::stride, ::stride]) for cube in cubes])
    assert node.state["count"] == len(thin)
    x = np.concatenate([flat(cube) for cube in cubes])
    low, high = x.min(), x.max()
    scores = mahalanobis(
        (flat(cubes[1][::stride, ::stride]) - low) / (high - low),
        (thin - low) / (high - low),
        loading=1e-6,
    )
    shape = cubes[1][::stride, ::stride].shape[:2]
    expected = resized(scores.reshape(*shape, 1), (41, 33))
    got = run(pipeline, "up.scores", cube=cubes[1], block=block)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_invalid_pixels_are_left_out_and_bridged():
    cube = scene(40, 30, 3)
    valid = np.random.default_rng(1).random((40, 30)) < 0.7
    valid[:9, :9] = False
    node = RXGlobal(name="rx")
    pipeline = coarse(node, stride=4)
    fit(pipeline, cube, valid=valid, block=1)
    assert node.state["count"] == valid[::4, ::4].sum()
    np.testing.assert_allclose(
        node.state["mean"], flat(cube[::4, ::4])[valid[::4, ::4].ravel()].mean(axis=0)
    )
    found = run(pipeline, "up.scores", cube=cube, valid=valid, block=1)[..., 0]
    known = valid[::4, ::4].astype(float)[..., None]
    scores = mahalanobis(
        flat(cube[::4, ::4]), flat(cube[::4, ::4])[valid[::4, ::4].ravel()], eps=1e-6
    )
    share = resized(known, (40, 30))
    with np.errstate(invalid="ignore"):
        expected = resized(known * scores.reshape(known.shape), (40, 30)) / share
    np.testing.assert_allclose(found, expected[..., 0], rtol=1e-4)
    assert np.isnan(found[0, 0])
    assert np.isfinite(found[20:, 12:][valid[20:, 12:]]).mean() > 0.9


@pytest.mark.usefixtures("extra_nodes")
def test_windows_before_and_behind_and_grids_of_grids():
    cube = scene(130, 70, 2, dtype="float32")
    pipeline = coarse(
        GridSubsample(2, name="again"), Box(2, name="small"), stride=3, before=(Box(1, name="box"),)
    )
    pipeline.resolve(ChannelAxis(2))
    expected = resized(box(box(cube, 1)[::3, ::3][::2, ::2], 2), (130, 70))
    found = [run(pipeline, "up.scores", cube=cube, block=block) for block in (None, 1)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(*found)


def test_frame_nodes_and_measures_behind_it():
    cube = scene(60, 50, 3)
    pipeline = coarse(RXPerBatch(0.0, name="rx"), stride=2)
    pipeline.resolve(ChannelAxis(3))
    thin = cube[::2, ::2]
    expected = resized(mahalanobis(flat(thin)).reshape(30, 25, 1), (60, 50))
    np.testing.assert_allclose(run(pipeline, "up.scores", cube=cube), expected, rtol=1e-4)
    node = KMeansClusterer(2, name="km")
    pipeline = Pipeline("test")
    data, grid = CU3SDataNode(name="data"), GridSubsample(2, name="grid")
    pipeline.connect((data.outputs.cube, grid.inputs.cube), (grid.outputs.cube, node.inputs.cube))
    fit(pipeline, cube)
    assert node.state["counts"].sum() == 30 * 25


def test_scores_of_full_size_go_on():
    cube = scene(50, 40, 3)
    rx, logit = RXGlobal(name="rx"), ScoreToLogit(name="logit")
    pipeline = coarse(rx, stride=4)
    pipeline.connect(
        (pipeline.nodes["up"].outputs.scores, logit.inputs.scores),
        (logit.outputs.logits, (decide := BinaryDecider(0.5, name="decide")).inputs.logits),
    )
    fit(pipeline, cube)
    # `scores` are those that can be stored, of whole cubes.
    lazy = pipeline.apply(labelled(cube), ("scores", "decisions"))
    assert lazy["scores"].shape == (50, 40)
    scores = lazy["scores"].compute().to_numpy()
    np.testing.assert_array_equal(scores, run(pipeline, "up.scores", cube=cube)[..., 0])
    limit = scores.astype(float).mean() + 2 * scores.astype(float).std(ddof=1)
    assert float(logit.state["bias"]) == pytest.approx(limit, rel=1e-5)
    assert 0 < (lazy["decisions"].compute().to_numpy() == 1).mean() < 0.2
    assert decide.threshold == 0.5
    eager = pipeline.forward({"cube": torch.from_numpy(cube.astype("f4"))[None]})
    np.testing.assert_allclose(eager[pipeline.port("up.scores")][0, ..., 0], scores, rtol=1e-3)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_values_stay_at_their_pixels_with_a_stride(mode):
    ramp = np.add.outer(np.arange(23.0) * 3, np.arange(18.0))[..., None].astype("f4")
    thin = ramp[::4, ::4]
    node = ScoreUpsample(mode, 4)
    found = node(scores=torch.from_numpy(thin)[None], reference=torch.zeros(1, 23, 18, 7))
    values = found["scores"][0, ..., 0].numpy()
    np.testing.assert_allclose(values[::4, ::4], thin[..., 0], atol=1e-5)
    if mode == "bilinear":
        y, x = np.arange(0, 23, 4), np.arange(0, 18, 4)
        table = RegularGridInterpolator((y, x), thin[..., 0].astype(float))
        points = np.stack(
            np.meshgrid(
                np.minimum(np.arange(23), y[-1]), np.minimum(np.arange(18), x[-1]), indexing="ij"
            ),
            -1,
        )
        np.testing.assert_allclose(values, table(points), atol=1e-5)
        one = ScoreUpsample(mode, 9)(
            scores=torch.full((1, 1, 1, 1), 5.0), reference=torch.zeros(1, 4, 3, 1)
        )
        assert (one["scores"] == 5).all()


def test_saved_and_loaded(tmp_path):
    cube = scene(30, 20, 3)
    pipeline = coarse(RXGlobal(name="rx"), stride=3, mode="nearest", step=3)
    fit(pipeline, cube)
    pipeline.save(tmp_path / "grid.yaml")
    back = Pipeline.from_yaml(tmp_path / "grid.yaml")
    np.testing.assert_array_equal(
        run(back, "up.scores", cube=cube), run(pipeline, "up.scores", cube=cube)
    )


def test_what_is_refused():
    for call, text in (
        (lambda: GridSubsample(0), "stride 0 is not a whole number"),
        (lambda: GridSubsample(1.5), "stride 1.5 is not"),
        (lambda: ScoreUpsample("area"), "mode 'area' is not"),
        (lambda: ScoreUpsample(stride=0), "stride 0 must be at least 1"),
    ):
        with pytest.raises(PipelineError, match=text):
            call()
    cube = scene(30, 20, 3)
    pipeline = coarse(RXGlobal(name="rx"))
    fit(pipeline, cube)
    with pytest.raises(PipelineError, match=r"rx\.scores holds one pixel in 3 x 3"):
        pipeline.apply(labelled(cube), "rx.scores")
    mixed = coarse(RXGlobal(name="rx"), stride=4)
    mixed.connect(
        (mixed.nodes["up"].outputs.scores, (fuse := ScoreMapFusion(name="fuse")).inputs.scores),
        (mixed.nodes["rx"].outputs.scores, fuse.inputs.scores),
    )
    with pytest.raises(ConfigError, match=r"inputs of fuse are maps of different size: up\.scores"):
        mixed.resolve(ChannelAxis(3))
    judged = coarse(RXGlobal(name="rx"))
    judge = SpectralValidity(name="judge")
    judged.connect((judged.nodes["grid"].outputs.cube, judge.inputs.cube))
    with pytest.raises(ConfigError, match="judge marks the pixels that are fitted on"):
        plan_fit(judged)
