"""Moments of floats against fractions and long doubles.

Stated accuracy: a leaf (up to 4096 pixels) has variances within 1e-12 of the exact ones, relative,
for any offset up to 1e8 deviations; merges add a few rounding errors times offset / deviation.
"""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import (
    exact_mean,
    exact_scatter,
    float_pixels,
    groupings,
    masks,
    merged_in_groups,
    seeded_pixels,
    splits,
)

from hsi_batch.errors import DataError
from hsi_batch.statistics import FloatMoments, Moments
from hsi_batch.statistics.leaves import LEAF_PIXELS

EPS = np.finfo(np.float64).eps


def gathered(pixels):
    return FloatMoments.zero(pixels.shape[1]).update(pixels)


def same_bits(a, b):
    mine, theirs = a.to_arrays(), b.to_arrays()
    return all(mine[k].tobytes() == theirs[k].tobytes() for k in mine)


def two_pass(pixels):
    """Mean and scatter in 80-bit floats."""
    wide = pixels.astype(np.longdouble)
    mean = wide.sum(axis=0) / len(wide)
    centred = wide - mean
    mean += centred.sum(axis=0) / len(wide)
    centred = wide - mean
    scatter = np.array([[(a * b).sum() for b in centred.T] for a in centred.T])
    return mean, scatter


def assert_close(moments, pixels, *, rtol, mean=None, scatter=None):
    """Every entry of the scatter within ``rtol`` of the product of both deviations."""
    mean = np.array([float(v) for v in exact_mean(pixels)]) if mean is None else mean
    if scatter is None:
        scatter = np.array([[float(v) for v in row] for row in exact_scatter(pixels)])
    assert moments.count == len(pixels)
    size = np.abs(pixels.astype(np.float64)).max(axis=0)
    assert np.all(np.abs(moments.mean - mean) <= 8 * EPS * size)
    deviation = np.sqrt(np.diagonal(scatter).astype(np.float64))
    assert np.all(np.abs(moments.scatter - scatter) <= rtol * np.outer(deviation, deviation))


def merge_tolerance(pixels):
    """A few rounding errors times (1 + offset / deviation); see the top."""
    values = pixels.astype(np.float64)
    deviation = np.sqrt([max(float(row[i]), 0) for i, row in enumerate(exact_scatter(pixels))])
    deviation /= np.sqrt(len(pixels))
    constant = deviation == 0
    ratio = np.abs(values).max(axis=0) / np.where(constant, 1, deviation)
    return 64 * EPS * (1 + np.where(constant, 0, ratio).max())


# --- any way to cut the work up ---------------------------------------------------------------


@given(data=st.data(), pixels=float_pixels())
def test_any_split_order_and_grouping_equals_fractions(data, pixels):
    parts = [gathered(pixels[part]) for part in data.draw(splits(len(pixels)))]
    whole = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert_close(whole, pixels, rtol=merge_tolerance(pixels))


@given(data=st.data(), pixels=float_pixels(count=st.integers(2, 24)))
def test_any_mask_equals_fractions_on_what_is_left(data, pixels):
    mask = data.draw(masks(len(pixels)))
    moments = gathered(pixels[mask])
    if not mask.any():
        assert moments == FloatMoments.zero(pixels.shape[1])
    else:
        assert_close(moments, pixels[mask], rtol=1e-13)


@given(data=st.data(), pixels=float_pixels(count=st.integers(3, 15)))
def test_merging_is_a_commutative_monoid_up_to_rounding(data, pixels):
    a, b, c = (gathered(pixels[start::3]) for start in range(3))
    for whole in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert_close(whole, pixels, rtol=merge_tolerance(pixels))


@given(float_pixels() | st.just(np.array([[-7e300, 7e300]])))
def test_the_identity_changes_no_bit(pixels):
    moments, zero = gathered(pixels), FloatMoments.zero(pixels.shape[1])
    assert same_bits(moments.merge(zero), moments)
    assert same_bits(zero.merge(moments), moments)
    assert same_bits(moments.update(pixels[:0]), moments)
    assert same_bits(zero.merge(zero), zero)


# --- accuracy ---------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, LEAF_PIXELS),
    ratio=st.sampled_from([0.0, 1.0, 1e4, 1e6, 1e8]),
    scale=st.sampled_from([1e-20, 1.0, 1e20]),
)
def test_a_leaf_is_accurate_at_any_offset(seed, count, ratio, scale):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(ratio, 1.0, (count, 3)) * scale
    mean, scatter = two_pass(pixels)
    assert_close(gathered(pixels), pixels, rtol=1e-12, mean=mean, scatter=scatter)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mean_30000_with_deviation_5_over_many_leaves(dtype):
    rng = np.random.default_rng(3)
    pixels = rng.normal(30000, 5, (20 * LEAF_PIXELS + 17, 3)).astype(dtype)
    mean, scatter = two_pass(pixels)
    moments = gathered(pixels)
    relative = np.abs(moments.variance() / (np.diagonal(scatter) / (len(pixels) - 1)) - 1)
    assert relative.max() < 1e-12
    assert_close(moments, pixels, rtol=1e-12, mean=mean, scatter=scatter)


def test_a_ramp_over_leaves_is_summed_between_them_too():
    pixels = np.linspace(0, 1e6, 3 * LEAF_PIXELS + 5)[:, None] * [1.0, -2.0]
    mean, scatter = two_pass(pixels)
    assert_close(gathered(pixels), pixels, rtol=1e-13, mean=mean, scatter=scatter)


