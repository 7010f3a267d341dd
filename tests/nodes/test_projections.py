"""Principal components against scikit-learn."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, principal, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from hsi_batch.errors import ConfigError, DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import ChannelAxis, TrainablePCA
from hsi_batch.statistics import Moments


def fitted(x, **options):
    node = TrainablePCA(name="pca", **options)
    node.fit(Moments.empty(x.shape[1], x.dtype).update(x))
    return node


def forward(node, x):
    data = torch.from_numpy(np.asarray(x, np.float32)).reshape(1, len(x), 1, -1)
    return node(data=data)["projected"].numpy().reshape(len(x), -1)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.data())
def test_components_are_those_of_scikit_learn(seed, channels, data):
    count = data.draw(st.integers(1, channels))
    x = flat(scene(10, 20, channels, seed))
    reference = PCA(count, svd_solver="full").fit(x)
    node = fitted(x, n_components=count)
    signs = np.sign(np.einsum("ij,ij->i", node.state["components"], reference.components_))
    values, vectors = principal(x, count)
    gaps = np.diff(-np.linalg.eigvalsh(np.atleast_2d(np.cov(x.T)))[::-1], prepend=-np.inf)
    if np.min(np.abs(gaps)) > 1.0:  # else the vectors are not unique
        np.testing.assert_allclose(
            node.state["components"], reference.components_ * signs[:, None], atol=1e-8
        )
        np.testing.assert_allclose(node.state["components"], vectors, atol=1e-8)
        np.testing.assert_allclose(
            node.affine()(x), reference.transform(x) * signs, rtol=1e-7, atol=1e-6
        )
    np.testing.assert_allclose(node.explained_variance, values, rtol=1e-5)
    np.testing.assert_allclose(node.explained_variance, reference.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(
        node.explained_variance_ratio.numpy(), reference.explained_variance_ratio_, rtol=1e-5
    )
    assert node.explained_variance_ratio.numpy().sum() <= 1 + 1e-6
    largest = np.abs(node.state["components"]).argmax(axis=1)
    assert (node.state["components"][np.arange(count), largest] > 0).all()
    np.testing.assert_allclose(forward(node, x), node.affine()(x), rtol=1e-3, atol=2e-2)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 1e3]))
def test_whitening_divides_by_the_deviation(seed, eps):
    x = flat(scene(10, 20, 4, seed))
    node = fitted(x, n_components=3, whiten=True, eps=eps)
    values, vectors = principal(x, 3)
    expected = (x - x.mean(axis=0)) @ vectors.T / np.sqrt(values + eps)
    np.testing.assert_allclose(node.affine()(x), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(forward(node, x), expected, rtol=1e-3, atol=1e-3)
    if eps == 0:
        np.testing.assert_allclose(np.cov(node.affine()(x).T), np.eye(3), atol=1e-9)


def test_outputs_are_channels_without_wavelengths():
    node = TrainablePCA(n_components=2, name="pca")
    out = node.channel_axis({"data": ChannelAxis.of([1, 2, 3])})["projected"]
    assert (out.size, out.wavelength) == (2, None)
    with pytest.raises(ConfigError, match="pca: n_components 4 is more than the 3 channels"):
        chain(TrainablePCA(n_components=4, name="pca")).resolve(ChannelAxis(3))


def test_forward_gives_the_parameters_too():
    cube = scene()
    pipeline = chain(TrainablePCA(n_components=2, name="pca"))
    fit(pipeline, cube)
    out = pipeline.forward({"cube": torch.from_numpy(cube.astype("f4"))[None]})
    assert out["pca", "components"].shape == (2, 5)
    values, _ = principal(flat(cube), 2)
    np.testing.assert_allclose(
        out["pca", "explained_variance_ratio"], values / np.cov(flat(cube).T).trace(), rtol=1e-5
    )


def test_assigned_components_win():
    x = flat(scene())
    node = fitted(x, n_components=2)
    node._components = torch.eye(5)[:2]
    np.testing.assert_allclose(node.affine()(x), (x - x.mean(axis=0))[:, :2], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(forward(node, x), node.affine()(x), atol=1e-3)


# --- fewer directions than components -----------------------------------------------------------


@pytest.fixture
def planar():
    """Pixels of four channels that vary in two directions."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4)) * 1e4 + 1e5


def test_components_beyond_the_rank_warn(planar):
    fitted(planar, n_components=2, whiten=True, eps=0.0)
    text = "pca: 3 components are asked for, but the 4 channels vary in 2 directions only"
    with pytest.warns(DataWarning, match=rf"{text} .over 300 pixels.*Set n_components to 2"):
        node = fitted(planar, n_components=3)
    assert (node.explained_variance >= 0).all()
    with pytest.warns(DataWarning, match="pca: 4 components"):
        node = fitted(planar, n_components=4, whiten=True)
    assert np.isfinite(node.affine()(planar)).all()
    with pytest.raises(DataError, match=f"{text}.*whitening divides by their spread"):
        fitted(planar, n_components=3, whiten=True, eps=0.0)


def test_constant_pixels_have_no_direction():
    with pytest.warns(DataWarning, match="vary in 0 directions only.*Set n_components to 1 or"):
        node = fitted(np.ones((9, 3)), n_components=1)
    assert node.explained_variance_ratio.tolist() == [0.0]


def test_one_pixel_is_too_few():
    with pytest.raises(DataError, match="1 valid pixels were counted"):
        fitted(np.ones((1, 3)))


def test_not_fitted_and_wrong_arguments():
    with pytest.raises(NotFittedError, match=r"TrainablePCA 'pca' is not fitted\. Fit the"):
        TrainablePCA(name="pca")(data=torch.zeros(1, 1, 1, 3))
    with pytest.raises(PipelineError, match="n_components 0 must be at least 1"):
        TrainablePCA(n_components=0)
    with pytest.raises(PipelineError, match=r"eps -1\.0 must not be negative"):
        TrainablePCA(eps=-1.0)
