"""Thresholds of deciders, set to those of the largest F1 score on the val frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.data.batches import frame_batch
from hsi_batch.data.module import DataModule
from hsi_batch.errors import ConfigError, PlanError, SourceError
from hsi_batch.nodes import Node
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.wording import sized

__all__ = ["Calibrated", "calibrate_deciders", "calibrated_nodes", "check_calibration"]

#: Bytes of scores and labels that are held at once, at most.
_MOST_BYTES = 2 * 2**30
#: A score and its label.
_BYTES_PER_PIXEL = 5


@dataclass(frozen=True)
class Calibrated:
    """What a calibration changed.

    Attributes
    ----------
    node : str
    before, after : dict of str to float
        Parameters that it set.
    f1 : float
        Largest F1 score of pixels on the val frames.
    when : str
        Of which pipeline: as fitted, as trained; empty where there is only one.
    """

    node: str
    before: dict[str, Any]
    after: dict[str, Any]
    f1: float
    when: str = ""

    def __str__(self) -> str:
        shown = ", ".join(f"{k} {self.before[k]:.6g} -> {v:.6g}" for k, v in self.after.items())
        when = f", {self.when}" if self.when else ""
        return f"calibrated {self.node} on val{when}: {shown or 'unchanged'}, F1 {self.f1:.4g}"


def calibrated_nodes(pipeline: Pipeline) -> list[Node]:
    """Deciders that can be calibrated."""
    return [
        node
        for node in pipeline.nodes.values()
        if callable(getattr(node, "calibrate", None)) and "logits" in node.INPUT_SPECS
    ]


def check_calibration(pipeline: Pipeline, datamodule: DataModule) -> None:
    """Raise :class:`~hsi_batch.errors.ConfigError` where nothing could be calibrated."""
    if not calibrated_nodes(pipeline):
        raise ConfigError(
            "calibrate: the pipeline has no decider that can be calibrated.",
            hint="Leave it out, or add a BinaryDecider.",
        )
    if datamodule.undivided or not datamodule.has("val"):
        raise ConfigError(
            "calibrate: no frames are named for val.",
            hint="Name frames with labels that are not trained on, or leave it out.",
        )


def calibrate_deciders(
    pipeline: Pipeline, datamodule: DataModule, when: str = ""
) -> list[Calibrated]:
    """Set the thresholds of all deciders to those of the largest F1 score on the val frames.

    Pixels that are flagged or unlabelled count for nothing; frames without any anomaly count as all
    others. Metrics of the val frames are then those of frames that the thresholds were chosen on.
    ``when`` is kept with what is found.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is no such decider, or there are no val frames.
    hsi_batch.errors.DataError
        The labels are of one class only.
    hsi_batch.errors.PlanError
        There are more val pixels than are held in memory.
    """
    check_calibration(pipeline, datamodule)
    nodes = calibrated_nodes(pipeline)
    _check_size(datamodule, len(nodes))
    scores: dict[str, list[NDArray[np.float32]]] = {node.name: [] for node in nodes}
    targets: list[NDArray[np.bool_]] = []
    for session, frame, lines in datamodule.selection("val"):
        try:
            batch = frame_batch(datamodule.archive.session(session), frame, lines)
        except SourceError:
            # It was told when the frame was first read.
            continue
        classes = pipeline.source.classes(batch["mask"].numpy())
        known = (classes >= 0) & batch["valid"].numpy()
        for name, values in _inputs_of(pipeline, nodes, batch).items():
            values[~known] = np.nan
            scores[name].append(values)
        targets.append(classes[..., None] == 1)
    wanted = _stacked(targets, fill=False)
    found = []
    for node in nodes:
        values = _stacked(scores[node.name], fill=np.nan)
        before = dict(node.hparams)
        cut = node.calibrate(torch.from_numpy(values), torch.from_numpy(wanted))
        # Of a gate and a threshold, the threshold is what decides on pixels.
        last = cut if hasattr(cut, "f1") else cut[-1]
        after = {k: v for k, v in node.hparams.items() if before.get(k) != v}
        was = {k: before.get(k) for k in after}
        found.append(Calibrated(node.name, was, after, last.f1, when))
    return found


def _check_size(datamodule: DataModule, deciders: int) -> None:
    pixels = 0
    for name, _, lines in datamodule.selection("val"):
        height, width, _ = datamodule.archive.session(name).geometry.shape
        pixels += ((lines[1] - lines[0]) if lines else height) * width
    needed = pixels * _BYTES_PER_PIXEL * deciders
    if needed > _MOST_BYTES:
        raise PlanError(
            f"calibrate: the scores of all val pixels are {sized(needed)}; at most"
            f" {sized(_MOST_BYTES)} are held.",
            hint="Name fewer val frames.",
        )


def _inputs_of(
    pipeline: Pipeline, nodes: list[Node], batch: Mapping[str, Any]
) -> dict[str, NDArray[np.float32]]:
    """What each decider is given for a frame."""
    names = {node.name for node in nodes}
    found: dict[str, NDArray[np.float32]] = {}

    def look(node: Node, given: dict[str, Any]) -> dict[str, Any]:
        if node.name in names:
            found[node.name] = given["logits"].detach().float().cpu().numpy().copy()
        return given

    with torch.no_grad():
        pipeline.forward(batch, keep=(), feed=look)
    return found


def _stacked(parts: list[NDArray[Any]], fill: Any) -> NDArray[Any]:
    """Frames one upon the other; smaller ones are filled up with what counts for nothing."""
    shape = tuple(max(part.shape[i] for part in parts) for i in (1, 2, 3))
    whole = np.full((sum(len(part) for part in parts), *shape), fill, dtype=parts[0].dtype)
    start = 0
    for part in parts:
        n, height, width, channels = part.shape
        whole[start : start + n, :height, :width, :channels] = part
        start += n
    return whole
