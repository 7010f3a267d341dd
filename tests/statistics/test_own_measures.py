"""Fourth powers, trimmed moments and neighbour differences: any split gives the one-shot result."""

import pickle
from functools import reduce
from itertools import pairwise

import numpy as np
import pixel_strategies  # noqa: F401 - loads the hypothesis profile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import OAS, LedoitWolf

from hsi_batch.statistics.differences import NeighbourDifferences
from hsi_batch.statistics.fourth_powers import (
    FourthPowers,
    SquaredNorms,
    ledoit_wolf,
    oracle_approximating,
)
from hsi_batch.statistics.measure import Measure
from hsi_batch.statistics.trimmed import TrimmedMoments

SEEDS = st.integers(0, 2**32 - 1)


def frame(seed, height=9, width=7, channels=3, offset=100.0, dtype="float64"):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels))
    pixels = rng.standard_t(4, size=(height, width, channels)) @ mixing * 20 + offset
    return np.rint(pixels).astype(dtype) if np.dtype(dtype).kind in "iu" else pixels.astype(dtype)


def merged(measure, lines, valid, cuts, order):
    """Merged over pieces of lines: by a tree over a permutation, or one by one."""
    edges = [0, *sorted(cuts), len(lines)]
    parts = [
        measure.of(lines[a:b], None if valid is None else valid[a:b], None)
        for a, b in pairwise(edges)
    ]
    order.shuffle(parts)
    middle = len(parts) // 2
    halves = [
        reduce(lambda a, b: a.merge(b), half) for half in (parts[:middle], parts[middle:]) if half
    ]
    return reduce(lambda a, b: a.merge(b), halves)


@st.composite
def cases(draw):
    seed = draw(SEEDS)
    lines = frame(seed, draw(st.integers(1, 9)), dtype=draw(st.sampled_from(["uint16", "float64"])))
    valid = None
    if draw(st.booleans()):
        valid = np.random.default_rng(seed + 1).random(lines.shape[:2]) < 0.6
    cuts = draw(st.lists(st.integers(0, len(lines)), max_size=4))
    return lines, valid, cuts, draw(st.randoms(use_true_random=False))


@settings(max_examples=40)
@given(cases())
def test_fourth_powers_of_any_split(case):
    lines, valid, cuts, order = case
    found = merged(FourthPowers(), lines, valid, cuts, order)
    x = lines.reshape(-1, 3).astype(np.float64)[slice(None) if valid is None else valid.ravel()]
    assert found.moments.count == len(x)
    if len(x):
        y = x - x.mean(axis=0)
        squares = (y**2).sum(axis=1)
        assert found.fourth == pytest.approx((squares**2).sum(), rel=1e-10, abs=1e-6)
        size = np.abs(squares[:, None] * y).sum()
        np.testing.assert_allclose(
            found.third, (squares[:, None] * y).sum(axis=0), atol=1e-10 * size + 1e-6
        )
        np.testing.assert_allclose(found.moments.scatter, y.T @ y, rtol=1e-9, atol=1e-7)


def test_many_pixels_far_from_zero():
    x = frame(3, 100, 100, 4, offset=1e6).reshape(-1, 4)
    y = x - x.mean(axis=0)
    assert SquaredNorms.of(x).fourth == pytest.approx(((y**2).sum(axis=1) ** 2).sum(), rel=1e-9)


@settings(max_examples=40)
@given(SEEDS, st.integers(2, 60), st.integers(1, 6))
def test_shrinkage_is_that_of_scikit_learn(seed, count, channels):
    x = frame(seed, 1, count, channels)[0]
    found = SquaredNorms.of(x)
    covariance = found.moments.covariance(ddof=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = LedoitWolf().fit(x).shrinkage_
    if channels > 1:  # with one channel there is nothing to shrink towards
        assert ledoit_wolf(covariance, count, found.fourth) == pytest.approx(expected, abs=1e-9)
        assert oracle_approximating(covariance, count) == pytest.approx(
            OAS().fit(x).shrinkage_, rel=1e-9
        )


def test_shrinkage_of_a_multiple_of_the_identity():
    assert ledoit_wolf(np.eye(3), 10, 1e3) == 1.0
    assert oracle_approximating(np.eye(3) * 0, 10) == 1.0
    assert ledoit_wolf(np.diag([1.0, 2.0]), 10, 0.0) == 0.0


@settings(max_examples=40)
@given(cases(), st.sampled_from([0.0, 0.5, 3.0, 1e9]))
def test_trimmed_moments_are_those_of_the_near_pixels(case, cut):
    lines, valid, cuts, order = case
    factor = np.array([[0.05, 0, 0], [0.01, 0.04, 0], [0.0, -0.02, 0.03]])
    mean = np.array([100.0, 101, 99])
    found = merged(TrimmedMoments(mean, factor, cut), lines, valid, cuts, order)
    x = lines.reshape(-1, 3).astype(np.float64)[slice(None) if valid is None else valid.ravel()]
    near = x[(((x - mean) @ factor.T) ** 2).sum(axis=1) <= cut]
    assert found.count == len(near)
    if len(near):
        np.testing.assert_allclose(found.mean, near.mean(axis=0), rtol=1e-12)
        y = near - near.mean(axis=0)
        np.testing.assert_allclose(found.scatter, y.T @ y, rtol=1e-9, atol=1e-7)


def test_the_name_tells_backgrounds_apart():
    mean, factor = np.zeros(2), np.eye(2)
    same = TrimmedMoments(mean, factor, 1.0)
    assert same == TrimmedMoments(mean.copy(), factor.copy(), 1.0)
    others = (TrimmedMoments(mean + 1, factor, 1.0), TrimmedMoments(mean, factor * 2, 1.0))
    for other in (*others, TrimmedMoments(mean, factor, 1.1)):
        assert same != other
    assert pickle.loads(pickle.dumps(same)) == same


@settings(max_examples=40)
@given(cases())
def test_differences_of_neighbours_in_a_line(case):
    lines, valid, cuts, order = case
    found = merged(NeighbourDifferences(), lines, valid, cuts, order)
    wide = lines.astype(np.float64)
    steps = [
        wide[y, i + 1] - wide[y, i]
        for y in range(len(wide))
        for i in range(wide.shape[1] - 1)
        if valid is None or (valid[y, i] and valid[y, i + 1])
    ]
    assert found.count == len(steps)
    if len(steps) > 1:
        np.testing.assert_allclose(
            found.covariance(), np.cov(np.array(steps).T), rtol=1e-9, atol=1e-9
        )


def test_lines_of_one_pixel_have_no_neighbours():
    assert NeighbourDifferences().of(np.ones((4, 1, 2), "uint16"), None, None).count == 0


@pytest.mark.parametrize("measure", [FourthPowers(), NeighbourDifferences()])
def test_measures_without_parameters_are_taken_once(measure):
    assert isinstance(measure, Measure)
    assert measure == type(measure)()
    assert str(measure) == measure.name
