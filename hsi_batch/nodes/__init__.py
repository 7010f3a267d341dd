"""The node library: torch modules with ports, which say what they need and never loop over data."""

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.conversion import ScoreToLogit
from hsi_batch.nodes.data import AnomalyDataNode, CU3SDataNode, LentilsAnomalyDataNode
from hsi_batch.nodes.deciders import BinaryDecider, QuantileBinaryDecider
from hsi_batch.nodes.derivatives import SpectralDerivative, SpectralDetrend
from hsi_batch.nodes.image_normalization import SigmoidNormalizer, ZScoreNormalizer
from hsi_batch.nodes.metrics import AnomalyDetectionMetrics, Context, Metric
from hsi_batch.nodes.node import Node, Quadratic, Request, Scope, Stage
from hsi_batch.nodes.normalization import (
    MinMaxNormalizer,
    PerPixelUnitNorm,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.percentiles import PercentileNormalizer
from hsi_batch.nodes.ports import InputPort, OutputPort, PortRef, PortSpec
from hsi_batch.nodes.preprocessors import BandpassByWavelength
from hsi_batch.nodes.pretreatments import ContinuumRemoval, Logarithm, SNVCorrection
from hsi_batch.nodes.projections import TrainablePCA
from hsi_batch.nodes.registry import node_class, node_classes
from hsi_batch.nodes.resampling import SpectralResample
from hsi_batch.nodes.rx import RXGlobal, RXPerBatch
from hsi_batch.nodes.savitzky_golay import SavitzkyGolay
from hsi_batch.nodes.scaling import MeanCenter, UnitVarianceScaling
from hsi_batch.nodes.selectors import SoftChannelSelector
from hsi_batch.nodes.transforms import DisplayNormalizer, IdentityNormalizer, SigmoidTransform

__all__ = [
    "AnomalyDataNode",
    "AnomalyDetectionMetrics",
    "BandpassByWavelength",
    "BinaryDecider",
    "CU3SDataNode",
    "ChannelAxis",
    "Context",
    "ContinuumRemoval",
    "DisplayNormalizer",
    "IdentityNormalizer",
    "InputPort",
    "LentilsAnomalyDataNode",
    "Logarithm",
    "MeanCenter",
    "Metric",
    "MinMaxNormalizer",
    "Node",
    "OutputPort",
    "PerPixelUnitNorm",
    "PercentileNormalizer",
    "PortRef",
    "PortSpec",
    "Quadratic",
    "QuantileBinaryDecider",
    "RXGlobal",
    "RXPerBatch",
    "Request",
    "SNVCorrection",
    "SavitzkyGolay",
    "Scope",
    "ScoreToLogit",
    "SigmoidNormalizer",
    "SigmoidTransform",
    "SoftChannelSelector",
    "SpectralDerivative",
    "SpectralDetrend",
    "SpectralResample",
    "Stage",
    "TrainablePCA",
    "UnitVarianceScaling",
    "ZScoreNormalizer",
    "ZScoreNormalizerGlobal",
    "node_class",
    "node_classes",
]
