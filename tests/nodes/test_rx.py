"""The Reed-Xiaoli detector against SciPy and NumPy, its ridge, its refusals and its buffers."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, mahalanobis, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from hsi_batch.errors import DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import ChannelAxis, RXGlobal, RXPerBatch, Scope
from hsi_batch.statistics import Moments


def moments(x):
    return Moments.empty(x.shape[1], x.dtype).update(x)


def fitted(x, **options):
    node = RXGlobal(name="rx", **options)
    node.fit(moments(x))
    return node


def forward(node, x):
    data = torch.from_numpy(np.asarray(x, np.float32)).reshape(1, len(x), 1, -1)
    return node(data=data)["scores"].numpy().ravel()


def quadratic(node, x):
    form = node.quadratic()
    return np.square(np.asarray(x, np.float64) @ form.factor.T + form.offset).sum(axis=1)


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 7), st.sampled_from(["uint16", "float64"]))
def test_scores_are_squared_mahalanobis_distances(seed, channels, dtype):
    x = flat(scene(12, 20, channels, seed, dtype))
    node = fitted(x, eps=0.0)
    inverse = np.linalg.inv(np.atleast_2d(np.cov(x.T)))
    expected = cdist(x, x.mean(axis=0)[None], "mahalanobis", VI=inverse)[:, 0] ** 2
    scores = quadratic(node, x)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)
    assert scores.mean() == pytest.approx(channels * (len(x) - 1) / len(x), rel=1e-11)
    out = forward(node, x)
    np.testing.assert_allclose(out, quadratic(node, x.astype(np.float32)), rtol=1e-6, atol=1e-30)


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([0.0, 1e-6, 10.0, 1e5]), st.sampled_from([0.0, 1e-3, 2.0]))
def test_the_ridge_is_added_once(seed, eps, loading):
    x = flat(scene(12, 20, 4, seed))
    node = fitted(x, eps=eps, loading=loading)
    covariance = np.cov(x.T)
    ridged = covariance + (eps + loading * np.trace(covariance) / 4) * np.eye(4)
    np.testing.assert_allclose(node.state["covariance"], ridged, rtol=1e-12)
    np.testing.assert_array_equal(node.cov.numpy(), node.state["covariance"].astype(np.float32))
    np.testing.assert_array_equal(node.mu.numpy(), x.mean(axis=0).astype(np.float32))
    inverse = np.linalg.inv(ridged)
    np.testing.assert_allclose(
        node.cov_inv.numpy(), inverse, rtol=1e-5, atol=1e-6 * np.abs(inverse).max()
    )
    np.testing.assert_allclose(
        quadratic(node, x), mahalanobis(x, eps=eps, loading=loading), rtol=1e-9
    )
    values = np.linalg.eigvalsh(ridged)
    assert node.state["condition"] == pytest.approx(values[-1] / values[0], rel=1e-9)
    assert node.state["rank"] == 4
    assert node.state["count"] == 240
    np.testing.assert_array_equal(node.state["factor"], np.tril(node.state["factor"]))


def test_cache_inverse_changes_nothing():
    x = flat(scene())
    a, b = fitted(x), fitted(x, cache_inverse=False)
    np.testing.assert_array_equal(forward(a, x), forward(b, x))


def test_many_pixels_are_scored_in_groups():
    cube = scene(260, 260, 2)
    node = fitted(flat(cube))
    out = node(data=torch.from_numpy(cube.astype("f4"))[None])["scores"]
    assert out.shape == (1, 260, 260, 1)
    np.testing.assert_allclose(out.numpy().ravel(), quadratic(node, flat(cube)), rtol=1e-6)


# --- as cuvis-ai has it -------------------------------------------------------------------------


def endmembers(noise, seed=0, channels=61):
    """Mixtures of five smooth spectra with noise, scaled to 0..1: what the cut-off was seen on."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(0, 1, channels)
    spectra = np.stack([np.sin((k + 1) * 2.5 * axis + k) + 1.5 for k in range(5)])
    x = rng.dirichlet(np.ones(5), 3000) @ spectra + rng.normal(size=(3000, channels)) * noise
    return (x - x.min()) / np.ptp(x)


