"""Ports: what fits, what the messages say, and what attribute access finds."""

import copy
import pickle

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, principal, scene
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    BandpassByWavelength,
    CU3SDataNode,
    MinMaxNormalizer,
    Node,
    PortSpec,
    QuantileBinaryDecider,
    RXGlobal,
    SoftChannelSelector,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.ports import InputPort, OutputPort, mismatch

TENSORS = (torch.float32, torch.float64, torch.int32, torch.uint8, torch.bool)
OTHERS = (list, dict, np.int32, np.float64)


def ports(given, taken, **attributes):
    """An output and an input of these specs, on nodes with these attributes."""

    class Ends(Node):
        INPUT_SPECS = {"y": taken}
        OUTPUT_SPECS = {"x": given}

    source, target = Ends(name="a"), Ends(name="b")
    for name, value in attributes.items():
        setattr(source, name, value)
        setattr(target, name, value)
    return source.outputs.x, target.inputs.y


def why(given, taken, **attributes):
    return mismatch(*ports(given, taken, **attributes))


@pytest.mark.parametrize("have", [*TENSORS, *OTHERS])
@pytest.mark.parametrize("need", [*TENSORS, *OTHERS])
def test_dtypes_are_equal_or_refused_by_name(have, need):
    text = why(PortSpec(have), PortSpec(need))
    if have is need:
        assert text is None
    else:
        name = {list: "list", dict: "dict", np.int32: "int32", np.float64: "float64"}
        assert text == (
            f"a.x gives {name.get(have, str(have))}, b.y takes {name.get(need, str(need))}"
        )


@pytest.mark.parametrize("dtype", TENSORS)
def test_any_tensor_fits_any_tensor_and_nothing_else(dtype):
    assert why(PortSpec(torch.Tensor), PortSpec(dtype)) is None
    assert why(PortSpec(dtype), PortSpec(torch.Tensor)) is None
    assert why(PortSpec(torch.Tensor), PortSpec(list)) == "a.x gives any tensor, b.y takes list"


def test_a_dtype_is_the_numpy_type_it_names():
    assert why(PortSpec(np.int32), PortSpec(np.intc)) is None


SIZES = st.lists(st.sampled_from([-1, 1, 2, 3]), max_size=4).map(tuple)


@given(SIZES, SIZES)
def test_shapes_have_equal_axes_or_open_ones(given, taken):
    text = why(PortSpec(torch.bool, given), PortSpec(torch.bool, taken))
    if len(given) != len(taken):
        assert text == f"a.x has {len(given)} axes {given}, b.y takes {len(taken)} {taken}"
        return
    wrong = [i for i, (a, b) in enumerate(zip(given, taken, strict=True)) if a != b > 0 < a]
    if wrong:
        i = wrong[0]
        assert text == f"axis {i} of a.x has size {given[i]}, b.y takes {taken[i]}"
    else:
        assert text is None


def test_a_size_may_be_an_attribute_that_is_not_known_yet():
    given, taken = PortSpec(torch.bool, ("count", -1)), PortSpec(torch.bool, (3, "count"))
    assert why(given, taken) is None
    assert why(given, taken, count=3) is None
    assert why(given, taken, count=4) == "axis 0 of a.x has size 4, b.y takes 3"


# --- access -------------------------------------------------------------------------------------


def test_ports_by_attribute_and_by_name():
    rx = RXGlobal(name="rx")
    assert isinstance(rx.data, InputPort)
    assert isinstance(rx.scores, OutputPort)
    assert str(rx.outputs["scores"].ref) == "rx.scores"
    assert rx.inputs.data.ref == rx.data.ref == ("rx", "data")
    assert repr(rx.data) == "<InputPort rx.data>"
    assert list(rx.inputs) == ["data"]
    assert len(CU3SDataNode().outputs) == 4


class BothSides(Node):
    INPUT_SPECS = OUTPUT_SPECS = {"cube": PortSpec(torch.float32, (-1, -1, -1, -1))}


def test_a_name_on_both_sides_is_ambiguous():
    node = BothSides()
    with pytest.raises(AttributeError, match=r"write node\.inputs\.cube or node\.outputs\.cube"):
        _ = node.cube
    assert isinstance(node.inputs.cube, InputPort)
    assert isinstance(node.outputs.cube, OutputPort)


def test_a_source_gives_what_it_is_given():
    node = CU3SDataNode()
    assert isinstance(node.cube, OutputPort)
    assert isinstance(node.inputs.cube, InputPort)


def test_names_of_the_seed_pages():
    assert MinMaxNormalizer(name="m").output.ref == ("m", "normalized")
    assert QuantileBinaryDecider(0.9, name="d").scores.ref == ("d", "logits")
    assert TrainablePCA(name="p").output.ref == ("p", "projected")


def test_unknown_ports_say_what_there_is():
    with pytest.raises(PipelineError, match=r"MinMaxNormalizer 'm' has no output 'normalised'; it"):
        _ = MinMaxNormalizer(name="m").outputs.normalised
    with pytest.raises(PipelineError, match=r"Did you mean 'normalized'\?"):
        _ = MinMaxNormalizer(name="m").outputs["normalised"]
    with pytest.raises(PipelineError, match="no input 'x'; it has data, wavelengths"):
        _ = BandpassByWavelength(1).inputs.x
    with pytest.raises(AttributeError, match="has no attribute 'sizes'"):
        _ = RXGlobal().sizes


def test_attributes_win_over_ports():
    class Shadow(Node):
        INPUT_SPECS = {"eps": PortSpec(torch.float32)}

        def __init__(self):
            super().__init__()
            self.eps = 3.0

    assert Shadow().eps == 3.0
    assert isinstance(Shadow().inputs.eps, InputPort)


def test_parameter_ports_forward_to_what_they_hand_out():
    cube = scene(channels=4)
    pca, selector = TrainablePCA(n_components=2, name="pca"), SoftChannelSelector(2, name="s")
    pipeline = chain(pca)
    pipeline.connect(pipeline.nodes["data"].outputs.cube, selector.data)
    fit(pipeline, cube)
    values, vectors = principal(flat(cube), 2)
    assert pca.components.shape == (2, 4)
    np.testing.assert_allclose(pca.components.numpy(), vectors, atol=1e-6)
    np.testing.assert_allclose(pca.explained_variance.numpy(), values, rtol=1e-6)
    np.testing.assert_allclose(selector.outputs.weights.numpy(), [0.5] * 4)
    assert pca.explained_variance_ratio.tolist() == pytest.approx(
        values / np.cov(flat(cube).T).trace()
    )


def test_ports_without_values_say_so():
    with pytest.raises(AttributeError, match="it is a port, its values exist only"):
        _ = RXGlobal(name="rx").scores.shape
    with pytest.raises(AttributeError, match="_hidden"):
        _ = TrainablePCA().components._hidden


def test_nodes_can_be_copied_and_pickled():
    node = ZScoreNormalizerGlobal(3, name="z")
    for other in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert other.name == "z"
        assert other.outputs.normalized.sizes() == (-1, -1, -1, 3)
        assert other.hparams == {"num_channels": 3, "eps": 1e-8}
    assert repr(node) == "ZScoreNormalizerGlobal(num_channels=3, eps=1e-08)"
