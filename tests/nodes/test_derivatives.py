"""Filters along the channels against SciPy and NumPy; fits behind them read no pixels."""

from statistics import median_low

import numpy as np
import pytest
import torch
from graph_helpers import Mix, chain, fit, flat, mahalanobis, run, scene
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import detrend, savgol_filter

from hsi_batch.errors import ConfigError, DataError, DataWarning, PipelineError
from hsi_batch.nodes import (
    BandpassByWavelength,
    ChannelAxis,
    RXGlobal,
    SavitzkyGolay,
    SpectralDerivative,
    SpectralDetrend,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit

STORED = ("moments", "extrema")
SEEDS = st.integers(0, 2**32 - 1)
SCIPY_MODES = ("nearest", "mirror", "constant", "wrap", "interp")
EVEN = ChannelAxis.of(400.0 + 4.0 * np.arange(24))
UNEVEN = ChannelAxis.of(np.cumsum([400, 3, 5, 4.5, 7, 2, 6.25, 8, 3, 4, 5, 6.0]))


def forward(node, x, **more):
    """Of pixels ``(n, C)``, as one image."""
    data = torch.from_numpy(np.asarray(x, np.float32)).reshape(1, len(x), 1, -1)
    return node(cube=data, **more)["cube"].numpy().reshape(len(x), -1)


def with_wavelengths(node):
    """A graph in which the input ``wavelengths`` is fed too."""
    pipeline = chain(node)
    pipeline.connect(pipeline.nodes["data"].outputs.wavelengths, node.inputs.wavelengths)
    return pipeline


# --- Savitzky-Golay -----------------------------------------------------------------------------


@given(st.data(), SEEDS, st.sampled_from(SCIPY_MODES))
def test_savitzky_golay_is_that_of_scipy(data, seed, mode):
    window = 2 * data.draw(st.integers(0, 5)) + 1
    order = data.draw(st.integers(0, min(window - 1, 4)))
    deriv = data.draw(st.integers(0, order))
    size = data.draw(st.integers(max(window if mode == "interp" else 2, 2), 24))
    delta = data.draw(st.sampled_from([0.5, 1.0, 3.7]))
    x = np.random.default_rng(seed).normal(size=(7, size))
    node = SavitzkyGolay(window, order, deriv, delta, mode)
    node.axes = {"cube": ChannelAxis(size)}
    expected = savgol_filter(x, window, order, deriv, delta, axis=1, mode=mode)
    size_of = np.abs(expected).max() + np.abs(node.affine().matrix).max()
    np.testing.assert_allclose(node.affine()(x), expected, atol=1e-11 * size_of)
    np.testing.assert_allclose(forward(node, x), expected, atol=1e-5 * size_of)


@given(st.integers(1, 4), st.integers(0, 2), SEEDS)
def test_valid_is_the_filter_without_the_ends(half, deriv, seed):
    width = 2 * half + 1
    x = np.random.default_rng(seed).normal(size=(5, 20))
    node = SavitzkyGolay(width, 2, deriv, mode="valid")
    node.axes = {"cube": ChannelAxis(20)}
    inner = savgol_filter(x, width, 2, deriv, axis=1)[:, half : 20 - half]
    np.testing.assert_allclose(node.affine()(x), inner, atol=1e-12)
    axis = node.channel_axis({"cube": ChannelAxis.of(np.arange(20.0))})["cube"]
    np.testing.assert_array_equal(axis.wavelength, np.arange(half, 20.0 - half))


@pytest.mark.parametrize("deriv", [0, 1, 2])
def test_polynomials_are_differentiated_exactly_per_nm(deriv):
    # An odd number of wavelengths whose steps are 4 nm, and delta 1: the wavelengths count.
    wavelength = EVEN.wavelength
    curve = np.polynomial.Polynomial([3.0, -0.2, 0.05], domain=[400, 492], window=[-1, 1])
    node = SavitzkyGolay(7, 2, deriv, mode="interp", name="sg")
    pipeline = with_wavelengths(node)
    pipeline.resolve(EVEN)
    expected = curve.deriv(deriv)(wavelength) if deriv else curve(wavelength)
    np.testing.assert_allclose(node.affine()(curve(wavelength)[None])[0], expected, atol=1e-12)
    # On its own, and without the connection.
    lone = SavitzkyGolay(7, 2, deriv, mode="interp")
    given_to = forward(lone, curve(wavelength)[None], wavelengths=wavelength.astype(np.int32))
    np.testing.assert_allclose(given_to[0], expected, atol=1e-5)
    lone.axes = {"cube": EVEN}
    np.testing.assert_allclose(
        lone.affine()(curve(wavelength)[None])[0], expected * 4.0**deriv, atol=1e-12
    )


def test_descending_wavelengths_change_the_sign_of_a_derivative():
    axis = ChannelAxis.of(EVEN.wavelength[::-1].copy())
    node = SavitzkyGolay(5, 1, 1, mode="interp")
    with_wavelengths(node).resolve(axis)
    np.testing.assert_allclose(node.affine()(2.0 * axis.wavelength[None]), 2.0)


def test_uneven_channels_warn_where_wavelengths_count():
    node = SavitzkyGolay(5, 2, 1, name="sg")
    with pytest.warns(DataWarning, match="sg: the channels are 2 to 8 nm apart.*SpectralDeriv"):
        with_wavelengths(node).resolve(UNEVEN)
    x = np.random.default_rng(0).normal(size=(3, 12))
    step = median_low(np.diff(UNEVEN.wavelength))
    np.testing.assert_allclose(
        node.affine()(x), savgol_filter(x, 5, 2, 1, step, mode="nearest"), atol=1e-12
    )
    with_wavelengths(SavitzkyGolay(5, 2, 0)).resolve(UNEVEN)
    chain(SavitzkyGolay(5, 2, 1)).resolve(UNEVEN)


def test_a_connection_to_wavelengths_needs_them():
    with pytest.raises(ConfigError, match="sg needs wavelengths"):
        with_wavelengths(SavitzkyGolay(5, 2, 1, name="sg")).resolve(ChannelAxis(24))
    with_wavelengths(SavitzkyGolay(5, 2, 0)).resolve(ChannelAxis(24))


def test_the_kernel_is_stored_as_cuvis_ai_stores_it():
    node = SavitzkyGolay(5, 2, 1)
    # Steinier et al. (1972): (-2, -1, 0, 1, 2) / 10, as a correlation.
    np.testing.assert_allclose(node.coefs.numpy().ravel(), [-0.2, -0.1, 0, 0.1, 0.2], atol=1e-7)
    assert {k: tuple(v.shape) for k, v in node.state_dict().items()} == {"coefs": (1, 1, 5)}
    assert node.fitted
    node.axes = {"cube": ChannelAxis(9)}
    node.coefs = torch.tensor([0.0, 0, 1, 0, 0]).reshape(1, 1, 5)
    np.testing.assert_array_equal(node.affine().matrix, np.eye(9))
    node.coefs = torch.ones(1, 1, 3)
    with pytest.raises(PipelineError, match="coefs has 3 weights; window_length is 5"):
        node.affine()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"window_length": 4}, "window_length 4 must be odd"),
        ({"window_length": 5, "polyorder": 5}, r"polyorder 5 must be from 0 to window_length - 1"),
        ({"deriv": 3}, r"deriv 3 must be from 0 to polyorder \(2\)"),
        ({"delta": 0.0}, "delta 0.0 must be a distance"),
        ({"mode": "reflect"}, "mode 'reflect' is not one of nearest, mirror, wrap, constant"),
    ],
)
def test_arguments_that_make_no_filter(arguments, text):
    with pytest.raises(PipelineError, match=text):
        SavitzkyGolay(**arguments)


