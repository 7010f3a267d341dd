"""The Laplacian detector against its definition, entry by entry."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataWarning, NotFittedError
from hsi_batch.nodes import LADGlobal, MinMaxNormalizer, ZScoreNormalizerGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.statistics import Moments


def laplacian(mean, normalize, as_numpy):
    """The definition, in loops."""
    size, average = len(mean), sum(mean) / len(mean)
    weights = [
        [
            0 if i == j else 1 / (1 + (abs(a - b) / (average + 1e-12)) ** 2)
            for j, b in enumerate(mean)
        ]
        for i, a in enumerate(mean)
    ]
    degree = [sum(row) for row in weights]
    scale = [1 / (d**0.5 + 1e-12) if as_numpy else 1 / (d + 1e-12) ** 0.5 for d in degree]
    return np.array(
        [
            [
                ((degree[i] if i == j else 0) - weights[i][j])
                * (scale[i] * scale[j] if normalize else 1)
                for j in range(size)
            ]
            for i in range(size)
        ]
    )


def fitted(x, **options):
    node = LADGlobal(name="lad", **options)
    node.fit(Moments.empty(x.shape[1], x.dtype).update(x))
    return node


def scores_of(x, mean, matrix):
    return np.einsum("ni,ij,nj->n", x - mean, matrix, x - mean)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.booleans(), st.booleans())
def test_scores_are_those_of_the_definition(seed, channels, normalize, as_numpy):
    x = flat(scene(10, 20, channels, seed))
    node = fitted(x, normalize_laplacian=normalize, use_numpy_laplacian=as_numpy)
    mean = x.mean(axis=0)
    matrix = laplacian(mean, normalize, as_numpy)
    np.testing.assert_allclose(node.L.numpy(), matrix, atol=1e-12)
    np.testing.assert_allclose(node.M.numpy(), mean, rtol=1e-12)
    assert node.L.dtype == node.M.dtype == torch.float64
    expected = scores_of(x, mean, matrix)
    form = node.quadratic()
    found = np.square(x @ form.factor.T + form.offset).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * expected.max())
    out = node(data=torch.from_numpy(x.astype("f4")).reshape(1, 10, 20, -1))["scores"]
    exact = scores_of(x.astype("f4").astype("f8"), mean, matrix)
    np.testing.assert_allclose(out.numpy().ravel(), exact, rtol=1e-6, atol=1e-12)


def test_it_folds_and_costs_no_pass(tmp_path):
    cube = scene(70, 30)
    pipeline = chain(MinMaxNormalizer(name="norm", eps=0.0), LADGlobal(name="lad"))
    assert plan_fit(pipeline, ("moments", "extrema")).passes == 0
    fit(pipeline, cube, block=1)
    x = flat(cube)
    x = (x - x.min()) / (x.max() - x.min())
    expected = scores_of(x, x.mean(axis=0), laplacian(x.mean(axis=0), True, True))
    scores = run(pipeline, "lad.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    lazy = pipeline.apply(labelled(cube)).compute().to_numpy().ravel()
    np.testing.assert_array_equal(lazy, scores)
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    np.testing.assert_array_equal(run(other, "lad.scores", cube=cube).ravel(), scores)


def test_assigned_buffers_win():
    x = flat(scene())
    node = fitted(x)
    node.L = torch.eye(5, dtype=torch.float64)
    form = node.quadratic()
    expected = np.square(x - x.mean(axis=0)).sum(axis=1)
    found = np.square(x @ form.factor.T + form.offset).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_centred_data_make_no_graph():
    pipeline = chain(ZScoreNormalizerGlobal(name="z"), LADGlobal(name="lad"))
    with pytest.warns(DataWarning, match="lad: the means of the channels average to"):
        fit(pipeline, scene())
    with pytest.raises(NotFittedError, match="LADGlobal 'l' is not fitted"):
        LADGlobal(name="l").quadratic()
