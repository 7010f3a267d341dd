"""Local RX against a loop over pixels in float64, alone and in blocks."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, labelled, run, scene, source_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import ChannelAxis, LocalRX, MinMaxNormalizer, Scope, ScoreToLogit
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.program import compile_program


def reference(cube, guard, outer, shrinkage=0.0, loading=0.0, valid=None):
    """A naive loop."""
    height, width, channels = cube.shape
    wide = cube.astype(np.float64)
    good = np.isfinite(wide).all(axis=2) & (True if valid is None else valid)
    shared = np.atleast_2d(np.cov(wide[good], rowvar=False))
    scores = np.full((height, width), np.nan)
    for y, x in zip(*np.nonzero(good), strict=True):
        far = {}
        for name, side in (("outer", outer), ("guard", guard)):
            r = side // 2
            mask = np.zeros((height, width), bool)
            mask[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1] = True
            far[name] = mask
        ring = wide[far["outer"] & ~far["guard"] & good]
        if len(ring) < 2:
            continue
        covariance = np.atleast_2d(np.cov(ring, rowvar=False))
        whole = (1 - shrinkage) * covariance + shrinkage * shared
        whole += loading * np.trace(covariance) / channels * np.eye(channels)
        values = np.linalg.eigvalsh(whole)
        if values[0] > 1e-12 * values[-1]:
            centred = wide[y, x] - ring.mean(axis=0)
            scores[y, x] = centred @ np.linalg.solve(whole, centred)
    return scores


def forward(node, cube):
    return node(data=torch.from_numpy(cube.astype("f4"))[None])["scores"][0, ..., 0].numpy()


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1, 5), (3, 7), (1, 3)]),
    st.sampled_from([(0.0, 0.0), (0.2, 0.0), (0.0, 1e-2), (0.5, 0.1), (1.0, 0.0)]),
    st.booleans(),
)
def test_scores_are_those_of_a_loop(seed, windows, regular, holes):
    cube = scene(14, 11, 3, seed).astype("float32")
    if holes:
        cube[np.random.default_rng(seed).random((14, 11)) < 0.2, 1] = np.nan
    shrinkage, loading = regular
    node = LocalRX(*windows, shrinkage, loading, name="local")
    if shrinkage:
        pixels = cube[np.isfinite(cube).all(axis=2)]
        from hsi_batch.statistics import Moments

        node.fit(Moments.empty(3, pixels.dtype).update(pixels))
    expected = reference(cube, *windows, shrinkage, loading)
    np.testing.assert_allclose(forward(node, cube), expected, rtol=1e-6)


@settings(max_examples=10)
@given(st.integers(1, 60), st.sampled_from([None, 1, 2]), st.booleans())
def test_in_blocks_with_invalid_pixels(height, block, some_invalid):
    # Invalid pixels hold values: nodata of 0. They are no background of others.
    cube = scene(height, 20, 2)
    valid = None
    if some_invalid:
        valid = np.random.default_rng(height).random((height, 20)) < 0.8
        cube[~valid] = 0
    pipeline = chain(LocalRX(3, 9, loading=1e-3, name="local"))
    pipeline.resolve(ChannelAxis(2))
    found = run(pipeline, "local.scores", cube=cube, valid=valid, block=block)[..., 0]
    expected = reference(cube, 3, 9, loading=1e-3, valid=valid)
    kept = slice(None) if valid is None else valid
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-6)


def test_shrinkage_is_fitted_without_reading_and_saved(tmp_path):
    cube = scene(40, 20, 3)
    node = LocalRX(3, 9, shrinkage=0.3, name="local")
    pipeline = chain(MinMaxNormalizer(name="scale"), node)
    assert fit(pipeline, cube, stored=("moments", "extrema")).passes == 0
    scaled = (cube - float(cube.min())) / np.ptp(cube.astype(float))
    expected = reference(scaled.astype("f4"), 3, 9, shrinkage=0.3)
    found = pipeline.apply(labelled(cube)).to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    loaded = Pipeline.from_yaml(pipeline.save(tmp_path / "local.yaml"))
    np.testing.assert_array_equal(loaded.apply(labelled(cube)).to_numpy(), found)
    np.testing.assert_array_equal(node.cov.numpy(), node.state["covariance"].astype("float32"))
    # A covariance that is assigned is used instead.
    node.cov = torch.eye(3)
    assert not np.allclose(forward(node, scaled), expected)


def test_a_fit_behind_it_counts_what_it_scores():
    cube = scene(40, 20, 2)
    pipeline = chain(LocalRX(3, 9, loading=1e-3, name="local"), ScoreToLogit(name="logit"))
    assert fit(pipeline, cube, block=1).passes == 1
    expected = reference(cube, 3, 9, loading=1e-3)
    bias = expected.mean() + 2 * expected.std(ddof=1)
    assert pipeline.nodes["logit"].state["bias"] == pytest.approx(bias, rel=1e-6)


@pytest.mark.parametrize("height", [1, 3, 20])
def test_frames_lower_than_the_window_are_applied_lazily(height):
    cube = scene(height, 5, 2)
    pipeline = chain(LocalRX(3, 9, loading=1e-3, name="local"))
    pipeline.resolve(ChannelAxis(2))
    scores = pipeline.apply(labelled(cube)).to_numpy()
    np.testing.assert_allclose(scores, reference(cube, 3, 9, loading=1e-3), rtol=1e-5)


def test_a_shared_covariance_that_helps_no_ring_is_told():
    cube = scene(14, 11, 3)
    cube[..., 2] = cube[..., 0]
    with pytest.warns(DataWarning, match=r"local: the covariance of 3 channels has rank 2"):
        fit(chain(LocalRX(1, 5, 0.2, name="local")), cube)
    fit(chain(LocalRX(1, 5, 0.2, 1e-3, name="local")), cube)


def test_only_the_lines_that_are_needed_are_scored(monkeypatch):
    cube = scene(64, 20, 2)
    pipeline = chain(LocalRX(3, 9, loading=1e-3, name="local"))
    pipeline.resolve(ChannelAxis(2))
    asked = []
    scores = LocalRX._scores
    monkeypatch.setattr(
        LocalRX, "_scores", lambda self, x, a, b: (asked.append(b - a), scores(self, x, a, b))[1]
    )
    run(pipeline, "local.scores", cube=cube, block=1)
    assert sum(asked) == 64


def test_what_it_needs():
    node = LocalRX(guard=3, outer=9)
    assert (node.scope, node.halo, node.request(), node.fitted) == (Scope.WINDOW, 4, None, True)
    pipeline = chain(LocalRX(3, 9, loading=1e-3, name="local"))
    pipeline.resolve(ChannelAxis(2))
    assert compile_program(pipeline, (pipeline.port("local.scores"),)).halo == 4
    assert source_of(scene()).usable is None
    with pytest.raises(NotFittedError):
        LocalRX(shrinkage=0.1)(data=torch.zeros(1, 3, 3, 2))


def test_equal_pixels_have_no_background():
    cube = np.full((7, 7, 2), 5.0)
    cube[3, 3] = 9
    assert np.isnan(forward(LocalRX(1, 5, loading=1e-3), cube)[3, 3])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"guard": 4}, "guard 4 is not an odd number"),
        ({"outer": 0}, "outer 0 is not an odd number"),
        ({"guard": 9, "outer": 9}, "outer 9 must be larger than guard 9"),
        ({"shrinkage": 1.5}, "shrinkage 1.5 is not from 0 to 1"),
        ({"loading": -1.0}, "loading -1.0 must not be negative"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(PipelineError, match=text):
        LocalRX(**options)


def test_rings_of_too_few_pixels_are_told():
    node = LocalRX(1, 5, name="local")
    with pytest.raises(PipelineError, match=r"local: a ring of 24 pixels .* 24 channels.*Widen"):
        node.channel_axis({"data": ChannelAxis(24)})
    with pytest.warns(DataWarning, match="local: at the corners of a frame 8 pixels .*8 channels"):
        node.channel_axis({"data": ChannelAxis(8)})
    node.channel_axis({"data": ChannelAxis(7)})
    LocalRX(1, 5, loading=1e-3).channel_axis({"data": ChannelAxis(24)})


AUC = {"abu-airport-1": 0.9625, "abu-airport-2": 0.9445, "hydice-urban": 0.9981}


# The anomalies are in the fit.
@pytest.mark.filterwarnings("ignore:.*the tail of the scores is very heavy")
@pytest.mark.parametrize("name", AUC)
def test_areas_under_the_curve_of_the_shipped_pipeline(shared_data, name):
    from pathlib import Path

    from sklearn.metrics import roc_auc_score

    with np.load(shared_data / f"{name}.npz") as stored:
        cube, mask = stored["cube"], stored["mask"]
    root = Path(__file__).parent.parent.parent
    pipeline = Pipeline.from_yaml(root / "workflows" / "pipelines" / "local_rx.yaml")
    fit(pipeline, cube, sample=False)
    scores = pipeline.apply(labelled(cube)).to_numpy()
    assert roc_auc_score(mask.ravel() == 1, scores.ravel()) == pytest.approx(AUC[name], abs=2e-4)
