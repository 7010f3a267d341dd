"""Robust RX against a plain NumPy loop of rounds, and shrinkage against scikit-learn."""

import numpy as np
import pytest
import torch
import xarray as xr
from graph_helpers import chain, fit, flat, labelled, mahalanobis, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.covariance import OAS, LedoitWolf

import hsi_batch as hb
from hsi_batch.errors import DataError, DataWarning, PipelineError
from hsi_batch.nodes import MinMaxNormalizer, PerPixelUnitNorm, RobustRX, RXGlobal, ScoreToLogit
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit

SEEDS = st.integers(0, 2**32 - 1)


def with_targets(seed=0, height=48, channels=4, share=0.05, dtype="uint16"):
    """A Gaussian scene with outliers, and where they are."""
    cube = scene(height, 20, channels, seed, "float64")
    rng = np.random.default_rng(seed)
    far = rng.random((height, 20)) < share
    cube[far] += 900 * np.sign(rng.normal(size=channels))
    return np.rint(cube).astype(dtype), far


def reference(x, keep, rounds, loading=0.0):
    """Mean, covariance and count after each round."""
    channels = x.shape[1]
    mean, covariance, count = x.mean(axis=0), np.cov(x.T), len(x)
    cut = chi2.ppf(keep, channels)
    for _ in range(rounds):
        ridged = covariance + loading * np.trace(covariance) / channels * np.eye(channels)
        centred = x - mean
        distance = np.einsum("ij,ij->i", centred, np.linalg.solve(ridged, centred.T).T)
        kept = x[distance <= cut]
        mean, count = kept.mean(axis=0), len(kept)
        covariance = np.cov(kept.T) * keep / chi2.cdf(cut, channels + 2)
    return mean, covariance, count


