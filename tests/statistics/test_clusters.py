"""Samples and sums of clusters: any split gives those of all pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_strategies import groupings, masks, merged_in_groups, seeded_pixels, splits

from hsi_batch.statistics.clusters import ClusterMeasure, ClusterSums, nearest_centre, plus_plus
from hsi_batch.statistics.sample import SampleMeasure, SpectraSample, spectrum_keys

PIXELS = seeded_pixels(dtypes=("uint8", "uint16", "float32"), count=st.integers(1, 400))


def counted(pixels):
    return {
        tuple(row): int(n)
        for row, n in zip(*np.unique(pixels, axis=0, return_counts=True), strict=True)
    }


@settings(max_examples=40)
@given(st.data(), PIXELS, st.integers(1, 60), st.integers(0, 3))
def test_a_sample_is_that_of_all_pixels(data, pixels, size, seed):
    parts = [SpectraSample.of(pixels[part], size, seed) for part in data.draw(splits(len(pixels)))]
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    whole = counted(pixels.astype(np.float32))
    assert merged.seen == len(pixels)
    assert len(merged.keys) == min(size, len(whole))
    found = {tuple(row): int(n) for row, n in zip(merged.spectra, merged.counts, strict=True)}
    assert found.items() <= whole.items()
    # The smallest hashes, in order.
    every = np.sort(spectrum_keys(np.array(sorted(whole), np.float32), seed))
    np.testing.assert_array_equal(merged.keys, every[:size])
    np.testing.assert_array_equal(spectrum_keys(merged.spectra, seed), merged.keys)


def test_hashes_scatter():
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1).reshape(-1, 2)
    keys = spectrum_keys(grid.astype(np.float32))
    assert len(np.unique(keys)) == len(grid)
    shares = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16) / len(keys)
    np.testing.assert_allclose(shares, 1 / 16, atol=0.02)
    assert (spectrum_keys(grid.astype(np.float32), 1) != keys).all()
    zeros = np.array([[0.0], [-0.0]], np.float32)
    assert len(np.unique(spectrum_keys(zeros))) == 1


def brute(pixels, centres):
    x = pixels.astype(np.float64)
    return ((x[:, None] - centres[None]) ** 2).sum(axis=-1)


@settings(max_examples=40)
@given(st.data(), PIXELS, st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_all_pixels(data, pixels, clusters, seed):
    rng = np.random.default_rng(seed)
    spread = max(float(np.ptp(pixels.astype(np.float64))), 1.0)
    centres = rng.uniform(0, spread, (clusters, pixels.shape[1])) + pixels.min()
    parts = [ClusterSums.of(pixels[part], centres) for part in data.draw(splits(len(pixels)))]
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    squared = brute(pixels, centres)
    index, distance = nearest_centre(pixels, centres)
    np.testing.assert_allclose(distance, squared.min(axis=1), rtol=1e-9, atol=1e-9 * spread**2)
    assert merged.counts.tolist() == np.bincount(index, minlength=clusters).tolist()
    assert merged.inertia == pytest.approx(squared.min(axis=1).sum(), rel=1e-9)
    moved = merged.centres(centres)
    for k in range(clusters):
        mine = pixels[index == k].astype(np.float64)
        expected = mine.mean(axis=0) if len(mine) else centres[k]
        np.testing.assert_allclose(moved[k], expected, rtol=1e-9, atol=1e-9 * spread)


@settings(max_examples=20)
@given(st.data(), PIXELS)
def test_measures_take_valid_finite_pixels(data, pixels):
    lines = pixels[None].astype(np.float32)
    valid = data.draw(masks((1, len(pixels))))
    lines[0, 0] = np.nan
    used = lines[0][valid[0] & np.isfinite(lines[0]).all(axis=1)]
    sample = SampleMeasure(9, 2).of(lines, valid, None)
    assert sample.seen == len(used)
    np.testing.assert_array_equal(sample.spectra, SpectraSample.of(used, 9, 2).spectra)
    centres = np.zeros((2, pixels.shape[1]))
    assert ClusterMeasure(centres).of(lines, valid, None).counts.sum() == len(used)


def test_equal_measures_have_equal_names():
    a, b = np.zeros((2, 3)), np.ones((2, 3))
    assert ClusterMeasure(a) == ClusterMeasure(a.copy())
    assert ClusterMeasure(a) != ClusterMeasure(b)
    assert SampleMeasure(5, 1) == SampleMeasure(5, 1)
    assert SampleMeasure(5, 1) != SampleMeasure(5, 2)


def test_starts_are_spectra_that_lie_apart():
    spectra = np.array([[0.0], [0.001], [10.0], [10.001], [20.0]])
    weights = np.array([1.0, 1.0, 1.0, 1.0, 5.0])
    for seed in range(20):
        start = plus_plus(spectra, weights, 3, np.random.default_rng(seed))
        assert sorted(np.rint(start.ravel())) == [0, 10, 20]
