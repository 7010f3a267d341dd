"""The soft channel selector: weights, ties, and what inference folds."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, mahalanobis, run, scene
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.errors import ConfigError, DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import ChannelAxis, RXGlobal, SoftChannelSelector
from hsi_batch.statistics import Moments


def fitted(x, n_select, **options):
    node = SoftChannelSelector(n_select, name="s", **options)
    node.fit(Moments.empty(x.shape[1], x.dtype).update(x))
    return node.eval()


def softmax(logits):
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


def weights_of(node, size):
    """As forward applies them and as inference folds them."""
    out = node(data=torch.ones(1, 1, 1, size))
    assert torch.equal(out["selected"].flatten(), out["weights"])
    return out["weights"].numpy(), node.affine()(np.ones((1, size)))[0]


CUBES = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.integers(1, 7).map(lambda c: scene(5, 20, c, seed))
)


@given(CUBES, st.data())
def test_uniform_weights(cube, data):
    channels = cube.shape[-1]
    n_select = data.draw(st.integers(1, channels))
    applied, folded = weights_of(fitted(flat(cube), n_select), channels)
    np.testing.assert_allclose(applied, n_select / channels, rtol=1e-6)
    np.testing.assert_allclose(folded, n_select / channels, rtol=1e-14)


@given(CUBES, st.data(), st.sampled_from([0.1, 1.0, 5.0]), st.sampled_from([1e-6, 10.0]))
def test_variance_weights(cube, data, temperature, eps):
    x = flat(cube)
    channels = x.shape[1]
    n_select = data.draw(st.integers(1, channels))
    node = fitted(x, n_select, init_method="variance", temperature_init=temperature, eps=eps)
    logits = np.log(x.var(axis=0, ddof=1) + eps)
    expected = n_select * softmax(logits / temperature)
    applied, folded = weights_of(node, channels)
    np.testing.assert_allclose(node.channel_logits.numpy(), logits, rtol=1e-6)
    np.testing.assert_allclose(folded, expected, rtol=1e-12)
    np.testing.assert_allclose(applied, expected, rtol=1e-4)
    assert applied.sum() == pytest.approx(n_select, rel=1e-5)


@given(CUBES, st.data())
def test_hard_weights_pick_the_largest(cube, data):
    x = flat(cube)
    channels = x.shape[1]
    n_select = data.draw(st.integers(1, channels))
    node = fitted(x, n_select, init_method="variance", hard=True)
    best = np.argsort(-x.var(axis=0, ddof=1), kind="stable")[:n_select]
    applied, folded = weights_of(node, channels)
    np.testing.assert_array_equal(applied, np.isin(np.arange(channels), best))
    np.testing.assert_array_equal(folded, applied)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.data())
def test_of_equal_logits_the_first_are_picked_by_all(logits, data):
    n_select = data.draw(st.integers(1, len(logits)))
    node = fitted(flat(scene(channels=len(logits))), n_select, hard=True)
    node.channel_logits = torch.tensor(logits, dtype=torch.float32)
    applied, folded = weights_of(node, len(logits))
    best = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:n_select]
    assert np.flatnonzero(applied).tolist() == sorted(best)
    np.testing.assert_array_equal(folded, applied)


def test_training_uses_soft_weights_even_if_hard():
    node = fitted(flat(scene()), 2, init_method="variance", hard=True).train()
    weights = node.get_selection_weights()
    assert ((weights > 0) & (weights < 2)).all()
    assert float(weights.sum()) == pytest.approx(2.0)


def test_a_constant_channel_gets_the_least_weight():
    x = flat(scene())
    x[:, 3] = 5.0
    weights, _ = weights_of(fitted(x, 2, init_method="variance", temperature_init=1.0), 5)
    assert weights.argmin() == 3
    assert weights[3] < 1e-8


def test_assigned_logits_win():
    node = fitted(flat(scene(channels=3)), 1, temperature_init=1.0)
    node.channel_logits = torch.tensor([0.0, np.log(2.0), np.log(5.0)])
    np.testing.assert_allclose(weights_of(node, 3)[1], [1 / 8, 2 / 8, 5 / 8], rtol=1e-6)


def test_rx_behind_a_hard_selector_lacks_channels_and_says_which():
    # Channels with weight zero are constant: without a ridge there is no inverse.
    cube = scene()
    kept = np.sort(np.argsort(-flat(cube).var(axis=0))[:2])
    gone = sorted(set(range(5)) - set(kept))
    selector = SoftChannelSelector(2, init_method="variance", hard=True, name="s")
    with pytest.raises(DataError, match=r"rx: channels {}, {}, {} are constant".format(*gone)):
        fit(chain(selector, RXGlobal(name="rx", eps=0.0)), cube)
    pipeline = chain(selector, RXGlobal(name="rx", eps=1e-3))
    with pytest.warns(DataWarning, match="are constant .* The ridge makes it invertible"):
        fit(pipeline, cube)
    expected = mahalanobis(flat(cube)[:, kept], eps=1e-3)
    np.testing.assert_allclose(run(pipeline, "rx.scores", cube=cube).ravel(), expected, rtol=1e-6)


def test_counts_are_checked_before_any_pixel():
    with pytest.raises(PipelineError, match="n_select 0 must be at least 1"):
        SoftChannelSelector(0)
    with pytest.raises(PipelineError, match="n_select 4 is more than the 3 channels"):
        SoftChannelSelector(4, input_channels=3)
    with pytest.raises(ConfigError, match="s: n_select 4 is more than the 3 channels of its input"):
        chain(SoftChannelSelector(4, name="s")).resolve(ChannelAxis(3))
    with pytest.raises(PipelineError, match="s: n_select 4 is more than the 3 channels"):
        fitted(flat(scene(channels=3)), 4)


def test_arguments_are_checked():
    with pytest.raises(PipelineError, match="init_method 'random' is not 'uniform' or 'variance'"):
        SoftChannelSelector(1, init_method="random")
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(PipelineError, match=r"temperature_init .* must be above 0"):
            SoftChannelSelector(1, temperature_init=temperature)
    with pytest.raises(PipelineError, match=r"eps -1\.0 must not be negative"):
        SoftChannelSelector(1, eps=-1.0)


def test_not_fitted():
    with pytest.raises(NotFittedError, match="SoftChannelSelector 's' is not fitted"):
        SoftChannelSelector(1, 3, name="s")(data=torch.zeros(1, 1, 1, 3))
