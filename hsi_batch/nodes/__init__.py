"""The node library: torch modules with ports, which say what they need and never loop over data."""

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.color_selectors import (
    CameraEmulationFalseRGBSelector,
    CIRSelector,
    FixedWavelengthSelector,
    RangeAverageFalseRGBSelector,
)
from hsi_batch.nodes.conversion import ScoreToLogit
from hsi_batch.nodes.data import AnomalyDataNode, CU3SDataNode, LentilsAnomalyDataNode
from hsi_batch.nodes.deciders import BinaryDecider, QuantileBinaryDecider
from hsi_batch.nodes.frame_selectors import FastRGBSelector, HighContrastSelector
from hsi_batch.nodes.kmeans import KMeansClusterer
from hsi_batch.nodes.labels import BinaryAnomalyLabelMapper
from hsi_batch.nodes.metrics import AnomalyDetectionMetrics, Context, Metric
from hsi_batch.nodes.node import Node, Quadratic, Request, Scope, Stage
from hsi_batch.nodes.normalization import (
    MinMaxNormalizer,
    PerPixelUnitNorm,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.normalized_differences import (
    GNDVISelector,
    NBRSelector,
    NDRESelector,
    NDVISelector,
    NDWISelector,
)
from hsi_batch.nodes.pigment_indices import CIRedEdgeSelector, MCARISelector, PRISelector
from hsi_batch.nodes.ports import InputPort, OutputPort, PortRef, PortSpec
from hsi_batch.nodes.preprocessors import BandpassByWavelength
from hsi_batch.nodes.projections import TrainablePCA
from hsi_batch.nodes.registry import node_class, node_classes
from hsi_batch.nodes.rx import RXGlobal, RXPerBatch
from hsi_batch.nodes.segmentation import IntensityThresholdSegmenter
from hsi_batch.nodes.selectors import SoftChannelSelector
from hsi_batch.nodes.smoothing import ScoreMapSmoothing
from hsi_batch.nodes.supervised_selectors import (
    SupervisedCIRSelector,
    SupervisedFullSpectrumSelector,
    SupervisedWindowedSelector,
)
from hsi_batch.nodes.tristimulus import CIETristimulusRGBSelector
from hsi_batch.nodes.validity import SaturatedPixelDetector, SpectralValidity
from hsi_batch.nodes.vegetation_indices import (
    EVI2Selector,
    EVISelector,
    MSAVISelector,
    SAVISelector,
)

__all__ = [
    "AnomalyDataNode",
    "AnomalyDetectionMetrics",
    "BandpassByWavelength",
    "BinaryAnomalyLabelMapper",
    "BinaryDecider",
    "CIETristimulusRGBSelector",
    "CIRSelector",
    "CIRedEdgeSelector",
    "CU3SDataNode",
    "CameraEmulationFalseRGBSelector",
    "ChannelAxis",
    "Context",
    "EVI2Selector",
    "EVISelector",
    "FastRGBSelector",
    "FixedWavelengthSelector",
    "GNDVISelector",
    "HighContrastSelector",
    "InputPort",
    "IntensityThresholdSegmenter",
    "KMeansClusterer",
    "LentilsAnomalyDataNode",
    "MCARISelector",
    "MSAVISelector",
    "Metric",
    "MinMaxNormalizer",
    "NBRSelector",
    "NDRESelector",
    "NDVISelector",
    "NDWISelector",
    "Node",
    "OutputPort",
    "PRISelector",
    "PerPixelUnitNorm",
    "PortRef",
    "PortSpec",
    "Quadratic",
    "QuantileBinaryDecider",
    "RXGlobal",
    "RXPerBatch",
    "RangeAverageFalseRGBSelector",
    "Request",
    "SAVISelector",
    "SaturatedPixelDetector",
    "Scope",
    "ScoreMapSmoothing",
    "ScoreToLogit",
    "SoftChannelSelector",
    "SpectralValidity",
    "Stage",
    "SupervisedCIRSelector",
    "SupervisedFullSpectrumSelector",
    "SupervisedWindowedSelector",
    "TrainablePCA",
    "ZScoreNormalizerGlobal",
    "node_class",
    "node_classes",
]