@pytest.mark.parametrize(("noise", "kept"), [(1e-2, 61), (1e-4, 4)])
def test_pinv32_is_the_pseudo_inverse_of_the_family(noise, kept):
    x = endmembers(noise)
    node = fitted(x, inverse="pinv32")
    covariance = torch.from_numpy(np.cov(x.T)).float() + 1e-6 * torch.eye(61)
    inverse = torch.linalg.pinv(covariance)
    assert torch.linalg.matrix_rank(inverse) == kept
    np.testing.assert_allclose(
        node.cov_inv.numpy(), inverse.numpy(), atol=2e-3 * float(inverse.abs().max())
    )
    centred = torch.from_numpy((x - x.mean(axis=0)).astype(np.float32))
    expected = torch.einsum("nc,cd,nd->n", centred, inverse, centred).numpy()
    np.testing.assert_allclose(forward(node, x), expected, rtol=2e-3, atol=2e-3)
    exact = mahalanobis(x, eps=1e-6)
    np.testing.assert_allclose(quadratic(fitted(x), x), exact, rtol=1e-8)
    assert forward(node, x).mean() == pytest.approx(kept, abs=2.0)


def test_pinv32_drops_directions_that_cholesky_keeps():
    # Facts: with noise 1e-3 the family keeps 4 of 61 directions, the exact inverse 61.
    x = endmembers(1e-3)
    assert forward(fitted(x, inverse="pinv32"), x).mean() == pytest.approx(4.0, abs=0.1)
    assert forward(fitted(x), x).mean() > 15


def test_pinv32_uses_the_loading_too():
    x = flat(scene())
    node = fitted(x, eps=0.0, loading=0.5, inverse="pinv32")
    np.testing.assert_allclose(quadratic(node, x), mahalanobis(x, loading=0.5), rtol=1e-4)


# --- refusals -----------------------------------------------------------------------------------


def test_too_few_pixels():
    x = flat(scene(1, 5, 5))
    with pytest.raises(DataError, match=r"rx: 5 valid pixels for 5 channels, so .* Select more"):
        fitted(x, eps=0.0)
    with pytest.warns(DataWarning, match=r"5 valid pixels for 5 channels.*invertible all the same"):
        node = fitted(x, eps=1.0)
    np.testing.assert_allclose(quadratic(node, x), mahalanobis(x, eps=1.0), rtol=1e-8)
    assert node.state["rank"] == 4
    fitted(flat(scene(1, 6, 5)), eps=0.0)


def test_hardly_any_pixel():
    with pytest.raises(DataError, match="1 valid pixels were counted, at least 2"):
        fitted(np.ones((1, 2)))
    with pytest.raises(DataError, match="0 valid pixels were counted"):
        fitted(np.ones((0, 2)))


def test_constant_channels_are_named():
    cube = scene(channels=6)
    cube[..., [1, 4]] = 7
    x = flat(cube)
    text = r"rx: channels 1, 4 are constant over all 960 pixels"
    with pytest.raises(DataError, match=rf"{text}.*remove channels \(BandpassByWavelength"):
        fitted(x, eps=0.0)
    node = RXGlobal(eps=0.0, name="rx")
    node.axes = {"data": ChannelAxis.of([400, 500.5, 600, 700, 800, 900])}
    with pytest.raises(DataError, match=r"channels 1 \(500\.5 nm\), 4 \(800 nm\) are constant"):
        node.fit(moments(x))
    with pytest.warns(DataWarning, match=text):
        node = fitted(x, eps=1e-3)
    np.testing.assert_allclose(quadratic(node, x), mahalanobis(x, eps=1e-3), rtol=1e-6)


