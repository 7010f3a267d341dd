"""One-class support vector machine, against scikit-learn on all pixels."""

import importlib.util

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, run
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import OneClassSVM

from hsi_batch.errors import ConfigError, DataError, NotFittedError, PipelineError
from hsi_batch.nodes import MinMaxNormalizer, OneClassSVMDetector
from hsi_batch.pipeline import Pipeline
from hsi_batch.statistics.sample import SampleMeasure


def scene(seed, height=18, width=12, channels=4):
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, 2, (height, width, 1)) * 300 + 500
    return np.rint(centre + rng.normal(0, 40, (height, width, channels))).astype(np.uint16)


def flat(cube):
    return cube.reshape(-1, cube.shape[-1]).astype(np.float64)


@settings(max_examples=8)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.05, 0.5]),
    st.sampled_from(["scale", "auto", 1e-5]),
    st.sampled_from([None, 1]),
)
def test_scores_are_those_of_scikit_learn(seed, nu, gamma, block):
    cube = scene(seed)
    node = OneClassSVMDetector(nu=nu, gamma=gamma, chunk_size=50, name="svm")
    pipeline = chain(node)
    assert fit(pipeline, cube, block=block).passes == 1
    x = flat(cube)
    # In the order of the sample, so that the solver takes the same steps.
    spectra = SampleMeasure(10**6).of(cube, None, None).spectra.astype(float)
    model = OneClassSVM(nu=nu, gamma=gamma).fit(spectra)
    scores, decisions = run(pipeline, "svm.scores", "svm.decisions", cube=cube, block=1)
    expected = model.decision_function(x)
    size = np.abs(model.dual_coef_).sum()
    np.testing.assert_allclose(scores.ravel(), expected, atol=1e-6 * size, rtol=1e-6)
    clear = np.abs(expected) > 1e-6 * size
    np.testing.assert_array_equal(decisions.ravel()[clear], expected[clear] < 0)
    assert node.state["gamma"][0] == pytest.approx(model._gamma, rel=1e-12)


def test_spectra_count_as_often_as_they_occur():
    cube = scene(1)
    cube[:6] = cube[:1, :1]
    node = OneClassSVMDetector(nu=0.2, gamma=1e-5, name="svm")
    pipeline = chain(node)
    fit(pipeline, cube)
    model = OneClassSVM(nu=0.2, gamma=1e-5, tol=1e-6).fit(flat(cube))
    expected = model.decision_function(flat(cube))
    got = run(pipeline, "svm.scores", cube=cube).ravel()
    # Coefficients of weights with mean 1 sum to nu per different spectrum.
    different = len(np.unique(flat(cube), axis=0))
    assert node.state["dual_coef"].sum() == pytest.approx(0.2 * different, rel=1e-9)
    scale = len(flat(cube)) / different
    np.testing.assert_allclose(got * scale, expected, atol=2e-3 * np.abs(expected).max())


def test_the_sample_does_not_depend_on_grouping_and_hides_no_outliers():
    cubes = [scene(seed, 40) for seed in (1, 2)]
    states = []
    for block in (None, 1):
        node = OneClassSVMDetector(nu=0.1, max_fit_pixels=200, name="svm")
        fit(chain(MinMaxNormalizer(name="norm"), node), *cubes, block=block)
        states.append(node.state)
    for key in ("support_vectors", "dual_coef", "gamma", "offset"):
        np.testing.assert_array_equal(states[0][key], states[1][key])
    out = node(cube=torch.tensor([[[[5.0, 5.0, 5.0, 5.0], [torch.nan, 0.0, 0.0, 0.0]]]]))
    assert out["decisions"].flatten().tolist() == [True, False]
    assert torch.isnan(out["scores"].flatten()[1])


def test_saved_and_scored_without_scikit_learn(tmp_path, monkeypatch):
    node = OneClassSVMDetector(nu=0.1, name="svm")
    pipeline = chain(node)
    cube = scene(4)
    fit(pipeline, cube)
    expected = run(pipeline, "svm.scores", cube=cube)
    pipeline.save(tmp_path / "svm.yaml")
    monkeypatch.setattr("hsi_batch.nodes.one_class_svm.find_spec", lambda _name: None)
    back = Pipeline.from_yaml(tmp_path / "svm.yaml")
    copy = back.nodes["svm"]
    vectors = len(node.state["dual_coef"])
    assert {k: tuple(t.shape) for k, t in copy.state_dict().items()} == {
        "support_vectors": (vectors, 4),
        "dual_coef": (vectors,),
        "gamma_buf": (1,),
        "offset_buf": (1,),
        "_initialized": (1,),
    }
    np.testing.assert_array_equal(run(back, "svm.scores", cube=cube), expected)
    copy.offset_buf = copy.offset_buf + 1
    moved = run(back, "svm.scores", cube=cube)
    np.testing.assert_allclose(moved, expected - 1, atol=1e-4)
    with pytest.raises(ConfigError, match=r"svm: .* needs the package scikit-learn"):
        fit(back, cube)


def test_what_is_refused():
    assert importlib.util.find_spec("sklearn") is not None
    for arguments, text in (
        ({"kernel": "linear"}, "kernel 'linear' is not 'rbf'"),
        ({"nu": 0.0}, "nu 0.0 must be above 0"),
        ({"gamma": "best"}, "gamma 'best' is not"),
        ({"gamma": 0.0}, "gamma 0.0 is not"),
        ({"chunk_size": 0}, "chunk_size 0"),
    ):
        with pytest.raises(PipelineError, match=text):
            OneClassSVMDetector(**arguments)
    with pytest.raises(NotFittedError, match="svm"):
        OneClassSVMDetector(name="svm")(cube=torch.zeros(1, 1, 1, 3))
    with pytest.raises(DataError, match="all alike"):
        fit(chain(OneClassSVMDetector(name="svm")), np.full((4, 4, 3), 7, np.uint16))
    node = OneClassSVMDetector(name="svm")
    fit(chain(node), scene(1))
    with pytest.raises(PipelineError, match="4 channels, its input 3"):
        node(cube=torch.zeros(1, 1, 1, 3))