@given(
    value=st.floats(-1e9, 1e9),
    counts=st.lists(st.integers(1, 6000), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_constant_band_has_exactly_no_variance(value, counts, data):
    rng = np.random.default_rng(7)
    parts = []
    for count in counts:
        pixels = np.column_stack([np.full(count, value), rng.normal(size=count)])
        parts.append(gathered(pixels))
    whole = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert whole.scatter[0, 0] == 0
    assert whole.mean[0] == value


@given(
    value=st.floats(1e-3, 1e9),
    steps=st.lists(st.integers(-3, 3), min_size=2, max_size=300),
)
def test_variances_are_never_negative(value, steps):
    pixels = (value + np.array(steps) * np.spacing(value))[:, None]
    moments = gathered(pixels)
    assert moments.variance()[0] >= 0
    assert (moments.variance()[0] == 0) == bool(np.all(pixels == pixels[0]))


def test_one_pixel_has_a_mean_but_no_covariance():
    one = gathered(np.array([[0.1, -7e300]]))
    assert one.mean.tolist() == [0.1, -7e300]
    assert not one.scatter.any()
    with pytest.raises(DataError, match=r"1 valid pixels were counted, at least 2 are needed"):
        one.covariance()


@pytest.mark.parametrize("value", ["mean", "scatter", "packed_scatter"])
def test_no_pixels_have_no_values(value):
    with pytest.raises(DataError, match="0 valid pixels"):
        getattr(FloatMoments.zero(3), value)


def test_covariance_divides_by_the_degrees_of_freedom():
    moments = gathered(np.array([[1.0, 2.0], [2.0, 0.0], [6.0, 1.0]]))
    assert np.allclose(moments.covariance(), [[7.0, -0.5], [-0.5, 1.0]], rtol=1e-15)
    assert np.array_equal(moments.covariance(0), moments.scatter / 3)
    assert np.array_equal(moments.packed_covariance(), moments.packed_scatter / 2)
    assert np.array_equal(moments.variance(), np.diagonal(moments.covariance()))


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_wide_integers_are_taken_as_float64(dtype):
    info = np.iinfo(dtype)
    pixels = np.array([[info.max], [info.max - 4096], [info.min], [info.max // 2]], dtype=dtype)
    moments = Moments.empty(1, dtype).update(pixels)
    assert isinstance(moments, FloatMoments)
    exact = float(exact_scatter(pixels)[0][0])
    assert moments.scatter[0, 0] == pytest.approx(exact, rel=1e-14)


# --- very many pixels -------------------------------------------------------------------------


@given(pixels=float_pixels(count=st.integers(2, 12)), doublings=st.integers(31, 50))
def test_billions_of_pixels_by_doubling(pixels, doublings):
    moments = gathered(pixels)
    whole = moments
    for _ in range(doublings):
        whole = whole.merge(whole)
    times = 2**doublings
    assert whole.count == len(pixels) * times > 2**31
    assert np.array_equal(whole.mean, moments.mean)
    assert np.array_equal(whole.scatter, moments.scatter * times)


def test_a_small_group_moves_a_huge_one_by_its_weight():
    huge = gathered(np.array([[0.0], [2.0]]))
    for _ in range(40):
        huge = huge.merge(huge)
    n = huge.count
    both = huge.merge(gathered(np.array([[3.0 * n]])))
    assert both.count == n + 1
    assert both.mean[0] == pytest.approx(4.0, rel=1e-11)
    delta = 3.0 * n - 1.0
    assert both.scatter[0, 0] == pytest.approx(n + delta * delta * n / (n + 1), rel=1e-14)


# --- to the disk and back ---------------------------------------------------------------------


@given(float_pixels())
def test_rows_and_arrays_come_back(pixels):
    moments = gathered(pixels)
    channels = pixels.shape[1]
    row = moments.row
    assert row.dtype == np.float64
    assert row[0] == len(pixels)
    assert np.array_equal(row[1 : 1 + channels], moments.mean)
    assert np.array_equal(row[1 + channels :], moments.packed_scatter)
    assert same_bits(FloatMoments.from_row(row), moments)
    file = io.BytesIO()
    np.savez(file, **moments.to_arrays())
    file.seek(0)
    with np.load(file) as stored:
        assert same_bits(FloatMoments.from_arrays(stored), moments)
    assert same_bits(pickle.loads(pickle.dumps(moments)), moments)


def test_the_empty_row_comes_back():
    zero = FloatMoments.zero(3)
    assert same_bits(FloatMoments.from_row(zero.row), zero)
    assert FloatMoments.from_row(zero.row).count == 0


# --- bits -------------------------------------------------------------------------------------


@given(seeded_pixels(dtypes=("float32", "float64"), count=st.integers(1, 9000)))
def test_layout_byte_order_and_width_do_not_change_a_bit(pixels):
    reference = gathered(pixels)
    assert same_bits(gathered(np.asfortranarray(pixels)), reference)
    assert same_bits(gathered(np.repeat(pixels, 2, axis=1)[:, ::2]), reference)
    assert same_bits(gathered(pixels.astype(pixels.dtype.newbyteorder())), reference)
    assert same_bits(gathered(pixels.astype(np.float64)), reference)


@given(seeded_pixels(dtypes=("float64",), count=st.integers(1, 100)))
def test_gathering_leaves_the_pixels_alone(pixels):
    before = pixels.copy()
    moments = gathered(pixels)
    kept = pickle.dumps(moments.to_arrays())
    moments.merge(moments)
    moments.update(pixels)
    assert np.array_equal(pixels, before)
    assert pickle.dumps(moments.to_arrays()) == kept
