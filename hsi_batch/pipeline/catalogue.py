"""What cuvis-ai 0.19.3 has: classes with their paths, arguments and ports."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from hsi_batch.nodes.registry import is_foreign

__all__ = [
    "COMPUTING",
    "MEANT",
    "REPAIRED",
    "TAKEN",
    "VERSION",
    "CuvisClass",
    "cuvis_classes",
    "is_default",
    "meant",
    "without_pixels",
]

VERSION = "0.19.3"
_SHOWN = {"artifacts", "metrics"}

#: Arguments of ours alone whose default says something else than the class of cuvis-ai does, and
#: the value that says the same. Files of cuvis-ai are read with it.
MEANT: Mapping[str, Mapping[str, Any]] = {
    "DistinctnessLoss": {"signed": True},
    "SelectorDiversityRegularizer": {"mode": "concentrate"},
}
#: Arguments whose default was another before a version; files that say they are older are read
#: with the old one.
ONCE: Mapping[str, tuple[tuple[int, int], Mapping[str, Any]]] = {
    "TwoStageBinaryDecider": ((0, 17), {"image_threshold": 0.5}),
}
#: Arguments of ours alone that say what is computed, not only what a fit finds: nothing but the
#: value that cuvis-ai has can be written.
_DATA_NODES = ("CU3SDataNode", "AnomalyDataNode", "LentilsAnomalyDataNode")
COMPUTING = {
    ("RXPerBatch", "loading"),
    ("SelectorDiversityRegularizer", "mode"),
    ("SpectralDerivative", "edges"),
    *((cls, k) for cls in _DATA_NODES for k in ("channels", "scale", "offset")),
}
#: Values that cuvis-ai takes, where ours has more.
TAKEN: Mapping[tuple[str, str], tuple[Any, ...]] = {
    ("SavitzkyGolay", "mode"): ("constant", "mirror", "nearest")
}
#: Arguments whose default computes the same more exactly; the value repeats cuvis-ai's rounding.
REPAIRED: Mapping[str, Mapping[str, Any]] = {"RXGlobal": {"inverse": "pinv32"}}


class CuvisClass(NamedTuple):
    """A node class of cuvis-ai.

    Attributes
    ----------
    path : str
        Module and class.
    arguments : mapping of str to bool
        Whether each argument must be given.
    defaults : mapping
        Defaults of those that need not.
    inputs, outputs : mapping of str to bool
        Whether each port is optional.
    axes : mapping of str to int
        Number of axes of each port.
    """

    path: str
    arguments: Mapping[str, bool]
    defaults: Mapping[str, Any]
    inputs: Mapping[str, bool]
    outputs: Mapping[str, bool]
    axes: Mapping[str, int]


@cache
def cuvis_classes() -> Mapping[str, CuvisClass]:
    """All node classes by name."""
    text = files("hsi_batch.pipeline").joinpath("cuvis_ai_0_19_3.json").read_text("utf-8")
    return {name: CuvisClass(**entry) for name, entry in json.loads(text).items()}


def meant(class_name: str, path: str, written: str) -> Mapping[str, Any]:
    """Arguments that a file of cuvis-ai leaves out, and that mean something else than ours.

    Parameters
    ----------
    class_name : str
    path : str
        Class path in the file; those of ``cuvis_ai.deciders`` and the like ended before 0.17.
    written : str
        Version of the file, may be empty.

    Examples
    --------
    >>> meant("TwoStageBinaryDecider", "cuvis_ai.node.deciders.TwoStageBinaryDecider", "0.15.2")
    {'image_threshold': 0.5}
    """
    found = dict(MEANT.get(class_name, {}))
    if class_name in ONCE:
        until, values = ONCE[class_name]
        number = re.match(r"v?(\d+)\.(\d+)", written)
        old = path.startswith("cuvis_ai.") and not path.startswith("cuvis_ai.node.")
        if (int(number[1]), int(number[2])) < until if number else old:
            found.update(values)
    return found


def is_default(class_name: str, argument: str, value: Any) -> bool:
    """Whether an argument of a class of cuvis-ai has the value that it has anyway.

    Examples
    --------
    >>> is_default("MinMaxNormalizer", "max_initialization_frames", None)
    True
    """
    known = cuvis_classes().get(class_name)
    return known is not None and argument in known.defaults and known.defaults[argument] == value


def without_pixels(class_name: str) -> bool:
    """Whether a path names a class of cuvis-ai that gives pictures and metrics at most.

    Examples
    --------
    >>> without_pixels("cuvis_ai.node.video.ToVideoNode")
    True
    >>> without_pixels("cuvis_ai.node.anomaly.rx_detector.RXGlobal")
    False
    """
    known = cuvis_classes().get(class_name.rpartition(".")[2])
    return is_foreign(class_name) and known is not None and set(known.outputs) <= _SHOWN
