"""Rates at few false alarms, against scikit-learn and counting."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from hsi_batch.statistics import FloatHistogram
from hsi_batch.statistics.detection_rates import Counted, bootstrap, rates


def histogram(values):
    return FloatHistogram.zero(1).update(np.asarray(values, dtype=np.float32)[:, None])


def drawn(seed, units=1, pixels=20_000):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(units):
        shift = rng.normal(0, 0.5)
        pairs.append((rng.normal(0, 1, pixels), rng.normal(3 + shift, 1, 200)))
    return [tuple(np.float32(v).round(2) for v in pair) for pair in pairs]


@pytest.mark.parametrize("seed", range(3))
def test_rates_are_those_of_scikit_learn(seed):
    ((low, high),) = drawn(seed)
    counts = Counted.of([(histogram(low), histogram(high))], 2**20)
    found = rates(counts.background[0], counts.target[0])
    truth, values = np.r_[np.zeros(low.size), np.ones(high.size)], np.r_[low, high]
    assert found["auc"] == pytest.approx(roc_auc_score(truth, values), rel=1e-12)
    known = average_precision_score(truth, values)
    assert found["average_precision"] == pytest.approx(known, rel=1e-12)
    x, y, _ = roc_curve(truth, values, drop_intermediate=False)
    grid = np.linspace(0, 1e-3, 200_001)
    area = np.trapezoid(np.interp(grid, x, y), grid) / 1e-3
    assert found["partial_auc"] == pytest.approx(area, rel=1e-3)
    for pfa in (1e-4, 1e-3, 1e-2):
        thresholds = [t for t in np.unique(values) if np.mean(low >= t) <= pfa]
        assert found[f"pd_{pfa:g}"] == np.mean(high >= min(thresholds))


def test_intervals_are_those_of_units_drawn_again():
    pairs = drawn(7, units=12, pixels=2000)
    counts = Counted.of([(histogram(a), histogram(b)) for a, b in pairs])
    found = bootstrap(counts, draws=300)
    assert found == bootstrap(counts, draws=300)
    rng = np.random.default_rng(1)
    known = []
    for _ in range(300):
        chosen = [pairs[i] for i in rng.integers(0, 12, 12)]
        low, high = (np.concatenate(values) for values in zip(*chosen, strict=True))
        known.append(roc_auc_score(np.r_[low * 0, high * 0 + 1], np.r_[low, high]))
    np.testing.assert_allclose(found["auc"], np.quantile(known, [0.025, 0.975]), atol=2e-3)
    scipy = stats.bootstrap(
        (np.arange(12),), lambda chosen: _auc(pairs, chosen), vectorized=False, n_resamples=300,
        method="percentile", random_state=2,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(found["auc"], scipy, atol=2e-3)
    assert bootstrap(Counted.of([(histogram(pairs[0][0]), histogram(pairs[0][1]))])) == {}


def _auc(pairs, chosen):
    low, high = (np.concatenate(values) for values in zip(*[pairs[i] for i in chosen], strict=True))
    return roc_auc_score(np.r_[low * 0, high * 0 + 1], np.r_[low, high])


def test_a_class_that_is_empty_gives_nothing():
    counts = Counted.of([(histogram([1.0]), FloatHistogram.zero(1))])
    assert rates(counts.background[0], counts.target[0]) == {}
