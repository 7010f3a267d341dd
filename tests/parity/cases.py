"""Every class that both libraries have, in a graph that feeds it, with its ways of working."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hsi_batch.nodes import AnomalyDataNode, Node, node_classes
from hsi_batch.nodes.plugin import plugin_class
from hsi_batch.nodes.trust import allow_plugins
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.catalogue import cuvis_classes

CHANNELS = 12
NM = np.arange(CHANNELS) * 40 + 450
SOURCES = "parity_sources"
_FIXED = Path(tempfile.mkdtemp()) / "pca.npz"
np.savez(
    _FIXED,
    mean=np.full(CHANNELS, 0.1, np.float32),
    comps=np.linalg.qr(np.random.default_rng(5).normal(size=(CHANNELS, 3)))[0].T.astype(np.float32),
    lo=np.full(3, -1.0, np.float32),
    hi=np.ones(3, np.float32),
)

#: Values of arguments that must be given.
ARGUMENTS = {
    **dict.fromkeys(("num_channels", "input_channels", "in_channels", "n_channels"), CHANNELS),
    "num_spectral_bands": CHANNELS,
    **dict.fromkeys(("n_components", "n_select", "k", "output_channels"), 3),
    "rep_dim": CHANNELS,
    "normal_class_ids": [0],
    "min_wavelength_nm": 500.0,
    "threshold": 20.0,
    "channel": 1,
    "projection_path": str(_FIXED),
}
_PER_FRAME = {"norm_mode": "per_frame"}
_STATISTICAL = {"norm_mode": "statistical"}
_PICTURES = ({**_PER_FRAME}, {**_STATISTICAL}, {"normalize_output": False})
#: Channels that are chosen frame by frame have no bounds for all frames here.
_CHOSEN = ({**_PER_FRAME}, {"normalize_output": False})
_SUPERVISED = (_STATISTICAL, {**_PER_FRAME, "score_weights": [1.0, 0.0, 2.0]})
#: The ways of working that are compared, by class; elsewhere the defaults are. ``running`` bounds
#: move from frame to frame and have a test of their own.
WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "AnomalyBCEWithLogits": ({}, {"pos_weight": 3.0, "reduction": "sum"}),
    "AnomalyDataNode": ({}, {"normal_class_ids": [0, 2], "anomaly_class_ids": [1]}),
    # Their median of an even number of values is the lower one; test_single_nodes.py shows that.
    "BBoxSpectralExtractor": (
        {"aggregation": "mean"},
        {
            "aggregation": "mean",
            "center_crop_scale": 1.0,
            "l2_normalize": False,
        },
    ),
    "BandpassByWavelength": ({}, {"max_wavelength_nm": 800.0}),
    "BinaryAnomalyLabelMapper": ({}, {"anomaly_class_ids": [1]}),
    "BlobDetector": (
        {},
        {"brightness": "max", "threshold_method": "quantile", "threshold": 0.9, "min_area": 2},
        {"brightness": "index", "index_wavelengths": [850.0, 650.0], "connectivity": 4},
    ),
    "CIETristimulusRGBSelector": _PICTURES,
    "CIRSelector": _PICTURES,
    "CameraEmulationFalseRGBSelector": _PICTURES,
    "ConcreteChannelMixer": ({}, {"use_hard_inference": False}),
    "CrossEntropyLoss": ({}, {"class_weights": [1.0, 2.0, 3.0], "ignore_index": 0}),
    "DecisionFusion": ({}, {"mode": "all"}),
    "DeepSVDDProjection": ({}, {"kernel": "rbf", "n_rff": 64, "gamma": 1e-6}),
    "DiceLoss": ({}, {"include_background": False}, {"ignore_index": 0}),
    "FixedPCAProjection": ({}, {"input_global_minmax": False, "clamp01": False}),
    "FixedWavelengthSelector": _PICTURES,
    "ForegroundContrastLoss": (
        {},
        {"compactness_weight": 0.5, "anchor_weight": 0.3, "color_space": "oklab"},
    ),
    "FrameScoreGate": ({}, {"mode": "mask", "mask_threshold": 20.0, "topk_frac": 0.01}),
    "GaussianMixtureClusterer": ({"n_components": 4, "n_init": 5, "max_fit_pixels": 0},),
    "HighContrastSelector": _CHOSEN,
    "IntensityThresholdSegmenter": (
        {"low": 0.3, "high": 0.6},
        {"low": 0.5, "high": 2.0, "reduction": "max"},
        {"low": 0.4, "high": 2.0, "reduction": "band", "band_index": 3},
    ),
    "IoULoss": ({}, {"normalize_method": "clamp"}, {"normalize_method": "minmax"}),
    "KMeansClusterer": ({"n_clusters": 4, "max_fit_pixels": 0},),
    "LADGlobal": ({}, {"normalize_laplacian": False}),
    "LearnableChannelMixer": (
        {},
        {"inference_normalization": "per_frame_minmax"},
        {"inference_normalization": "sigmoid_only", "use_activation": False},
        {"normalize_output": False, "reduction_scheme": [CHANNELS, 6, 3]},
    ),
    "Logarithm": ({}, {"mode": "ln", "negate": True}),
    "MinMaxNormalizer": ({}, {"use_running_stats": False}),
    "MultiRangeSlicer": ({"edges": [5.0, 10.0, 20.0]},),
    "PercentileNormalizer": (
        _PER_FRAME,
        {**_PER_FRAME, "joint_channels": True, "per_frame_quantiles": True},
        {**_STATISTICAL, "clamp": "none", "invert": True},
        {**_STATISTICAL, "statistical_fit": "pooled", "fit_subsample": 1, "quantize_levels": 16},
    ),
    "QuantileBinaryDecider": ({}, {"quantile": 0.9}),
    "RXGlobal": ({}, {"eps": 0.0}),
    "RangeAverageFalseRGBSelector": _PICTURES,
    "SavitzkyGolay": (
        {"window_length": 5},
        {"window_length": 7, "polyorder": 3, "deriv": 1, "delta": 40.0, "mode": "mirror"},
    ),
    "ScoreMapFusion": tuple(
        {"mode": mode, **({"beta": 0.5} if mode == "softmin" else {})}
        for mode in ("mean", "max", "min", "gmean", "first", "softmin")
    ),
    # A map that is narrower than the kernel has a test of its own.
    "ScoreMapSmoothing": ({"sigma_px": 2.0}, {"sigma_px": 0.0}),
    "ScoreThreshold": ({}, {"keep": "above"}),
    "SelectorEntropyRegularizer": ({}, {"target_entropy": 1.5}),
    # The default has the sign that the name says; theirs is the other.
    "SelectorDiversityRegularizer": ({"mode": "concentrate"},),
    "DistinctnessLoss": ({"signed": True},),
    "ShapeMorphology": ({}, {"binarize": False, "connectivity": 4, "max_objects": 8}),
    "SigmoidNormalizer": ({}, {"std_floor": 50.0}),
    "SignaturesToReferences": ({}, {"normalize": "unit_mean"}, {"normalize": "l2"}),
    "SpatialRotateNode": ({}, {"rotation": 90}, {"rotation": -180}),
    "SpectralSignatureExtractor": ({}, {"trim_fraction": 0.0, "min_mask_pixels": 30}),
    "SoftChannelSelector": (
        {},
        {"init_method": "variance"},
        {"init_method": "variance", "hard": True},
    ),
    "SpectralDerivative": ({}, {"order": 2}),
    "SpectralObjectMask": (
        {"stride": 1},
        {"stride": 2, "min_angle_deg": 12.0, "fill": True, "dilate_px": 3},
    ),
    "SpectralValidity": (
        {},
        {
            "n_features": CHANNELS,
            "expected_wavelengths": [float(nm) for nm in NM],
            "norm_floor": 2000.0,
            "saturation_value": 900.0,
            "roi_margin_px": 3,
        },
    ),
    "SupervisedCIRSelector": _SUPERVISED,
    "SupervisedFullSpectrumSelector": _SUPERVISED,
    "SupervisedWindowedSelector": _SUPERVISED,
    # Theirs ends early by default; test_differences.py compares what comes of that.
    "NNLSUnmixing": ({"max_iter": 2000, "tol": 0.0},),
    "TrainablePCA": ({}, {"whiten": True}),
    "TwoStageBinaryDecider": ({}, {"top_k_fraction": 0.01, "quantile": 0.9}),
    "ZScoreNormalizer": ({}, {"dims": [1, 2, 3]}, {"dims": [3]}),
}
#: Inputs without pixels: the class of parity_sources.py, or the data, and output that feed them.
TABLES = {
    "bboxes": ("Labels", "boxes"),
    "endmembers": ("Spectra", "endmembers"),
    "mesu_index": ("", "mesu_index"),
    "object_ids": ("Labels", "numbers"),
    "signatures": ("Spectra", "table"),
    "spectral_signature": ("Spectra", "signatures"),
    "wavelengths": ("", "wavelengths"),
}
#: What is computed from reflectance: constants of the formula are in its units.
REFLECTANCE = {
    *("EVISelector", "EVI2Selector", "SAVISelector", "MSAVISelector", "MCARISelector"),
    "IntensityThresholdSegmenter",
}
#: Their quantiles depend on how frames are grouped; with all frames in one batch they are those
#: of all pixels, as ours always are.
TOGETHER = {"statistical"}
#: What no graph of both can feed: theirs takes int64 class maps, which none of its nodes gives.
#: test_single_nodes.py compares it by itself.
UNFED = {"ClassMapToRGB"}


class Case(NamedTuple):
    """A class and a way of working."""

    name: str
    arguments: dict[str, Any]

    @property
    def together(self) -> bool:
        """Whether theirs is given all frames of a fit at once."""
        return self.arguments.get("norm_mode") in TOGETHER

    @property
    def reflectance(self) -> bool:
        """Whether values are in units of 1 instead of 1000."""
        return self.name in REFLECTANCE

    def __str__(self) -> str:
        said = (f"{key}={value}".replace("/", ".") for key, value in self.arguments.items())
        return "-".join([self.name, *(text for text in said if len(text) < 40)])


def shared() -> list[str]:
    """Classes that both have."""
    return sorted(set(node_classes()) & set(cuvis_classes()) - UNFED)


def cases() -> list[Case]:
    """All that are compared."""
    return [Case(name, dict(way)) for name in shared() for way in WAYS.get(name, ({},))]


def graph(case: Case) -> Pipeline:
    """A graph in which all inputs are fed that both have."""
    cls = node_classes()[case.name]
    pipeline = Pipeline(case.name)
    node = make(cls, **case.arguments)
    if cls.is_source:
        reader = node_classes()["IdentityNormalizer"](name="reader")
        pipeline.connect((node.outputs["cube"], reader.inputs["data"]))
        return pipeline
    pipeline.add_node(AnomalyDataNode((0,), name="data"))
    for port, spec in cls.INPUT_SPECS.items():
        if port not in cuvis_classes()[case.name].inputs:
            continue
        for source in sources_of(pipeline, case.name, port, spec):
            pipeline.connect((source, node.inputs[port]))
    return pipeline


def make(cls: type[Node], **more: Any) -> Node:
    """A node with arguments that both sides take."""
    known = cuvis_classes()[cls.__name__].arguments
    own = inspect.signature(cls.__init__).parameters
    given = {
        k: v
        for k, v in ARGUMENTS.items()
        if k in own and (own[k].default is inspect.Parameter.empty or known.get(k))
    }
    if "inverse" in own:
        given["inverse"] = "pinv32"
    return cls(**{**given, **more}, name="node")


def sources_of(pipeline: Pipeline, name: str, port: str, spec: Any) -> list[Any]:
    """The outputs that feed a port, made where there are none yet."""
    if spec.dtype is list:
        return shown(pipeline, port)
    if spec.variadic:
        return [source_of(pipeline, name, port, spec), other(pipeline, spec)]
    return [source_of(pipeline, name, port, spec)]


def source_of(pipeline: Pipeline, name: str, port: str, spec: Any) -> Any:
    """The one output that feeds a port."""
    data = pipeline.nodes["data"]
    cube, axes = data.outputs["cube"], len(spec.shape)
    if port in TABLES:
        cls, output = TABLES[port]
        return plugin(pipeline, cls, cube, output) if cls else data.outputs[output]
    if spec.dtype is torch.bool:
        return decisions(pipeline, 0.9) if port == "decisions" else data.outputs["mask"]
    if spec.dtype is torch.int32:
        labels = plugin(pipeline, "Labels", cube, "labels")
        return labels if axes == 3 else data.outputs["class_mask"]
    if axes == 4:
        return pixels_of(pipeline, name, port, spec)
    if axes == 2:
        return helper(pipeline, "TrainablePCA", cube, "components", n_components=3)
    if tuple(spec.shape) == (1,):
        return plugin(pipeline, "Level", scores(pipeline), "level")
    by = {"n_select": 3, "init_method": "variance"}
    return helper(pipeline, "SoftChannelSelector", cube, "weights", **by)


def pixels_of(pipeline: Pipeline, name: str, port: str, spec: Any) -> Any:
    """The output that feeds an input of float32 pixels."""
    cube, last = pipeline.nodes["data"].outputs["cube"], spec.shape[-1]
    if cuvis_classes()[name].axes[port] == 3:
        return plugin(pipeline, "Level", scores(pipeline), "flat")
    if last == 3:
        return plugin(pipeline, "Picture", cube, "rgb")
    if name in ("CrossEntropyLoss", "DiceLoss"):
        return plugin(pipeline, "Picture", cube, "logits")
    by_score = last == 1 or port in ("logits", "scores", "alarm_scores", "predictions")
    return scores(pipeline) if by_score else cube


def other(pipeline: Pipeline, spec: Any) -> Any:
    """A second output for a port that takes several."""
    if spec.dtype is torch.bool:
        return decisions(pipeline, 0.5)
    return helper(pipeline, "LADGlobal", pipeline.nodes["data"].outputs["cube"], "scores")


def shown(pipeline: Pipeline, port: str) -> list[Any]:
    """Pictures or metrics."""
    if port == "metrics":
        return [helper(pipeline, "AnomalyPixelStatisticsMetric", decisions(pipeline, 0.9), port)]
    return [helper(pipeline, "ScoreHeatmapVisualizer", scores(pipeline), port)]


def scores(pipeline: Pipeline) -> Any:
    """Scores of each frame against itself."""
    return helper(pipeline, "RXPerBatch", pipeline.nodes["data"].outputs["cube"], "scores")


def decisions(pipeline: Pipeline, quantile: float) -> Any:
    """The largest scores."""
    by = {"quantile": quantile, "named": f"above_{int(100 * quantile)}"}
    return helper(pipeline, "QuantileBinaryDecider", scores(pipeline), "decisions", **by)


def helper(
    pipeline: Pipeline, cls: str, source: Any, port: str, named: str | None = None, **given: Any
) -> Any:
    """The output of a node that stands in the pipeline once."""
    name = named or cls
    if name not in pipeline.nodes:
        made = node_classes()[cls]
        node = made(**given, name=name)
        pipeline.connect((source, node.inputs[next(iter(made.INPUT_SPECS))]))
    return pipeline.nodes[name].outputs[port]


def plugin(pipeline: Pipeline, cls: str, source: Any, port: str) -> Any:
    """The output of a node that both sides import."""
    if cls not in pipeline.nodes:
        allow_plugins(SOURCES)
        made = plugin_class(f"{SOURCES}.{cls}", [SOURCES])
        pipeline.plugins = [SOURCES]
        node = made(name=cls)
        pipeline.connect((source, node.inputs[next(iter(made.INPUT_SPECS))]))
    return pipeline.nodes[cls].outputs[port]
