"""The node library: torch modules with ports, which say what they need and never loop over data."""

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.concrete_mixer import ConcreteBandSelector, ConcreteChannelMixer
from hsi_batch.nodes.conversion import DecisionToMask, ScoreToLogit
from hsi_batch.nodes.data import AnomalyDataNode, CU3SDataNode, LentilsAnomalyDataNode
from hsi_batch.nodes.deciders import (
    BinaryDecider,
    MultiRangeSlicer,
    QuantileBinaryDecider,
    ScoreThreshold,
)
from hsi_batch.nodes.deep_svdd import DeepSVDDCenterTracker, DeepSVDDProjection, DeepSVDDScores
from hsi_batch.nodes.fixed_projection import FixedPCAProjection
from hsi_batch.nodes.frame_gate import FrameScoreGate
from hsi_batch.nodes.fusion import DecisionFusion, ScoreMapFusion
from hsi_batch.nodes.lad import LADGlobal
from hsi_batch.nodes.learnable_mixer import LearnableChannelMixer
from hsi_batch.nodes.metrics import AnomalyDetectionMetrics, Context, Metric
from hsi_batch.nodes.node import Node, Quadratic, Request, Scope, Stage
from hsi_batch.nodes.normalization import (
    MinMaxNormalizer,
    PerPixelUnitNorm,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.ports import InputPort, OutputPort, PortRef, PortSpec
from hsi_batch.nodes.preprocessors import BandpassByWavelength
from hsi_batch.nodes.projections import PCA, TrainablePCA
from hsi_batch.nodes.registry import node_class, node_classes
from hsi_batch.nodes.residual import PCAResidual
from hsi_batch.nodes.rx import RXGlobal, RXPerBatch
from hsi_batch.nodes.selectors import SoftChannelSelector, TopKIndices
from hsi_batch.nodes.spectral_angle import SpectralAngleMapper
from hsi_batch.nodes.thresholds import ArchiveQuantileDecider, CFARThreshold
from hsi_batch.nodes.two_stage import TwoStageBinaryDecider

__all__ = [
    "PCA",
    "AnomalyDataNode",
    "AnomalyDetectionMetrics",
    "ArchiveQuantileDecider",
    "BandpassByWavelength",
    "BinaryDecider",
    "CFARThreshold",
    "CU3SDataNode",
    "ChannelAxis",
    "ConcreteBandSelector",
    "ConcreteChannelMixer",
    "Context",
    "DecisionFusion",
    "DecisionToMask",
    "DeepSVDDCenterTracker",
    "DeepSVDDProjection",
    "DeepSVDDScores",
    "FixedPCAProjection",
    "FrameScoreGate",
    "InputPort",
    "LADGlobal",
    "LearnableChannelMixer",
    "LentilsAnomalyDataNode",
    "Metric",
    "MinMaxNormalizer",
    "MultiRangeSlicer",
    "Node",
    "OutputPort",
    "PCAResidual",
    "PerPixelUnitNorm",
    "PortRef",
    "PortSpec",
    "Quadratic",
    "QuantileBinaryDecider",
    "RXGlobal",
    "RXPerBatch",
    "Request",
    "Scope",
    "ScoreMapFusion",
    "ScoreThreshold",
    "ScoreToLogit",
    "SoftChannelSelector",
    "SpectralAngleMapper",
    "Stage",
    "TopKIndices",
    "TrainablePCA",
    "TwoStageBinaryDecider",
    "ZScoreNormalizerGlobal",
    "node_class",
    "node_classes",
]
