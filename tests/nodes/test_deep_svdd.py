"""Deep SVDD against plain torch and NumPy, its weights, and the graph that is shipped."""

import math

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hsi_batch.errors import ConfigError, DataError, NotFittedError, PipelineError
from hsi_batch.nodes import (
    ChannelAxis,
    Context,
    DeepSVDDCenterTracker,
    DeepSVDDProjection,
    DeepSVDDScores,
    PerPixelUnitNorm,
    Scope,
    Stage,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.statistics import Moments
from hsi_batch.workflow import shipped

YAML = shipped() / "pipelines" / "deep_svdd.yaml"


def image(x):
    return torch.from_numpy(np.asarray(x, np.float32)).reshape(1, len(x), 1, -1)


def embed(weights, x, gamma=None):
    """The network in NumPy, float64."""
    w = {k.removeprefix("net."): v.double().numpy() for k, v in weights.items()}
    x = np.asarray(x, np.float64)
    if "0.W" in w:
        features = w["0.b"].size
        x = np.sqrt(2 / features) * np.cos(x @ w["0.W"] + w["0.b"])
        w = {k.removeprefix("1."): v for k, v in w.items()}
    return np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0) @ w["fc2.weight"].T


def graph(**options):
    pipeline = chain(
        PerPixelUnitNorm(name="unit"),
        ZScoreNormalizerGlobal(name="z"),
        DeepSVDDProjection(name="net", rep_dim=4, hidden=8, **options),
    )
    center, scores = DeepSVDDCenterTracker(name="center"), DeepSVDDScores(name="svdd")
    embeddings = pipeline.nodes["net"].outputs.embeddings
    pipeline.connect(
        (embeddings, center.embeddings),
        (embeddings, scores.embeddings),
        (center.center, scores.center),
    )
    return pipeline


# --- the projection -----------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 7, 4096]))
def test_embeddings_are_those_of_the_network(seed, channels, rep_dim, batch):
    x = np.random.default_rng(seed).normal(size=(50, channels))
    for kernel in ("linear", "rbf"):
        node = DeepSVDDProjection(
            in_channels=channels, rep_dim=rep_dim, hidden=6, kernel=kernel, n_rff=16, seed=seed,
            mlp_forward_batch_size=batch,
        )  # fmt: skip
        out = node(data=image(x))["embeddings"].detach().numpy().reshape(50, rep_dim)
        np.testing.assert_allclose(out, embed(node.state_dict(), x), atol=2e-6)


def test_weights_are_drawn_as_torch_draws_them():
    # The order in which cuvis-ai draws: both layers as torch makes them, then again by its rules.
    torch.manual_seed(5)
    fc1, fc2 = nn.Linear(9, 16), nn.Linear(16, 4, bias=False)
    nn.init.kaiming_uniform_(fc1.weight, a=math.sqrt(5))
    nn.init.uniform_(fc1.bias, -1 / 3, 1 / 3)
    nn.init.xavier_uniform_(fc2.weight)
    torch.manual_seed(5)
    node = DeepSVDDProjection(in_channels=9, rep_dim=4, hidden=16)
    found = node.state_dict()
    assert list(found) == ["net.fc1.weight", "net.fc1.bias", "net.fc2.weight"]
    for name, own in (
        ("fc1.weight", fc1.weight),
        ("fc1.bias", fc1.bias),
        ("fc2.weight", fc2.weight),
    ):
        assert torch.equal(found[f"net.{name}"], own), name
    seeded = DeepSVDDProjection(in_channels=9, rep_dim=4, hidden=16, seed=5).state_dict()
    assert all(torch.equal(seeded[k], v) for k, v in found.items())


def test_fourier_features_approximate_the_kernel():
    node = DeepSVDDProjection(in_channels=3, kernel="rbf", n_rff=60_000, gamma=0.7, seed=1)
    keys = {"net.0.W", "net.0.b", "net.0.z_scale", "net.1.fc1.weight", "net.1.fc1.bias"}
    assert set(node.state_dict()) == keys | {"net.1.fc2.weight"}
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    z = node.net[0](torch.from_numpy(x)).double().numpy()
    distance = np.square(x[:, None] - x[None]).sum(axis=-1)
    np.testing.assert_allclose(z @ z.T, np.exp(-0.7 * distance), atol=0.02)
    default = DeepSVDDProjection(in_channels=4, kernel="rbf", n_rff=50_000, seed=1)
    assert float(default.net[0].W.std()) == pytest.approx(math.sqrt(2 / 4), rel=0.01)


