"""Resampling against integrals of SciPy; fits behind it read no pixels."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, mahalanobis, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import ChannelAxis, RXGlobal, SpectralDerivative, SpectralResample
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit

STORED = ("moments", "extrema")
AXIS = ChannelAxis.of(np.cumsum([400, 3, 5, 4.5, 7, 2, 6.25, 8, 3, 4, 5, 6.0]))
TARGETS = [425.0, 405.0, 440.0]
WIDTHS = [6.0, 8.0, 20.0]


def integrals(wavelength, targets, widths):
    """Weights by numerical integration of each response over each channel's share."""
    order = np.argsort(wavelength)
    places = np.asarray(wavelength)[order]
    middles = (places[1:] + places[:-1]) / 2
    edges = [places[0] - (middles[0] - places[0]), *middles, 2 * places[-1] - middles[-1]]
    weights = np.zeros((len(targets), len(places)))
    for k, (centre, width) in enumerate(zip(targets, widths, strict=True)):
        response = norm(centre, width / (2 * np.sqrt(2 * np.log(2)))).pdf
        for c, a, b in zip(order, edges[:-1], edges[1:], strict=True):
            cuts = [p for p in (centre - width, centre, centre + width) if a < p < b]
            weights[k, c] = quad(response, a, b, points=cuts or None)[0]
    return weights / weights.sum(axis=1, keepdims=True)


def matrix_of(node, axis):
    chain(node).resolve(axis)
    return node.affine().matrix


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(1, 4))
def test_weights_are_integrals_of_the_responses(seed, size, count):
    rng = np.random.default_rng(seed)
    wavelength = rng.permutation(400 + np.cumsum(rng.uniform(2, 6, size)))
    low, high = wavelength.min(), wavelength.max()
    targets = rng.uniform(low, high, count)
    widths = rng.uniform(0.5, 2.0, count) * np.minimum(targets - low, high - targets)
    matrix = matrix_of(SpectralResample(targets, widths), ChannelAxis.of(wavelength))
    np.testing.assert_allclose(matrix, integrals(wavelength, targets, widths), atol=1e-7)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    assert (matrix >= 0).all()


def test_the_axis_of_the_output_is_the_new_one():
    node = SpectralResample(TARGETS, WIDTHS)
    np.testing.assert_array_equal(node.channel_axis({"cube": AXIS})["cube"].wavelength, TARGETS)
    # A node behind it sees it.
    derivative = SpectralDerivative()
    chain(SpectralResample(sorted(TARGETS), 8.0), derivative).resolve(AXIS)
    np.testing.assert_array_equal(derivative.axes["cube"].wavelength, sorted(TARGETS))


def test_a_narrow_response_takes_the_nearest_channel():
    matrix = matrix_of(SpectralResample([405.1, 424.0], 0.01), AXIS)
    nearest = [np.abs(AXIS.wavelength - t).argmin() for t in (405.1, 424.0)]
    np.testing.assert_allclose(matrix, np.eye(AXIS.size)[nearest], atol=1e-12)


def test_wide_responses_of_smooth_spectra_give_their_values():
    axis = ChannelAxis.of(400 + 2.0 * np.arange(100))
    targets = np.arange(450.0, 551.0, 10)
    matrix = matrix_of(SpectralResample(targets, 10.0), axis)
    np.testing.assert_allclose(matrix @ (3 * axis.wavelength + 7), 3 * targets + 7, rtol=1e-9)


def test_the_default_width_is_the_distance_of_the_new_channels():
    node = SpectralResample([430.0, 405.0, 415.0])
    np.testing.assert_allclose(node.widths, [15.0, 10.0, 12.5])
    np.testing.assert_allclose(
        matrix_of(node, AXIS), integrals(AXIS.wavelength, node.centres, node.widths), atol=1e-7
    )


def test_forward_is_the_map():
    x = np.random.default_rng(0).normal(size=(6, AXIS.size))
    node = SpectralResample(TARGETS, WIDTHS)
    data = torch.from_numpy(x.astype("f4")).reshape(1, 6, 1, -1)
    lone = node(cube=data, wavelengths=AXIS.wavelength)["cube"].numpy().reshape(6, 3)
    expected = x @ integrals(AXIS.wavelength, TARGETS, WIDTHS).T
    np.testing.assert_allclose(lone, expected, atol=1e-6)
    cube = x.reshape(2, 3, -1).astype("f4")
    pipeline = chain(SpectralResample(TARGETS, WIDTHS, name="r"))
    pipeline.resolve(AXIS)
    np.testing.assert_allclose(
        run(pipeline, "r.cube", cube=cube), expected.reshape(2, 3, 3), atol=1e-6
    )
    with pytest.raises(PipelineError, match="needs wavelengths"):
        node(cube=data)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_rx_behind_it_reads_no_pixels(dtype, tmp_path):
    cube = scene(40, 20, 12, dtype=dtype)
    pipeline = chain(SpectralResample(TARGETS, WIDTHS, name="r"), RXGlobal(name="rx", eps=0.0))
    assert plan_fit(pipeline, STORED).passes == 0
    assert fit(pipeline, cube, axis=AXIS, stored=STORED, block=1).passes == 0
    x = flat(cube) @ integrals(AXIS.wavelength, TARGETS, WIDTHS).T
    scores = run(pipeline, "rx.scores", cube=cube)
    np.testing.assert_allclose(scores.ravel(), mahalanobis(x), rtol=1e-5)
    np.testing.assert_allclose(pipeline.nodes["rx"].state["mean"], x.mean(axis=0), rtol=1e-7)
    assert pipeline.nodes["rx"].mu.shape == (3,)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    np.testing.assert_array_equal(run(again, "rx.scores", cube=cube), scores)


@pytest.mark.parametrize(
    ("targets", "fwhm", "axis", "text"),
    [
        ([420.0], 5.0, ChannelAxis(4), "r needs wavelengths.*Add 'wavelength' with"),
        ([380.0, 420.0], 5.0, AXIS, r"channels 380 nm reach, at half maximum, beyond.*398.5..456"),
        ([420.0, 453.0], 20.0, AXIS, r"channels 453 nm reach.*Leave them out of `wavelengths`"),
        (
            [1380.0, 1300.0],
            10.0,
            ChannelAxis.of([*np.arange(1000.0, 1340, 10), *np.arange(1450.0, 1800, 10)]),
            "r: the new channels 1380 nm lie in a gap of the data, 50 nm from the nearest",
        ),
        ([5.0], 1.0, ChannelAxis.of([5, 5, 5]), r"r: channels at one wavelength \(5 nm\)"),
    ],
)
def test_axes_that_cannot_be_resampled(targets, fwhm, axis, text):
    with pytest.raises(ConfigError, match=text):
        chain(SpectralResample(targets, fwhm, name="r")).resolve(axis)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([],), "wavelengths must be at least one number"),
        (([np.nan],), "wavelengths must be at least one number"),
        (([500.0, 500.0], 5.0), "wavelengths must be different"),
        (([500.0],), "fwhm is needed where there is one wavelength"),
        (([500.0, 600.0], [5.0]), "fwhm has 1 values for 2 wavelengths"),
        (([500.0, 600.0], [5.0, 0.0]), "fwhm must be above 0 nm"),
    ],
)
def test_arguments_that_make_no_sensor(arguments, text):
    with pytest.raises(PipelineError, match=text):
        SpectralResample(*arguments)
