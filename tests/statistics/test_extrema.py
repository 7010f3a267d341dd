"""Smallest and largest values: any split gives those of all pixels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import (
    DTYPES,
    float_pixels,
    groupings,
    integer_pixels,
    masks,
    merged_in_groups,
    splits,
)

from hsi_batch.errors import DataError
from hsi_batch.statistics import Extrema

ANY = integer_pixels(count=st.integers(1, 20)) | float_pixels()


def empty(pixels):
    return Extrema.empty(pixels.shape[1], pixels.dtype)


def assert_same(extrema, pixels):
    assert extrema.count == len(pixels)
    columns = [[v.item() for v in column] for column in pixels.T]
    assert extrema.minimum.tolist() == [min(column) for column in columns]
    assert extrema.maximum.tolist() == [max(column) for column in columns]
    assert extrema.minimum.dtype == extrema.maximum.dtype == pixels.dtype


@given(data=st.data(), pixels=ANY)
def test_any_split_order_and_grouping_equals_all_at_once(data, pixels):
    parts = [empty(pixels).update(pixels[part]) for part in data.draw(splits(len(pixels)))]
    whole = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert_same(whole, pixels)
    assert whole == empty(pixels).update(pixels)


@given(data=st.data(), pixels=ANY)
def test_merging_is_a_commutative_idempotent_monoid(data, pixels):
    a, b, c = (empty(pixels).update(pixels[data.draw(masks(len(pixels)))]) for _ in range(3))
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(empty(pixels)) == a == empty(pixels).merge(a)
    assert np.array_equal(a.merge(a).bounds, a.bounds)
    assert a.merge(a).count == 2 * a.count


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "uint32", "float32", "float64"])
def test_no_pixels_have_no_extrema_but_the_widest_bounds(dtype):
    nothing = Extrema.empty(2, dtype)
    for value in ("minimum", "maximum"):
        with pytest.raises(DataError, match="no valid pixel was counted"):
            getattr(nothing, value)
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    low, high = (info.min, info.max) if info else (-np.inf, np.inf)
    assert nothing.bounds.tolist() == [[high, high], [low, low]]
    assert nothing.bounds.dtype == dtype
    assert nothing.update(np.zeros((0, 2), dtype=dtype)) == nothing


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_the_dtype_are_values_like_others(dtype):
    info = np.iinfo(dtype)
    for value in (info.min, info.max):
        extrema = Extrema.empty(1, dtype).update(np.array([[value]], dtype=dtype))
        assert extrema.minimum.tolist() == extrema.maximum.tolist() == [value]


@given(ANY)
def test_arrays_and_pickles_come_back(pixels):
    extrema = empty(pixels).update(pixels)
    arrays = extrema.to_arrays()
    assert arrays["bounds"].shape == (2, pixels.shape[1])
    assert arrays["bounds"].dtype == pixels.dtype
    assert Extrema.from_arrays(arrays) == extrema
    assert pickle.loads(pickle.dumps(extrema)) == extrema
    assert Extrema.from_arrays(empty(pixels).to_arrays()) == empty(pixels)


def test_equality_counts_pixels_too():
    one = Extrema.empty(1, "uint8").update(np.array([[3]], dtype=np.uint8))
    two = Extrema.empty(1, "uint8").update(np.array([[3], [3]], dtype=np.uint8))
    assert one != two
    assert one != "extrema"
    assert one.channels == 1
    assert repr(two) == "Extrema(count=2, channels=1)"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_merging_and_updating_leave_operands_alone():
    a = Extrema.empty(1, "int16").update(np.array([[3]], dtype=np.int16))
    a.update(np.array([[9]], dtype=np.int16))
    a.merge(Extrema.empty(1, "int16").update(np.array([[-9]], dtype=np.int16)))
    assert a.bounds.tolist() == [[3], [3]]
    assert a.count == 1