@pytest.mark.parametrize("mode", ["interp", "valid"])
def test_a_window_that_is_too_long(mode):
    with pytest.raises(ConfigError, match="sg: window_length 11 is more than the 5 channels"):
        chain(SavitzkyGolay(mode=mode, name="sg")).resolve(ChannelAxis(5))


# --- finite differences -------------------------------------------------------------------------


def gradient(x, wavelength, order):
    for _ in range(order):
        x = np.gradient(x, wavelength, axis=-1)
    return x


@given(st.integers(2, 12), st.integers(1, 3), SEEDS, st.booleans())
def test_derivatives_are_those_of_numpy(size, order, seed, descending):
    rng = np.random.default_rng(seed)
    wavelength = 400 + np.cumsum(rng.uniform(0.5, 9, size))
    wavelength = wavelength[::-1].copy() if descending else wavelength
    x = rng.normal(size=(6, size))
    node = SpectralDerivative(order)
    chain(node).resolve(ChannelAxis.of(wavelength))
    expected = gradient(x, wavelength, order)
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(node.affine()(x), expected, atol=1e-10 * scale)
    np.testing.assert_allclose(forward(node, x), expected, atol=1e-5 * scale)
    if size > 2 * order:
        inner = SpectralDerivative(order, edges="drop")
        chain(inner).resolve(ChannelAxis.of(wavelength))
        kept = slice(order, size - order)
        np.testing.assert_allclose(inner.affine()(x), expected[:, kept], atol=1e-10 * scale)
        axis = inner.channel_axis(inner.axes)["cube"]
        np.testing.assert_array_equal(axis.wavelength, wavelength[kept])


