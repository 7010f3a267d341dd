"""Node classes by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from hsi_batch.errors import PipelineError, did_you_mean
from hsi_batch.nodes.conversion import ScoreToLogit
from hsi_batch.nodes.data import AnomalyDataNode, CU3SDataNode, LentilsAnomalyDataNode
from hsi_batch.nodes.deciders import BinaryDecider, QuantileBinaryDecider
from hsi_batch.nodes.local_rx import LocalRX
from hsi_batch.nodes.matched_filter import ACE, CEM, MatchedFilter
from hsi_batch.nodes.metrics import AnomalyDetectionMetrics
from hsi_batch.nodes.node import Node
from hsi_batch.nodes.noise_fraction import MNF
from hsi_batch.nodes.normalization import (
    MinMaxNormalizer,
    PerPixelUnitNorm,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.osp import OSP
from hsi_batch.nodes.preprocessors import BandpassByWavelength
from hsi_batch.nodes.projections import TrainablePCA
from hsi_batch.nodes.robust_rx import RobustRX
from hsi_batch.nodes.rx import RXGlobal, RXPerBatch
from hsi_batch.nodes.selectors import SoftChannelSelector
from hsi_batch.nodes.spectral_divergence import SID

__all__ = ["is_foreign", "node_class", "node_classes"]

_CLASSES: tuple[type[Node], ...] = (
    ACE,
    CEM,
    MNF,
    OSP,
    SID,
    MatchedFilter,
    AnomalyDataNode,
    AnomalyDetectionMetrics,
    BandpassByWavelength,
    BinaryDecider,
    CU3SDataNode,
    LentilsAnomalyDataNode,
    LocalRX,
    MinMaxNormalizer,
    PerPixelUnitNorm,
    QuantileBinaryDecider,
    RXGlobal,
    RXPerBatch,
    RobustRX,
    ScoreToLogit,
    SoftChannelSelector,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
#: Packages whose class paths are read by their last part.
_FAMILY = ("cuvis_ai", "cuvis_ai_core", "hsi_batch")


@cache
def node_classes() -> Mapping[str, type[Node]]:
    """All node classes by name."""
    return {cls.__name__: cls for cls in _CLASSES}


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

    Examples
    --------
    >>> node_class("cuvis_ai.node.anomaly.rx_detector.RXGlobal").__name__
    'RXGlobal'
    """
    package, _, short = class_name.rpartition(".")
    known = node_classes()
    if short in known and (not package or package.split(".", 1)[0] in _FAMILY):
        return known[short]
    raise PipelineError(
        f"there is no node class {class_name!r}.{did_you_mean(short, known)}",
        hint="" if did_you_mean(short, known) else f"There are: {', '.join(sorted(known))}.",
    )
