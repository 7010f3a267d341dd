"""Sums over abundances: any split gives those of all pixels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_strategies import groupings, merged_in_groups, splits
from scipy.optimize import nnls

from hsi_batch.statistics.abundances import AbundanceMeasure, AbundanceSums


@settings(max_examples=15)
@given(st.data(), st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3))
def test_sums_are_those_of_all_pixels(data, seed, count, endmembers):
    rng = np.random.default_rng(seed)
    spectra = rng.random((endmembers, 4)) + 0.1
    pixels = rng.random((count, 4))
    parts = [AbundanceSums.of(pixels[part], spectra) for part in data.draw(splits(count))]
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    a = np.array([nnls(spectra.T, pixel)[0] for pixel in pixels])
    left = pixels - a @ spectra
    assert merged.count == count
    np.testing.assert_allclose(merged.squares, (pixels**2).sum())
    for found, expected in (
        (merged.residual, (left**2).sum()),
        (merged.gram, a.T @ a),
        (merged.cross, a.T @ left),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * count)


def test_weights_count_pixels_and_endmembers_of_none_stay():
    rng = np.random.default_rng(1)
    spectra, pixels = np.eye(3), rng.random((30, 3))
    pixels[:, 2] = 0.0
    once = AbundanceSums.of(pixels, spectra, np.full(30, 2.0))
    twice = AbundanceMeasure(spectra).of(np.stack([pixels, pixels]), None, None)
    np.testing.assert_allclose(once.gram, twice.gram)
    np.testing.assert_allclose(once.residual, twice.residual, atol=1e-12)
    moved, gain = AbundanceSums.of(pixels, spectra * 1.0).endmembers(spectra)
    np.testing.assert_allclose(moved, spectra, atol=1e-9)
    assert gain <= 1e-9


def test_what_is_not_valid_is_left_out():
    rng = np.random.default_rng(2)
    x = rng.random((4, 6, 3))
    valid = rng.random((4, 6)) < 0.6
    dark = np.where(valid[..., None], x, np.nan)
    measure = AbundanceMeasure(np.eye(3))
    a, b = measure.of(x, valid, None), measure.of(dark, None, None)
    assert a.count == b.count == valid.sum()
    np.testing.assert_array_equal(a.gram, b.gram)
    assert measure == AbundanceMeasure(np.eye(3)) != AbundanceMeasure(np.eye(3) * 2)
