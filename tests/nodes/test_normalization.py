"""Normalisers against scikit-learn and plain NumPy; what happens to constants and NaN."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, run, scene
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from hsi_batch.errors import DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import (
    ChannelAxis,
    MinMaxNormalizer,
    PerPixelUnitNorm,
    RXGlobal,
    Scope,
    ZScoreNormalizerGlobal,
)
from hsi_batch.statistics import Extrema, Moments

PIXELS = npst.arrays(
    np.float64,
    st.tuples(st.integers(2, 12), st.integers(1, 4)),
    elements=st.integers(-10_000, 10_000).map(lambda n: n / 16),
)


def moments(x):
    return Moments.empty(x.shape[1], x.dtype).update(x)


def extrema(x):
    return Extrema.empty(x.shape[1], x.dtype).update(x)


def forward(node, x):
    """Of pixels ``(n, C)``, as one image."""
    data = torch.from_numpy(np.asarray(x, np.float32)).reshape(1, len(x), 1, -1)
    return next(iter(node(data=data).values())).numpy().reshape(len(x), -1)


# --- min-max ------------------------------------------------------------------------------------


@given(PIXELS, st.sampled_from([0.0, 1e-6, 0.5, 1e6]))
def test_running_min_max_is_one_range_for_all(x, eps):
    span = x.max() - x.min()
    node = MinMaxNormalizer(eps, name="mm")
    node.axes = {"data": ChannelAxis(x.shape[1])}
    if span == 0:
        if eps == 0:
            with pytest.raises(DataError, match=r"mm: all values are .* eps is 0.*Set `eps`"):
                node.fit(extrema(x))
            return
        with pytest.warns(DataWarning, match="mm: all values are"):
            node.fit(extrema(x))
    else:
        node.fit(extrema(x))
    assert float(node.running_min) == np.float32(x.min())
    assert float(node.running_max) == np.float32(x.max())
    expected = (x - x.min()) / max(span, eps)
    if span > eps:
        scaled = MinMaxScaler().fit_transform(x.reshape(-1, 1)).reshape(x.shape)
        np.testing.assert_allclose(expected, scaled, atol=1e-12)
    beyond = x * 3 + 7
    np.testing.assert_allclose(node.affine()(x), expected, atol=1e-12)
    np.testing.assert_allclose(forward(node, x), expected, atol=1e-6)
    np.testing.assert_allclose(
        node.affine()(beyond), (beyond - x.min()) / max(span, eps), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        forward(node, beyond), node.affine()(beyond), rtol=1e-5, atol=1e-5 * max(1, 1 / (span or 1))
    )


@given(PIXELS)
def test_min_max_per_frame_is_one_range_per_channel(x):
    node = MinMaxNormalizer(use_running_stats=False, name="mm")
    assert node.scope is Scope.FRAME
    assert not node.requires_initial_fit
    assert node.fitted
    span = np.ptp(x, axis=0)
    expected = (x - x.min(axis=0)) / np.maximum(span, 1e-6)
    if (span > 0).all():
        np.testing.assert_allclose(expected, MinMaxScaler().fit_transform(x), atol=1e-12)
    fixed = node.frame_fit(extrema(x))
    assert fixed.name == "mm"
    np.testing.assert_allclose(fixed.affine()(x), expected, atol=1e-12)
    np.testing.assert_allclose(forward(fixed, x), expected, atol=1e-7)
    np.testing.assert_allclose(forward(node, x), expected, atol=1e-6)


def test_every_frame_of_a_batch_has_its_own_range():
    a, b = scene(seed=1, dtype="float32"), scene(seed=2, dtype="float32") * 7
    node = MinMaxNormalizer(use_running_stats=False)
    both = node(data=torch.from_numpy(np.stack([a, b])))["normalized"].numpy()
    for cube, out in zip((a, b), both, strict=True):
        x = cube.astype(np.float64)
        np.testing.assert_allclose(
            out, (x - x.min((0, 1))) / np.ptp(x, axis=(0, 1)), rtol=1e-5, atol=1e-6
        )


def test_pixels_that_are_not_finite_do_not_set_the_range_of_a_frame():
    cube = scene(dtype="float32")
    clean = np.ones(cube.shape[:2], bool)
    clean[3, 4] = clean[5, 6] = False
    cube[3, 4, 0], cube[5, 6, 2] = np.nan, np.inf
    cube[5, 6, 1] = -1e6  # of a pixel that is not finite elsewhere
    node = MinMaxNormalizer(use_running_stats=False, name="mm")
    out = node(data=torch.from_numpy(cube)[None])["normalized"][0].numpy()
    x = cube[clean].astype(np.float64)
    expected = (cube.astype(np.float64) - x.min(0)) / np.ptp(x, axis=0)
    np.testing.assert_allclose(out[clean], expected[clean], rtol=1e-5, atol=1e-6)
    assert np.isnan(out[3, 4, 0])
    by_blocks = run(chain(node), "normalized", cube=cube, valid=clean, block=1)
    np.testing.assert_allclose(by_blocks[clean], expected[clean], rtol=1e-6, atol=1e-7)


def test_a_constant_channel_of_a_frame():
    cube = scene(dtype="float32")
    cube[..., 2] = 4.0
    forgiving = MinMaxNormalizer(use_running_stats=False)
    assert (forgiving(data=torch.from_numpy(cube)[None])["normalized"][..., 2] == 0).all()
    strict = MinMaxNormalizer(0.0, use_running_stats=False, name="mm")
    with pytest.raises(DataError, match="mm: a channel is constant in a frame, and eps is 0"):
        strict(data=torch.from_numpy(cube)[None])
    with pytest.raises(DataError, match=r"mm: channels \[2\] are constant in a frame, and eps"):
        run(chain(strict), "normalized", cube=cube)


def test_the_range_of_no_pixel_is_an_error():
    with pytest.raises(DataError, match="no valid pixel was counted"):
        MinMaxNormalizer().fit(Extrema.empty(3, "uint8"))


# --- z-score ------------------------------------------------------------------------------------


@given(PIXELS)
def test_z_score_is_that_of_the_sample(x):
    node = ZScoreNormalizerGlobal(eps=0.0, name="z")
    std = x.std(axis=0, ddof=1)
    constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
    if constant.size:
        with pytest.warns(DataWarning, match="z: channels") as caught:
            node.fit(moments(x))
        assert str(constant.tolist()) in str(caught[0].message)
        assert "BandpassByWavelength" in str(caught[0].message)
    else:
        node.fit(moments(x))
    std[constant] = 1.0
    expected = (x - x.mean(axis=0)) / std
    if not constant.size:
        sample = StandardScaler().fit_transform(x) * np.sqrt((len(x) - 1) / len(x))
        np.testing.assert_allclose(expected, sample, atol=1e-8)
    np.testing.assert_allclose(node.affine()(x), expected, rtol=1e-9, atol=1e-9)
    reach = np.abs(x).max(axis=0) / std
    assert (np.abs(forward(node, x) - expected) <= 1e-6 * (1 + reach)).all()


def test_eps_is_added_to_the_deviation_and_kept_in_the_buffer():
    x = flat(scene())
    node = ZScoreNormalizerGlobal(5, eps=10.0)
    node.fit(moments(x))
    np.testing.assert_allclose(node.zscore_std.numpy(), x.std(axis=0, ddof=1) + 10.0, rtol=1e-6)
    np.testing.assert_allclose(node.zscore_mean.numpy(), x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        node.affine()(x), (x - x.mean(axis=0)) / (x.std(axis=0, ddof=1) + 10.0), atol=1e-9
    )


def test_a_constant_channel_is_centred_only():
    x = flat(scene())
    x[:, 1] = 7.0
    node = ZScoreNormalizerGlobal()
    with pytest.warns(DataWarning, match=r"channels \[1\] are constant; they are centred, not"):
        node.fit(moments(x))
    x[0, 1] = 8.5
    assert node.affine()(x)[0, 1] == 1.5
    assert forward(node, x)[0, 1] == 1.5


def test_one_pixel_has_no_deviation():
    with pytest.raises(DataError, match="1 valid pixels were counted, at least 2 are needed"):
        ZScoreNormalizerGlobal().fit(moments(np.ones((1, 3))))


# --- per pixel ----------------------------------------------------------------------------------


@given(PIXELS)
def test_unit_norm_centres_every_spectrum(x):
    centred = x - x.mean(axis=1, keepdims=True)
    length = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-8)
    blurred = 1e-6 * np.abs(x).max(axis=1, keepdims=True) / length
    assert (np.abs(forward(PerPixelUnitNorm(), x) - centred / length) <= 1e-6 + blurred).all()


def test_unit_norm_of_nan_is_nan_for_that_pixel_only():
    x = scene(height=1, width=6, dtype="float32")
    clean = forward(PerPixelUnitNorm(), x[0])
    x[0, 2, 1] = np.nan
    out = forward(PerPixelUnitNorm(), x[0])
    assert np.isnan(out[2]).all()
    np.testing.assert_array_equal(np.delete(out, 2, 0), np.delete(clean, 2, 0))


def test_unit_norm_takes_a_direction_away_and_rx_behind_it_warns():
    # Centred spectra sum to zero: what is left of that direction is the rounding of float32.
    cube = scene(channels=6)
    pipeline = chain(PerPixelUnitNorm(name="unit"), RXGlobal(name="rx", eps=0.0))
    with pytest.warns(DataWarning, match=r"rx: the covariance has condition .*PerPixelUnitNorm"):
        fit(pipeline, cube)
    assert pipeline.nodes["rx"].state["condition"] > 1e10


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [MinMaxNormalizer(name="n"), ZScoreNormalizerGlobal(name="n")])
def test_not_fitted_is_an_error_with_advice(node):
    node.axes = {"data": ChannelAxis(2)}
    for use in (node.affine, lambda: node(data=torch.zeros(1, 1, 1, 2))):
        with pytest.raises(NotFittedError, match=r"'n' is not fitted\. Fit the pipeline first"):
            use()


@pytest.mark.parametrize("cls", [MinMaxNormalizer, ZScoreNormalizerGlobal, PerPixelUnitNorm])
@pytest.mark.parametrize("eps", [-1.0, float("nan")])
def test_eps_is_not_negative(cls, eps):
    with pytest.raises(PipelineError, match=r"eps .* must not be negative"):
        cls(eps=eps)
