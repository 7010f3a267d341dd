"""Endmembers from the pixels, against scikit-learn and SciPy in float64."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from hsi_batch.errors import DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import ChannelAxis, MinMaxNormalizer, NMFUnmixing
from hsi_batch.pipeline import Pipeline

SEEDS = st.integers(0, 2**32 - 1)


def mixed(seed, height=24, width=20, materials=3, channels=6, noise=0.0):
    """Mixtures of some spectra, with pure pixels among them."""
    rng = np.random.default_rng(seed)
    spectra = rng.random((materials, channels)) ** 3 + 0.02
    shares = rng.dirichlet(np.full(materials, 0.4), (height, width))
    shares *= rng.uniform(0.5, 1.5, (height, width, 1))
    cube = 1000 * shares @ spectra + rng.normal(0, max(noise, 1e-9), (height, width, channels))
    return np.abs(cube).astype("float32")


def flat(*cubes):
    return np.concatenate([c.reshape(-1, c.shape[-1]) for c in cubes]).astype(np.float64)


def rescaled(endmembers, x):
    length = np.sqrt((x**2).sum(axis=1).mean())
    return endmembers * (length / np.linalg.norm(endmembers, axis=1))[:, None]


def solved(x, endmembers):
    pairs = [nnls(endmembers.T, pixel) for pixel in x]
    return np.array([a for a, _ in pairs]), np.array([left for _, left in pairs])


@settings(max_examples=6)
@given(SEEDS, st.sampled_from(["nndsvda", "nndsvd"]), st.integers(2, 4))
def test_the_sample_gives_what_scikit_learn_gives(seed, init, count):
    cube = mixed(seed, 12, 10, materials=count)
    # Spectra that occur twice count twice.
    cube[:2] = cube[2:4]
    node = NMFUnmixing(count, init=init, max_iter=2000, max_passes=0, name="nmf")
    fit(chain(node), cube)
    x = flat(cube)
    model = NMF(count, init=init, max_iter=2000, random_state=0).fit(x)
    np.testing.assert_allclose(
        node.state["endmembers"], rescaled(model.components_, x), rtol=1e-6, atol=1e-6 * x.max()
    )


@settings(max_examples=5)
@given(SEEDS, st.sampled_from([None, 1]))
def test_every_pass_is_a_step_over_all_pixels(seed, block):
    cubes = [mixed(seed, noise=20.0), mixed(seed + 1, 31, noise=20.0)]
    options = {"max_fit_pixels": 60, "max_iter": 5000, "tol": 0.0}
    start = NMFUnmixing(3, max_passes=0, name="nmf", **options)
    fit(chain(start), *cubes)
    node = NMFUnmixing(3, max_passes=2, name="nmf", **options)
    with pytest.warns(DataWarning, match="still falls after 2 passes"):
        assert fit(chain(node), *cubes, block=block).passes == 3
    x = flat(*cubes)
    expected = start.state["endmembers"]
    for _ in range(2):
        abundances, _ = solved(x, expected)
        expected = np.array([nnls(abundances, x[:, c])[0] for c in range(x.shape[1])]).T
    left = float(((x - abundances @ expected) ** 2).sum())
    np.testing.assert_allclose(
        node.state["endmembers"], rescaled(expected, x), rtol=1e-6, atol=1e-6 * x.max()
    )
    assert float(node.state["residual"]) == pytest.approx(left, rel=1e-8)


def test_the_passes_end_where_scikit_learn_ends():
    cube = mixed(5, noise=30.0)
    node = NMFUnmixing(3, max_fit_pixels=60, max_iter=5000, max_passes=90, tol=1e-7, name="nmf")
    fit(chain(node), cube)
    x = flat(cube)
    model = NMF(3, init="nndsvda", max_iter=20000, tol=1e-7).fit(x)
    start = NMFUnmixing(3, max_fit_pixels=60, max_iter=5000, max_passes=0, name="nmf")
    fit(chain(start), cube)
    _, left = solved(x, start.state["endmembers"])
    best = model.reconstruction_err_**2
    assert float(node.state["residual"]) == pytest.approx(best, rel=0.01)
    assert (left**2).sum() > 1.03 * best


def test_grouping_and_the_machine_change_no_bit():
    cubes = [mixed(seed, 45, 100, noise=10.0) for seed in (1, 2)]
    states = []
    for block in (None, 1):
        node = NMFUnmixing(2, max_fit_pixels=80, max_passes=3, tol=1e-3, name="nmf")
        fit(chain(node), *cubes, block=block)
        states.append(node.state["endmembers"])
    assert np.array_equal(*states)


def test_abundances_by_blocks_and_behind_a_scaling():
    cube = mixed(3, noise=5.0)
    node = NMFUnmixing(3, init="random", max_iter=4000, name="nmf", tol=1e-4)
    pipeline = chain(MinMaxNormalizer(name="norm"), node)
    fit(pipeline, cube)
    ports = ("nmf.abundances", "nmf.scores", "nmf.class_mask")
    got = run(pipeline, *ports, cube=cube, block=1)
    x = (flat(cube) - cube.min()) / (float(cube.max()) - cube.min())
    abundances, left = solved(x, node.state["endmembers"])
    np.testing.assert_allclose(got[0].reshape(-1, 3), abundances, atol=1e-4)
    np.testing.assert_allclose(got[1].ravel(), left, atol=1e-5)
    np.testing.assert_array_equal(
        got[2].ravel(), np.where(abundances.any(axis=1), abundances.argmax(axis=1) + 1, 0)
    )
    out = node(cube=torch.full((1, 1, 1, 6), torch.nan))
    assert torch.isnan(out["scores"]).all()
    assert out["class_mask"].item() == 0
    assert out["endmembers"].shape == (3, 6)


def test_saved_and_loaded(tmp_path):
    node = NMFUnmixing(2, name="nmf")
    pipeline = chain(node)
    cube = mixed(7, materials=2)
    fit(pipeline, cube)
    pipeline.save(tmp_path / "nmf.yaml")
    back = Pipeline.from_yaml(tmp_path / "nmf.yaml")
    shapes = {k: tuple(t.shape) for k, t in back.nodes["nmf"].state_dict().items()}
    assert shapes == {"endmembers_buf": (2, 6), "_initialized": (1,)}
    np.testing.assert_array_equal(
        run(back, "nmf.abundances", cube=cube), run(pipeline, "nmf.abundances", cube=cube)
    )
    # Endmembers that are assigned count.
    node.endmembers_buf = torch.eye(2, 6)
    np.testing.assert_allclose(run(pipeline, "nmf.abundances", cube=cube), cube[..., :2], rtol=1e-6)


def test_endmembers_can_be_trained():
    cube = mixed(4, 8, 7, noise=30.0)
    node = NMFUnmixing(3, max_passes=0, name="nmf")
    fit(chain(node), cube)
    node.unfreeze()
    given = torch.from_numpy(cube)[None]
    node(cube=given)["scores"].sum().backward()
    endmembers = node.endmembers_buf.detach().double().numpy()
    for k, c in ((0, 1), (2, 4)):
        apart = []
        for step in (-1e-2, 1e-2):
            moved = endmembers.copy()
            moved[k, c] += step
            apart.append(solved(flat(cube), moved)[1].sum())
        slope = (apart[1] - apart[0]) / 2e-2
        assert float(node.endmembers_buf.grad[k, c]) == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_what_is_refused_and_warned_about():
    for arguments, text in (
        ({"n_components": 0}, "n_components 0 must be at least 1"),
        ({"init": "best"}, "init 'best' is not one of 'nndsvda'"),
        ({"beta_loss": "kullback-leibler"}, "beta_loss 'kullback-leibler' is not 'frobenius'"),
        ({"max_passes": -1}, "max_passes -1"),
    ):
        with pytest.raises(PipelineError, match=text):
            NMFUnmixing(**arguments)
    with pytest.raises(NotFittedError, match="nmf"):
        NMFUnmixing(name="nmf")(cube=torch.zeros(1, 1, 1, 6))
    with pytest.raises(PipelineError, match="n_components 7 is more than the 6 channels"):
        chain(NMFUnmixing(7, name="nmf")).resolve(ChannelAxis(6))
    with pytest.raises(DataError, match="3 endmembers are asked for, but there are 1 different"):
        fit(chain(NMFUnmixing(name="nmf")), np.full((4, 4, 5), 3, np.uint16))
    one = np.arange(1, 17).reshape(4, 4, 1) * np.array([1.0, 2.0, 4.0])
    with pytest.raises(DataError, match="3 endmembers are more than the pixels tell apart"):
        fit(chain(NMFUnmixing(init="nndsvd", name="nmf")), one)
    with pytest.warns(DataWarning, match="still move after 1 steps; raise max_iter"):
        fit(chain(NMFUnmixing(max_iter=1, max_passes=0, name="nmf")), mixed(0))
