"""MNF against SciPy's generalised eigenproblem."""

import numpy as np
import pytest
import scipy.linalg
import torch
from graph_helpers import chain, fit, flat, labelled, run
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import ConfigError, DataError, PipelineError
from hsi_batch.nodes import MNF, MinMaxNormalizer, RXGlobal
from hsi_batch.pipeline import Pipeline


def smooth(seed=0, height=40, width=20, channels=4, dtype="uint16"):
    """Two smooth signals along lines in correlated noise."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 2 * np.pi, width)
    phase = rng.uniform(0, 6, (height, 2, 1))
    signal = np.moveaxis(np.sin(x + phase) * np.array([[300.0], [150.0]]), 1, 2)
    noise = rng.normal(size=(height, width, channels)) @ rng.normal(size=(channels, channels)) * 10
    cube = signal @ rng.normal(size=(2, channels)) + noise + 2000
    return np.rint(cube).astype(dtype) if np.dtype(dtype).kind in "iu" else cube.astype(dtype)


def reference(cube, valid=None, loading=0.0):
    """Eigenvalues, rows and noise covariance."""
    wide = cube.astype(np.float64)
    valid = np.ones(cube.shape[:2], bool) if valid is None else valid
    steps = (wide[:, 1:] - wide[:, :-1])[valid[:, 1:] & valid[:, :-1]]
    noise = np.cov(steps.T) / 2
    noise += loading * np.trace(noise) / len(noise) * np.eye(len(noise))
    values, vectors = scipy.linalg.eigh(np.cov(wide[valid].T), noise)
    rows = vectors.T[::-1]
    rows *= np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])[:, None]
    return values[::-1], rows, noise


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from([None, 2]),
    st.sampled_from([0.0, 0.1]),
)
def test_components_solve_the_generalised_eigenproblem(seed, block, some, count, loading):
    cube = smooth(seed)
    valid = np.random.default_rng(seed).random((40, 20)) < 0.8 if some else None
    node = MNF(n_components=count, loading=loading, name="mnf")
    pipeline = chain(node)
    assert fit(pipeline, cube, valid=valid, block=block).passes == 1
    values, rows, noise = reference(cube, valid, loading)
    np.testing.assert_allclose(node.state["eigenvalues"], values[:count], rtol=1e-8)
    np.testing.assert_allclose(node.state["noise"], noise, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(node.state["components"], rows[:count], rtol=1e-5, atol=1e-7)
    mean = flat(cube)[slice(None) if valid is None else valid.ravel()].mean(axis=0)
    expected = (flat(cube) - mean) @ rows[:count].T
    found = run(pipeline, "mnf.projected", cube=cube, block=block)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_noise_of_the_outputs_is_white():
    cube = smooth()
    pipeline = chain(MNF(name="mnf"))
    fit(pipeline, cube)
    found = run(pipeline, "mnf.projected", cube=cube).astype(np.float64)
    steps = (found[:, 1:] - found[:, :-1]).reshape(-1, 4)
    np.testing.assert_allclose(np.cov(steps.T) / 2, np.eye(4), atol=1e-4)
    values = pipeline.nodes["mnf"].state["eigenvalues"]
    np.testing.assert_allclose(np.cov(found.reshape(-1, 4).T), np.diag(values), atol=1e-3)
    assert values[1] > 3 > values[2]


def test_frames_are_not_neighbours():
    first, second = smooth(1), smooth(2) + 5000
    node = MNF(name="mnf")
    fit(chain(node), first, second.astype("uint16"))
    steps = np.concatenate(
        [np.diff(f.astype(float), axis=1).reshape(-1, 4) for f in (first, second)]
    )
    np.testing.assert_allclose(node.state["noise"], np.cov(steps.T) / 2, rtol=1e-9, atol=1e-9)


def test_it_is_affine_for_what_comes_behind():
    cube = smooth()
    pipeline = chain(MinMaxNormalizer(name="scale"), MNF(name="mnf"), RXGlobal(eps=0.0, name="rx"))
    plan = fit(pipeline, cube, stored=("moments", "extrema"))
    assert plan.passes == 1
    # All components hold all of the data: the distance is that of the cube.
    expected = flat(cube) - flat(cube).mean(axis=0)
    inverse = np.linalg.inv(np.cov(flat(cube).T))
    distance = np.einsum("ij,jk,ik->i", expected, inverse, expected)
    np.testing.assert_allclose(run(pipeline, "rx.scores", cube=cube).ravel(), distance, rtol=1e-4)


def test_saved_and_loaded(tmp_path):
    cube = smooth()
    pipeline = chain(MNF(n_components=2, name="mnf"))
    fit(pipeline, cube)
    loaded = Pipeline.from_yaml(pipeline.save(tmp_path / "mnf.yaml"))
    found = [p.apply(labelled(cube), "mnf.projected").to_numpy() for p in (pipeline, loaded)]
    np.testing.assert_array_equal(*found)
    node = loaded.nodes["mnf"]
    direct = node(data=torch.from_numpy(cube.astype("f4"))[None])
    np.testing.assert_allclose(direct["projected"][0].numpy(), found[0], atol=1e-2)
    assert node.eigenvalues.shape == (2,)
    assert node.components.shape == (2, 4)
    node._components = torch.eye(4)[:2]
    np.testing.assert_allclose(node.affine().matrix, np.eye(4)[:2])


def test_lines_of_one_pixel_have_no_neighbours():
    with pytest.raises(DataError, match="mnf: 0 pixels have a valid neighbour in their line"):
        fit(chain(MNF(name="mnf")), np.arange(120, dtype="u2").reshape(40, 1, 3))


def test_refusals():
    with pytest.raises(PipelineError, match="n_components 0 must be at least 1"):
        MNF(n_components=0)
    with pytest.raises(ConfigError, match="mnf: n_components 5 is more than the 4 channels"):
        fit(chain(MNF(n_components=5, name="mnf")), smooth())
    flat_cube = smooth()
    flat_cube[..., 2] = 7
    with pytest.raises(DataError, match="mnf: the noise covariance of 4 channels from 760 diff"):
        fit(chain(MNF(name="mnf")), flat_cube)
    fit(chain(MNF(loading=1e-3, name="mnf")), flat_cube)
    with pytest.raises(DataError, match="from 3 differences"):
        fit(chain(MNF(loading=1e-3, name="mnf")), smooth()[:1, :4])