@pytest.mark.parametrize(("count", "text"), [(1, "channel 0 is"), (8, "5 and 2 more are")])
def test_the_list_of_constant_channels_is_short(count, text):
    cube = scene(channels=9)
    cube[..., :count] = 7
    with pytest.raises(DataError, match=f"rx: .*{text} constant"):
        fitted(flat(cube), eps=0.0)


def test_dependent_channels_are_singular():
    x = flat(scene(channels=4))
    x[:, 3] = 2 * x[:, 0] - x[:, 1]
    with pytest.raises(DataError, match=r"rx: the covariance of 4 channels has rank 3 \(from 960"):
        fitted(x, eps=0.0)
    node = fitted(x, loading=1e-3, eps=0.0)
    assert node.state["rank"] == 3
    np.testing.assert_allclose(quadratic(node, x), mahalanobis(x, loading=1e-3), rtol=1e-8)


def test_a_direction_of_rounding_warns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * [1.0, 1e-4, 1e-6]
    with pytest.warns(DataWarning, match=r"rx: the covariance has condition .*e\+1[12]"):
        fitted(x, eps=0.0)
    fitted(x * [1, 1, 100], eps=0.0)


@pytest.mark.parametrize("option", ["eps", "loading"])
@pytest.mark.parametrize("cls", [RXGlobal, RXPerBatch])
@pytest.mark.parametrize("value", [-1e-9, float("nan")])
def test_ridges_are_not_negative(cls, option, value):
    with pytest.raises(PipelineError, match=rf"{option} {value} must not be negative"):
        cls(**{option: value})


def test_inverses_have_a_name():
    with pytest.raises(PipelineError, match="inverse 'lu' is not one of 'cholesky64', 'pinv32'"):
        RXGlobal(inverse="lu")


def test_not_fitted():
    node = RXGlobal(2, name="rx")
    with pytest.raises(NotFittedError, match=r"RXGlobal 'rx' is not fitted\. Fit the pipeline"):
        node(data=torch.zeros(1, 1, 1, 2))


# --- buffers that are assigned ------------------------------------------------------------------


def test_sigma_is_cov():
    node = fitted(flat(scene()))
    assert node.sigma is node.cov
    node.sigma = torch.eye(5)
    assert torch.equal(node.cov, torch.eye(5))


@pytest.mark.parametrize("inverse", ["cholesky64", "pinv32"])
def test_assigned_buffers_win_one_by_one(inverse):
    x, centre = flat(scene(channels=3)), np.array([900.0, 1000.0, 1100.0])
    fresh = np.array([[4.0, 1, 0], [1, 5, 0], [0, 0, 6]])
    exact = np.linalg.inv(np.cov(x.T))

    def distance(mean, inverse_matrix):
        return np.einsum("ij,jk,ik->i", x - mean, inverse_matrix, x - mean)

    # The mean alone: the covariance stays the exact one.
    node = fitted(x, eps=0.0, inverse=inverse)
    node.mu = torch.from_numpy(centre).float()
    tolerance = 1e-9 if inverse == "cholesky64" else 1e-3
    np.testing.assert_allclose(quadratic(node, x), distance(centre, exact), rtol=tolerance)
    # The covariance alone: the inverse of the fit does not count any more.
    node = fitted(x, eps=0.0, inverse=inverse)
    node.sigma = torch.from_numpy(fresh).float()
    expected = distance(x.mean(axis=0), np.linalg.inv(fresh))
    np.testing.assert_allclose(quadratic(node, x), expected, rtol=1e-5)
    # The inverse alone.
    node = fitted(x, eps=0.0, inverse=inverse)
    node.cov_inv = torch.from_numpy(fresh).float()
    np.testing.assert_allclose(quadratic(node, x), distance(x.mean(axis=0), fresh), rtol=1e-6)
    np.testing.assert_allclose(forward(node, x), quadratic(node, x), rtol=1e-6)
    # A new fit forgets them all.
    node.fit(moments(x))
    np.testing.assert_allclose(quadratic(node, x), distance(x.mean(axis=0), exact), rtol=tolerance)


