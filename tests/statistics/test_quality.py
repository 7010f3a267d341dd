"""Quality flags against looking at every value."""

from __future__ import annotations

import math

import numpy as np
import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hsi_batch.statistics.quality import Quality, flag_pixels


@st.composite
def cubes(draw):
    dtype = np.dtype(draw(st.sampled_from(["uint8", "int16", "uint16", "float32", "float64"])))
    values = [0, 1, 2, 100] if dtype.kind == "u" else [-1, 0, 1, 100]
    if dtype.kind == "f":
        values += [math.nan, math.inf, -math.inf, 0.5]
    shape = draw(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(1, 3)))
    return draw(npst.arrays(dtype, shape, elements=st.sampled_from(values)))


def by_hand(cube, nodata, saturation, used):
    flags = np.zeros(cube.shape[:2], dtype=np.uint8)
    for y, x, c in np.ndindex(cube.shape):
        value = cube[y, x, c].item()
        if used is not None and not used[c]:
            continue
        if not math.isfinite(value):
            flags[y, x] |= 2
        if nodata is not None:
            both_nan = math.isnan(nodata) and math.isnan(value)
            flags[y, x] |= 1 if value == nodata or both_nan else 0
        if saturation is not None and value >= saturation:
            flags[y, x] |= 4
    return flags


@given(
    cube=cubes(),
    nodata=st.sampled_from([None, 0, 0.0, -1, 100, 0.5, math.nan, math.inf, -9999.0]),
    saturation=st.sampled_from([None, 1, 100.0, 1e6, 0.75]),
    data=st.data(),
)
def test_flags_are_those_found_by_looking_at_every_value(cube, nodata, saturation, data):
    channels = cube.shape[2]
    used = data.draw(st.none() | npst.arrays(bool, channels))
    flags = flag_pixels(cube, nodata=nodata, saturation=saturation, used=used)
    expected = by_hand(cube, nodata, saturation, used)
    if flags is None:
        assert not expected.any()
    else:
        assert flags.any()
        assert flags.dtype == np.uint8
        assert np.array_equal(flags, expected)


@pytest.mark.parametrize("place", [(0, 0), (4, 95), (40, 95), (40, 96), (102, 99)])
def test_large_cubes_are_looked_at_to_the_last_pixel(place):
    cube = np.ones((103, 100, 2), dtype=np.float32)
    cube[place][1] = np.nan
    flags = flag_pixels(cube, nodata=0, saturation=2)
    assert np.argwhere(flags).tolist() == [list(place)]
    assert flags[place] == Quality.NON_FINITE


def test_integers_without_limits_are_all_valid():
    assert flag_pixels(np.full((2, 2, 1), 65535, dtype=np.uint16)) is None


def test_flags_add_up():
    cube = np.array([[[np.nan, 0.0, 9.0]]])
    flags = flag_pixels(cube, nodata=0.0, saturation=9.0)
    assert flags[0, 0] == Quality.NODATA | Quality.NON_FINITE | Quality.SATURATED == 7


def test_values_of_float32_are_compared_as_they_are_stored():
    cube = np.array([[[0.1]]], dtype=np.float32)
    assert flag_pixels(cube, nodata=0.1) is not None
    assert flag_pixels(cube, saturation=0.1) is not None


@pytest.mark.parametrize("limit", [-1.7976931348623157e308, 1.7976931348623157e308])
def test_limits_beyond_float32_warn_nobody(limit):
    cube = np.array([[[1.0], [np.copysign(3e38, limit)]]], dtype=np.float32)
    assert flag_pixels(cube, nodata=limit) is None
    assert flag_pixels(cube, saturation=1.7976931348623157e308) is None


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16"])
@pytest.mark.parametrize("limit", [-9999, 70_000, -9999.0, 1e300])
def test_limits_beyond_the_range_of_integers_flag_nothing(dtype, limit):
    cube = np.array([[[0], [1], [100]]], dtype=dtype)
    assert flag_pixels(cube, nodata=limit) is None
    if limit > 0:
        assert flag_pixels(cube, saturation=limit) is None


def test_the_bits_are_those_of_the_archive():
    assert {flag.name: flag.value for flag in Quality} == {
        "NODATA": 1,
        "NON_FINITE": 2,
        "SATURATED": 4,
        "DEAD": 8,
        "USER": 16,
        "OUTSIDE_ROI": 32,
    }


def test_the_cube_is_left_alone():
    cube = np.array([[[1.0, np.nan]]])
    flag_pixels(cube, nodata=1.0, used=np.array([True, False]))
    assert np.array_equal(cube, [[[1.0, np.nan]]], equal_nan=True)
