"""Histograms against counting one by one, and quantiles against numpy."""

from __future__ import annotations

import io
import pickle
import struct
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pixel_strategies import (
    DTYPES,
    groupings,
    integer_pixels,
    masks,
    merged_in_groups,
    seeded_pixels,
    splits,
)

from hsi_batch.errors import DataError
from hsi_batch.statistics import FloatHistogram, Histogram, IntegerHistogram
from hsi_batch.statistics.float_histogram import CAPACITY, float_keys, key_floats

SMALL = ("uint8", "int8")
TINY = float(np.finfo(np.float32).tiny)
LEVELS = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6)
# Every finite float32, subnormals too, negative zero too.
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


BLOCKS = st.tuples(st.integers(1, 40), st.integers(1, 3))


def columns(shape=BLOCKS, elements=FLOATS):
    return npst.arrays(np.float32, shape, elements=elements)


def counted(histogram, channel):
    values, counts = histogram.bins(channel)
    assert np.all(np.diff(values) > 0)
    assert np.all(counts > 0)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def same(a, b):
    mine, theirs = a.to_arrays(), b.to_arrays()
    return all(np.array_equal(mine[k], theirs[k]) for k in mine)


def assert_quantiles_of_numpy(histogram, pixels, levels):
    expected = np.quantile(pixels.astype(np.float64), levels, axis=0)
    assert np.array_equal(histogram.quantile(levels), expected)


# --- integers ---------------------------------------------------------------------------------


@given(data=st.data(), pixels=integer_pixels(SMALL, count=st.integers(0, 40)))
def test_any_split_order_and_grouping_counts_every_value(data, pixels):
    zero = IntegerHistogram.zero(pixels.shape[1], pixels.dtype)
    parts = [zero.update(pixels[part]) for part in data.draw(splits(len(pixels)))]
    whole = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert whole.count == len(pixels)
    for channel in range(pixels.shape[1]):
        assert counted(whole, channel) == Counter(pixels[:, channel].tolist())
    assert whole.relative_error == 0


@given(data=st.data(), pixels=integer_pixels(SMALL, count=st.integers(0, 20)))
def test_integer_histograms_are_a_commutative_monoid_that_subtracts(data, pixels):
    zero = IntegerHistogram.zero(pixels.shape[1], pixels.dtype)
    mask = data.draw(masks(len(pixels)))
    a, b = zero.update(pixels[mask]), zero.update(pixels[~mask])
    whole = zero.update(pixels)
    assert same(a.merge(b), b.merge(a))
    assert same(a.merge(b), whole)
    assert same(a.merge(zero), a)
    assert same(whole.subtract(a), b)
    assert same(a.merge(b).merge(whole), a.merge(b.merge(whole)))


