"""The node library: torch modules with ports, which say what they need and never loop over data."""

from hsi_batch.nodes.anomaly_visualizers import AnomalyMask, RGBAnomalyMask, ScoreHeatmapVisualizer
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.blobs import BlobDetector
from hsi_batch.nodes.cfar import CFARThreshold
from hsi_batch.nodes.color_selectors import (
    CameraEmulationFalseRGBSelector,
    CIRSelector,
    FixedWavelengthSelector,
    RangeAverageFalseRGBSelector,
)
from hsi_batch.nodes.colormaps import ClassMapToRGB, ScalarHSVColormapNode
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
from hsi_batch.nodes.derivatives import SpectralDerivative, SpectralDetrend
from hsi_batch.nodes.destripe import Destripe
from hsi_batch.nodes.factorization import NMFUnmixing
from hsi_batch.nodes.fixed_projection import FixedPCAProjection
from hsi_batch.nodes.frame_gate import FrameScoreGate
from hsi_batch.nodes.frame_selectors import FastRGBSelector, HighContrastSelector
from hsi_batch.nodes.frame_visualizers import (
    ChannelSelectorFalseRGBViz,
    PipelineComparisonVisualizer,
)
from hsi_batch.nodes.fusion import DecisionFusion, ScoreMapFusion
from hsi_batch.nodes.gaussian_mixture import GaussianMixtureClusterer
from hsi_batch.nodes.image_normalization import SigmoidNormalizer, ZScoreNormalizer
from hsi_batch.nodes.kmeans import KMeansClusterer
from hsi_batch.nodes.labels import BinaryAnomalyLabelMapper
from hsi_batch.nodes.lad import LADGlobal
from hsi_batch.nodes.learnable_mixer import LearnableChannelMixer
from hsi_batch.nodes.local_rx import LocalRX
from hsi_batch.nodes.losses import (
    AnomalyBCEWithLogits,
    DeepSVDDSoftBoundaryLoss,
    IoULoss,
    LossNode,
    MSEReconstructionLoss,
)
from hsi_batch.nodes.matched_filter import ACE, CEM, MatchedFilter
from hsi_batch.nodes.metrics import (
    AnomalyDetectionMetrics,
    Artifact,
    ArtifactType,
    Context,
    Metric,
    MetricNode,
)
from hsi_batch.nodes.monitor import TensorBoardMonitorNode
from hsi_batch.nodes.morphology import ShapeMorphology
from hsi_batch.nodes.node import Node, Quadratic, Request, Scope, Stage
from hsi_batch.nodes.noise_fraction import MNF
from hsi_batch.nodes.normalization import MinMaxNormalizer, PerPixelUnitNorm, ZScoreNormalizerGlobal
from hsi_batch.nodes.normalized_differences import (
    GNDVISelector,
    NBRSelector,
    NDRESelector,
    NDVISelector,
    NDWISelector,
)
from hsi_batch.nodes.object_mask import SpectralObjectMask
from hsi_batch.nodes.one_class_svm import OneClassSVMDetector
from hsi_batch.nodes.osp import OSP
from hsi_batch.nodes.overlays import MaskOverlayNode
from hsi_batch.nodes.parameter_metrics import (
    ComponentOrthogonalityMetric,
    ExplainedVarianceMetric,
    SelectorDiversityMetric,
    SelectorEntropyMetric,
)
from hsi_batch.nodes.percentiles import PercentileNormalizer
from hsi_batch.nodes.pigment_indices import CIRedEdgeSelector, MCARISelector, PRISelector
from hsi_batch.nodes.ports import InputPort, OutputPort, PortRef, PortSpec
from hsi_batch.nodes.preprocessors import BandpassByWavelength
from hsi_batch.nodes.pretreatments import ContinuumRemoval, Logarithm, SNVCorrection
from hsi_batch.nodes.projections import PCA, TrainablePCA
from hsi_batch.nodes.registry import node_class, node_classes
from hsi_batch.nodes.regularizers import (
    DistinctnessLoss,
    OrthogonalityLoss,
    SelectorDiversityRegularizer,
    SelectorEntropyRegularizer,
)
from hsi_batch.nodes.resampling import SpectralResample
from hsi_batch.nodes.residual import PCAResidual
from hsi_batch.nodes.robust_rx import RobustRX
from hsi_batch.nodes.rx import RXGlobal, RXPerBatch
from hsi_batch.nodes.savitzky_golay import SavitzkyGolay
from hsi_batch.nodes.scaling import MeanCenter, UnitVarianceScaling
from hsi_batch.nodes.score_metrics import (
    AnomalyPixelStatisticsMetric,
    DistinctLabelCount,
    ScoreStatisticsMetric,
)
from hsi_batch.nodes.segmentation import IntensityThresholdSegmenter
from hsi_batch.nodes.segmentation_losses import CrossEntropyLoss, DiceLoss, ForegroundContrastLoss
from hsi_batch.nodes.selectors import SoftChannelSelector, TopKIndices
from hsi_batch.nodes.signatures import (
    BBoxSpectralExtractor,
    MaskedMeanSpectrum,
    SignaturesToReferences,
    SpectralSignatureExtractor,
)
from hsi_batch.nodes.smoothing import ScoreMapSmoothing
from hsi_batch.nodes.spatial import GridSubsample, ScoreUpsample, SpatialRotateNode
from hsi_batch.nodes.spectral_angle import SpectralAngleMapper
from hsi_batch.nodes.spectral_divergence import SID
from hsi_batch.nodes.supervised_selectors import (
    SupervisedCIRSelector,
    SupervisedFullSpectrumSelector,
    SupervisedWindowedSelector,
)
from hsi_batch.nodes.thresholds import ArchiveQuantileDecider
from hsi_batch.nodes.transforms import DisplayNormalizer, IdentityNormalizer, SigmoidTransform
from hsi_batch.nodes.tristimulus import CIETristimulusRGBSelector
from hsi_batch.nodes.two_stage import TwoStageBinaryDecider
from hsi_batch.nodes.unmixing import NNLSUnmixing
from hsi_batch.nodes.validity import SaturatedPixelDetector, SpectralValidity
from hsi_batch.nodes.vegetation_indices import (
    EVI2Selector,
    EVISelector,
    MSAVISelector,
    SAVISelector,
)
from hsi_batch.nodes.visualizers import (
    ChannelWeightsViz,
    CubeRGBVisualizer,
    ImageArtifactVizBase,
    PCAVisualization,
)

