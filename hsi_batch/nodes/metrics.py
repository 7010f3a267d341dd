"""Metrics of decisions and scores against labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hsi_batch.nodes.node import Node, Scope, Stage
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.float_histogram import FloatHistogram
from hsi_batch.statistics.ranking import Confusion, roc_curve

__all__ = ["AnomalyDetectionMetrics", "Context", "Metric"]


@dataclass(frozen=True)
class Context:
    """Where a run stands; handed to nodes that ask for it."""

    stage: Stage = Stage.INFERENCE
    epoch: int = 0
    batch_idx: int = 0
    global_step: int = 0


class Metric(NamedTuple):
    """A named value."""

    name: str
    value: float
    stage: Stage = Stage.INFERENCE
    epoch: int = 0
    batch_idx: int = 0


class AnomalyDetectionMetrics(Node):
    """Precision, recall, F1, IoU and average precision over all pixels seen since :meth:`reset`.

    Counts are pooled over frames, never averaged: ``precision = TP / (TP + FP)``,
    ``recall = TP / (TP + FN)``, ``f1_score = 2 TP / (2 TP + FP + FN)``,
    ``iou = TP / (TP + FP + FN)``; empty denominators give 0. The ``image_`` variants count frames
    with any flagged pixel against frames with any anomalous one. ``average_precision`` ranks the
    logits themselves, so it does not saturate as their sigmoid would. The port ``metrics`` gives
    the values so far.
    """

    INPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged", optional=True),
        "targets": PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous"),
        "logits": PortSpec(torch.float32, (-1, -1, -1, 1), "logits", optional=True),
    }
    OUTPUT_SPECS = {"metrics": PortSpec(list, (), "list of Metric")}
    stages = frozenset({Stage.VAL, Stage.TEST})

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.reset()

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def reset(self) -> None:
        """Forget all counts."""
        self._pixels = Confusion()
        self._images = Confusion()
        self._decided = False
        self._histograms = [FloatHistogram.zero(1), FloatHistogram.zero(1)]

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
        curve = roc_curve(*self._histograms)
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
        true = targets.detach().cpu().numpy()
        if decisions is not None:
            said = decisions.detach().cpu().numpy()
            self._decided = True
            self._pixels = self._pixels.merge(Confusion.of(said, true))
            frames = tuple(range(1, said.ndim))
            self._images = self._images.merge(
                Confusion.of(np.asarray(said.any(axis=frames)), np.asarray(true.any(axis=frames)))
            )
        if logits is not None:
            values = logits.detach().cpu().numpy()
            for label in (0, 1):
                ranked = values[true == bool(label)].astype(np.float32)[:, None]
                self._histograms[label] = self._histograms[label].update(ranked)
        at = context or Context()
        found = [
            Metric(name, value, at.stage, at.epoch, at.batch_idx)
            for name, value in self.compute().items()
        ]
        return {"metrics": found}
