"""Thresholds from labels, against every threshold that there is, by scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import f1_score

from hsi_batch.errors import DataError
from hsi_batch.nodes import BinaryDecider, QuantileBinaryDecider, TwoStageBinaryDecider
from hsi_batch.nodes.calibration import best_cut

SCORES = npst.arrays(np.float32, st.integers(3, 25), elements=st.integers(-6, 6).map(float))


def image(values, frames=1):
    return torch.from_numpy(np.asarray(values)).reshape(frames, -1, 1, 1)


def labels(scores, seed):
    wanted = np.random.default_rng(seed).random(scores.size) < 0.4
    wanted[:2] = True, False
    return wanted


@given(SCORES, st.integers(0, 99))
def test_no_threshold_is_better(scores, seed):
    wanted = labels(scores, seed)
    cut = best_cut(scores, wanted, "d")
    assert cut.f1 == pytest.approx(f1_score(wanted, scores >= np.float32(cut.threshold)))
    every = {float(level): f1_score(wanted, scores >= level) for level in np.unique(scores)}
    assert cut.f1 == pytest.approx(max(every.values()))
    # Of equals the highest, and half way to the next lower score.
    level = max(v for v, f1 in every.items() if f1 >= max(every.values()) - 1e-12)
    below = [v for v in every if v < level]
    assert cut.threshold == (level if not below else (level + max(below)) / 2)


@example(np.array([0, 0, -1], np.float32), 0)
@given(SCORES, st.integers(0, 99))
def test_a_binary_decider_decides_by_it(scores, seed):
    wanted, node = labels(scores, seed), BinaryDecider(0.5)
    cut = node.calibrate(image(scores), image(wanted))
    said = node(logits=image(scores))["decisions"].numpy().ravel()
    assert f1_score(wanted, said) == pytest.approx(cut.f1)
    assert cut.f1 == pytest.approx(max(f1_score(wanted, scores >= v) for v in np.unique(scores)))
    assert node.hparams["threshold"] == node.threshold


def test_a_quantile_is_that_of_each_frame():
    scores = np.arange(200, dtype="f4").reshape(2, 100)
    scores[1] *= 50
    wanted = np.zeros((2, 100), dtype=bool)
    wanted[:, -4:] = True
    node = QuantileBinaryDecider()
    cut = node.calibrate(image(scores, 2), image(wanted, 2))
    assert cut.f1 == 1.0
    said = node(logits=image(scores, 2))["decisions"].numpy().reshape(2, 100)
    np.testing.assert_array_equal(said, wanted)
    assert 0.95 < node.hparams["quantile"] <= 0.97


def test_two_stages():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 50)).astype("f4")
    wanted = np.zeros((4, 50), dtype=bool)
    wanted[1, :5] = wanted[3, 10:12] = True
    scores[wanted] += 20
    node = TwoStageBinaryDecider(top_k_fraction=0.02)
    gate, cut = node.calibrate(image(scores, 4), image(wanted, 4))
    assert (gate.f1, cut.f1) == (1.0, 1.0)
    assert node.is_calibrated
    said = node(logits=image(scores, 4))["decisions"].numpy().reshape(4, 50)
    np.testing.assert_array_equal(said, wanted)
    peaks = np.sort(scores.max(axis=1))
    assert gate.threshold == pytest.approx((peaks[1] + peaks[2]) / 2, rel=1e-6)


def test_what_cannot_be_calibrated():
    scores = image(np.arange(4.0, dtype="f4"))
    for node in (BinaryDecider(name="d"), QuantileBinaryDecider(name="d")):
        with pytest.raises(DataError, match="d: 0 of 4 labels are anomalous; both classes"):
            node.calibrate(scores, torch.zeros_like(scores))
        with pytest.raises(DataError, match=r"d: scores have the shape \(1, 4, 1, 1\), labels"):
            node.calibrate(scores, torch.zeros(1, 3, 1, 1))
    with pytest.raises(DataError, match=r"t \(frames\): 1 of 1 labels"):
        TwoStageBinaryDecider(name="t").calibrate(scores, (scores > 2).float())
    cut = best_cut(np.array([np.nan, 1, 2], "f4"), np.array([True, False, True]), "d")
    assert cut == (1.5, 1.0)
