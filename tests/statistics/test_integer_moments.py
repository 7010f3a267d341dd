"""Exact moments: any split, order or mask equals integer arithmetic, to the last bit."""

from __future__ import annotations

import io
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import (
    DTYPES,
    exact_covariance,
    exact_mean,
    exact_products,
    exact_scatter,
    groupings,
    integer_pixels,
    masks,
    merged_in_groups,
    seeded_pixels,
    splits,
)

from hsi_batch.errors import DataError
from hsi_batch.statistics import FloatMoments, IntegerMoments, Moments
from hsi_batch.statistics.moments import is_exact


def summed(pixels):
    return IntegerMoments.zero(pixels.shape[1]).update(pixels)


def products_of(moments):
    """Products as Python integers, from the two limbs."""
    arrays = moments.to_arrays()
    pairs = zip(arrays["gram_high"], arrays["gram_low"], strict=True)
    return [int(high) * 2**32 + int(low) for high, low in pairs]


def assert_exact(moments, pixels):
    total, products = exact_products(pixels)
    assert moments.count == len(pixels)
    assert [int(v) for v in moments.total] == total
    assert products_of(moments) == products


# --- any way to cut the work up ---------------------------------------------------------------


@given(data=st.data(), pixels=integer_pixels())
def test_any_split_order_and_grouping_equals_integer_arithmetic(data, pixels):
    parts = [summed(pixels[part]) for part in data.draw(splits(len(pixels)))]
    whole = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert_exact(whole, pixels)
    assert whole == summed(pixels)


@given(data=st.data(), pixels=integer_pixels())
def test_any_mask_equals_integer_arithmetic_on_what_is_left(data, pixels):
    mask = data.draw(masks(len(pixels)))
    assert_exact(summed(pixels[mask]), pixels[mask])


