"""Gaussian mixtures over all pixels, against scikit-learn on the whole data."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from graph_helpers import chain, fit, run
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

import hsi_batch as hb
from hsi_batch.errors import DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import GaussianMixtureClusterer, IntensityThresholdSegmenter
from hsi_batch.pipeline import Pipeline

MEANS = np.array([[100, 900, 400], [500, 300, 450], [700, 700, 900]], float)
SPREAD = np.array([[[60, 0, 0], [30, 20, 0], [0, 10, 40]]] * 3, float) * [[[1]], [[2]], [[1.5]]]


def cube_of(seed, height=40, width=16, dtype="uint16"):
    rng = np.random.default_rng(seed)
    which = rng.choice(3, (height, width), p=[0.5, 0.3, 0.2])
    noise = np.einsum("yxc,yxdc->yxd", rng.normal(size=(height, width, 3)), SPREAD[which])
    return np.clip(MEANS[which] + noise, 0, None).astype(dtype)


def flat(*cubes):
    return np.concatenate([cube.reshape(-1, 3) for cube in cubes]).astype(np.float64)


def sklearn_from(node, x, steps, tol=0.0):
    """The steps of scikit-learn from the mixture of a node."""
    factors = node.state["precisions_chol"]
    model = GaussianMixture(
        len(factors),
        weights_init=node.state["weights"],
        means_init=node.state["means"],
        precisions_init=factors @ np.swapaxes(factors, 1, 2),
        max_iter=steps,
        tol=tol,
        reg_covar=1e-6,
        init_params="random",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x)


@settings(max_examples=6)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["uint16", "float32"]),
    st.sampled_from([None, 1]),
    st.integers(1, 4),
)
def test_every_pass_is_a_step_over_all_pixels(seed, dtype, block, steps):
    cubes = [cube_of(seed, dtype=dtype), cube_of(seed + 1, height=25, dtype=dtype)]
    start = GaussianMixtureClusterer(max_fit_pixels=150, max_passes=0, tol=0.0, name="gmm")
    assert fit(chain(start), *cubes).passes == 1
    node = GaussianMixtureClusterer(max_fit_pixels=150, max_passes=steps, tol=0.0, name="gmm")
    with pytest.warns(DataWarning, match=f"still moves after {steps} passes"):
        plan = fit(chain(node), *cubes, block=block)
    assert plan.passes == 1 + steps
    theirs = sklearn_from(start, flat(*cubes), steps)
    order = np.lexsort(theirs.means_.T[::-1])
    np.testing.assert_allclose(node.state["means"], theirs.means_[order], rtol=1e-6)
    np.testing.assert_allclose(node.state["weights"], theirs.weights_[order], rtol=1e-6)
    np.testing.assert_allclose(
        node.state["precisions_chol"], theirs.precisions_cholesky_[order], rtol=1e-5, atol=1e-9
    )


def test_the_mixture_is_found_and_scored_by_blocks():
    cubes = [cube_of(1), cube_of(2)]
    node = GaussianMixtureClusterer(max_fit_pixels=200, max_passes=40, name="gmm")
    pipeline = chain(node)
    fit(pipeline, *cubes)
    theirs = GaussianMixture(3, means_init=MEANS, random_state=0, tol=1e-6).fit(flat(*cubes))
    np.testing.assert_allclose(node.state["means"], theirs.means_, rtol=0.05)
    assert float(node.state["likelihood"]) == pytest.approx(theirs.lower_bound_, abs=0.02)
    same = sklearn_from(node, flat(*cubes), 1)
    same.means_, same.weights_ = node.state["means"], node.state["weights"]
    same.precisions_cholesky_ = node.state["precisions_chol"]
    got = run(pipeline, "gmm.class_mask", "gmm.abundances", "gmm.scores", cube=cubes[0], block=1)
    x = flat(cubes[0])
    np.testing.assert_array_equal(got[0].ravel(), same.predict(x))
    np.testing.assert_allclose(got[1].reshape(-1, 3), same.predict_proba(x), atol=1e-6)
    np.testing.assert_allclose(got[2].ravel(), same.score_samples(x), rtol=1e-6)


def test_grouping_changes_no_bit_and_a_fit_starts_anew():
    cubes = [cube_of(seed, dtype="float32") for seed in (3, 4)]
    node = GaussianMixtureClusterer(max_fit_pixels=80, n_init=2, max_passes=30, name="gmm")
    states = []
    for block in (None, 1):
        fit(chain(node), *cubes, block=block)
        states.append(dict(node.state))
    for key, value in states[0].items():
        np.testing.assert_array_equal(states[1][key], value)


def test_saved_and_loaded(tmp_path):
    pipeline = chain(GaussianMixtureClusterer(2, max_passes=30, name="gmm"))
    cube = cube_of(7)
    fit(pipeline, cube)
    pipeline.save(tmp_path / "gmm.yaml")
    back = Pipeline.from_yaml(tmp_path / "gmm.yaml")
    copy = back.nodes["gmm"]
    assert {k: tuple(t.shape) for k, t in copy.state_dict().items()} == {
        "means": (2, 3),
        "precisions_chol": (2, 3, 3),
        "weights": (2,),
        "_initialized": (1,),
    }
    np.testing.assert_array_equal(
        run(back, "scores", cube=cube), run(pipeline, "scores", cube=cube)
    )
    exact = run(pipeline, "scores", cube=cube)
    copy.weights = copy.weights * 1.0
    copy.state = {}
    np.testing.assert_allclose(run(back, "scores", cube=cube), exact, rtol=1e-4)
    out = copy(cube=torch.tensor([[[[torch.nan, 1.0, 2.0]]]]))
    assert out["class_mask"].item() == -1
    assert torch.isnan(out["scores"]).all()
    assert torch.isnan(out["abundances"]).all()


def test_a_mixture_that_rests_at_once():
    # The first step over all pixels gives the mixture of the sample to the last bit.
    cube = np.array([[[1, 2, 3]], [[7, 8, 9]]], dtype=np.uint16)
    pipeline = chain(GaussianMixtureClusterer(2, name="gmm"))
    hb.fit(pipeline, xr.DataArray(cube, dims=("y", "x", "channel")))
    assert pipeline.fitted
    np.testing.assert_allclose(pipeline.nodes["gmm"].state["means"], [[1, 2, 3], [7, 8, 9]])
    np.testing.assert_allclose(pipeline.nodes["gmm"].state["weights"], 0.5)


def test_what_is_refused():
    for arguments, text in (
        ({"n_components": 0}, "n_components 0 must be at least 1"),
        ({"covariance_type": "diag"}, "covariance_type 'diag'"),
        ({"reg_covar": -1.0}, "reg_covar -1.0"),
        ({"max_passes": -1}, "max_passes -1"),
    ):
        with pytest.raises(PipelineError, match=text):
            GaussianMixtureClusterer(**arguments)
    node = GaussianMixtureClusterer(name="gmm")
    with pytest.raises(NotFittedError, match="gmm"):
        node(cube=torch.zeros(1, 1, 1, 3))
    with pytest.raises(DataError, match="gmm: 3 clusters are asked for, but there are 1"):
        fit(chain(node), np.full((5, 5, 3), 7, np.uint16))
    level = np.repeat(cube_of(1)[..., :1], 3, axis=2)
    with pytest.raises(DataError, match="gmm: the covariance of a component is singular"):
        fit(chain(GaussianMixtureClusterer(reg_covar=0.0, name="gmm")), level)


@pytest.mark.parametrize("block", [None, 1])
def test_a_mask_restricts_the_fit_to_its_pixels(block):
    cube = cube_of(3, dtype="float32")
    mixtures = []
    for steps in (0, 3):
        node = GaussianMixtureClusterer(2, max_passes=steps, tol=0.0, name="gmm")
        pipeline = chain(node)
        dark = IntensityThresholdSegmenter(0.0, 600.0, name="dark")
        pipeline.connect(
            (pipeline.nodes["data"].outputs.cube, dark.inputs.cube),
            (dark.outputs.mask, node.inputs.mask),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            fit(pipeline, cube, block=block)
        mixtures.append(node)
    x = flat(cube)
    inside = x[x.astype(np.float32).mean(axis=1) <= 600.0]
    assert 0.5 * len(x) < len(inside) < len(x)
    theirs = sklearn_from(mixtures[0], inside, 3)
    order = np.lexsort(theirs.means_.T[::-1])
    np.testing.assert_allclose(mixtures[1].state["means"], theirs.means_[order], rtol=1e-6)
    np.testing.assert_allclose(mixtures[1].state["weights"], theirs.weights_[order], rtol=1e-6)