def test_weights_wait_for_the_channels_and_are_drawn_once():
    pipeline = graph(seed=3)
    node = pipeline.nodes["net"]
    assert node.state_dict()["net.fc1.weight"].shape == (8, 0)
    with pytest.raises(PipelineError, match="net: the data have 5 channels, its weights are for 0"):
        node(data=torch.zeros(1, 1, 1, 5))
    pipeline.resolve(ChannelAxis(5))
    drawn = node.buffer_digest()
    expected = DeepSVDDProjection(in_channels=5, rep_dim=4, hidden=8, seed=3)
    assert drawn == expected.buffer_digest()
    state = torch.get_rng_state()
    pipeline.resolve(ChannelAxis(5))
    assert node.buffer_digest() == drawn
    assert torch.equal(torch.get_rng_state(), state)
    # Nothing was trained, so other channels are served, too.
    pipeline.resolve(ChannelAxis(7))
    assert node.state_dict()["net.fc1.weight"].shape == (8, 7)
    with torch.no_grad():
        node.net.fc1.bias += 1
    pipeline.resolve(ChannelAxis(6))
    assert node.state_dict()["net.fc1.weight"].shape == (8, 7)
    with pytest.raises(PipelineError, match="Select the channels that the weights were made for"):
        node(data=torch.zeros(1, 1, 1, 6))


def test_trained_weights_refuse_other_channels():
    pipeline = graph(seed=3)
    cube = torch.from_numpy(scene().astype("f4"))[None]
    pipeline.resolve(ChannelAxis(7))
    with torch.no_grad():
        pipeline.nodes["net"].net.fc1.bias += 1
    with pytest.raises(ConfigError, match=r"net\.net\.fc1\.weight has shape \(8, 7\), but 5 chan"):
        pipeline.forward({"cube": cube})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kernel": "poly"}, "kernel 'poly' is not one of"),
        ({"rep_dim": 0}, "rep_dim 0 must be at least 1"),
        ({"gamma": 0.0}, r"gamma 0\.0 must be above 0"),
    ],
)
def test_wrong_arguments_of_the_projection(options, text):
    with pytest.raises(PipelineError, match=text):
        DeepSVDDProjection(**options)


def test_gradients_reach_the_weights():
    node = DeepSVDDProjection(in_channels=3, seed=0)
    out = node(data=torch.randn(2, 4, 5, 3))["embeddings"]
    scores = DeepSVDDScores()(embeddings=out, center=torch.zeros(32))["scores"]
    scores.mean().backward()
    assert node.net.fc1.weight.grad.abs().sum() > 0


# --- the centre ---------------------------------------------------------------------------------


def fitted_center(x, **options):
    node = DeepSVDDCenterTracker(name="c", **options)
    node.fit(Moments.empty(x.shape[1], x.dtype).update(x))
    return node


def test_the_centre_is_the_mean_and_inference_leaves_it():
    x = np.random.default_rng(0).normal(5, 1, size=(300, 3))
    node = fitted_center(x)
    np.testing.assert_array_equal(node._tracked_center.numpy(), x.mean(axis=0).astype("f4"))
    batch = torch.full((1, 2, 2, 3), 99.0)
    for context in (None, Context(), Context(Stage.VAL), Context(Stage.TEST)):
        out = node(embeddings=batch, context=context)
        assert torch.equal(out["center"], node._tracked_center)
        assert node.exact_state() is node.state
    (metric,) = out["metrics"]
    assert metric.name == "deepsvdd_center/norm"
    assert metric.value == pytest.approx(np.linalg.norm(x.mean(axis=0)), rel=1e-6)


@given(st.floats(0.01, 1), st.sampled_from([Stage.TRAIN, Stage.VAL, Stage.TEST]))
def test_the_centre_follows_batches(alpha, stage):
    x = np.random.default_rng(1).normal(size=(40, 3))
    node = fitted_center(x, alpha=alpha, update_in_eval=True)
    batch = np.random.default_rng(2).normal(3, 1, size=(2, 5, 6, 3)).astype("f4")
    batch[0, 0, 0, 1] = np.nan
    mean = batch.reshape(-1, 3)[1:].mean(axis=0, dtype=np.float64)
    out = node(embeddings=torch.from_numpy(batch), context=Context(stage))
    expected = (1 - alpha) * x.mean(axis=0) + alpha * mean
    np.testing.assert_allclose(out["center"].numpy(), expected, atol=1e-6)
    assert torch.equal(out["center"], node._tracked_center)
    assert node.assigned() == {"_tracked_center"}
    before = out["center"].clone()
    node(embeddings=torch.full((1, 1, 1, 3), torch.nan), context=Context(stage))
    assert torch.equal(node._tracked_center, before)


