"""Metrics of decisions and scores against labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.node import Node, Scope, Stage
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes
from hsi_batch.statistics.float_histogram import FloatHistogram
from hsi_batch.statistics.ranking import Confusion, RocCurve, roc_curve

__all__ = [
    "AnomalyDetectionMetrics",
    "Artifact",
    "ArtifactType",
    "Context",
    "Metric",
    "MetricNode",
]


@dataclass(frozen=True)
class Context:
    """Where a run stands; handed to nodes that ask for it.

    Attributes
    ----------
    stage : Stage
        What the batch is for.
    epoch, batch_idx, global_step : int
        Where the run is, counted from 0.

    Examples
    --------
    >>> Context(stage=Stage.VAL, epoch=3).batch_idx
    0
    """

    stage: Stage = Stage.INFERENCE
    epoch: int = 0
    batch_idx: int = 0
    global_step: int = 0


class Metric(NamedTuple):
    """A named value.

    Attributes
    ----------
    name : str
        What is measured.
    value : float
        What it is.
    stage, epoch, batch_idx
        Where the run stood.

    Examples
    --------
    >>> Metric("iou", 0.5).value
    0.5
    """

    name: str
    value: float
    stage: Stage = Stage.INFERENCE
    epoch: int = 0
    batch_idx: int = 0


class ArtifactType(StrEnum):
    """What an :class:`Artifact` holds.

    Examples
    --------
    >>> ArtifactType("image").name
    'IMAGE'
    """

    IMAGE = "image"


class Artifact(NamedTuple):
    """A named picture.

    Attributes
    ----------
    name : str
        Its name, without the stage.
    value : numpy.ndarray, shape (y, x, 3)
        uint8, or floating point in 0..1.
    el_id : int
        Place of the frame in its batch.
    desc : str
        What it shows, in words.
    type : ArtifactType
        What it is, so that loggers know what to do with it.
    stage, epoch, batch_idx
        Where the run stood.

    Examples
    --------
    >>> picture = np.zeros((4, 4, 3), dtype=np.uint8)
    >>> Artifact("mask_00", picture, desc="the mask").type.value
    'image'
    """

    name: str
    value: NDArray[Any]
    el_id: int = 0
    desc: str = ""
    type: ArtifactType = ArtifactType.IMAGE
    stage: Stage = Stage.INFERENCE
    epoch: int = 0
    batch_idx: int = 0


class MetricNode(Node, ABC):
    """Base of the metrics: they absorb batches in val and test, and give values of all of them.

    A node starts empty. Each forward adds a batch; the port ``metrics`` and :meth:`compute` give
    the values of all batches since :meth:`reset`, which whoever runs a stage calls at its start.

    Parameters
    ----------
    name : str, optional
        Of the node in its graph.
    **hparams
        As for :class:`.Node`.

    Examples
    --------
    >>> class Largest(MetricNode):
    ...     INPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1))}
    ...     def reset(self):
    ...         self.largest = 0.0
    ...     def compute(self):
    ...         return {"largest": self.largest}
    ...     def forward(self, scores, context=None):
    ...         self.largest = max(self.largest, float(scores.max()))
    ...         return self.so_far(context)
    >>> Largest()(scores=torch.ones(1, 2, 2, 1))["metrics"][0].value
    1.0
    """

    OUTPUT_SPECS = {"metrics": PortSpec(list, (), "list of Metric")}
    stages = frozenset({Stage.VAL, Stage.TEST})

    def __init__(self, name: str | None = None, **hparams: Any) -> None:
        super().__init__(name, **hparams)
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget all batches."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Values so far, by name; without those that nothing is known of yet."""

    def so_far(self, context: Context | None) -> dict[str, Any]:
        """What forward returns: the values so far."""
        return {"metrics": listed(self.compute().items(), context)}


def listed(values: Iterable[tuple[str, float]], context: Context | None) -> list[Metric]:
    """Names and values as metrics of a place in a run."""
    at = context or Context()
    return [Metric(name, value, at.stage, at.epoch, at.batch_idx) for name, value in values]