def test_exact_wavelengths_are_used_where_the_port_rounds_them():
    wavelength = 400.4 + 3.6 * np.arange(6)
    node = SpectralDerivative()
    pipeline = with_wavelengths(node)
    cube = torch.from_numpy(np.tile(wavelength, (1, 2, 2, 1)).astype("f4"))
    pipeline.resolve(ChannelAxis.of(wavelength))
    batch = {"cube": cube, "wavelengths": torch.from_numpy(np.rint(wavelength)).int()[None]}
    out = pipeline.forward(batch)[node.name, "cube"]
    np.testing.assert_allclose(out, 1.0, rtol=1e-4)


def test_derivatives_behind_a_bandpass_take_the_wavelengths_that_are_left():
    cube = scene(20, 20, 12)
    band, node = BandpassByWavelength(410, 440, name="band"), SpectralDerivative(name="d")
    pipeline = chain(band, node)
    pipeline.connect(pipeline.nodes["data"].outputs.wavelengths, node.inputs.wavelengths)
    pipeline.resolve(UNEVEN)
    kept = (UNEVEN.wavelength >= 410) & (UNEVEN.wavelength <= 440)
    expected = np.gradient(cube[..., kept].astype(float), UNEVEN.wavelength[kept], axis=-1)
    np.testing.assert_allclose(run(pipeline, "d.cube", cube=cube), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("node", "axis", "text"),
    [
        (SpectralDerivative(name="d"), ChannelAxis(5), "d needs wavelengths.*Add 'wavelength'"),
        (
            SpectralDerivative(name="d"),
            ChannelAxis.of([1, 2, 3, 3, 4]),
            "d needs wavelengths that ascend.*channels 2 and 3 have 3 and 3 nm.*Bandpass",
        ),
        (SpectralDerivative(2, "drop", name="d"), EVEN.select(range(4)), "at least 5 channels; 4"),
        (SpectralDerivative(name="d"), ChannelAxis.of([1]), "at least 2 channels; 1 reach"),
        (SpectralDetrend(2, name="d"), ChannelAxis(3), "d: nothing would be left.*Set degree to 1"),
    ],
)
def test_axes_that_cannot_be_treated(node, axis, text):
    with pytest.raises(ConfigError, match=text):
        chain(node).resolve(axis)


def test_arguments_of_derivatives():
    with pytest.raises(PipelineError, match="order 0 must be at least 1"):
        SpectralDerivative(0)
    with pytest.raises(PipelineError, match="edges 'keep' is not 'one_sided' or 'drop'"):
        SpectralDerivative(edges="keep")
    with pytest.raises(PipelineError, match="degree -1 must not be negative"):
        SpectralDetrend(-1)
    with pytest.raises(PipelineError, match="4 channels came with 3 wavelengths"):
        forward(SpectralDerivative(), np.zeros((1, 4)), wavelengths=np.arange(3))


# --- detrending ---------------------------------------------------------------------------------


