"""From scores to logits and decisions, against plain NumPy."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, run, scene
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import expit

from hsi_batch.errors import ConfigError, DataError, NotFittedError, PipelineError
from hsi_batch.nodes import (
    BinaryDecider,
    ChannelAxis,
    QuantileBinaryDecider,
    RXGlobal,
    Scope,
    ScoreToLogit,
    TrainablePCA,
)
from hsi_batch.statistics import Moments

VALUES = st.integers(-400, 400).map(lambda n: n / 8)
SCORES = npst.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=VALUES)


def image(values):
    """``(B, n)`` as a batch of images."""
    return torch.from_numpy(np.asarray(values, np.float32))[:, :, None, None]


def forward(node, values):
    out = next(iter(node(image(values)).values()))
    return out[:, :, 0, 0].numpy()


# --- logits -------------------------------------------------------------------------------------


@given(
    npst.arrays(np.float64, st.tuples(st.integers(2, 20), st.just(1)), elements=VALUES),
    st.sampled_from([1.0, 0.25, -2.0]),
)
def test_the_bias_is_two_deviations_above_the_mean(scores, scale):
    node = ScoreToLogit(init_scale=scale, init_bias=99.0)
    node.fit(Moments.empty(1, "float64").update(scores))
    bias = scores.mean() + 2 * scores.std(ddof=1)
    assert float(node.bias) == pytest.approx(bias, rel=1e-6, abs=1e-6)
    assert float(node.scale) == scale
    np.testing.assert_allclose(node.affine()(scores), scale * (scores - bias), atol=1e-9)
    np.testing.assert_allclose(forward(node, scores.T), scale * (scores - bias).T, atol=1e-4)


@given(npst.arrays(np.float64, (9, 1), elements=VALUES), st.sampled_from([1.0, 0.5]))
def test_standardized_logits_do_not_depend_on_the_unit_of_the_scores(scores, scale):
    assume(np.ptp(scores) > 0)
    found = []
    for unit in (1.0, 1000.0):
        node = ScoreToLogit(scale, standardize=True)
        # Again: the scale of an earlier fit takes no part.
        for again in (3.0 * scores, scores):
            node.fit(Moments.empty(1, "float64").update(again * unit))
        found.append(node.affine()(scores * unit))
    expected = scale * ((scores - scores.mean()) / scores.std(ddof=1) - 2)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], expected, rtol=1e-6, atol=1e-6)


def test_equal_scores_cannot_be_standardized():
    node = ScoreToLogit(standardize=True, name="logit")
    with pytest.raises(DataError, match="all scores of the fit are equal"):
        node.fit(Moments.empty(1, "float64").update(np.ones((4, 1))))


def test_logits_before_and_after_the_fit():
    node = ScoreToLogit(2.0, 3.0, name="logit")
    assert forward(node, [[4.0]]) == 2.0
    with pytest.raises(NotFittedError, match="ScoreToLogit 'logit' is not fitted"):
        node.affine()
    with pytest.raises(DataError, match="1 valid pixels"):
        node.fit(Moments.empty(1, "float64").update(np.ones((1, 1))))


def test_an_assigned_bias_wins():
    node = ScoreToLogit()
    node.fit(Moments.empty(1, "float64").update(np.arange(9.0)[:, None]))
    node.bias = torch.tensor(1.5)
    assert node.affine()(np.array([[2.0]])) == 0.5
    node.scale = torch.tensor(4.0)
    assert node.affine()(np.array([[2.0]])) == 2.0


# --- a fixed threshold --------------------------------------------------------------------------


@given(SCORES, st.floats(0, 1))
def test_binary_decisions(values, threshold):
    found = forward(BinaryDecider(threshold), values)
    probability = expit(values.astype(np.float64))
    clear = np.abs(probability - threshold) > 1e-6
    np.testing.assert_array_equal(found[clear], (probability >= threshold)[clear])


def test_the_threshold_itself_is_flagged_and_nan_is_not():
    assert forward(BinaryDecider(0.5), [[0.0, -1e-6, np.nan]]).tolist() == [[True, False, False]]
    assert BinaryDecider().scope is Scope.PIXEL


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_thresholds_are_probabilities(value):
    with pytest.raises(PipelineError, match=r"threshold .* is not a probability; give 0\.\.1"):
        BinaryDecider(value)
    with pytest.raises(PipelineError, match=r"quantile .* is not between 0 and 1"):
        QuantileBinaryDecider(value)


# --- a quantile of the frame --------------------------------------------------------------------


@given(SCORES, st.floats(0, 1), st.sampled_from([0.0, 0.3]))
def test_quantile_decisions(values, quantile, share):
    values = values.copy()
    values[np.random.default_rng(0).random(values.shape) < share] = np.nan
    node = QuantileBinaryDecider(quantile)
    assert node.scope is Scope.FRAME
    found = forward(node, values)
    for row, out in zip(values.astype(np.float64), found, strict=True):
        if np.isnan(row).all():
            assert not out.any()
        else:
            with np.errstate(invalid="ignore"):
                np.testing.assert_array_equal(out, row >= np.nanquantile(row, quantile))


def test_a_fixed_share_of_every_frame_is_flagged():
    scores = np.random.default_rng(0).normal(size=(3, 1000)) * [[1], [10], [0.1]]
    assert forward(QuantileBinaryDecider(0.99), scores).sum(axis=1).tolist() == [10, 10, 10]
    assert forward(QuantileBinaryDecider(0.99), np.ones((1, 50))).all()


# --- channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decider", [BinaryDecider, QuantileBinaryDecider])
def test_scores_have_one_channel(decider):
    node = decider(name="d")
    with pytest.raises(PipelineError, match=r"pca\.projected has size 3, d\.logits takes 1"):
        chain(TrainablePCA(n_components=3, name="pca"), node)
    pipeline = chain(decider(name="d"))
    with pytest.raises(ConfigError, match=r"d\.logits takes 1 channel, but 6 reach it from data"):
        pipeline.resolve(ChannelAxis(6))
    pipeline.resolve(ChannelAxis(1))


def test_decisions_two_deviations_above_the_mean():
    cube = scene()
    pipeline = chain(RXGlobal(name="rx", eps=0.0), ScoreToLogit(name="l"), BinaryDecider(name="d"))
    fit(pipeline, cube)
    scores, decisions = run(pipeline, "rx.scores", "d.decisions", cube=cube)
    exact = scores.astype(np.float64)
    np.testing.assert_array_equal(decisions, exact >= exact.mean() + 2 * exact.std(ddof=1))
    assert 0 < decisions.sum() < decisions.size / 5
