"""The node library: torch modules with ports, which say what they need and never loop over data."""

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.conversion import ScoreToLogit
from hsi_batch.nodes.data import AnomalyDataNode, CU3SDataNode, LentilsAnomalyDataNode
from hsi_batch.nodes.deciders import BinaryDecider, QuantileBinaryDecider
from hsi_batch.nodes.local_rx import LocalRX
from hsi_batch.nodes.matched_filter import ACE, CEM, MatchedFilter
from hsi_batch.nodes.metrics import AnomalyDetectionMetrics, Context, Metric
from hsi_batch.nodes.node import Node, Quadratic, Request, Scope, Stage
from hsi_batch.nodes.noise_fraction import MNF
from hsi_batch.nodes.normalization import (
    MinMaxNormalizer,
    PerPixelUnitNorm,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.osp import OSP
from hsi_batch.nodes.ports import InputPort, OutputPort, PortRef, PortSpec
from hsi_batch.nodes.preprocessors import BandpassByWavelength
from hsi_batch.nodes.projections import TrainablePCA
from hsi_batch.nodes.registry import node_class, node_classes
from hsi_batch.nodes.robust_rx import RobustRX
from hsi_batch.nodes.rx import RXGlobal, RXPerBatch
from hsi_batch.nodes.selectors import SoftChannelSelector
from hsi_batch.nodes.spectral_divergence import SID

__all__ = [
    "ACE",
    "CEM",
    "MNF",
    "OSP",
    "SID",
    "AnomalyDataNode",
    "AnomalyDetectionMetrics",
    "BandpassByWavelength",
    "BinaryDecider",
    "CU3SDataNode",
    "ChannelAxis",
    "Context",
    "InputPort",
    "LentilsAnomalyDataNode",
    "LocalRX",
    "MatchedFilter",
    "Metric",
    "MinMaxNormalizer",
    "Node",
    "OutputPort",
    "PerPixelUnitNorm",
    "PortRef",
    "PortSpec",
    "Quadratic",
    "QuantileBinaryDecider",
    "RXGlobal",
    "RXPerBatch",
    "Request",
    "RobustRX",
    "Scope",
    "ScoreToLogit",
    "SoftChannelSelector",
    "Stage",
    "TrainablePCA",
    "ZScoreNormalizerGlobal",
    "node_class",
    "node_classes",
]
