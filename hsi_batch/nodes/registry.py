"""Node classes by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from hsi_batch.errors import PipelineError, did_you_mean
from hsi_batch.nodes.node import Node

__all__ = ["is_foreign", "node_class", "node_classes"]

#: Other names of classes: those of the seed pages and of earlier versions of cuvis-ai.
ALIASES: Mapping[str, str] = {
    "BaselineFalseRGBSelector": "FixedWavelengthSelector",
    "CIETristimulusFalseRGBSelector": "CIETristimulusRGBSelector",
    "CIRFalseColorSelector": "CIRSelector",
    "ConcreteBandSelector": "ConcreteChannelMixer",
    "DRCNNTensorBoardViz": "PipelineComparisonVisualizer",
    "HighContrastBandSelector": "HighContrastSelector",
    "RXLogitHead": "ScoreToLogit",
    "SupervisedCIRBandSelector": "SupervisedCIRSelector",
    "SupervisedFullSpectrumBandSelector": "SupervisedFullSpectrumSelector",
    "SupervisedWindowedFalseRGBSelector": "SupervisedWindowedSelector",
}
#: Packages whose class paths are read by their last part.
_FAMILY = ("cuvis_ai", "cuvis_ai_core", "hsi_batch")
_BASES = ("ImageArtifactVizBase", "LossNode", "MetricNode", "Node")


@cache
def node_classes() -> Mapping[str, type[Node]]:
    """All node classes by name: those that :mod:`hsi_batch.nodes` exports, but for bare bases."""
    library = import_module("hsi_batch.nodes")
    exported = {name: getattr(library, name) for name in library.__all__}
    return {
        name: value
        for name, value in exported.items()
        if isinstance(value, type)
        and issubclass(value, Node)
        and name == value.__name__ not in _BASES
    }


def is_foreign(class_name: str) -> bool:
    """Whether a class path was written for cuvis-ai.

    Examples
    --------
    >>> is_foreign("cuvis_ai.node.normalization.MinMaxNormalizer"), is_foreign("MinMaxNormalizer")
    (True, False)
    """
    return class_name.split(".", 1)[0] in ("cuvis_ai", "cuvis_ai_core")


def node_class(class_name: str) -> type[Node]:
    """Class of a node by its name, or by its path in this package or the cuvis-ai family.

    Nothing is imported: a name that is not in the library is an error.

    Parameters
    ----------
    class_name : str
        ``RXGlobal``, or a path that ends so.

    Examples
    --------
    >>> node_class("cuvis_ai.node.anomaly.rx_detector.RXGlobal").__name__
    'RXGlobal'
    """
    package, _, short = class_name.rpartition(".")
    known = node_classes()
    short = short if short in known else ALIASES.get(short, short)
    if short in known and (not package or package.split(".", 1)[0] in _FAMILY):
        return known[short]
    near = did_you_mean(short, known)
    if package and package.split(".", 1)[0] not in _FAMILY:
        hint = f"To use a class of your own, list its package in `plugins`: [{package}]."
    else:
        part = [name for name in sorted(known) if len(short) > 1 and short.lower() in name.lower()]
        hint = "hsi-batch nodes lists all of them."
        if part:
            hint = f"With {short!r} in their names: {', '.join(part)}."
        hint = "" if near else hint
    raise PipelineError(f"there is no node class {class_name!r}.{near}", hint=hint)
