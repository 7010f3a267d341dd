"""The residual of principal components, against scikit-learn."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, run
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes import MinMaxNormalizer, PCAResidual
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.statistics import Moments


def cube_of(seed, channels=6, height=40, width=9):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(2, channels))
    values = rng.normal(size=(height, width, 2)) @ mixing * 300 + 5000
    return np.rint(values + rng.normal(size=values.shape, scale=9)).astype(np.uint16)


def reconstruction_error(x, components):
    pca = PCA(components, svd_solver="full").fit(x)
    return ((x - pca.inverse_transform(pca.transform(x))) ** 2).sum(axis=1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 5), st.sampled_from([None, 1]))
def test_scores_are_the_reconstruction_error(seed, components, block):
    cube = cube_of(seed)
    pipeline = chain(PCAResidual(components, name="residual"))
    assert fit(pipeline, cube, block=block).passes == 1
    scores = run(pipeline, "residual.scores", cube=cube, block=block)
    expected = reconstruction_error(cube.reshape(-1, 6).astype(np.float64), components)
    np.testing.assert_allclose(scores.ravel(), expected, rtol=1e-5, atol=1e-4 * expected.max())


def test_it_is_folded_behind_affine_nodes_and_needs_no_pass():
    cube = cube_of(1)
    pipeline = chain(MinMaxNormalizer(name="norm"), PCAResidual(2, name="residual"))
    assert plan_fit(pipeline, {"moments", "extrema"}).passes == 0
    fit(pipeline, cube)
    x = cube.reshape(-1, 6).astype(np.float64)
    x = (x - x.min()) / (x.max() - x.min())
    scores = run(pipeline, "residual.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, reconstruction_error(x, 2), rtol=1e-5, atol=1e-9)
    module = pipeline.nodes["residual"](data=torch.from_numpy(x.astype(np.float32))[None, None])
    np.testing.assert_allclose(module["scores"].ravel().numpy(), scores, rtol=1e-3, atol=1e-7)


def test_weights_come_back(tmp_path):
    pipeline = chain(PCAResidual(2, name="residual"))
    fit(pipeline, cube_of(2))
    pipeline.save(tmp_path / "p.yaml")
    loaded = Pipeline.from_yaml(tmp_path / "p.yaml")
    cube = cube_of(3)
    first, second = (run(p, "residual.scores", cube=cube) for p in (pipeline, loaded))
    np.testing.assert_array_equal(first, second)


def test_what_cannot_be_is_refused():
    with pytest.raises(PipelineError, match="at least 1"):
        PCAResidual(0)
    moments = Moments.empty(3, "uint8").update(np.eye(3, dtype=np.uint8))
    with pytest.raises(DataError, match="leaves nothing of the 3 channels"):
        PCAResidual(3).fit(moments)
