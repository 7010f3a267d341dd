"""Which pixels the nodes that judge are given."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from hsi_batch.archive.session import PixelChoice
from hsi_batch.nodes import DeepSVDDCenterTracker, Node
from hsi_batch.nodes.losses import LossNode
from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["Feed", "reached_by_labels"]

#: Ports of the data node that hold labels.
_LABELS = ("mask", "class_mask")


class Feed:
    """Hands nodes their inputs, to those that judge without the pixels that do not count.

    Metrics get the valid pixels, and, where labels reach them, of these the labelled ones; losses
    likewise, through their input ``valid``. With ``pixels="labelled-normal"`` losses that labels do
    not reach (those of one class) get pixels labelled as background. A centre that follows batches
    follows valid pixels.

    Parameters
    ----------
    pipeline : Pipeline
    metrics : collection of str
        Names of the metric nodes.
    pixels : {"valid", "labelled-normal"}
        Pixels that losses without labels count.
    """

    def __init__(
        self, pipeline: Pipeline, metrics: Collection[str] = (), pixels: PixelChoice = "valid"
    ) -> None:
        self.metrics = frozenset(metrics)
        self.judged = reached_by_labels(pipeline)
        self.pixels = pixels
        self._pipeline = pipeline
        self._valid = self._known = self._one_class = torch.empty(0)

    def take(self, batch: Mapping[str, Any]) -> bool:
        """Look at a batch; returns whether any of its pixels is labelled."""
        self._valid = batch["valid"]
        self._known = self._valid & (batch["mask"] >= 0)
        self._one_class = self._valid
        if self.pixels == "labelled-normal":
            classes = self._pipeline.source.classes(batch["mask"].cpu().numpy())
            normal = torch.from_numpy(classes == 0).to(self._valid.device)
            self._one_class = self._valid & normal
        return bool(self._known.any())

    def __call__(self, node: Node, given: dict[str, Any]) -> dict[str, Any] | None:
        """Inputs of a node; None where no pixel counts."""
        if isinstance(node, LossNode):
            return self._of_loss(node, given)
        if isinstance(node, DeepSVDDCenterTracker):
            return _without(given, self._one_class) or given
        if node.name not in self.metrics:
            return given
        return _without(given, self._known if node.name in self.judged else self._valid)

    def _of_loss(self, node: LossNode, given: dict[str, Any]) -> dict[str, Any]:
        if "valid" not in node.INPUT_SPECS or "valid" in given:
            return given
        counted = self._known if node.name in self.judged else self._one_class
        return given if bool(counted.all()) else {**given, "valid": counted[..., None]}


def _without(given: dict[str, Any], counted: Tensor) -> dict[str, Any] | None:
    if bool(counted.all()):
        return given
    if not bool(counted.any()):
        return None
    return {port: _only(value, counted) for port, value in given.items()}


def _only(value: Any, counted: Tensor) -> Any:
    """The pixels that count, as one line; what has no pixels stays."""
    if isinstance(value, list):
        return [_only(item, counted) for item in value]
    if isinstance(value, Tensor) and value.ndim == 4 and value.shape[:3] == counted.shape:
        return value[counted.to(value.device)][None, None]
    return value


def reached_by_labels(pipeline: Pipeline) -> set[str]:
    """Nodes that labels reach, directly or through others."""
    reached: set[str] = set()
    for name in pipeline.order():
        sources = [ref for refs in pipeline.sources_of(name).values() for ref in refs]
        for ref in sources:
            labels = pipeline.nodes[ref.node].is_source and ref.port in _LABELS
            if labels or ref.node in reached:
                reached.add(name)
    return reached