@given(st.integers(0, 4), st.integers(6, 12), SEEDS, st.booleans())
def test_detrending_leaves_what_no_polynomial_explains(degree, size, seed, known):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, size))
    axis = ChannelAxis.of(400 + np.cumsum(rng.uniform(1, 9, size))) if known else ChannelAxis(size)
    node = SpectralDetrend(degree)
    chain(node).resolve(axis)
    place = axis.wavelength if known else np.arange(size)
    fits = [np.polynomial.Polynomial.fit(place, row, degree)(place) for row in x]
    np.testing.assert_allclose(node.affine()(x), x - fits, atol=1e-9)
    np.testing.assert_allclose(forward(node, x), x - fits, atol=1e-5)
    if not known and degree < 2:
        kind = ("constant", "linear")[degree]
        np.testing.assert_allclose(node.affine()(x), detrend(x, axis=1, type=kind), atol=1e-12)


# --- fits behind them ---------------------------------------------------------------------------


def behind(node, reference, cube, axis, **rx):
    pipeline = chain(node, RXGlobal(name="rx", **rx))
    assert plan_fit(pipeline, STORED).passes == 0
    plan = fit(pipeline, cube, axis=axis, stored=STORED, block=1)
    assert plan.passes == 0
    assert f"carried through data, {node.name}" in str(plan)
    x = reference(flat(cube))
    scores = run(pipeline, "rx.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, mahalanobis(x, **rx), rtol=1e-5)
    np.testing.assert_allclose(pipeline.nodes["rx"].state["mean"], x.mean(axis=0), atol=1e-9)
    return pipeline


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_rx_behind_a_derivative_reads_no_pixels(dtype):
    cube = scene(40, 20, 24, dtype=dtype)
    node = SavitzkyGolay(7, 2, 1, mode="valid", name="sg")
    pipeline = behind(
        node, lambda x: savgol_filter(x, 7, 2, 1, axis=1)[:, 3:-3], cube, EVEN, eps=0.0
    )
    assert pipeline.nodes["rx"].mu.shape == (18,)
    behind(
        SavitzkyGolay(7, 2, 1, name="sg"),
        lambda x: savgol_filter(x, 7, 2, 1, axis=1, mode="nearest"),
        cube,
        EVEN,
        eps=0.0,
        loading=1e-3,
    )
    wavelength = EVEN.wavelength
    behind(
        SpectralDerivative(1, "drop", name="d"),
        lambda x: gradient(x, wavelength, 1)[:, 1:-1],
        cube,
        EVEN,
        eps=0.0,
    )
    behind(
        SpectralDetrend(1, name="d"), lambda x: detrend(x, axis=1), cube, EVEN,
        eps=0.0, loading=1e-3,
    )  # fmt: skip


def test_a_derivative_that_keeps_all_channels_is_singular_and_rx_says_so():
    cube = scene(40, 20, 24)
    for node in (SavitzkyGolay(7, 2, 1), SpectralDerivative()):
        pipeline = chain(node, RXGlobal(name="rx", eps=0.0))
        with pytest.raises(DataError, match=r"rx: the covariance of 24 channels has rank 2\d"):
            fit(pipeline, cube, axis=EVEN, stored=STORED)


def test_filters_are_saved_and_loaded(tmp_path, extra_nodes):
    cube = scene(30, 20, 24)
    pipeline = with_wavelengths(SavitzkyGolay(5, 2, 1, mode="interp", name="sg"))
    for node in (SpectralDetrend(1, name="flat"), SpectralDerivative(2, "drop", name="d")):
        pipeline.connect(list(pipeline.nodes.values())[-1].outputs.cube, node.inputs.cube)
    pipeline.connect(pipeline.nodes["d"].outputs.cube, RXGlobal(name="rx", eps=0.0).inputs.data)
    pipeline.nodes["rx"].loading = pipeline.nodes["rx"].hparams["loading"] = 1e-2
    fit(pipeline, cube, axis=EVEN)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    assert again.nodes["sg"].exact_state() is not None
    np.testing.assert_array_equal(
        run(again, "rx.scores", cube=cube), run(pipeline, "rx.scores", cube=cube)
    )


def test_wavelengths_are_lost_behind_a_node_that_mixes(extra_nodes):
    pipeline = chain(Mix(np.eye(5), np.zeros(5), name="mix"), SpectralDerivative(name="d"))
    with pytest.raises(ConfigError, match=r"d needs wavelengths.*or a node before it mixes"):
        pipeline.resolve(ChannelAxis.of(np.arange(5.0)))
