"""The names are the same: classes, arguments, defaults, ports, buffers."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import cases
import catalogue
import pytest
import torch

import hsi_batch.pipeline.catalogue
from hsi_batch.errors import PipelineError
from hsi_batch.nodes import node_classes
from hsi_batch.pipeline.catalogue import MEANT, REPAIRED, TAKEN, cuvis_classes

#: Arguments that ours leave out or give another default, and why.
OTHERWISE = {
    ("MinMaxNormalizer", "max_initialization_frames"): "their loader shuffles, so which frames"
    " count is chance; select frames instead",
    ("AnomalyDetectionMetrics", "ap_thresholds"): "the average precision here is of all values",
    ("AnomalyDetectionMetrics", "pixel_stride"): "all pixels count here",
    ("QuantileBinaryDecider", "reduce_dims"): "always over the whole frame",
    ("QuantileBinaryDecider", "threshold"): "of their base class; it does nothing",
}


#: Ports that ours leave out, or that take another number of axes, and why.
PORTS = {
    ("ScoreStatisticsMetric", "scores"): "theirs takes (B, y, x), which no scores of theirs are;"
    " ours takes both",
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


def inherited_in_vain(cls, argument):
    """Whether a class refuses an argument of its base, or looks the same whatever it is."""
    if argument in inspect.signature(cls.__init__).parameters:
        return False
    try:
        made = cls(**{argument: "per_frame" if argument == "norm_mode" else 3})
    except TypeError:
        return True
    cube = torch.rand(1, 4, 5, cases.CHANNELS)
    shown = [n.forward(cube=cube, wavelengths=cases.NM)["rgb_image"] for n in (made, cls())]
    return torch.equal(*shown)


@pytest.mark.parametrize("name", sorted(set(node_classes()) & set(cuvis_classes())))
def test_arguments_and_ports(name):
    ours, cls = node_classes()[name], theirs(name)
    known = cuvis_classes()[name]
    own = inspect.signature(ours.__init__).parameters
    declared = inspect.signature(cls.__init__).parameters
    for argument, needed in known.arguments.items():
        if (name, argument) in OTHERWISE:
            continue
        if argument not in own:
            # Of a base, and of no effect on this class.
            assert inherited_in_vain(cls, argument), argument
            continue
        default = own[argument].default
        # What must be given there may be left to the data, or have a default, here.
        if not needed and argument in declared:
            expected = declared[argument].default
            plain = [catalogue.plain(value) for value in (default, expected)]
            assert plain[0] == plain[1] or expected is inspect.Parameter.empty, argument
    for specs, others in (
        (ours.INPUT_SPECS, cls.INPUT_SPECS),
        (ours.OUTPUT_SPECS, cls.OUTPUT_SPECS),
    ):
        for port, spec in others.items():
            if (name, port) in PORTS:
                continue
            assert port in specs
            assert len(specs[port].shape) == len(spec.shape), port
            assert specs[port].dtype == spec.dtype or (name, port) in DTYPES, port
            assert specs[port].variadic == spec.variadic, port


@pytest.mark.parametrize("name", cases.shared())
def test_buffers(name):
    node = cases.make(node_classes()[name], **cases.WAYS.get(name, ({},))[0])
    hparams = {k: v for k, v in node.hparams.items() if k in cuvis_classes()[name].arguments}
    other = theirs(name)(**{k: v for k, v in hparams.items() if v is not None})
    assert set(node.state_dict()) == set(other.state_dict())
    for buffer, tensor in other.state_dict().items():
        own = node.state_dict()[buffer]
        assert own.dtype == tensor.dtype, buffer
        if node.CHANNEL_ARGUMENT is None or node.hparams.get(node.CHANNEL_ARGUMENT):
            assert own.shape == tensor.shape or own.numel() == tensor.numel() == 0, buffer


def choices(hint):
    """The values that a type names."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [value for part in get_args(hint) for value in choices(part)]


@pytest.mark.parametrize("name", cases.shared())
def test_values_that_only_ours_take_are_not_written(name):
    known = cuvis_classes()[name]
    for argument, hint in get_type_hints(node_classes()[name].__init__).items():
        for value in choices(hint) if argument in known.arguments else ():
            try:
                way = {**cases.WAYS.get(name, ({},))[0], argument: value}
                node = cases.make(node_classes()[name], **way)
            except PipelineError:
                continue  # It does not go with the other arguments.
            given = {k: v for k, v in node.hparams.items() if k in known.arguments}
            try:
                theirs(name)(**{k: v for k, v in given.items() if v is not None})
            except ValueError:
                assert value not in TAKEN[name, argument]
            else:
                assert value in TAKEN.get((name, argument), (value,))


def test_what_is_said_of_differences_is_so():
    for name, argument in OTHERWISE:
        assert argument in cuvis_classes()[name].arguments
    for table in (MEANT, REPAIRED):
        for name, values in table.items():
            own = inspect.signature(node_classes()[name].__init__).parameters
            for argument, value in values.items():
                assert argument not in cuvis_classes()[name].arguments
                assert own[argument].default != value
    for name, port in PORTS:
        assert port in cuvis_classes()[name].inputs
