"""The node library: torch modules with ports, which say what they need and never loop over data."""

from hsi_batch.nodes.anomaly_visualizers import AnomalyMask, RGBAnomalyMask, ScoreHeatmapVisualizer
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.conversion import ScoreToLogit
from hsi_batch.nodes.data import AnomalyDataNode, CU3SDataNode, LentilsAnomalyDataNode
from hsi_batch.nodes.deciders import BinaryDecider, QuantileBinaryDecider
from hsi_batch.nodes.losses import (
    AnomalyBCEWithLogits,
    DeepSVDDSoftBoundaryLoss,
    IoULoss,
    LossNode,
    MSEReconstructionLoss,
)
from hsi_batch.nodes.metrics import (
    AnomalyDetectionMetrics,
    Artifact,
    ArtifactType,
    Context,
    Metric,
    MetricNode,
)
from hsi_batch.nodes.monitor import TensorBoardMonitorNode
from hsi_batch.nodes.node import Node, Quadratic, Request, Scope, Stage
from hsi_batch.nodes.normalization import (
    MinMaxNormalizer,
    PerPixelUnitNorm,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.parameter_metrics import (
    ComponentOrthogonalityMetric,
    ExplainedVarianceMetric,
    SelectorDiversityMetric,
    SelectorEntropyMetric,
)
from hsi_batch.nodes.ports import InputPort, OutputPort, PortRef, PortSpec
from hsi_batch.nodes.preprocessors import BandpassByWavelength
from hsi_batch.nodes.projections import TrainablePCA
from hsi_batch.nodes.registry import node_class, node_classes
from hsi_batch.nodes.regularizers import (
    DistinctnessLoss,
    OrthogonalityLoss,
    SelectorDiversityRegularizer,
    SelectorEntropyRegularizer,
)
from hsi_batch.nodes.rx import RXGlobal, RXPerBatch
from hsi_batch.nodes.score_metrics import (
    AnomalyPixelStatisticsMetric,
    DistinctLabelCount,
    ScoreStatisticsMetric,
)
from hsi_batch.nodes.segmentation_losses import CrossEntropyLoss, DiceLoss, ForegroundContrastLoss
from hsi_batch.nodes.selectors import SoftChannelSelector
from hsi_batch.nodes.visualizers import (
    ChannelWeightsViz,
    CubeRGBVisualizer,
    ImageArtifactVizBase,
    PCAVisualization,
)

__all__ = [
    "AnomalyBCEWithLogits",
    "AnomalyDataNode",
    "AnomalyDetectionMetrics",
    "AnomalyMask",
    "AnomalyPixelStatisticsMetric",
    "Artifact",
    "ArtifactType",
    "BandpassByWavelength",
    "BinaryDecider",
    "CU3SDataNode",
    "ChannelAxis",
    "ChannelWeightsViz",
    "ComponentOrthogonalityMetric",
    "Context",
    "CrossEntropyLoss",
    "CubeRGBVisualizer",
    "DeepSVDDSoftBoundaryLoss",
    "DiceLoss",
    "DistinctLabelCount",
    "DistinctnessLoss",
    "ExplainedVarianceMetric",
    "ForegroundContrastLoss",
    "ImageArtifactVizBase",
    "InputPort",
    "IoULoss",
    "LentilsAnomalyDataNode",
    "LossNode",
    "MSEReconstructionLoss",
    "Metric",
    "MetricNode",
    "MinMaxNormalizer",
    "Node",
    "OrthogonalityLoss",
    "OutputPort",
    "PCAVisualization",
    "PerPixelUnitNorm",
    "PortRef",
    "PortSpec",
    "Quadratic",
    "QuantileBinaryDecider",
    "RGBAnomalyMask",
    "RXGlobal",
    "RXPerBatch",
    "Request",
    "Scope",
    "ScoreHeatmapVisualizer",
    "ScoreStatisticsMetric",
    "ScoreToLogit",
    "SelectorDiversityMetric",
    "SelectorDiversityRegularizer",
    "SelectorEntropyMetric",
    "SelectorEntropyRegularizer",
    "SoftChannelSelector",
    "Stage",
    "TensorBoardMonitorNode",
    "TrainablePCA",
    "ZScoreNormalizerGlobal",
    "node_class",
    "node_classes",
]
