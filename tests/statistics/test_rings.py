"""Sliding sums of rings against a loop over pixels in float64."""

import numpy as np
import pixel_strategies  # noqa: F401 - loads the hypothesis profile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.statistics.rings import ring_moments


def ring(cube, y, x, guard, outer):
    """Finite pixels of the ring around a pixel."""
    found = [
        cube[i, j]
        for i in range(max(0, y - outer), min(cube.shape[0], y + outer + 1))
        for j in range(max(0, x - outer), min(cube.shape[1], x + outer + 1))
        if max(abs(i - y), abs(j - x)) > guard and np.isfinite(cube[i, j]).all()
    ]
    return np.array(found).reshape(-1, cube.shape[2])


def assert_matches(cube, guard, outer, start, stop, rtol=1e-9):
    seen = np.zeros(cube.shape[:2], int)
    wide = cube.astype(np.float64)
    spread = np.nanvar(wide[np.isfinite(wide).all(axis=2)])
    for found in ring_moments(cube, guard, outer, start, stop):
        for t, (pixel, count) in enumerate(zip(found.pixels, found.counts, strict=True)):
            x = found.first + t
            seen[found.line, x] += 1
            expected = ring(wide, found.line, x, guard, outer)
            assert count == len(expected)
            if not np.isfinite(wide[found.line, x]).all():
                assert np.isnan(pixel).all()
            elif count:
                np.testing.assert_allclose(
                    pixel, wide[found.line, x] - expected.mean(axis=0), rtol=rtol, atol=rtol * 10
                )
            if count > 1:
                covariance = np.atleast_2d(np.cov(expected, rowvar=False))
                np.testing.assert_allclose(
                    np.tril(found.covariance[t]),
                    np.tril(covariance),
                    rtol=rtol,
                    atol=rtol * spread,
                )
    assert (seen[start:stop] == 1).all()
    assert seen.sum() == seen[start:stop].size


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.data())
def test_every_ring_is_that_of_a_loop(seed, data):
    rng = np.random.default_rng(seed)
    height, width, channels = (data.draw(st.integers(1, n)) for n in (12, 20, 4))
    guard = data.draw(st.integers(0, 3))
    outer = guard + data.draw(st.integers(1, 4))
    start = data.draw(st.integers(0, height - 1))
    stop = data.draw(st.integers(start + 1, height))
    kind = data.draw(st.sampled_from(["uint16", "float32", "float64"]))
    cube = (rng.normal(size=(height, width, channels)) * 30 + 1000).astype(kind)
    if kind != "uint16" and data.draw(st.booleans()):
        cube[rng.random((height, width)) < 0.2, 0] = rng.choice([np.nan, np.inf])
    assert_matches(cube, guard, outer, start, stop)


def test_frames_wider_than_a_tile():
    rng = np.random.default_rng(1)
    assert_matches(rng.integers(0, 60000, (5, 530, 2)).astype("uint16"), 1, 3, 1, 4)


def test_whole_numbers_are_exact_whatever_passed_before():
    # A pixel a million times brighter slides through the sums and leaves nothing behind.
    rng = np.random.default_rng(2)
    cube = rng.integers(0, 50, (9, 60, 3)).astype("float32")
    clean = {(f.line, f.first): f.covariance.copy() for f in ring_moments(cube, 1, 3, 0, 9)}
    cube[4, 5] = 2**24
    for found in ring_moments(cube, 1, 3, 0, 9):
        np.testing.assert_allclose(
            found.covariance[20:], clean[found.line, found.first][20:], rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_no_pixel_or_equal_ones(value):
    for found in ring_moments(np.full((3, 4, 2), value), 0, 1, 0, 3):
        assert (found.counts == 0).all() == np.isnan(value)
        assert not np.tril(found.covariance).any()
