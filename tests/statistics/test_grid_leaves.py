"""The fixed grid: any block height, order, mask and layout gives the bits of the whole frame."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pixel_strategies import groupings, masks, merged_in_groups

from hsi_batch.statistics import (
    Extrema,
    FloatMoments,
    Forest,
    Histogram,
    IntegerMoments,
    Moments,
)
from hsi_batch.statistics.grid import lines_forest
from hsi_batch.statistics.leaves import (
    BLOCK_BYTES,
    LEAF_LINES,
    LEAF_PIXELS,
    aligned_ranges,
    block_lines,
    leaf_count,
    leaf_lines,
)

NARROW = st.integers(1, 40)


def bits(statistic):
    return {name: array.tobytes() for name, array in statistic.to_arrays().items()}


@st.composite
def frames(draw, dtypes=("float32", "float64"), widths=NARROW):
    """A cube of many heights and its mask (or None)."""
    width = draw(widths | st.sampled_from([63, 300, 1500, 4096, 4097, 9001]))
    height = draw(st.integers(1, 90 if width < 100 else 12))
    channels = draw(st.integers(1, 4 if width < 100 else 2))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cube = rng.normal(200, 30, (height, width, channels)).astype(dtype)
    mask = draw(st.none() | masks((height, width)))
    return cube, mask


@st.composite
def blocks(draw, height, width):
    """Blocks ``(start, stop)`` of a power of two of leaves, or the whole frame, in any order."""
    step = leaf_lines(width)
    tall = step << draw(st.integers(0, 4))
    if draw(st.booleans()) or tall >= height:
        tall = max(tall, height)
    starts = range(0, height, tall)
    return draw(st.permutations([(a, min(a + tall, height)) for a in starts]))


def forests(identity, cube, mask, cut, prefix=()):
    return [
        lines_forest(
            identity,
            cube[a:b],
            None if mask is None else mask[a:b],
            start=a,
            height=len(cube),
            prefix=prefix,
        )
        for a, b in cut
    ]


# --- lines_forest -----------------------------------------------------------------------------


@given(data=st.data(), frame=frames())
def test_any_block_height_and_mask_give_the_bits_of_the_whole_frame(data, frame):
    cube, mask = frame
    height, width, channels = cube.shape
    identity = FloatMoments.zero(channels)
    (whole,) = forests(identity, cube, mask, [(0, height)])
    parts = forests(identity, cube, mask, data.draw(blocks(height, width)))
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert bits(merged.result()) == bits(whole.result())
    assert len(whole) == 1
    chosen = cube.reshape(-1, channels) if mask is None else cube[mask]
    assert whole.result().count == len(chosen)
    if len(chosen) > 1:
        exact = chosen.astype(np.longdouble)
        assert np.allclose(whole.result().mean, exact.mean(axis=0).astype(float), rtol=1e-14)
        variance = whole.result().variance()
        assert np.allclose(variance, exact.var(axis=0, ddof=1).astype(float), rtol=1e-11)


@given(data=st.data(), frame=frames())
def test_memory_layout_does_not_change_a_bit(data, frame):
    cube, mask = frame
    identity = FloatMoments.zero(cube.shape[2])
    (whole,) = forests(identity, cube, mask, [(0, len(cube))])
    order = data.draw(st.permutations([0, 1, 2]))
    stored = np.ascontiguousarray(cube.transpose(order)).transpose(np.argsort(order))
    (same,) = forests(identity, stored, mask, [(0, len(cube))])
    assert bits(same.result()) == bits(whole.result())


@given(frame=frames())
def test_no_mask_and_a_mask_that_takes_all_are_the_same(frame):
    cube, _ = frame
    identity = FloatMoments.zero(cube.shape[2])
    everything = np.ones(cube.shape[:2], dtype=bool)
    results = [forests(identity, cube, m, [(0, len(cube))])[0].result() for m in (None, everything)]
    assert bits(results[0]) == bits(results[1])


@given(data=st.data(), frame=frames(widths=st.integers(1, 20)))
def test_missing_blocks_count_as_no_pixels(data, frame):
    cube, mask = frame
    height, width, channels = cube.shape
    cut = data.draw(blocks(height, width))
    kept = data.draw(st.lists(st.sampled_from(cut), unique=True))
    mask = np.ones((height, width), dtype=bool) if mask is None else mask
    seen = np.zeros_like(mask)
    for a, b in kept:
        seen[a:b] = mask[a:b]
    identity = FloatMoments.zero(channels)
    (whole,) = forests(identity, cube, seen, [(0, height)])
    merged = Forest()
    for part in forests(identity, cube, mask, kept):
        merged = merged.merge(part)
    result = merged.result()
    assert bits(identity if result is None else result) == bits(whole.result())


@given(data=st.data(), frame=frames(dtypes=("uint16", "uint8")))
def test_exact_statistics_equal_one_update(data, frame):
    cube, mask = frame
    height, width, channels = cube.shape
    chosen = cube.reshape(-1, channels) if mask is None else cube[mask]
    identities = [
        Moments.empty(channels, cube.dtype),
        Extrema.empty(channels, cube.dtype),
        Histogram.empty(channels, "uint8" if cube.dtype == np.uint8 else "float32"),
    ]
    for identity in identities:
        parts = forests(identity, cube, mask, data.draw(blocks(height, width)))
        merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
        assert bits(merged.result()) == bits(identity.update(chosen))


def test_wide_lines_are_leaves_of_pieces_of_4096_pixels():
    rng = np.random.default_rng(1)
    cube = rng.normal(size=(1, 9000, 2))
    identity = FloatMoments.zero(2)
    result = lines_forest(identity, cube, None, start=0, height=1).result()
    first, second, third = (
        identity.update(cube[0, a : a + LEAF_PIXELS]) for a in (0, LEAF_PIXELS, 2 * LEAF_PIXELS)
    )
    assert bits(result) == bits(first.merge(second).merge(third))


def test_a_range_of_blocks_gives_few_parts():
    cube = np.zeros((7 * 16, 100, 1), dtype=np.uint8)
    forest = lines_forest(IntegerMoments.zero(1), cube, None, start=16, height=16 * 40)
    assert len(forest) == 3  # leaf 1, leaves 2-3, leaves 4-7
    assert forest.result().count == 7 * 16 * 100


@given(data=st.data())
def test_frames_merge_at_their_place_among_others(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    count = data.draw(st.integers(1, 5))
    cubes = [rng.normal(size=(int(rng.integers(1, 40)), 7, 2)) for _ in range(count)]
    identity = FloatMoments.zero(2)
    parts, expected = [], Forest()
    for i, cube in enumerate(cubes):
        cut = data.draw(blocks(len(cube), 7))
        parts += forests(identity, cube, None, cut, prefix=((i, count),))
        (whole,) = forests(identity, cube, None, [(0, len(cube))])
        expected = expected.merge(Forest.of(((i, count),), whole.result()))
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert bits(merged.result()) == bits(expected.result())


# --- leaves and blocks ------------------------------------------------------------------------


@given(st.integers(1, 20_000))
def test_a_leaf_is_the_largest_power_of_two_of_lines_that_fits(width):
    lines = leaf_lines(width)
    assert lines & (lines - 1) == 0
    assert 1 <= lines <= LEAF_LINES
    assert lines == 1 or lines * width <= LEAF_PIXELS
    assert lines == LEAF_LINES or 2 * lines * width > LEAF_PIXELS


def test_leaves_at_the_edges():
    assert [leaf_lines(w) for w in (1, 256, 257, 2048, 2049, 4096, 4097)] == [16, 16, 8, 2, 1, 1, 1]
    assert leaf_lines(0) == 16


@given(st.integers(1, 5000), st.integers(1, 10_000))
def test_leaves_cover_the_frame(lines, width):
    count = leaf_count(lines, width)
    assert (count - 1) * leaf_lines(width) < lines <= count * leaf_lines(width)


@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 10_000), st.integers(1, 500)),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    most=st.sampled_from([BLOCK_BYTES, 2**20, 2**12]),
)
def test_a_block_is_the_frame_or_the_most_leaves_that_fit(shape, itemsize, most):
    lines, width, channels = shape
    height = block_lines(shape, itemsize, most)
    line = width * channels * itemsize
    assert 1 <= height <= lines
    if lines * line <= most:
        assert height == lines
        return
    leaves = height / leaf_lines(width)
    if height < lines:
        assert math.log2(leaves) == int(math.log2(leaves))
    assert leaves <= 1 or height * line <= most
    assert height * 2 * line > most


def test_a_frame_lower_than_a_leaf_is_one_block():
    assert block_lines((10, 4, 1_000_000), 2) == 10


def test_blocks_of_usual_frames_are_8_to_16_megabytes():
    for shape, itemsize in [((2000, 1000, 61), 2), ((20_000, 1024, 204), 2), ((5000, 640, 400), 4)]:
        size = block_lines(shape, itemsize) * shape[1] * shape[2] * itemsize
        assert BLOCK_BYTES / 2 < size <= BLOCK_BYTES


@lru_cache
def fewest(start, stop):
    """Fewest aligned powers of two that cut a range, by trying all."""
    if start == stop:
        return 0
    levels = range((stop - start).bit_length())
    return 1 + min(
        fewest(start + (1 << k), stop)
        for k in levels
        if start % (1 << k) == 0 and start + (1 << k) <= stop
    )


@given(st.integers(0, 60), st.integers(0, 60))
def test_aligned_ranges_cover_exactly_with_the_fewest(start, stop):
    assume(start <= stop)
    ranges = list(aligned_ranges(start, stop))
    covered = [i for level, index in ranges for i in range(index << level, (index + 1) << level)]
    assert covered == list(range(start, stop))
    assert len(ranges) == fewest(start, stop)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_aligned_ranges_of_large_frames_are_few(start, length):
    ranges = list(aligned_ranges(start, start + length))
    assert sum(1 << level for level, _ in ranges) == length
    assert len(ranges) <= 2 * max(length.bit_length(), 1)


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 15, 16, 17, 4096])
def test_small_frames_come_out_right_for_every_height(lines):
    cube = np.arange(lines * 3, dtype=np.uint16).reshape(lines, 3, 1)
    forest = lines_forest(IntegerMoments.zero(1), cube, None, start=0, height=lines)
    assert len(forest) == 1
    assert forest.result().count == 3 * lines
    assert int(forest.result().total[0]) == sum(range(3 * lines))