@settings(max_examples=12)
@given(SEEDS, st.integers(1, 3), st.sampled_from([0.9, 0.999]), st.sampled_from([None, 1]))
def test_rounds_are_those_of_a_loop(seed, rounds, keep, block):
    cube, _ = with_targets(seed)
    node = RobustRX(keep=keep, rounds=rounds, tolerance=0.0, name="rx")
    pipeline = chain(node)
    plan = fit(pipeline, cube, block=block, sample=False)
    assert plan.passes == 1 + rounds
    mean, covariance, count = reference(flat(cube), keep, rounds)
    assert node.state["count"] == count
    assert node.state["kept"] == count / (48 * 20)
    np.testing.assert_allclose(node.state["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(node.state["covariance"], covariance, rtol=1e-9, atol=1e-6)
    centred = flat(cube) - mean
    expected = np.einsum("ij,ij->i", centred, np.linalg.solve(covariance, centred.T).T)
    np.testing.assert_allclose(run(pipeline, "rx.scores", cube=cube).ravel(), expected, rtol=1e-5)


def student(x, nu, rounds, start=None):
    """Location and scatter of a t distribution by expectation maximisation, step by step."""
    mean, scatter = start or (x.mean(axis=0), np.cov(x.T))
    for _ in range(rounds):
        centred = x - mean
        squared = np.einsum("ij,ij->i", centred, np.linalg.solve(scatter, centred.T).T)
        w = (nu + x.shape[1]) / (nu + squared)
        mean = np.average(x, axis=0, weights=w)
        scatter = ((x - mean) * w[:, None]).T @ (x - mean) / w.sum()
    return mean, scatter


def gaussian_scale(channels, nu, rounds):
    """What the scatter is of Gaussian pixels, by numerical integration."""
    scale = 1.0
    for _ in range(rounds):
        up, down = (
            chi2(channels).expect(lambda q, p=p, s=scale: q**p / (nu + q / s), epsabs=1e-13)
            for p in (1, 0)
        )
        scale = up / (channels * down)
    return scale


@settings(max_examples=8)
@given(SEEDS, st.integers(1, 4), st.sampled_from([1.0, 4.0]), st.sampled_from([None, 1]))
def test_weighted_rounds_are_those_of_a_loop(seed, rounds, nu, block):
    cube, _ = with_targets(seed)
    node = RobustRX(weights="student", nu=nu, rounds=rounds, tolerance=0.0, name="rx")
    pipeline = chain(node)
    plan = fit(pipeline, cube, block=block, sample=False)
    assert plan.passes == 1 + rounds
    mean, scatter = student(flat(cube), nu, rounds)
    covariance = scatter / gaussian_scale(4, nu, rounds)
    assert node.state["count"] == 48 * 20
    assert 0.3 < node.state["kept"] < 1
    size = np.abs(covariance).max()
    np.testing.assert_allclose(node.state["mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(node.state["covariance"], covariance, rtol=1e-8, atol=1e-8 * size)


def test_weighted_rounds_end_at_the_most_likely_t_distribution():
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    x = rng.standard_t(3, size=(300, 1)) * rng.normal(size=(300, 3)) @ mixing + 50
    node = RobustRX(weights="student", nu=3.0, rounds=60, tolerance=1e-6, name="rx")
    fit(chain(node), x.reshape(15, 20, 3), sample=False)
    assert node.state["settled"]
    # The estimating equations hold, with the scatter divided by n.
    scatter = node.state["covariance"] * gaussian_scale(3, 3.0, int(node.state["rounds"]))
    centred = x - node.state["mean"]
    w = 6.0 / (3.0 + np.einsum("ij,ij->i", centred, np.linalg.solve(scatter, centred.T).T))
    np.testing.assert_allclose((w[:, None] * centred).mean(axis=0), 0, atol=1e-4)
    expected = (centred * w[:, None]).T @ centred / len(x)
    np.testing.assert_allclose(scatter, expected, rtol=1e-5, atol=1e-4)


def test_weights_are_consistent_and_outliers_do_not_pull():
    x = np.random.default_rng(0).normal(size=(400, 100, 3))
    for rounds in (1, 8):
        node = RobustRX(weights="student", rounds=rounds, tolerance=0.0, name="rx")
        fit(chain(node), x, sample=False)
        np.testing.assert_allclose(node.state["covariance"], np.eye(3), atol=0.03)
    cube, far = with_targets(share=0.03, height=200)
    node = RobustRX(weights="student", nu=1.0, rounds=40, tolerance=1e-3, name="rx")
    fit(chain(node), cube, sample=False)
    truth = np.cov(flat(cube)[~far.ravel()].T)
    assert node.state["settled"]
    np.testing.assert_allclose(node.state["covariance"], truth, rtol=0.15, atol=400)


def test_weights_do_not_depend_on_grouping():
    cubes = [with_targets(seed, 250, dtype="float32")[0] for seed in (1, 2)]
    states = []
    for block in (None, 1):
        node = RobustRX(weights="student", name="rx")
        fit(chain(node), *cubes, block=block, sample=False)
        states.append(node.state["covariance"])
    np.testing.assert_array_equal(*states)
    for arguments, text in (
        ({"weights": "huber"}, "weights 'huber' is not"),
        ({"nu": 0.0}, "nu 0.0 is not above 0"),
    ):
        with pytest.raises(PipelineError, match=text):
            RobustRX(**arguments)


def test_outliers_do_not_pull():
    cube, far = with_targets(share=0.03, height=200)
    node, plain = RobustRX(rounds=10, name="rx"), RXGlobal(eps=0.0, name="rx")
    fit(chain(node), cube, sample=False)
    fit(chain(plain), cube, sample=False)
    truth = np.cov(flat(cube)[~far.ravel()].T)
    assert node.state["settled"]
    assert node.state["rounds"] < 10
    np.testing.assert_allclose(node.state["covariance"], truth, rtol=0.05, atol=50)
    assert (
        np.abs(plain.state["covariance"] - truth).max()
        > 10 * np.abs(node.state["covariance"] - truth).max()
    )


def test_the_factor_makes_it_consistent():
    x = np.random.default_rng(0).normal(size=(400, 100, 3))
    node = RobustRX(keep=0.8, rounds=20, tolerance=1e-4, name="rx")
    fit(chain(node), x, sample=False)
    assert node.state["settled"]
    np.testing.assert_allclose(node.state["covariance"], np.eye(3), atol=0.03)


def test_passes_and_what_comes_behind():
    cube, _ = with_targets()
    stored = ("moments", "extrema")
    pipeline = chain(MinMaxNormalizer(name="scale"), RobustRX(tolerance=0.0, name="rx"))
    pipeline.resolve(pipeline.axis or labelled_axis(cube))
    assert plan_fit(pipeline, stored).passes == 2
    assert str(plan_fit(pipeline, stored)).startswith("up to 2 passes")
    pipeline = chain(
        PerPixelUnitNorm(name="unit"), RobustRX(loading=1e-3, name="rx"), ScoreToLogit(name="logit")
    )
    assert fit(pipeline, cube).passes == 4
    scores = run(pipeline, "rx.scores", cube=cube).astype(np.float64)
    bias = scores.mean() + 2 * scores.std(ddof=1)
    assert pipeline.nodes["logit"].state["bias"] == pytest.approx(bias, rel=1e-5)


def labelled_axis(cube):
    from hsi_batch.nodes import ChannelAxis

    return ChannelAxis(cube.shape[2])


def test_a_new_fit_starts_from_all_pixels():
    cube, _ = with_targets()
    node = RobustRX(rounds=3, tolerance=0.0, name="rx")
    pipeline = chain(node)
    fit(pipeline, cube)
    first = node.state["covariance"]
    # A fit that was broken off in its second round leaves no trace.
    from hsi_batch.statistics import Moments

    node.begin_fit()
    node.fit(Moments.empty(4, "uint16").update(cube.reshape(-1, 4)[:500]))
    assert node.unsettled
    fit(pipeline, cube)
    np.testing.assert_array_equal(node.state["covariance"], first)


def test_saved_and_loaded(tmp_path):
    cube, _ = with_targets()
    pipeline = chain(RobustRX(keep=0.95, rounds=3, loading=1e-4, name="rx"))
    fit(pipeline, cube)
    loaded = Pipeline.from_yaml(pipeline.save(tmp_path / "robust.yaml"))
    assert loaded.nodes["rx"].keep == 0.95
    assert loaded.nodes["rx"].hparams["num_channels"] == 4
    np.testing.assert_array_equal(
        loaded.apply(labelled(cube)).to_numpy(), pipeline.apply(labelled(cube)).to_numpy()
    )


def test_a_background_of_a_minority_warns():
    cube = np.random.default_rng(0).standard_cauchy((60, 20, 3))
    with pytest.warns(DataWarning, match=r"rx: only \d+ of 1200 pixels are kept"):
        fit(chain(RobustRX(keep=0.5, rounds=8, name="rx")), cube, sample=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keep": 1.0}, "keep 1.0 is not between 0 and 1"),
        ({"rounds": 0}, "rounds 0 must be at least 1"),
        ({"tolerance": -1.0}, "tolerance -1.0 must not be negative"),
        ({"loading": -1.0}, "loading -1.0 must not be negative"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(PipelineError, match=text):
        RobustRX(**options)


# --- shrinkage ----------------------------------------------------------------------------------


@settings(max_examples=15)
@given(SEEDS, st.sampled_from(["uint16", "float64"]), st.sampled_from(["ledoit-wolf", "oas"]))
def test_shrunk_covariances_are_those_of_scikit_learn(seed, dtype, kind):
    cube = scene(20, 7, 6, seed, dtype)
    node = RXGlobal(eps=0.0, shrinkage=kind, name="rx")
    assert fit(chain(node), cube, block=1, sample=False).passes == 1
    model = {"ledoit-wolf": LedoitWolf, "oas": OAS}[kind]().fit(flat(cube))
    np.testing.assert_allclose(node.state["covariance"], model.covariance_, rtol=1e-8, atol=1e-8)
    assert node.state["shrinkage"] == pytest.approx(model.shrinkage_, rel=1e-8)
    scores = run(chain_of(node), "rx.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, model.mahalanobis(flat(cube)), rtol=1e-5)


def chain_of(node):
    pipeline = chain(node)
    pipeline.resolve(labelled_axis(np.empty((1, 1, node.num_channels or len(node.mu)))))
    return pipeline


def test_fewer_pixels_than_channels_and_passes():
    cube = scene(3, 4, 20)
    node = RXGlobal(eps=0.0, shrinkage="ledoit-wolf", name="rx")
    plan = fit(chain(MinMaxNormalizer(name="scale"), node), cube, stored=("moments", "extrema"))
    assert plan.passes == 1
    scaled = (flat(cube) - cube.min()) / np.ptp(cube.astype(float))
    expected = LedoitWolf().fit(scaled.astype(np.float32).astype(float))
    np.testing.assert_allclose(node.state["covariance"], expected.covariance_, rtol=1e-6, atol=1e-9)
    # Gaussian shrinkage follows from the moments alone.
    node = RXGlobal(eps=0.0, shrinkage="oas", name="rx")
    assert fit(chain(node), cube, stored=("moments",)).passes == 0


def test_without_shrinkage_nothing_changes():
    x = flat(scene())
    node = RXGlobal(eps=0.0, name="rx")
    fit(chain(node), scene(), sample=False)
    assert "shrinkage" not in node.state
    found = node(data=torch.from_numpy(x.astype("f4"))[None, None])["scores"].ravel()
    np.testing.assert_allclose(found, mahalanobis(x), rtol=1e-6)
    with pytest.raises(PipelineError, match="shrinkage 'lw' is not one of 'ledoit-wolf', 'oas'"):
        RXGlobal(shrinkage="lw")


# --- real scenes --------------------------------------------------------------------------------

#: Of global RX: 0.8221, 0.9887, 0.9910.
AUC = {"abu-airport-1": 0.8761, "abu-urban-4": 0.9932, "envi-lhdata-100": 0.9961}


# Of the decider, for frames that hold many anomalies.
@pytest.mark.filterwarnings("ignore:decider. the tail of the scores:hsi_batch.errors.DataWarning")
@pytest.mark.parametrize("name", AUC)
def test_areas_under_the_curve_of_the_shipped_pipeline(shared_data, name):
    from pathlib import Path

    from sklearn.metrics import roc_auc_score

    with np.load(shared_data / f"{name}.npz") as stored:
        cube, mask = stored["cube"], stored["mask"]
    root = Path(__file__).parent.parent.parent
    pipeline = Pipeline.from_yaml(root / "workflows" / "pipelines" / "robust_rx.yaml")
    # A round, the next one, and the scores that the decider counts.
    assert fit(pipeline, cube, stored=("moments",), sample=False).passes == 3
    scores = pipeline.apply(labelled(cube)).to_numpy()
    assert roc_auc_score(mask.ravel() == 1, scores.ravel()) == pytest.approx(AUC[name], abs=2e-4)


def test_a_fit_whose_pixels_stay_the_same_comes_to_an_end():
    # The pixels that are kept no longer change, and rounding is more than a tolerance of zero.
    cube, _ = with_targets(3)
    pipeline = chain(RobustRX(keep=0.999, rounds=25, tolerance=0.0, name="rx"))
    hb.fit(pipeline, xr.DataArray(cube, dims=("y", "x", "channel")))
    assert pipeline.fitted
    mean, _, count = reference(flat(cube), 0.999, 25)
    assert (pipeline.nodes["rx"].state["count"], pipeline.nodes["rx"].state["rounds"]) == (
        count,
        25,
    )
    np.testing.assert_allclose(pipeline.nodes["rx"].state["mean"], mean, rtol=1e-12)


@pytest.mark.parametrize("weights", ["trimmed", "student"])
def test_no_valid_pixel_is_an_error_that_says_so(weights):
    cube = xr.DataArray(np.full((8, 8, 3), np.nan, "f4"), dims=("y", "x", "channel"))
    with pytest.raises(DataError, match="0 valid pixels"):
        hb.fit(chain(RobustRX(weights=weights, name="rx")), cube)
