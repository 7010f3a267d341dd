"""What a pipeline is worth before and after a training, kept with the trained one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hsi_batch.data.module import Split
from hsi_batch.errors import DataWarning
from hsi_batch.nodes import AnomalyDetectionMetrics, Stage
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.statistics import RocCurve
from hsi_batch.training.evaluation import StageResults, evaluate_frames
from hsi_batch.training.gradient import GradientTrainer

__all__ = ["Measured", "compared", "measure"]

#: Points of a curve that are kept, at most twice as many.
_POINTS = 200


@dataclass(frozen=True)
class Measured:
    """A pipeline at one time.

    Attributes
    ----------
    results : dict of str to StageResults
        Metrics of val and test, or of train where the data module names no frames for them.
    curves : dict of str to RocCurve
        ROC of the same frames.
    weights : dict of str to list of float
        Weights of the selectors, one per channel.
    """

    results: dict[str, StageResults] = field(default_factory=dict)
    curves: dict[str, RocCurve] = field(default_factory=dict)
    weights: dict[str, list[float]] = field(default_factory=dict)


def measure(trainer: GradientTrainer) -> Measured:
    """Run val and test, or train where all frames are everything."""
    data = trainer.datamodule
    found = Measured(weights=_weights(trainer.pipeline))
    splits: tuple[tuple[Split, Stage], ...] = (("val", Stage.VAL), ("test", Stage.TEST))
    for split, stage in splits:
        if not data.has(split) or (data.undivided and split == "test"):
            continue
        name = "train" if data.undivided else split
        with warnings.catch_warnings():
            if data.undivided:
                # They are called what they are.
                warnings.filterwarnings("ignore", "no frames were named", DataWarning)
            found.results[name] = evaluate_frames(
                trainer.pipeline, data, stage, trainer.metrics, trainer.loss_nodes, trainer.pixels
            )
        for node in trainer.metrics:
            curve = node.curve() if isinstance(node, AnomalyDetectionMetrics) else None
            if curve is not None:
                found.curves.setdefault(name, curve)
    return found


def compared(before: Measured, after: Measured, pipeline: Pipeline) -> dict[str, Any]:
    """Plain values that say what a training changed, for the provenance of the pipeline."""
    return {
        "splits": {
            split: {
                "frames": result.frames,
                "metrics": {
                    name: [before.results[split].metrics.get(name), value]
                    for name, value in result.metrics.items()
                },
                "roc": [_points(now.curves.get(split)) for now in (before, after)],
            }
            for split, result in after.results.items()
        },
        "weights": {
            name: {
                "values": [before.weights[name], values],
                "count": int(getattr(pipeline.nodes[name], "n_select", 1)),
                **_axis(pipeline, name),
            }
            for name, values in after.weights.items()
            if name in before.weights
        },
    }


def _points(curve: RocCurve | None) -> dict[str, Any] | None:
    """A curve with fewer points, dense where false alarms are rare."""
    if curve is None:
        return None
    last = curve.false_positive_rate.size - 1
    spread = np.linspace(0, last, _POINTS), np.geomspace(1, last + 1, _POINTS) - 1
    at = np.unique(np.concatenate(spread).astype(int))
    return {
        "false_positive_rate": curve.false_positive_rate[at].tolist(),
        "true_positive_rate": curve.true_positive_rate[at].tolist(),
        "auc": curve.auc,
        "average_precision": curve.average_precision,
    }


def _weights(pipeline: Pipeline) -> dict[str, list[float]]:
    """Weights of the selectors that give one per channel."""
    found = {}
    for name, node in pipeline.nodes.items():
        weights_of = getattr(node, "get_selection_weights", None)
        if weights_of is not None:
            weights = weights_of().detach().double().cpu().numpy()
            if weights.ndim == 1:
                found[name] = weights.tolist()
    return found


def _axis(pipeline: Pipeline, name: str) -> Mapping[str, Any]:
    """Wavelengths of a selector's channels, and the mean spectrum where they are the recorded."""
    axis = pipeline.nodes[name].axes.get("data")
    mean = None if pipeline.reference is None else np.asarray(pipeline.reference.mean)
    source = pipeline.source.axes.get("cube")
    recorded = axis is not None and mean is not None and axis.size == mean.size
    if recorded and source is not None and source.wavelength is not None and axis is not None:
        recorded = axis.wavelength is not None and bool(
            np.array_equal(axis.wavelength, source.wavelength)
        )
    known = None if axis is None or axis.wavelength is None else axis.wavelength.tolist()
    return {"wavelength": known, "mean": mean.tolist() if recorded and mean is not None else None}
