"""Weighted moments: any split gives those of all pixels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_strategies import groupings, merged_in_groups, seeded_pixels, splits

from hsi_batch.statistics.weighted import StudentMoments, WeightedMoments

PIXELS = seeded_pixels(dtypes=("uint8", "uint16", "float32"), count=st.integers(1, 200))


@settings(max_examples=25)
@given(st.data(), PIXELS, st.integers(0, 2**32 - 1))
def test_moments_are_those_of_all_pixels(data, pixels, seed):
    x = pixels.astype(np.float64)
    w = np.random.default_rng(seed).uniform(0.01, 2, len(x))
    parts = [WeightedMoments.of(x[p], w[p]) for p in data.draw(splits(len(x)))]
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    mean = np.average(x, axis=0, weights=w)
    covariance = (x - mean).T @ ((x - mean) * w[:, None]) / w.sum()
    size = max(float(np.abs(x).max()), 1.0)
    np.testing.assert_allclose(merged.mean, mean, rtol=1e-12, atol=1e-13 * size)
    np.testing.assert_allclose(merged.share, w.sum() ** 2 / (len(x) * (w**2).sum()))
    if len(x) > 1:
        found = merged.moments(1.0).covariance()
        np.testing.assert_allclose(found, covariance, rtol=1e-9, atol=1e-11 * size**2)


def test_weights_of_distances_and_what_is_not_valid():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 6, 2))
    valid = rng.random((4, 6)) < 0.6
    factor = np.array([[2.0, 0.0], [1.0, 3.0]])
    measure = StudentMoments(np.array([0.5, -0.5]), factor, 3.0)
    z = (x[valid] - [0.5, -0.5]) @ factor.T
    w = 5.0 / (3.0 + (z**2).sum(axis=1))
    found = measure.of(x, valid, None)
    assert found.count == valid.sum()
    np.testing.assert_allclose(found.weight, w.sum())
    np.testing.assert_allclose(found.mean, np.average(x[valid], axis=0, weights=w))
    dark = np.where(valid[..., None], x, np.nan)
    np.testing.assert_array_equal(measure.of(dark, None, None).mean, found.mean)
    assert measure.of(x, np.zeros((4, 6), bool), None).merge(found) is found
    assert measure != StudentMoments(np.array([0.5, -0.5]), factor, 4.0)