@given(data=st.data(), pixels=seeded_pixels(count=st.integers(2, 9000)))
def test_many_pixels_in_any_chunks_give_the_same_bits(data, pixels):
    chunk = data.draw(st.integers(len(pixels) // 50 + 1, len(pixels)))
    one_by_one = IntegerMoments.zero(pixels.shape[1])
    for start in range(0, len(pixels), chunk):
        one_by_one = one_by_one.update(pixels[start : start + chunk])
    wide = pixels.astype(np.int64)
    assert np.array_equal(one_by_one.total, wide.sum(axis=0))
    reference = (wide.T @ wide)[np.triu_indices(pixels.shape[1])]
    assert products_of(one_by_one) == reference.tolist()
    assert one_by_one == summed(pixels)


@given(data=st.data(), pixels=integer_pixels(count=st.integers(0, 12)))
def test_merging_is_a_commutative_monoid(data, pixels):
    a, b, c = (summed(pixels[data.draw(masks(len(pixels)))]) for _ in range(3))
    zero = IntegerMoments.zero(pixels.shape[1])
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(zero) == a
    assert zero.merge(a) == a


@given(data=st.data(), pixels=integer_pixels())
def test_exact_sums_subtract(data, pixels):
    mask = data.draw(masks(len(pixels)))
    labelled = summed(pixels[mask])
    rest = summed(pixels).subtract(labelled)
    assert_exact(rest, pixels[~mask])
    assert rest == summed(pixels[~mask])
    assert np.all((rest.low >= 0) & (rest.low < 2**32))


def test_a_limb_is_borrowed_when_the_lower_one_runs_out():
    many = np.full((3, 1), 65535, dtype=np.uint16)
    whole = summed(many)
    assert whole.subtract(summed(many[:2])) == summed(many[:1])
    assert int(whole.high[0]) == 2


def test_taking_away_more_pixels_than_there_are_is_refused():
    one = summed(np.ones((1, 2), dtype=np.uint8))
    with pytest.raises(ValueError, match="cannot take 2 pixels from 1"):
        one.subtract(one.merge(one))


def test_merging_and_subtracting_leave_their_operands_alone():
    a, b = summed(np.array([[1, 2]], dtype=np.int16)), summed(np.array([[3, 4]], dtype=np.int16))
    before = [pickle.dumps(x.to_arrays()) for x in (a, b)]
    a.merge(b)
    a.merge(b).subtract(a)
    a.update(np.array([[5, 6]], dtype=np.int16))
    assert [pickle.dumps(x.to_arrays()) for x in (a, b)] == before


# --- finished values --------------------------------------------------------------------------


@given(integer_pixels(count=st.integers(2, 16)))
def test_finished_values_are_correctly_rounded(pixels):
    moments = summed(pixels)
    assert moments.mean.tolist() == [float(m) for m in exact_mean(pixels)]
    scatter = exact_scatter(pixels)
    assert moments.scatter.tolist() == [[float(v) for v in row] for row in scatter]
    for ddof in (0, 1):
        reference = exact_covariance(pixels, ddof)
        assert np.array_equal(moments.covariance(ddof), reference)
        assert np.array_equal(moments.variance(ddof), np.diagonal(reference))
        assert moments.packed_covariance(ddof).tolist() == [
            reference[i, j] for i in range(len(reference)) for j in range(i, len(reference))
        ]
    assert np.array_equal(moments.packed_covariance(), moments.packed_covariance(1))
    assert moments.variance().flags.writeable
    assert moments.mean.dtype == moments.scatter.dtype == np.float64


def test_mean_30000_with_deviation_5():
    rng = np.random.default_rng(5)
    pixels = rng.normal(30000, 5, (200_000, 3)).round().astype(np.uint16)
    pixels[:, 2] = pixels[:, 0] + pixels[:, 1] % 7
    moments = summed(pixels)
    wide = pixels.astype(np.int64)
    total, products = wide.sum(axis=0), wide.T @ wide
    n = len(pixels)
    assert moments.mean.tolist() == [float(Fraction(int(t), n)) for t in total]
    for i in range(3):
        for j in range(3):
            scatter = Fraction(int(products[i, j])) - Fraction(int(total[i]) * int(total[j]), n)
            assert moments.covariance()[i, j] == float(scatter / (n - 1))
    assert np.allclose(moments.variance(), pixels.var(axis=0, ddof=1), rtol=1e-12)
    assert 4.9 < np.sqrt(moments.variance()[0]) < 5.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_band_has_no_scatter_at_all(dtype):
    pixels = np.empty((4097, 2), dtype=dtype)
    pixels[:, 0] = np.iinfo(dtype).max
    pixels[:, 1] = np.arange(4097) % 100
    scatter = summed(pixels).scatter
    assert scatter[0].tolist() == [0.0, 0.0]
    assert scatter[1, 1] > 0


def test_one_pixel_has_a_mean_but_no_covariance():
    one = summed(np.array([[7, 65535]], dtype=np.uint16))
    assert one.mean.tolist() == [7.0, 65535.0]
    assert not one.scatter.any()
    assert not one.covariance(ddof=0).any()
    with pytest.raises(DataError, match=r"1 valid pixels were counted, at least 2 are needed"):
        one.covariance()
    with pytest.raises(DataError):
        one.variance()


@pytest.mark.parametrize("value", ["mean", "scatter", "packed_scatter"])
def test_no_pixels_have_no_values(value):
    empty = summed(np.zeros((5, 3), dtype=np.uint16)[np.zeros(5, dtype=bool)])
    assert empty == IntegerMoments.zero(3)
    with pytest.raises(DataError, match="0 valid pixels"):
        getattr(empty, value)
    with pytest.raises(DataError, match="at least 2"):
        empty.covariance()


# --- very many pixels -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_billions_of_pixels_stay_exact(dtype):
    info = np.iinfo(dtype)
    low, high = info.min, info.max
    block = np.array([[high, low, high], [high, high, 3], [low, high, high - 1]], dtype=dtype)
    total, products = exact_products(block)
    moments = summed(block)
    for doubling in range(1, 45):
        moments = moments.merge(moments)
        times = 2**doubling
        assert moments.count == 3 * times
        assert [int(v) for v in moments.total] == [t * times for t in total]
        assert products_of(moments) == [p * times for p in products]
    assert moments.count > 2**31
    n = moments.count
    assert moments.mean.tolist() == [float(m) for m in exact_mean(block)]
    scatter = [[v * 2**44 for v in row] for row in exact_scatter(block)]
    assert moments.scatter.tolist() == [[float(v) for v in row] for row in scatter]
    assert moments.covariance().tolist() == [[float(v / (n - 1)) for v in row] for row in scatter]


def test_billions_of_pixels_subtract_to_the_last_one():
    block = np.array([[65535, 1], [0, 65535], [65534, 3]], dtype=np.uint16)
    moments = summed(block)
    for _ in range(40):
        moments = moments.merge(moments)
    one = summed(block[1:2])
    assert moments.merge(one).subtract(moments) == one


def test_a_row_that_does_not_fit_int64_is_refused():
    moments = summed(np.array([[65535]], dtype=np.uint16))
    product = 65535**2
    while 2 * product < 2**63:
        moments, product = moments.merge(moments), 2 * product
        assert int(moments.row[-1]) == product
        assert IntegerMoments.from_row(moments.row) == moments
    assert moments.count == 2**31
    with pytest.raises(OverflowError, match="split the row"):
        _ = moments.merge(moments).row


@pytest.mark.parametrize(
    ("product", "fits"),
    [(2**63 - 1, True), (2**63, False), (-(2**63), True), (-(2**63) - 1, False)],
)
def test_the_bounds_of_a_row_are_those_of_int64(product, fits):
    """One product that does not fit is enough to refuse."""
    limbs = np.array([divmod(5, 2**32), divmod(product, 2**32), divmod(-5, 2**32)]).T
    moments = IntegerMoments(1, np.zeros(2, dtype=np.int64), *limbs)
    if fits:
        assert moments.row.tolist() == [1, 0, 0, 5, product, -5]
        assert products_of(IntegerMoments.from_row(moments.row)) == [5, product, -5]
    else:
        with pytest.raises(OverflowError):
            _ = moments.row


# --- to the disk and back ---------------------------------------------------------------------


@given(integer_pixels())
def test_rows_and_arrays_come_back(pixels):
    moments = summed(pixels)
    row = moments.row
    assert row.dtype == np.int64
    total, products = exact_products(pixels)
    assert row.tolist() == [len(pixels), *total, *products]
    assert IntegerMoments.from_row(row) == moments
    file = io.BytesIO()
    np.savez(file, **moments.to_arrays())
    file.seek(0)
    with np.load(file) as stored:
        assert IntegerMoments.from_arrays(stored) == moments
    assert all(v.dtype == np.int64 for v in moments.to_arrays().values())
    assert pickle.loads(pickle.dumps(moments)) == moments


def test_a_row_of_impossible_length_is_refused():
    with pytest.raises(ValueError, match="not the size of a packed triangle"):
        IntegerMoments.from_row(np.zeros(4, dtype=np.int64))


# --- inputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "float32", "float64", "bool"])
def test_pixels_whose_sums_would_not_be_exact_are_refused(dtype):
    with pytest.raises(TypeError, match=dtype):
        IntegerMoments.zero(1).update(np.ones((2, 1), dtype=dtype))


@given(integer_pixels(count=st.integers(1, 20)))
def test_layout_and_byte_order_do_not_matter(pixels):
    reference = summed(pixels)
    assert summed(np.asfortranarray(pixels)) == reference
    assert summed(pixels[::-1]) == reference
    assert summed(pixels.astype(pixels.dtype.newbyteorder())) == reference
    wide = np.repeat(pixels, 2, axis=1)
    assert summed(wide[:, ::2]) == reference


def test_the_dtype_chooses_the_kind():
    for dtype in DTYPES:
        assert isinstance(Moments.empty(2, dtype), IntegerMoments)
        assert is_exact(dtype)
    for dtype in ("uint32", "int32", "int64", "float16", "float32", "float64", "bool"):
        assert isinstance(Moments.empty(2, dtype), FloatMoments)
        assert not is_exact(dtype)
    assert Moments.empty(7, "uint8").channels == 7


def test_equality_is_of_the_same_kind_and_all_sums():
    a = summed(np.array([[1, 2]], dtype=np.uint8))
    assert a == summed(np.array([[1, 2]], dtype=np.uint16))
    assert a != summed(np.array([[1, 3]], dtype=np.uint8))
    assert a != summed(np.array([[2, 1]], dtype=np.uint8))
    assert a != FloatMoments.zero(2)
    assert a != "moments"
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)
    assert repr(a) == "IntegerMoments(count=1, channels=2)"
