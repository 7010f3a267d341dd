"""Statistics of labelled pixels: any split gives those of all pixels, and what they tell."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_strategies import groupings, merged_in_groups, seeded_pixels, splits
from sklearn.metrics import roc_auc_score

from hsi_batch.errors import DataError
from hsi_batch.statistics.classes import ClassMeasure, ClassStatistics
from hsi_batch.statistics.separability import (
    absolute_correlation,
    channel_auc,
    fisher_ratio,
    mutual_information,
    need_both,
)

LABELLED = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: seeded_pixels(
        dtypes=("uint8", "uint16", "float32"), count=st.integers(6, 300)
    ).map(lambda x: (x, labels(len(x), seed)))
)


def labels(count, seed):
    """Classes -1, 0 and 1, two of each at least."""
    classes = np.random.default_rng(seed).integers(-1, 2, count)
    classes[:6] = [-1, 0, 1, -1, 0, 1]
    return classes.astype(np.int8)


def of(x, classes):
    return ClassStatistics.zero(x.shape[1], x.dtype).update(x, classes)


def assert_same(found, x, classes):
    for label, moments, values in (
        (0, found.normal, found.normal_values),
        (1, found.anomalous, found.anomalous_values),
    ):
        mine = x[classes == label].astype(np.float64)
        assert moments.count == values.count == len(mine)
        np.testing.assert_allclose(moments.mean, mine.mean(axis=0), rtol=1e-12)
        for channel, column in enumerate(mine.T):
            expected = np.unique(column, return_counts=True)
            for got, wanted in zip(values.bins(channel), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


@settings(max_examples=40)
@given(st.data(), LABELLED)
def test_any_split_order_and_grouping_equals_all_at_once(data, labelled):
    x, classes = labelled
    parts = [of(x[part], classes[part]) for part in data.draw(splits(len(x)))]
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    assert_same(merged, x, classes)
    assert_same(pickle.loads(pickle.dumps(merged)), x, classes)


@settings(max_examples=25)
@given(LABELLED, st.integers(0, 2**32 - 1))
def test_the_measure_takes_valid_labelled_pixels(labelled, seed):
    x, classes = labelled
    valid = np.random.default_rng(seed).random(len(x)) < 0.8
    valid[:6] = True
    lines = x.reshape(1, len(x), -1)
    found = ClassMeasure().of(lines, valid[None], classes[None])
    assert_same(found, x[valid], classes[valid])
    assert ClassMeasure().of(lines, None, None).normal.count == 0
    assert ClassMeasure() == ClassMeasure()
    assert ClassMeasure() != ClassMeasure(8)


def reference_information(column, target, bins=10):
    """Mutual information in bits by a table of counts."""
    if column.min() == column.max():
        return 0.0
    edges = np.linspace(column.min(), column.max(), bins)
    table = np.full((bins, 2), 1e-10)
    for value, label in zip(column, target, strict=True):
        table[int((value >= edges).sum()) - 1, label] += 1
    p = table / table.sum()
    total = 0.0
    for k in range(bins):
        for y in range(2):
            total += p[k, y] * np.log2(p[k, y] / (p[k].sum() * p[:, y].sum()))
    return total


@settings(max_examples=40)
@given(LABELLED)
def test_channels_are_judged_as_by_the_whole_data(labelled):
    x, classes = labelled
    statistic = need_both(of(x, classes))
    used = x[classes >= 0].astype(np.float64)
    target = classes[classes >= 0].astype(int)
    zero, one = used[target == 0], used[target == 1]
    spread = zero.var(axis=0) + one.var(axis=0)
    ratio = (one.mean(axis=0) - zero.mean(axis=0)) ** 2 / np.where(spread > 0, spread, np.inf)
    np.testing.assert_allclose(
        fisher_ratio(statistic.normal, statistic.anomalous), ratio, rtol=1e-9, atol=1e-12
    )
    auc = [roc_auc_score(target, column) for column in used.T]
    np.testing.assert_allclose(channel_auc(statistic), auc, atol=1e-12)
    information = [reference_information(column, target) for column in used.T]
    np.testing.assert_allclose(mutual_information(statistic), information, atol=1e-9)


def test_widened_bins_still_rank():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(5, 1, (3000, 1)), rng.normal(6, 1, (500, 1))])
    x = x.astype(np.float32)
    classes = np.repeat([0, 1], [3000, 500]).astype(np.int8)
    coarse = ClassStatistics.zero(1, x.dtype, capacity=256).update(x, classes)
    assert coarse.normal_values.relative_error > 0
    assert channel_auc(coarse)[0] == pytest.approx(roc_auc_score(classes, x[:, 0]), abs=2e-3)


def test_constant_channels_have_no_say():
    x = np.full((8, 2), 0.1, np.float32)
    x[:, 1] = np.arange(8)
    statistic = of(x, np.repeat([0, 1], 4).astype(np.int8))
    assert fisher_ratio(statistic.normal, statistic.anomalous)[0] == 0
    assert mutual_information(statistic)[0] == 0
    assert channel_auc(statistic)[0] == 0.5
    both = statistic.normal.merge(statistic.anomalous)
    np.testing.assert_array_equal(absolute_correlation(both)[0], [0, 0])


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_correlation(seed, channels):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, channels)) @ rng.normal(size=(channels, channels))
    statistic = of(x, np.repeat([0, 1], 25).astype(np.int8))
    both = statistic.normal.merge(statistic.anomalous)
    np.testing.assert_allclose(
        absolute_correlation(both), np.abs(np.corrcoef(x.T)), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("classes", [[0, 0, 0], [1, 1, 1], [-1, -1, -1]])
def test_both_classes_are_needed(classes):
    statistic = of(np.ones((3, 2), np.uint8), np.array(classes, np.int8))
    counts = (classes.count(0), classes.count(1))
    with pytest.raises(DataError, match=f"{counts[0]} normal and {counts[1]} anomalous") as error:
        need_both(statistic)
    assert "hsi-batch label" in str(error.value)
    with pytest.raises(DataError, match="0 normal and 0 anomalous"):
        need_both(None)