@pytest.mark.parametrize("inverse", ["cholesky64", "pinv32"])
def test_the_recipe_of_the_seed_pages(inverse):
    # mu and sigma from elsewhere, and a flag; cov_inv is never named.
    x = flat(scene(channels=3))
    node = RXGlobal(num_channels=3, inverse=inverse)
    node.mu = torch.from_numpy(x.mean(axis=0)).float()
    node.sigma = torch.from_numpy(np.cov(x.T)).float()
    node._statistically_initialized = True
    assert node._statistically_initialized
    np.testing.assert_allclose(quadratic(node, x), mahalanobis(x), rtol=1e-3, atol=1e-3)


def test_an_assigned_covariance_must_be_one():
    node = fitted(flat(scene(channels=2)))
    node.cov = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(DataError, match="rx: the covariance that was assigned is not positive"):
        node.quadratic()
    # Files of cuvis-ai: the covariance in float32 may have lost it, the inverse beside it counts.
    other = RXGlobal(2)
    other.cov, other.cov_inv = node.cov, torch.eye(2)
    other.mark_fitted(True)
    np.testing.assert_allclose(np.abs(other.quadratic().factor), np.eye(2))


# --- per frame ----------------------------------------------------------------------------------


@settings(max_examples=20)
@given(SEEDS, st.sampled_from([0.0, 5.0]), st.sampled_from([0.0, 0.1]))
def test_every_image_is_its_own_background(seed, eps, loading):
    cubes = [scene(6, 10, 3, seed, "float32"), scene(6, 10, 3, seed + 1, "float32") * 2 + 5]
    node = RXPerBatch(eps=eps, loading=loading, name="rx")
    assert node.scope is Scope.FRAME
    assert node.fitted
    scores = node(data=torch.from_numpy(np.stack(cubes)))["scores"].numpy()
    assert scores.shape == (2, 6, 10, 1)
    for cube, image in zip(cubes, scores, strict=True):
        expected = mahalanobis(flat(cube), eps=eps, loading=loading)
        np.testing.assert_allclose(image.ravel(), expected, rtol=1e-5)


def test_pixels_that_are_not_finite_are_no_background():
    cube = scene(dtype="float32")
    cube[0, 0, 0], cube[1, 1, 1] = np.nan, np.inf
    clean = np.isfinite(cube).all(axis=-1)
    scores = RXPerBatch(eps=0.0)(data=torch.from_numpy(cube)[None])["scores"][0, ..., 0].numpy()
    np.testing.assert_allclose(scores[clean], mahalanobis(flat(cube[clean])), rtol=1e-5)
    assert np.isnan(scores[~clean]).all()


def test_a_frame_that_is_too_small_says_so():
    with pytest.raises(DataError, match="rx: 4 valid pixels for 5 channels"):
        run(chain(RXPerBatch(name="rx", eps=0.0)), "rx.scores", cube=scene(2, 2))


# --- real scenes --------------------------------------------------------------------------------

AUC = {
    "abu-airport-1": 0.822085,
    "abu-urban-4": 0.988718,
    "hydice-urban": 0.985689,
    "envi-lhdata-100": 0.991006,
}


@pytest.mark.parametrize("name", AUC)
def test_published_areas_under_the_curve(shared_data, name):
    from sklearn.metrics import roc_auc_score

    with np.load(shared_data / f"{name}.npz") as stored:
        cube, mask = stored["cube"], stored["mask"]
    pipeline = chain(RXGlobal(name="rx", eps=0.0))
    fit(pipeline, cube, sample=False)
    scores = pipeline.apply(labelled(cube)).to_numpy()
    assert roc_auc_score(mask.ravel() == 1, scores.ravel()) == pytest.approx(AUC[name], abs=1e-6)
    n, channels = mask.size, cube.shape[-1]
    assert scores.mean(dtype=np.float64) == pytest.approx(channels * (n - 1) / n, rel=1e-7)
