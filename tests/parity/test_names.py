"""The names are the same: classes, arguments, defaults, ports, buffers."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import catalogue
import peer
import pytest

import hsi_batch.pipeline.catalogue
from hsi_batch.nodes import node_classes
from hsi_batch.pipeline.catalogue import cuvis_classes

#: Arguments that ours leave out or give another default, and why.
OTHERWISE = {
    ("MinMaxNormalizer", "max_initialization_frames"): "their loader shuffles, so which frames"
    " count is chance; select frames instead",
    ("AnomalyDetectionMetrics", "ap_thresholds"): "the average precision here is of all values",
    ("AnomalyDetectionMetrics", "pixel_stride"): "all pixels count here",
    ("QuantileBinaryDecider", "reduce_dims"): "always over the whole frame",
    ("QuantileBinaryDecider", "threshold"): "of their base class; it does nothing",
}


#: Ports whose number of axes differs, and why.
AXES = {
    ("ScoreStatisticsMetric", "scores"): "theirs takes (B, y, x), which no node of theirs gives",
}


#: Ports whose dtype differs, and why.
DTYPES = {
    ("ClassMapToRGB", "class_map"): "theirs takes int64, which none of their class maps is",
}


def test_the_table_is_what_the_packages_have():
    path = Path(hsi_batch.pipeline.catalogue.__file__).with_name("cuvis_ai_0_19_3.json")
    assert catalogue.catalogue() == json.loads(path.read_text())


def theirs(name):
    module, _, cls = cuvis_classes()[name].path.rpartition(".")
    return getattr(importlib.import_module(module), cls)


@pytest.mark.parametrize("name", sorted(set(node_classes()) & set(cuvis_classes())))
def test_arguments_and_ports(name):
    ours, cls = node_classes()[name], theirs(name)
    known = cuvis_classes()[name]
    own = inspect.signature(ours.__init__).parameters
    declared = inspect.signature(cls.__init__).parameters
    for argument, needed in known.arguments.items():
        if (name, argument) in OTHERWISE:
            continue
        assert argument in own, argument
        default = own[argument].default
        # What must be given there may be left to the data, or have a default, here.
        if not needed and argument in declared:
            expected = declared[argument].default
            plain = [catalogue.plain(value) for value in (default, expected)]
            assert plain[0] == plain[1] or expected is inspect.Parameter.empty, argument
    assert set(known.inputs) <= set(ours.INPUT_SPECS)
    assert set(known.outputs) <= set(ours.OUTPUT_SPECS)
    for specs, others in (
        (ours.INPUT_SPECS, cls.INPUT_SPECS),
        (ours.OUTPUT_SPECS, cls.OUTPUT_SPECS),
    ):
        for port, spec in others.items():
            if (name, port) in AXES:
                continue
            assert len(specs[port].shape) == len(spec.shape), port
            assert specs[port].dtype == spec.dtype or (name, port) in DTYPES, port
            assert specs[port].variadic == spec.variadic, port


@pytest.mark.parametrize("name", peer.shared())
def test_buffers(name):
    node = peer.make(node_classes()[name])
    hparams = {k: v for k, v in node.hparams.items() if k in cuvis_classes()[name].arguments}
    other = theirs(name)(**{k: v for k, v in hparams.items() if v is not None})
    assert list(node.state_dict()) == list(other.state_dict())
    for buffer, tensor in other.state_dict().items():
        own = node.state_dict()[buffer]
        assert own.dtype == tensor.dtype, buffer
        if node.CHANNEL_ARGUMENT is None or node.hparams.get(node.CHANNEL_ARGUMENT):
            assert own.shape == tensor.shape, buffer
