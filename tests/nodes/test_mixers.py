"""Mixers of channels against plain torch and NumPy."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, principal, run, scene
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from torch import nn

from hsi_batch.errors import NotFittedError, PipelineError
from hsi_batch.nodes import (
    ChannelAxis,
    ConcreteBandSelector,
    ConcreteChannelMixer,
    Context,
    LearnableChannelMixer,
    RXGlobal,
    Scope,
    Stage,
    TopKIndices,
    node_class,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit


def batch(cube):
    return torch.from_numpy(np.asarray(cube, "f4"))[None]


# --- picking channels ---------------------------------------------------------------------------


def trained(**options):
    node = ConcreteChannelMixer(6, 2, name="mixer", **options)
    with torch.no_grad():
        node.logits.copy_(torch.tensor([[0, 3, 1, 3, 0, 0], [9, 0, 0, 0, 0, 8.5]]))
    return node


def test_both_names_are_known():
    assert ConcreteBandSelector is ConcreteChannelMixer
    for name in ("ConcreteBandSelector", "cuvis_ai.node.concrete_selector.ConcreteBandSelector"):
        assert node_class(name) is ConcreteChannelMixer


def test_inference_picks_the_first_of_the_largest():
    cube = scene(20, 20, 6)
    node = trained()
    out = node.eval()(data=batch(cube))
    np.testing.assert_array_equal(out["rgb"][0].detach(), cube[..., [1, 0]])
    np.testing.assert_array_equal(out["selection_weights"], np.eye(6)[[1, 0]])
    np.testing.assert_array_equal(node.affine()(flat(cube)), flat(cube)[:, [1, 0]])
    assert not node.mixes_channels


def test_soft_inference_mixes():
    cube = scene(20, 20, 6)
    node = trained(use_hard_inference=False, tau_end=0.5)
    weights = softmax(node.logits.detach().double().numpy() / 0.5, axis=1)
    expected = flat(cube) @ weights.T
    np.testing.assert_allclose(node.affine()(flat(cube)), expected, rtol=1e-12)
    out = node.eval()(data=batch(cube))["rgb"].detach().numpy()
    np.testing.assert_allclose(out.reshape(-1, 2), expected, rtol=1e-5)
    assert node.mixes_channels


@given(st.integers(-2, 30), st.integers(1, 20))
def test_the_temperature_falls_geometrically(epoch, epochs):
    node = ConcreteChannelMixer(3, 2, tau_start=8.0, tau_end=0.5, max_epochs=epochs)
    schedule = np.geomspace(8.0, 0.5, epochs) if epochs > 1 else [0.5]
    expected = schedule[min(max(epoch, 0), epochs - 1)]
    assert node.temperature(epoch) == pytest.approx(expected)


def test_training_draws_from_the_concrete_distribution():
    node = trained(tau_start=1.0, max_epochs=5).train()
    data = torch.eye(6)[None, None]
    torch.manual_seed(0)
    draws = torch.stack(
        [node(data=data, context=Context(Stage.TRAIN))["rgb"][0, 0].T.detach() for _ in range(800)]
    )
    np.testing.assert_allclose(draws.sum(dim=-1), 1, atol=1e-5)
    # The largest weight falls on a channel as often as the softmax of the logits says.
    share = np.bincount(draws[:, 0].argmax(dim=-1).numpy(), minlength=6) / 800
    np.testing.assert_allclose(share, softmax([0, 3, 1, 3, 0, 0]), atol=0.06)
    node(data=data, context=Context(Stage.TRAIN))["rgb"][..., 0].square().sum().backward()
    assert node.logits.grad.abs().sum() > 0
    weights = node.get_selection_weights().detach().numpy()
    tau = np.sqrt(1.0 * 0.1)
    np.testing.assert_allclose(weights, softmax(node.logits.detach().numpy() / tau, axis=1), 1e-5)


def test_fits_fold_through_the_choice(tmp_path):
    cube = scene(30, 20, 6)
    pipeline = chain(trained(), RXGlobal(name="rx", eps=0.0))
    assert plan_fit(pipeline, ("moments",)).passes == 0
    fit(pipeline, cube)
    np.testing.assert_allclose(pipeline.nodes["rx"].mu, flat(cube)[:, [1, 0]].mean(axis=0), 1e-6)
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    np.testing.assert_array_equal(
        run(other, "mixer.rgb", cube=cube), run(pipeline, "mixer.rgb", cube=cube)
    )
    np.testing.assert_array_equal(run(other, "mixer.rgb", cube=cube), cube[..., [1, 0]])


def test_channels_may_come_from_the_data():
    pipeline = chain(ConcreteChannelMixer(name="m"))
    pipeline.resolve(ChannelAxis(7))
    assert pipeline.nodes["m"].logits.shape == (3, 7)
    with pytest.raises(PipelineError, match=r"tau_end 0\.0 must be above 0"):
        ConcreteChannelMixer(3, tau_end=0.0)
    with pytest.raises(PipelineError, match="output_channels 0 must be at least 1"):
        ConcreteChannelMixer(3, 0)


def test_largest_weights():
    assert TopKIndices(3)(weights=torch.tensor([1.0, 5, 2, 5]))["indices"].tolist() == [1, 3, 2]
    with pytest.raises(PipelineError, match="t: k 3 is more than the 2 weights"):
        TopKIndices(3, name="t")(weights=torch.zeros(2))
    with pytest.raises(PipelineError, match="k 0 must be at least 1"):
        TopKIndices(0)


# --- the network --------------------------------------------------------------------------------


def mixed(node, x, normalise):
    """The network in NumPy; ``normalise`` maps what the last layer gives."""
    state = {k: v.double().numpy() for k, v in node.state_dict().items()}
    layers = len(node.convs)
    for i in range(layers):
        x = x @ state[f"convs.{i}.weight"][:, :, 0, 0].T
        x = x + state[f"convs.{i}.bias"]
        if i < layers - 1 or not node.normalize_output:
            x = np.where(x > 0, x, 0.1 * x)
    return normalise(x, state)


def batchnorm(x, state):
    scaled = (x - state["output_bn.running_mean"]) / np.sqrt(state["output_bn.running_var"] + 1e-5)
    return expit(scaled * state["output_bn.weight"] + state["output_bn.bias"])


WAYS = {
    "batchnorm_sigmoid": batchnorm,
    "sigmoid_only": lambda x, _: expit(x),
    "none": lambda x, _: x,
    "per_frame_minmax": lambda x, _: (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0)),
}


def small(height=30, width=20):
    return (scene(height, width, 6, dtype="float32") / 1000).astype("f4")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", [None, [6, 4, 2]])
def test_outputs_are_those_of_the_network(way, scheme, tmp_path):
    cube = small()
    options = {"leaky_relu_negative_slope": 0.1, "seed": 1}
    node = LearnableChannelMixer(
        6, 2, inference_normalization=way, reduction_scheme=scheme, name="mixer", **options
    )
    with torch.no_grad():
        for conv in node.convs:
            conv.bias.uniform_(-1, 1)
        node.output_bn.running_mean.uniform_(-1, 1)
    expected = mixed(node, flat(cube), WAYS[way]).reshape(30, 20, 2)
    assert node.scope is (Scope.FRAME if way == "per_frame_minmax" else Scope.PIXEL)
    pipeline = chain(node)
    pipeline.resolve(ChannelAxis(6))
    found = run(pipeline, "mixer.rgb", cube=cube, block=1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    lazy = other.apply(labelled(cube), "mixer.rgb").compute().to_numpy()
    np.testing.assert_array_equal(lazy, found)
    np.testing.assert_allclose(
        other.forward({"cube": batch(cube)})["mixer", "rgb"][0], expected, atol=2e-5
    )
    assert node.last_weights.shape == (2, 6 if scheme is None else 4)


def test_without_normalisation_the_last_layer_is_activated():
    node = LearnableChannelMixer(
        6, 2, leaky_relu_negative_slope=0.1, normalize_output=False, seed=0
    ).eval()
    assert "output_bn.weight" not in node.state_dict()
    found = node(data=batch(small()))["rgb"].detach().numpy().reshape(-1, 2)
    np.testing.assert_allclose(found, mixed(node, flat(small()), lambda x, _: x), atol=1e-5)


def test_training_normalises_by_the_batch_and_inference_leaves_the_statistics():
    node = LearnableChannelMixer(6, 2, inference_normalization="none", seed=0).train()
    before = node.output_bn.running_mean.clone()
    out = node(data=batch(small()), context=Context(Stage.TRAIN))["rgb"].detach()
    assert 0 < float(out.min()) < float(out.max()) < 1
    assert not torch.equal(node.output_bn.running_mean, before)
    moved = node.output_bn.running_mean.clone()
    val = node.eval()(data=batch(small()), context=Context(Stage.VAL))["rgb"].detach()
    np.testing.assert_allclose(
        val.numpy().reshape(-1, 2), mixed(node, flat(small()), batchnorm), atol=1e-5
    )
    node(data=batch(small()))
    assert torch.equal(node.output_bn.running_mean, moved)


def test_weights_are_drawn_as_torch_draws_them():
    torch.manual_seed(4)
    convs = [nn.Conv2d(6, 4, 1), nn.Conv2d(4, 2, 1)]
    for conv in convs:
        nn.init.xavier_uniform_(conv.weight)
    torch.manual_seed(4)
    node = LearnableChannelMixer(6, 2, reduction_scheme=[6, 4, 2])
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(node.convs, convs, strict=True))
    assert not any(conv.bias.any() for conv in node.convs)
    assert {k for k in node.state_dict() if "bn" in k} == {
        f"output_bn.{k}"
        for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_the_first_layer_starts_with_the_components(tmp_path):
    cube = small()
    node = LearnableChannelMixer(
        output_channels=3, init_method="pca", inference_normalization="none", name="mixer"
    )
    pipeline = chain(node)
    with pytest.raises(NotFittedError, match="'mixer' is not fitted"):
        pipeline.forward({"cube": batch(cube)})
    assert fit(pipeline, cube).passes == 1
    _, vectors = principal(flat(cube), 3)
    expected = flat(cube) @ vectors.T
    found = run(pipeline, "mixer.rgb", cube=cube).reshape(-1, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    assert other.fitted
    np.testing.assert_array_equal(run(other, "mixer.rgb", cube=cube).reshape(-1, 3), found)
    assert not LearnableChannelMixer(4, 2, init_method="zeros").convs[0].weight.any()
    assert LearnableChannelMixer(4, 2).request() is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"inference_normalization": "x"}, "inference_normalization 'x' is not one of"),
        ({"init_method": "x"}, "init_method 'x' is not one of"),
        ({"reduction_scheme": [6, 3]}, r"reduction_scheme \[6, 3\] must .* end with"),
        ({"reduction_scheme": [5, 2]}, r"reduction_scheme \[5, 2\] must begin with"),
    ],
)
def test_wrong_arguments(options, text):
    with pytest.raises(PipelineError, match=text):
        LearnableChannelMixer(6, 2, **options)
