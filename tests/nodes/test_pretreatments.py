"""SNV, logarithm and continuum removal against NumPy and the hulls of SciPy."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, mahalanobis, run, scene
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial import ConvexHull
from sklearn.preprocessing import StandardScaler

from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import (
    BandpassByWavelength,
    ChannelAxis,
    ContinuumRemoval,
    Logarithm,
    RXGlobal,
    SNVCorrection,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit

SEEDS = st.integers(0, 2**32 - 1)


def forward(node, x, **more):
    data = torch.from_numpy(np.asarray(x, np.float32)).reshape(1, len(x), 1, -1)
    return node(cube=data, **more)["cube"].numpy().reshape(len(x), -1)


# --- standard normal variate --------------------------------------------------------------------


@given(SEEDS, st.integers(2, 9))
def test_snv_standardises_every_spectrum(seed, channels):
    x = np.random.default_rng(seed).normal(3, 2, (6, channels))
    # scikit-learn standardises columns, by n.
    expected = StandardScaler().fit_transform(x.T).T * np.sqrt((channels - 1) / channels)
    np.testing.assert_allclose(forward(SNVCorrection(), x), expected, atol=1e-4)


def test_snv_of_flat_spectra_is_zero_and_nan_stays_with_its_pixel():
    x = np.array([[4.0, 4, 4], [1, np.nan, 2], [1, 2, 3]])
    out = forward(SNVCorrection(), x)
    np.testing.assert_array_equal(out[0], 0)
    assert np.isnan(out[1]).all()
    np.testing.assert_allclose(out[2], [-1, 0, 1], atol=1e-6)
    with pytest.raises(ConfigError, match="snv: the deviation over channels needs at least 2"):
        chain(SNVCorrection(name="snv")).resolve(ChannelAxis(1))


# --- logarithm ----------------------------------------------------------------------------------


@given(
    npst.arrays(np.float32, (3, 4), elements=st.floats(-1, 1000, width=32)),
    st.sampled_from(["log10", "ln"]),
    st.booleans(),
    st.sampled_from([1e-8, 0.5]),
)
def test_logarithms_are_those_of_numpy(x, mode, negate, eps):
    log = {"log10": np.log10, "ln": np.log}[mode]
    expected = log(np.maximum(x.astype("f8"), np.float32(eps))) * (-1 if negate else 1)
    np.testing.assert_allclose(forward(Logarithm(mode, negate, eps), x), expected, atol=1e-5)


def test_arguments_of_the_logarithm():
    with pytest.raises(PipelineError, match="mode 'log2' is not 'log10' or 'ln'"):
        Logarithm("log2")
    with pytest.raises(PipelineError, match=r"eps 0\.0 must be above 0"):
        Logarithm(eps=0.0)
    assert np.isnan(forward(Logarithm(), [[np.nan]])).all()


# --- continuum ----------------------------------------------------------------------------------


def continuum(x, spectrum):
    """Upper hull of the points by Qhull: corners above the chord, interpolated."""
    bottom = spectrum.min() - np.ptp(spectrum) - 1.0
    points = np.stack([np.r_[x, x.min(), x.max()], np.r_[spectrum, bottom, bottom]], axis=1)
    corners = np.sort(ConvexHull(points).vertices)
    corners = corners[corners < len(x)]
    order = np.argsort(x[corners])
    return np.interp(x, x[corners][order], spectrum[corners][order])


@given(SEEDS, st.integers(3, 40), st.booleans(), st.booleans())
def test_the_continuum_is_the_upper_hull_of_qhull(seed, size, descending, smooth):
    rng = np.random.default_rng(seed)
    wavelength = 400 + np.cumsum(rng.uniform(1, 9, size))
    wavelength = wavelength[::-1].copy() if descending else wavelength
    x = rng.uniform(0.1, 1, (5, size))
    if smooth:
        x = np.cumsum(x - 0.5, axis=1)
        x += 0.1 - x.min()
    x = x.astype(np.float32)
    expected = np.array([row / continuum(wavelength, row.astype("f8")) for row in x])
    out = forward(ContinuumRemoval(), x, wavelengths=wavelength)
    np.testing.assert_allclose(out, expected, rtol=2e-6)
    assert (out <= 1 + 1e-6).all()
    ends = out[:, [0, -1]]
    np.testing.assert_array_equal(ends, 1.0)


def test_straight_spectra_are_their_own_continuum():
    x = np.array([[1.0, 2, 3, 4], [5, 5, 5, 5], [4, 3, 2, 1]])
    np.testing.assert_allclose(forward(ContinuumRemoval(), x, wavelengths=np.arange(4)), 1.0)
    np.testing.assert_allclose(forward(ContinuumRemoval(), x[:, :1], wavelengths=np.ones(1)), 1.0)
    out = forward(ContinuumRemoval(eps=0.5), np.array([[0.1, 0.1]]), wavelengths=np.arange(2))
    np.testing.assert_allclose(out, 0.2, rtol=1e-6)


def test_spectra_that_are_not_finite_become_nan_alone():
    x = np.random.default_rng(0).uniform(1, 2, (4, 7))
    clean = forward(ContinuumRemoval(), x, wavelengths=np.arange(7))
    x[1, 3], x[2, 0] = np.nan, np.inf
    out = forward(ContinuumRemoval(), x, wavelengths=np.arange(7))
    assert np.isnan(out[[1, 2]]).all()
    np.testing.assert_array_equal(out[[0, 3]], clean[[0, 3]])


def test_gradients_pass_through_the_hull():
    x = torch.tensor([[[[2.0, 1.0, 1.5, 4.0]]]], dtype=torch.float64, requires_grad=True)
    node = ContinuumRemoval()
    wavelength = np.array([0.0, 1, 2, 4])
    node(cube=x, wavelengths=wavelength)["cube"][0, 0, 0, 1].backward()
    hull = 2.5  # a quarter of the way from the first value to the last
    np.testing.assert_allclose(
        x.grad.ravel(), [-0.75 / hull**2, 1 / hull, 0, -0.25 / hull**2], rtol=1e-6
    )


def test_continuum_removal_needs_wavelengths():
    with pytest.raises(ConfigError, match=r"cr needs wavelengths.*Add 'wavelength'"):
        chain(ContinuumRemoval(name="cr")).resolve(ChannelAxis(4))
    with pytest.raises(ConfigError, match="cr needs wavelengths that ascend or descend"):
        chain(ContinuumRemoval(name="cr")).resolve(ChannelAxis.of([1, 3, 2]))


# --- in graphs ----------------------------------------------------------------------------------


def passes_and_scores(tmp_path, pipeline, cube, axis):
    """Fit, score by blocks and whole, and after saving: the same bits."""
    assert plan_fit(pipeline, ("moments", "extrema")).passes == 1
    fit(pipeline, cube, axis=axis, block=1)
    scores = run(pipeline, "rx.scores", cube=cube, block=1)
    np.testing.assert_array_equal(run(pipeline, "rx.scores", cube=cube), scores)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    np.testing.assert_array_equal(run(again, "rx.scores", cube=cube), scores)
    return scores.ravel()


def test_continuum_and_absorbance_in_a_graph(tmp_path):
    wavelength = 400.4 + 3.6 * np.arange(7)
    cube = scene(70, 20, 7)
    # At the ends the hull is the spectrum.
    pipeline = chain(
        ContinuumRemoval(name="cr"), BandpassByWavelength(402, 420, name="band"),
        Logarithm(negate=True, name="log"), RXGlobal(name="rx", eps=0.0),
    )  # fmt: skip
    pipeline.connect(
        pipeline.nodes["data"].outputs.wavelengths, pipeline.nodes["cr"].inputs.wavelengths
    )
    scores = passes_and_scores(tmp_path, pipeline, cube, ChannelAxis.of(wavelength))
    x = np.array([row / continuum(wavelength, row) for row in flat(cube)])[:, 1:-1]
    np.testing.assert_allclose(scores, mahalanobis(-np.log10(x)), rtol=1e-3)


def test_snv_in_a_graph(tmp_path):
    cube = scene(70, 20)
    pipeline = chain(SNVCorrection(name="snv"), RXGlobal(name="rx", eps=0.0, loading=1e-2))
    scores = passes_and_scores(tmp_path, pipeline, cube, None)
    x = flat(cube)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, ddof=1, keepdims=True)
    np.testing.assert_allclose(scores, mahalanobis(x, loading=1e-2), rtol=1e-3)