class AnomalyDetectionMetrics(MetricNode):
    """Precision, recall, F1, IoU and average precision over all pixels seen since :meth:`reset`.

    Counts are pooled over frames, never averaged: ``precision = TP / (TP + FP)``,
    ``recall = TP / (TP + FN)``, ``f1_score = 2 TP / (2 TP + FP + FN)``,
    ``iou = TP / (TP + FP + FN)``; empty denominators give 0. The ``image_`` variants count frames
    with any flagged pixel against frames with any anomalous one. ``average_precision`` ranks the
    logits themselves, so it does not saturate as their sigmoid would. The port ``metrics`` gives
    the values so far.

    Parameters
    ----------
    ap_thresholds : int, optional
        Kept for pipelines that name it; the average precision is always exact.
    pixel_stride : int
        Every how many lines, and pixels of a line, are counted, to save time; frames are always
        judged by all of their pixels.

    Examples
    --------
    >>> metric = AnomalyDetectionMetrics()
    >>> flags = torch.tensor([[[[True], [True], [False]]]])
    >>> labels = torch.tensor([[[[True], [False], [False]]]])
    >>> _ = metric(targets=labels, decisions=flags)
    >>> {name: round(metric.compute()[name], 3) for name in ("precision", "recall", "iou")}
    {'precision': 0.5, 'recall': 1.0, 'iou': 0.5}
    """

    INPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged", optional=True),
        "targets": PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous"),
        "logits": PortSpec(torch.float32, (-1, -1, -1, 1), "logits", optional=True),
    }

    def __init__(
        self,
        ap_thresholds: int | None = 200,
        pixel_stride: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(name, ap_thresholds=ap_thresholds, pixel_stride=pixel_stride)
        if pixel_stride < 1:
            raise PipelineError(f"pixel_stride {pixel_stride} must be at least 1.")
        self.pixel_stride = int(pixel_stride)

    @property
    def scope(self) -> Scope:
        """A pixel at a time; a frame if only some are counted."""
        return Scope.PIXEL if self.pixel_stride == 1 else Scope.FRAME

    def reset(self) -> None:
        """Forget all counts."""
        self._pixels = Confusion()
        self._images = Confusion()
        self._decided = False
        self._histograms = [FloatHistogram.zero(1), FloatHistogram.zero(1)]

    def curve(self) -> RocCurve | None:
        """ROC of the logits so far; None before pixels of both classes were seen."""
        return roc_curve(*self._histograms)

    def compute(self) -> dict[str, float]:
        """Metrics so far, by name."""
        values: dict[str, float] = {}
        if self._decided:
            for prefix, counts in (("", self._pixels), ("image_", self._images)):
                values[f"{prefix}precision"] = counts.precision
                values[f"{prefix}recall"] = counts.recall
            values["f1_score"] = self._pixels.f1
            values["image_f1"] = self._images.f1
            values["iou"] = self._pixels.iou
        curve = self.curve()
        if curve is not None:
            values["average_precision"] = curve.average_precision
        return values

    def forward(
        self,
        targets: Tensor,
        decisions: Tensor | None = None,
        logits: Tensor | None = None,
        context: Context | None = None,
    ) -> dict[str, Any]:
        """Add a batch and give the values so far."""
        need_shapes(self, targets=targets, decisions=decisions, logits=logits)
        true = targets.detach().cpu().numpy()
        thin = (slice(None), *[slice(None, None, self.pixel_stride)] * 2)
        if decisions is not None:
            said = decisions.detach().cpu().numpy()
            self._decided = True
            self._pixels = self._pixels.merge(Confusion.of(said[thin], true[thin]))
            frames = tuple(range(1, said.ndim))
            self._images = self._images.merge(
                Confusion.of(np.asarray(said.any(axis=frames)), np.asarray(true.any(axis=frames)))
            )
        if logits is not None:
            values = logits.detach().cpu().numpy()[thin]
            for label in (0, 1):
                ranked = values[true[thin] == bool(label)].astype(np.float32)[:, None]
                self._histograms[label] = self._histograms[label].update(ranked)
        return self.so_far(context)
