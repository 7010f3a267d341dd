"""Moments of columns and what stands out of them, against plain NumPy."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataError
from hsi_batch.statistics import Affine, Forest
from hsi_batch.statistics.columns import COLUMNS, ColumnMoments, column_forest
from hsi_batch.statistics.leaves import leaf_lines
from hsi_batch.statistics.striping import striping

DTYPES = ("uint8", "int16", "int32", "float32")


def lines_of(seed, lines, width, channels, dtype):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(1000, 3, (lines, width, channels)).astype(dtype)
    info = np.iinfo(np.int16 if dtype == "int32" else dtype)
    return rng.integers(info.min, info.max, (lines, width, channels), endpoint=True).astype(dtype)


def check(found, lines, valid):
    values = lines.astype(np.longdouble)
    for x in range(lines.shape[1]):
        kept = values[valid[:, x], x]
        assert found.columns[x] == len(kept)
        if not len(kept):
            assert np.isnan(found.mean[x]).all()
            continue
        np.testing.assert_allclose(found.mean[x], kept.mean(0).astype(float), rtol=1e-12, atol=1e-9)
        if len(kept) > 1:
            known = kept.var(0, ddof=1).astype(float)
            np.testing.assert_allclose(found.variance()[x], known, rtol=1e-9, atol=1e-9)


@given(
    st.sampled_from(DTYPES),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 4),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(0, 99),
)
def test_whatever_is_merged_they_are_those_of_the_valid_pixels(dtype, lines, width, c, cuts, seed):
    cube = lines_of(seed, lines, width, c, dtype)
    valid = np.random.default_rng(seed + 1).random((lines, width)) < 0.7
    bounds = sorted({0, lines, *(min(cut, lines) for cut in cuts)})
    whole = ColumnMoments.empty(width, c, dtype)
    for start, stop in pairwise(bounds):
        whole = whole.merge(
            ColumnMoments.empty(width, c, dtype).update(cube[start:stop], valid[start:stop])
        )
    check(whole, cube, valid)
    again = ColumnMoments.from_stored(whole.stored)
    check(ColumnMoments.from_arrays(again.to_arrays()), cube, valid)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_bits_do_not_depend_on_blocks_and_few_parts_are_held(dtype):
    height, width = 700, 20
    cube = lines_of(3, height, width, 3, dtype)
    step = leaf_lines(width)
    found = []
    for lines in (step, 4 * step, height):
        forest: Forest = Forest()
        for start in range(0, height, lines):
            part = cube[start : start + lines]
            forest = forest.merge(column_forest(part, None, start=start, height=height))
            # A long scan holds the logarithm of its blocks.
            assert len(forest) <= 2 * np.log2(height / step) + 1
        found.append(forest.result().stored)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_large_sums_are_exact():
    lines = np.full((3000, 1, 1), 65535, np.uint16)
    lines[0] = 65534
    found = ColumnMoments.empty(1, 1, "uint16").update(lines)
    assert found.second[0, 0] == 2999 * 65535**2 + 65534**2
    known = 2999 / 3000
    np.testing.assert_allclose(found.as_float().second[0, 0], known, rtol=1e-12)


@settings(max_examples=60)
@given(
    st.sampled_from(["uint8", "int8", "uint16", "int16"]),
    st.sampled_from([0, 1, 2, 3, 4, 5, 7, 130, 16383, 16384, 16387, 33_000]),
    st.sampled_from([(1, 1), (3, 5), (2100, 1), (41, 61)]),
    st.sampled_from(["lowest", "highest", "any"]),
)
def test_whole_blocks_of_small_integers_are_exact(dtype, lines, sides, values):
    if lines > 200 and sides[0] > 3:
        lines = 6
    cube = lines_of(lines, lines, *sides, dtype)
    info = np.iinfo(dtype)
    if values != "any":
        cube[...] = info.min if values == "lowest" else info.max
    found = ColumnMoments.empty(*sides, dtype).update(cube)
    wide = cube.astype(object)
    assert found.columns.tolist() == [lines] * sides[0]
    assert np.array_equal(found.first, wide.sum(axis=0) if lines else np.zeros(sides))
    assert np.array_equal(found.second, (wide * wide).sum(axis=0) if lines else np.zeros(sides))


def test_they_follow_through_maps_that_keep_channels_apart():
    cube = lines_of(1, 30, 5, 3, "uint16")
    mapped = Affine([[0.0, 0.5, 0.0], [2.0, 0.0, 0.0]], [1.0, -3.0])
    found = mapped.columns(COLUMNS.of(cube, None, None))
    flat = np.stack([cube[..., 1] * 0.5 + 1, cube[..., 0] * 2.0 - 3], axis=-1)
    check(found, flat, np.ones((30, 5), bool))
    with pytest.raises(ValueError, match="mixes channels"):
        Affine([[1.0, 1.0, 0.0]], [0.0]).columns(COLUMNS.of(cube, None, None))


def test_frames_of_other_width_are_refused_with_the_remedy():
    with pytest.raises(DataError, match=r"of 4 and of 5 samples.*--background sensor"):
        ColumnMoments.empty(4, 1, "uint8").merge(ColumnMoments.empty(5, 1, "uint8"))


def test_what_stands_out_is_what_was_put_there():
    rng = np.random.default_rng(1)
    stripes = rng.normal(0, 0.3, (100, 4))
    lines = rng.normal(50, 2, (800, 100, 4)) + stripes
    lines[:, 20, 1] = 7
    lines[:, 40] += 30
    lines[:, 60] -= 30
    valid = np.ones((800, 100), bool)
    valid[:, 80] = False
    moments = ColumnMoments.empty(100, 4, "float64").update(lines, valid)
    found = striping(moments)
    assert (found.empty, found.dead, found.hot, found.weak) == ((80,), (20,), (40,), (60,))
    # Stripes of 0.3 against the median of nine columns, and the error of means of 800 lines.
    assert 0.12 < found.total < 0.2
    clean = striping(
        ColumnMoments.empty(100, 4, "float64").update(rng.normal(50, 2, (800, 100, 4)))
    )
    assert (clean.dead, clean.hot, clean.weak) == ((), (), ())
    assert clean.total < 0.06
    assert striping(ColumnMoments.empty(4, 1, "uint8")) is None
    # A channel that nobody uses is not looked at.
    assert striping(moments, np.array([True, False, True, True])).dead == ()