@given(levels=LEVELS, pixels=seeded_pixels(count=st.integers(1, 3000), channels=st.integers(1, 2)))
def test_integer_quantiles_have_the_bits_of_numpy(levels, pixels):
    histogram = Histogram.empty(pixels.shape[1], pixels.dtype).update(pixels)
    assert isinstance(histogram, IntegerHistogram)
    assert_quantiles_of_numpy(histogram, pixels, levels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_the_dtype_have_bins(dtype):
    info = np.iinfo(dtype)
    pixels = np.array([[info.min], [info.max], [info.max], [0]], dtype=dtype)
    histogram = Histogram.empty(1, dtype).update(pixels)
    assert counted(histogram, 0) == Counter(pixels[:, 0].tolist())
    assert histogram.counts.shape == (1, 2 ** (8 * np.dtype(dtype).itemsize))


def test_pixels_of_another_range_are_refused():
    with pytest.raises(ValueError, match="dtype uint16 in a histogram of uint8"):
        IntegerHistogram.zero(1, "uint8").update(np.array([[256]], dtype=np.uint16))
    with pytest.raises(ValueError, match="dtype int16 in a histogram of uint8"):
        IntegerHistogram.zero(1, "uint8").update(np.array([[-1]], dtype=np.int16))


def test_byte_orders_are_counted_alike():
    values = np.array([[1, 258], [1, 3]], dtype=np.uint16)
    swapped = IntegerHistogram.zero(2, ">u2").update(values.astype(">u2"))
    assert swapped.dtype == np.uint16
    np.testing.assert_array_equal(
        swapped.counts, IntegerHistogram.zero(2, "<u2").update(values).counts
    )


def test_taking_away_what_was_never_counted_is_refused():
    zero = IntegerHistogram.zero(1, "uint8")
    one = zero.update(np.array([[1]], dtype=np.uint8))
    with pytest.raises(ValueError, match="never counted"):
        one.subtract(zero.update(np.array([[2]], dtype=np.uint8)))


@given(integer_pixels(SMALL))
def test_integer_histograms_come_back(pixels):
    histogram = Histogram.empty(pixels.shape[1], pixels.dtype).update(pixels)
    file = io.BytesIO()
    np.savez(file, **histogram.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        again = IntegerHistogram.from_arrays(stored)
    for copy in (again, pickle.loads(pickle.dumps(histogram))):
        assert same(copy, histogram)
        assert copy.dtype == pixels.dtype
        assert copy.channels == pixels.shape[1]


# --- the order of floats ----------------------------------------------------------------------


def reference_key(value):
    """Order-preserving key of a float32 by its sign and magnitude."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    magnitude = bits & 0x7FFFFFFF
    if magnitude in (0, bits):
        return 2**31 + magnitude
    return 2**31 - 1 - magnitude


@given(columns((30,), elements=st.floats(width=32, allow_nan=False)))
def test_keys_order_like_values_and_come_back(values):
    keys = float_keys(values)
    assert keys.dtype == np.uint32
    assert keys.tolist() == [reference_key(v) for v in values.tolist()]
    assert np.array_equal(key_floats(keys), values)
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(keys[order].astype(np.int64)) >= 0)


def test_zeros_are_one_value():
    assert len(set(float_keys(np.array([0.0, -0.0], dtype=np.float32)).tolist())) == 1


# --- floats, exact ----------------------------------------------------------------------------


@given(data=st.data(), pixels=columns(elements=st.floats(width=32)))
def test_float_values_are_counted_exactly_and_nan_is_not(data, pixels):
    zero = FloatHistogram.zero(pixels.shape[1])
    parts = [zero.update(pixels[part]) for part in data.draw(splits(len(pixels)))]
    whole = merged_in_groups(parts, data.draw(groupings(len(parts))))
    for channel in range(pixels.shape[1]):
        column = pixels[:, channel]
        expected = Counter(column[~np.isnan(column)].tolist())
        assert counted(whole, channel) == expected
    assert whole.relative_error == 0
    assert whole.count == np.count_nonzero(~np.isnan(pixels[:, 0]))
    assert same(whole, zero.update(pixels))


@given(levels=LEVELS, pixels=columns())
def test_float_quantiles_have_the_bits_of_numpy(levels, pixels):
    histogram = Histogram.empty(pixels.shape[1], "float32").update(pixels)
    assert isinstance(histogram, FloatHistogram)
    assert_quantiles_of_numpy(histogram, pixels, levels)


def test_many_different_values_stay_exact_below_the_capacity():
    values = np.linspace(-1, 1, CAPACITY // 4, dtype=np.float32)[:, None]
    histogram = FloatHistogram.zero(1).update(values).update(values)
    assert histogram.relative_error == 0
    assert np.array_equal(histogram.bins(0)[0], np.unique(values).astype(np.float64))
    assert histogram.count == 2 * len(values)


def test_wider_floats_and_integers_are_rounded_to_float32():
    pixels = np.array([[0.1], [2**24 + 1]])
    histogram = Histogram.empty(1, "float64").update(pixels)
    assert counted(histogram, 0) == {float(np.float32(0.1)): 1, 2.0**24: 1}
    wide = Histogram.empty(1, "int32").update(np.array([[-3], [7]], dtype=np.int32))
    assert counted(wide, 0) == {-3.0: 1, 7.0: 1}


# --- floats, coarse ---------------------------------------------------------------------------


def fewest_bits(pixels, capacity):
    """Bits that must be dropped until no channel has more than ``capacity`` bins."""
    for shift in range(33):
        most = max(len({reference_key(v) >> shift for v in c.tolist()}) for c in pixels.T)
        if most <= capacity:
            return shift
    raise AssertionError


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(0, 3000),
    parts=st.integers(1, 5),
    freedom=st.sampled_from([2, 60]),
    capacity=st.sampled_from([16, 64, 2**10]),
)
def test_scores_that_lie_close_are_counted_as_if_they_were_sorted(
    seed, size, parts, freedom, capacity
):
    # As those of RX do: cells are counted one by one then.
    values = np.random.default_rng(seed).chisquare(freedom, (size, 2)).astype(np.float32)
    values[::7, 1] = np.nan
    histogram = FloatHistogram.zero(2, capacity)
    for part in np.array_split(values, parts):
        histogram = histogram.update(part)
    columns = [column[~np.isnan(column)] for column in values.T]
    bits = max(fewest_bits(column[:, None], capacity) for column in columns)
    assert histogram.shift == bits
    for channel, kept in enumerate(columns):
        keys, counts = np.unique(float_keys(kept) >> np.uint32(bits), return_counts=True)
        np.testing.assert_array_equal(histogram.keys[channel], keys)
        np.testing.assert_array_equal(histogram.counts[channel], counts)


@given(data=st.data(), pixels=columns(), capacity=st.sampled_from([1, 2, 5, 16]))
def test_coarsening_depends_on_the_values_alone(data, pixels, capacity):
    zero = FloatHistogram.zero(pixels.shape[1], capacity)
    parts = [zero.update(pixels[part]) for part in data.draw(splits(len(pixels)))]
    whole = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert same(whole, zero.update(pixels))
    assert whole.shift == fewest_bits(pixels, capacity)
    for channel, column in enumerate(pixels.T):
        expected = Counter(reference_key(v) >> whole.shift for v in column.tolist())
        found = zip(whole.keys[channel].tolist(), whole.counts[channel].tolist(), strict=True)
        assert dict(found) == expected


@given(data=st.data(), pixels=columns(st.tuples(st.integers(1, 20), st.just(2))))
def test_float_histograms_are_a_commutative_monoid(data, pixels):
    zero = FloatHistogram.zero(2, data.draw(st.sampled_from([4, 64])))
    a, b, c = (zero.update(pixels[data.draw(masks(len(pixels)))]) for _ in range(3))
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(b), b.merge(a))
    assert same(a.merge(zero), a)
    assert same(zero.merge(a), a)


def spread(kind, size=3000):
    rng = np.random.default_rng(11)
    match kind:
        case "normal":
            values = rng.normal(size=size)
        case "exponents":
            values = rng.choice([-1, 1], size) * 10.0 ** rng.uniform(-37, 38, size)
        case "subnormal":
            values = rng.integers(-(2**23), 2**23, size) * 2.0**-149
        case "zeros":
            values = np.where(rng.random(size) < 0.5, 0.0, rng.exponential(size=size))
        case "infinite":
            values = rng.normal(size=size)
            values[:10], values[10:30] = -np.inf, np.inf
        case _:
            values = rng.uniform(1, 2, size)
    return values.astype(np.float32)[:, None]


KINDS = ("normal", "exponents", "subnormal", "zeros", "infinite", "one binade")


@pytest.mark.parametrize("capacity", [256, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_error_of_coarse_bins_holds(kind, capacity):
    values = spread(kind)
    histogram = FloatHistogram.zero(1, capacity).update(values)
    assert histogram.shift > 0
    middles, counts = histogram.bins(0)
    assert middles.size <= capacity
    assert np.all(np.diff(middles) > 0)
    assert counts.sum() == len(values)
    # Both are ascending, and so is the map from one to the other.
    stands_for, sorted_values = np.repeat(middles, counts), np.sort(values[:, 0]).astype(float)
    finite = np.isfinite(sorted_values)
    assert np.array_equal(stands_for[~finite], sorted_values[~finite])
    size = np.maximum(np.abs(sorted_values[finite]), TINY)
    error = np.abs(stands_for[finite] - sorted_values[finite]) / size
    assert error.max() <= histogram.relative_error
    if kind == "one binade":
        assert error.max() > histogram.relative_error / 3  # the bound is no luxury


@pytest.mark.parametrize("kind", ["normal", "exponents", "zeros", "one binade"])
def test_quantiles_of_coarse_bins_keep_the_stated_error(kind):
    values = spread(kind)
    histogram = FloatHistogram.zero(1, 300).update(values)
    levels = np.linspace(0, 1, 101)
    exact = np.quantile(values[:, 0].astype(float), levels)
    neighbours = np.maximum(
        np.abs(np.quantile(values[:, 0].astype(float), levels, method="lower")),
        np.abs(np.quantile(values[:, 0].astype(float), levels, method="higher")),
    )
    error = np.abs(histogram.quantile(levels)[:, 0] - exact)
    bound = histogram.relative_error * np.maximum(neighbours, TINY)
    assert np.all(error <= bound * (1 + 1e-12))


def test_coarsening_by_hand_is_the_same_as_by_need():
    values = spread("normal")
    coarse = FloatHistogram.zero(1, 256).update(values)
    fine = FloatHistogram.zero(1).update(values)
    assert fine.shift == 0
    by_hand = fine.coarsened(coarse.shift)
    assert np.array_equal(by_hand.keys[0], coarse.keys[0])
    assert np.array_equal(by_hand.counts[0], coarse.counts[0])
    assert by_hand.relative_error == coarse.relative_error > 0
    assert fine.coarsened(0) is fine


@given(columns(), st.sampled_from([3, CAPACITY]))
def test_float_histograms_come_back(pixels, capacity):
    histogram = FloatHistogram.zero(pixels.shape[1], capacity).update(pixels)
    file = io.BytesIO()
    np.savez(file, **histogram.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        again = FloatHistogram.from_arrays(stored)
    for copy in (again, pickle.loads(pickle.dumps(histogram))):
        assert same(copy, histogram)
        assert (copy.shift, copy.capacity) == (histogram.shift, capacity)
        assert copy.channels == pixels.shape[1]
        assert same(copy.merge(histogram), histogram.merge(histogram))


# --- quantiles, hard cases --------------------------------------------------------------------


def test_quantiles_of_infinite_values_are_those_values():
    values = np.array([-np.inf, -np.inf, 1.0, 2.0, np.inf, np.inf, np.inf], dtype=np.float32)
    histogram = FloatHistogram.zero(1).update(values[:, None])
    found = histogram.quantile([0.0, 1 / 12, 2 / 6, 0.5, 5 / 6, 1.0])[:, 0]
    assert found.tolist() == [-np.inf, -np.inf, 1.0, 2.0, np.inf, np.inf]


@pytest.mark.parametrize("level", [-0.001, 1.001, float("nan")])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_levels_outside_0_to_1_are_refused(level, dtype):
    histogram = Histogram.empty(1, dtype).update(np.array([[1], [2]], dtype=dtype))
    with pytest.raises(ValueError, match="between 0 and 1"):
        histogram.quantile([0.5, level])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_quantiles_of_no_pixels_are_refused(dtype):
    with pytest.raises(DataError, match="no valid pixels"):
        Histogram.empty(2, dtype).quantile(0.5)


def test_a_channel_without_values_is_refused():
    pixels = np.array([[1.0, np.nan], [2.0, np.nan]], dtype=np.float32)
    for order in ([0, 1], [1, 0]):
        with pytest.raises(DataError, match="no valid pixels"):
            FloatHistogram.zero(2).update(pixels[:, order]).quantile(0.5)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_one_pixel_is_all_its_quantiles(dtype):
    histogram = Histogram.empty(2, dtype).update(np.array([[7, 9]], dtype=dtype))
    assert histogram.quantile([0, 0.3, 1]).tolist() == [[7.0, 9.0]] * 3
    assert histogram.quantile(0.5).shape == (1, 2)


def test_billions_of_values_by_doubling():
    pixels = np.array([[1], [2], [4]], dtype=np.uint8)
    for histogram in (Histogram.empty(1, d).update(pixels) for d in ("uint8", "float32")):
        whole = histogram
        for _ in range(35):
            whole = whole.merge(whole)
        assert whole.count == 3 * 2**35
        assert whole.quantile([0.0, 0.2, 0.5, 0.8, 1.0])[:, 0].tolist() == [1, 1, 2, 4, 4]
