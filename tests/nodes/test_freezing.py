"""Freezing: what a gradient stage may train."""

import numpy as np
import pytest
import torch
import xarray as xr

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import CU3SDataNode, MinMaxNormalizer, Node, PortSpec, RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.stages.fit import fit


def test_unfreezing_and_back():
    pipeline = Pipeline()
    data, norm, rx = CU3SDataNode(), MinMaxNormalizer(name="norm"), RXGlobal(name="rx")
    pipeline.connect((data.cube, norm.data), (norm.normalized, rx.data))
    rng = np.random.default_rng(0)
    cube = xr.DataArray(rng.integers(0, 99, (9, 9, 3)).astype("uint16"), dims=("y", "x", "channel"))
    fit(pipeline, cube)
    before = {k: v.clone() for k, v in rx.state_dict().items()}
    scores = pipeline.apply(cube).values
    assert not [p for p in pipeline.parameters() if p.requires_grad]
    pipeline.unfreeze_nodes_by_name(["rx"])
    assert not rx.frozen
    # A mean and a triangle, in whitened coordinates, so that every step is a valid background.
    assert {n for n, _ in rx.named_parameters()} == {"trained.shift", "trained.packed"}
    assert sum(p.numel() for p in pipeline.parameters() if p.requires_grad) == 3 + 6
    assert set(rx.state_dict()) == {"mu", "cov", "cov_inv"}
    np.testing.assert_array_equal(pipeline.apply(cube).values, scores)
    fit(pipeline, cube)
    assert rx.trained.shift.requires_grad
    pipeline.freeze_nodes_by_name("rx")
    assert rx.frozen
    assert not list(rx.parameters())
    assert all(torch.equal(v, before[k]) for k, v in rx.state_dict().items())
    with pytest.raises(PipelineError, match=r"no node 'rxx'\. Did you mean 'rx'"):
        pipeline.unfreeze_nodes_by_name(["norm", "rxx"])
    assert norm.frozen


class Trained(Node):
    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, -1))}

    def __init__(self, name=None):
        super().__init__(name)
        self.weight = torch.nn.Parameter(torch.ones(2))


def test_parameters_of_a_node_are_frozen_until_it_is_named():
    pipeline, node = Pipeline(), Trained()
    pipeline.add_node(node)
    assert not node.weight.requires_grad
    other = Trained(name="other")
    other.unfreeze()
    pipeline.add_node(other)
    assert other.weight.requires_grad