__all__ = [
    "ACE",
    "CEM",
    "MNF",
    "OSP",
    "PCA",
    "SID",
    "AnomalyBCEWithLogits",
    "AnomalyDataNode",
    "AnomalyDetectionMetrics",
    "AnomalyMask",
    "AnomalyPixelStatisticsMetric",
    "ArchiveQuantileDecider",
    "Artifact",
    "ArtifactType",
    "BBoxSpectralExtractor",
    "BandpassByWavelength",
    "BinaryAnomalyLabelMapper",
    "BinaryDecider",
    "BlobDetector",
    "CFARThreshold",
    "CIETristimulusRGBSelector",
    "CIRSelector",
    "CIRedEdgeSelector",
    "CU3SDataNode",
    "CameraEmulationFalseRGBSelector",
    "ChannelAxis",
    "ChannelSelectorFalseRGBViz",
    "ChannelWeightsViz",
    "ClassMapToRGB",
    "ComponentOrthogonalityMetric",
    "ConcreteBandSelector",
    "ConcreteChannelMixer",
    "Context",
    "ContinuumRemoval",
    "CrossEntropyLoss",
    "CubeRGBVisualizer",
    "DecisionFusion",
    "DecisionToMask",
    "DeepSVDDCenterTracker",
    "DeepSVDDProjection",
    "DeepSVDDScores",
    "DeepSVDDSoftBoundaryLoss",
    "Destripe",
    "DiceLoss",
    "DisplayNormalizer",
    "DistinctLabelCount",
    "DistinctnessLoss",
    "EVI2Selector",
    "EVISelector",
    "ExplainedVarianceMetric",
    "FastRGBSelector",
    "FixedPCAProjection",
    "FixedWavelengthSelector",
    "ForegroundContrastLoss",
    "FrameScoreGate",
    "GNDVISelector",
    "GaussianMixtureClusterer",
    "GridSubsample",
    "HighContrastSelector",
    "IdentityNormalizer",
    "ImageArtifactVizBase",
    "InputPort",
    "IntensityThresholdSegmenter",
    "IoULoss",
    "KMeansClusterer",
    "LADGlobal",
    "LearnableChannelMixer",
    "LentilsAnomalyDataNode",
    "LocalRX",
    "Logarithm",
    "LossNode",
    "MCARISelector",
    "MSAVISelector",
    "MSEReconstructionLoss",
    "MaskOverlayNode",
    "MaskedMeanSpectrum",
    "MatchedFilter",
    "MeanCenter",
    "Metric",
    "MetricNode",
    "MinMaxNormalizer",
    "MultiRangeSlicer",
    "NBRSelector",
    "NDRESelector",
    "NDVISelector",
    "NDWISelector",
    "NMFUnmixing",
    "NNLSUnmixing",
    "Node",
    "OneClassSVMDetector",
    "OrthogonalityLoss",
    "OutputPort",
    "PCAResidual",
    "PCAVisualization",
    "PRISelector",
    "PerPixelUnitNorm",
    "PercentileNormalizer",
    "PipelineComparisonVisualizer",
    "PortRef",
    "PortSpec",
    "Quadratic",
    "QuantileBinaryDecider",
    "RGBAnomalyMask",
    "RXGlobal",
    "RXPerBatch",
    "RangeAverageFalseRGBSelector",
    "Request",
    "RobustRX",
    "SAVISelector",
    "SNVCorrection",
    "SaturatedPixelDetector",
    "SavitzkyGolay",
    "ScalarHSVColormapNode",
    "Scope",
    "ScoreHeatmapVisualizer",
    "ScoreMapFusion",
    "ScoreMapSmoothing",
    "ScoreStatisticsMetric",
    "ScoreThreshold",
    "ScoreToLogit",
    "ScoreUpsample",
    "SelectorDiversityMetric",
    "SelectorDiversityRegularizer",
    "SelectorEntropyMetric",
    "SelectorEntropyRegularizer",
    "ShapeMorphology",
    "SigmoidNormalizer",
    "SigmoidTransform",
    "SignaturesToReferences",
    "SoftChannelSelector",
    "SpatialRotateNode",
    "SpectralAngleMapper",
    "SpectralDerivative",
    "SpectralDetrend",
    "SpectralObjectMask",
    "SpectralResample",
    "SpectralSignatureExtractor",
    "SpectralValidity",
    "Stage",
    "SupervisedCIRSelector",
    "SupervisedFullSpectrumSelector",
    "SupervisedWindowedSelector",
    "TensorBoardMonitorNode",
    "TopKIndices",
    "TrainablePCA",
    "TwoStageBinaryDecider",
    "UnitVarianceScaling",
    "ZScoreNormalizer",
    "ZScoreNormalizerGlobal",
    "node_class",
    "node_classes",
]
