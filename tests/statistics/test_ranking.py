"""Ranking measures against scikit-learn."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pixel_strategies import groupings, masks, merged_in_groups, splits
from sklearn import metrics

from hsi_batch.statistics import Confusion, FloatHistogram, roc_curve

# Few different scores give many ties; also infinite ones and both zeros.
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0]),
    st.floats(-100, 100, width=32),
    st.just(float("inf")),
)


@st.composite
def labelled_scores(draw):
    count = draw(st.integers(2, 40))
    scores = draw(npst.arrays(np.float32, count, elements=SCORES))
    positive = draw(npst.arrays(bool, count))
    positive[draw(st.integers(0, count - 1))] = True
    if positive.all():
        positive[draw(st.integers(0, count - 1))] = False
    return scores, positive


def histogram(scores, capacity=2**20):
    return FloatHistogram.zero(1, capacity).update(scores[:, None])


def curve_of(scores, positive, capacity=2**20):
    return roc_curve(histogram(scores[~positive], capacity), histogram(scores[positive], capacity))


def ranks(scores):
    """Integers in the same order: scikit-learn refuses infinite scores."""
    return np.unique(scores, return_inverse=True)[1]


@given(labelled_scores())
def test_the_curve_is_that_of_scikit_learn(labelled):
    scores, positive = labelled
    curve = curve_of(scores, positive)
    fpr, tpr, _ = metrics.roc_curve(positive, ranks(scores), drop_intermediate=False)
    assert np.allclose(curve.false_positive_rate, fpr, rtol=1e-14)
    assert np.allclose(curve.true_positive_rate, tpr, rtol=1e-14)
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)
    assert curve.auc == pytest.approx(metrics.roc_auc_score(positive, ranks(scores)), abs=1e-14)
    assert curve.auc == pytest.approx(np.trapezoid(tpr, fpr), abs=1e-14)
    precision = metrics.average_precision_score(positive, ranks(scores))
    assert curve.average_precision == pytest.approx(precision, abs=1e-14)
    assert curve.auc_error == 0


@given(labelled=labelled_scores(), data=st.data())
def test_any_split_of_the_pixels_gives_the_same_curve(labelled, data):
    scores, positive = labelled
    merged = []
    for chosen in (scores[~positive], scores[positive]):
        parts = [histogram(chosen[part]) for part in data.draw(splits(len(chosen)))]
        merged.append(merged_in_groups(parts, data.draw(groupings(len(parts)))))
    curve, reference = roc_curve(*merged), curve_of(scores, positive)
    assert (curve.auc, curve.average_precision) == (reference.auc, reference.average_precision)
    assert np.array_equal(curve.true_positive_rate, reference.true_positive_rate)
    assert np.array_equal(curve.false_positive_rate, reference.false_positive_rate)


@given(
    seed=st.integers(0, 2**32 - 1),
    capacity=st.sampled_from([1, 3, 16, 128]),
    gap=st.sampled_from([0.0, 0.5, 3.0, 50.0]),
)
def test_the_bound_of_the_area_holds_on_coarse_bins(seed, capacity, gap):
    rng = np.random.default_rng(seed)
    positive = rng.random(1500) < 0.2
    scores = (rng.normal(size=1500) + gap * positive).astype(np.float32)
    coarse = curve_of(scores, positive, capacity)
    exact = metrics.roc_auc_score(positive, scores)
    assert abs(coarse.auc - exact) <= coarse.auc_error + 1e-12
    assert 0 <= coarse.auc_error <= 0.5


def test_the_bound_of_the_area_is_reached_when_all_share_one_bin():
    low, high = histogram(np.array([1.0, 1.25])), histogram(np.array([1.5, 1.75]))
    assert roc_curve(low, high).auc == 1.0
    curve = roc_curve(low.coarsened(23), high.coarsened(23))
    assert (curve.auc, curve.auc_error) == (0.5, 0.5)
    assert curve.false_positive_rate.tolist() == curve.true_positive_rate.tolist() == [0, 1]
    assert curve.average_precision == 0.5


def test_classes_on_bins_of_different_width_are_compared_on_the_wider():
    rng = np.random.default_rng(0)
    negative = rng.normal(size=900).astype(np.float32)
    positive = (rng.normal(size=60) + 1).astype(np.float32)
    fine, coarse = histogram(positive, 64), histogram(negative, 64)
    assert fine.shift < coarse.shift
    truth = np.r_[np.zeros(900), np.ones(60)]
    exact = metrics.roc_auc_score(truth, np.r_[negative, positive])
    for curve, auc in ((roc_curve(coarse, fine), exact), (roc_curve(fine, coarse), 1 - exact)):
        assert abs(curve.auc - auc) <= curve.auc_error + 1e-12
        assert 0 < curve.auc_error < 0.2


def test_a_class_without_pixels_has_no_curve():
    some, none = histogram(np.array([1.0, 2.0])), FloatHistogram.zero(1)
    assert roc_curve(some, none) is None
    assert roc_curve(none, some) is None
    assert roc_curve(none, none) is None
    assert roc_curve(some, histogram(np.array([np.nan]))) is None


@pytest.mark.parametrize(("sign", "auc"), [(1, 1.0), (-1, 0.0)])
def test_perfect_and_reversed_scores(sign, auc):
    scores = sign * np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
    curve = curve_of(scores, np.array([False, False, True, True]))
    assert curve.auc == auc
    assert curve.average_precision == pytest.approx(1.0 if sign > 0 else (1 / 3 + 2 / 4) / 2)


def test_billions_of_scores_do_not_overflow():
    negative, positive = histogram(np.array([0.0, 1.0])), histogram(np.array([1.0, 2.0]))
    for _ in range(40):
        negative, positive = negative.merge(negative), positive.merge(positive)
    curve = roc_curve(negative, positive)
    assert curve.auc == 0.875
    assert curve.average_precision == pytest.approx(0.5 + 0.5 * 2 / 3)


# --- decisions --------------------------------------------------------------------------------


@st.composite
def decisions(draw):
    count = draw(st.integers(1, 30))
    return draw(npst.arrays(bool, count)), draw(npst.arrays(bool, count))


@given(decisions())
def test_counts_and_ratios_are_those_of_scikit_learn(drawn):
    decided, target = drawn
    confusion = Confusion.of(decided, target)
    tn, fp, fn, tp = metrics.confusion_matrix(target, decided, labels=[False, True]).ravel()
    assert confusion == Confusion(tp, fp, fn, tn)
    for name, function in {
        "precision": metrics.precision_score,
        "recall": metrics.recall_score,
        "f1": metrics.f1_score,
        "iou": metrics.jaccard_score,
    }.items():
        expected = function(target, decided, zero_division=0)
        assert getattr(confusion, name) == pytest.approx(expected, abs=1e-15)


@given(decisions(), st.data())
def test_confusions_are_a_commutative_monoid(drawn, data):
    decided, target = drawn
    mask = data.draw(masks(len(decided)))
    a = Confusion.of(decided[mask], target[mask])
    b = Confusion.of(decided[~mask], target[~mask])
    whole = Confusion.of(decided, target)
    assert a.merge(b) == b.merge(a) == whole
    assert a.merge(Confusion()) == a == Confusion().merge(a)
    assert a.merge(b).merge(whole) == a.merge(b.merge(whole))
    assert pickle.loads(pickle.dumps(a)) == a


def test_decisions_of_images_count_every_pixel():
    decided = np.array([[True, False], [True, False]])
    confusion = Confusion.of(decided, ~decided)
    assert confusion == Confusion(0, 2, 2, 0)
    assert (confusion.precision, confusion.recall, confusion.f1, confusion.iou) == (0, 0, 0, 0)
    assert Confusion.of(decided[:0], decided[:0]) == Confusion()