def test_a_centre_must_be_fitted_and_finite():
    node = DeepSVDDCenterTracker(name="c")
    with pytest.raises(NotFittedError, match="DeepSVDDCenterTracker 'c' is not fitted"):
        node(embeddings=torch.zeros(1, 1, 1, 3))
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(DataError, match="c: the mean of the embeddings is not finite"),
    ):
        fitted_center(np.full((3, 2), np.inf))
    with pytest.raises(PipelineError, match=r"alpha 0\.0 must be above 0 and at most 1"):
        DeepSVDDCenterTracker(alpha=0.0)


# --- scores in a graph --------------------------------------------------------------------------


def reference(pipeline, cube):
    x = flat(cube)
    x = x - x.mean(axis=1, keepdims=True)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    z = embed(pipeline.nodes["net"].state_dict(), x)
    return np.square(z - z.mean(axis=0)).sum(axis=1)


@pytest.mark.parametrize("options", [{}, {"kernel": "rbf", "n_rff": 64}])
def test_scores_are_distances_from_the_mean_embedding(options):
    cube = scene(70, 30, channels=6)
    pipeline = graph(seed=2, **options)
    plan = fit(pipeline, cube, block=1, stored=())
    assert {n.name: n.reading for n in plan.nodes} == {"z": 1, "center": 2}
    expected = reference(pipeline, cube)
    scores = run(pipeline, "svdd.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * expected.max())
    lazy = pipeline.apply(labelled(cube), "svdd.scores").compute()
    np.testing.assert_array_equal(lazy.to_numpy().ravel(), scores)
    batch = {"cube": torch.from_numpy(cube.astype("f4"))[None]}
    direct = pipeline.forward(batch)["svdd", "scores"].numpy().ravel()
    np.testing.assert_allclose(direct, expected, rtol=1e-3, atol=1e-4 * expected.max())
    for block in (1, 2):
        np.testing.assert_array_equal(
            run(pipeline, "svdd.scores", cube=cube, block=block).ravel(), scores
        )


def test_what_is_saved_scores_the_same(tmp_path):
    cube = scene(20, 20, channels=6)
    pipeline = graph()
    fit(pipeline, cube)
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    assert other.nodes["net"].in_channels == 6
    np.testing.assert_array_equal(
        run(other, "svdd.scores", cube=cube), run(pipeline, "svdd.scores", cube=cube)
    )
    assert other.nodes["center"].exact_state()["count"] == 400


def test_scores_without_a_fitted_centre():
    pipeline = graph()
    pipeline.resolve(ChannelAxis(5))
    z = pipeline.nodes["z"]
    z.fit(Moments.empty(5, "float64").update(flat(scene())))
    with pytest.raises(NotFittedError, match="'center' is not fitted"):
        run(pipeline, "svdd.scores", cube=scene())
    with pytest.raises(PipelineError, match=r"the centre has shape \(2,\), embeddings have 3"):
        DeepSVDDScores()(embeddings=torch.zeros(1, 1, 1, 3), center=torch.zeros(2))
    assert DeepSVDDScores().scope is DeepSVDDCenterTracker().scope is Scope.PIXEL


# --- the graph that is shipped ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "kept"),
    [
        (ChannelAxis.of(np.linspace(450, 950, 12)), 6),
        (ChannelAxis.of(np.linspace(400, 690, 12)), 12),
        (ChannelAxis(12), 12),
    ],
)
def test_the_shipped_graph_takes_two_passes(axis, kept):
    pipeline = Pipeline.from_yaml(YAML)
    assert plan_fit(pipeline).passes == plan_fit(pipeline, ("moments", "extrema")).passes == 2
    cube = scene(40, 30, channels=12)
    fit(pipeline, cube, axis=axis)
    assert pipeline.nodes["projection"].in_channels == kept
    scores, decisions = run(pipeline, "svdd.scores", "decider.decisions", cube=cube)
    assert np.isfinite(scores).all()
    assert (scores > 0).all()
    assert decisions.sum() == 6
    again = Pipeline.from_yaml(YAML)
    fit(again, cube, axis=axis)
    np.testing.assert_array_equal(run(again, "svdd.scores", cube=cube), scores)


def test_the_shipped_components_take_no_pass():
    pipeline = Pipeline.from_yaml(shipped() / "pipelines" / "pca.yaml")
    assert plan_fit(pipeline, ("moments", "extrema")).passes == 0
