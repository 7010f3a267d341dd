"""Running a pipeline over frames with its metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.selection import Selection
from hsi_batch.data.batches import frame_batch
from hsi_batch.data.module import DataModule, Split
from hsi_batch.errors import DataWarning, NotFittedError, PlanError, SourceError
from hsi_batch.nodes import Context, Metric, Node, PortRef, Stage
from hsi_batch.pipeline.lazy import MAX_FRAME_BYTES
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.run import Failure

__all__ = ["StageResults", "evaluate_frames", "metric_nodes"]

#: Ports of the data node that hold labels.
_LABELS = ("mask", "class_mask")
_EVALUATION = frozenset({Stage.VAL, Stage.TEST})


class StageResults(dict[str, Any]):
    """Metrics of a stage: ``results["metrics_anomaly/iou"]``, and all in ``results["metrics"]``.

    Attributes
    ----------
    stage : Stage
    frames : int
        Frames that were run.
    failures : tuple of Failure
        Frames that could not be read and were left out.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        stage: Stage,
        frames: int,
        failures: Sequence[Failure] = (),
    ) -> None:
        super().__init__(values)
        self.stage = stage
        self.frames = frames
        self.failures = tuple(failures)
        self["metrics"] = [Metric(name, value, stage) for name, value in values.items()]

    @property
    def metrics(self) -> dict[str, float]:
        """Values by ``node/metric``."""
        return {metric.name: metric.value for metric in self["metrics"]}

    def __missing__(self, name: str) -> Any:
        known = ", ".join(self.metrics) or "none: the pipeline has no metrics, or no frame labels"
        raise KeyError(f"{name!r} is not among the metrics ({known})")

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value:.6g}" for name, value in self.metrics.items())


def metric_nodes(pipeline: Pipeline) -> list[Node]:
    """Nodes that only run in val and test, and have an output ``metrics``."""
    return [
        node
        for node in pipeline.nodes.values()
        if "metrics" in node.OUTPUT_SPECS and node.stages <= _EVALUATION
    ]


def evaluate_frames(
    pipeline: Pipeline,
    datamodule: DataModule,
    stage: Stage,
    measured: Iterable[Node] | None = None,
) -> StageResults:
    """Run all nodes of a stage on its frames, one after the other, and give the pooled metrics.

    Metrics are fed with the pixels that the archive does not flag, and, where labels reach them,
    with labelled ones only: a frame without labels adds nothing. Values are those of all pixels of
    all frames together. A metric of a plug-in that cannot be pooled (it has no ``reset`` and
    ``compute``) is averaged over frames.

    Raises
    ------
    hsi_batch.errors.NotFittedError
        The pipeline is not fitted.
    hsi_batch.errors.PlanError
        A frame is too large to be run whole.
    """
    if not pipeline.fitted:
        missing = ", ".join(name for name, node in pipeline.nodes.items() if not node.fitted)
        raise NotFittedError(
            f"the pipeline {pipeline.name!r} is not fitted ({missing}).",
            hint="Fit it first: StatisticalTrainer(pipeline, datamodule).fit().",
        )
    split: Split = "val" if stage is Stage.VAL else "test"
    selection = datamodule.selection(split)
    if datamodule.undivided:
        warnings.warn(
            f"no frames were named for {split}, so these are metrics of the frames of the fit.",
            DataWarning,
            stacklevel=3,
        )
    _check_sizes(datamodule, selection)
    nodes = metric_nodes(pipeline) if measured is None else list(measured)
    run = _Evaluation(pipeline, nodes, stage)
    failures = []
    for session, frame, lines in selection:
        try:
            batch = frame_batch(datamodule.archive.session(session), frame, lines)
        except SourceError as error:
            failures.append(Failure(BlockKey(session, frame, *(lines or (0, 0))), str(error)))
            warnings.warn(f"a frame was left out: {error}", DataWarning, stacklevel=3)
            continue
        run.add(batch)
    if nodes and run.frames and not run.labelled and any(n.name in run.judged for n in nodes):
        warnings.warn(
            f"none of the {run.frames} {split} frames is labelled, so there is nothing to compare"
            " with.",
            DataWarning,
            stacklevel=3,
        )
    return StageResults(run.values(), stage, run.frames, failures)


def _check_sizes(datamodule: DataModule, selection: Selection) -> None:
    for name in selection.sessions:
        size = datamodule.archive.session(name).geometry.frame_bytes
        if size > MAX_FRAME_BYTES:
            raise PlanError(
                f"frames of session {name} have {size / 2**30:.1f} GiB; at most"
                f" {MAX_FRAME_BYTES / 2**30:.0f} GiB are run whole.",
                hint="Score the archive instead (hb.score): it works by blocks, and its result has"
                " metrics.",
            )


class _Evaluation:
    """Metrics while frames go by."""

    def __init__(self, pipeline: Pipeline, nodes: Sequence[Node], stage: Stage) -> None:
        self.pipeline = pipeline
        self.stage = stage
        self.nodes = {node.name: node for node in nodes}
        self.judged = _reached_by_labels(pipeline)
        self.pooled = [
            node for node in nodes if hasattr(node, "reset") and hasattr(node, "compute")
        ]
        self.frames = 0
        self.labelled = 0
        self._sums: dict[str, list[float]] = {}
        self._valid = torch.empty(0)
        self._known = torch.empty(0)
        for node in self.pooled:
            node.reset()

    def add(self, batch: Mapping[str, Any]) -> None:
        """Run one frame."""
        self._valid = batch["valid"]
        self._known = batch["valid"] & (batch["mask"] >= 0)
        self.labelled += bool(self._known.any())
        context = Context(self.stage, 0, self.frames, self.frames)
        values = self.pipeline.forward(batch, context=context, keep=("metrics",), feed=self._feed)
        pooled = {node.name for node in self.pooled}
        for name in self.nodes.keys() - pooled:
            for metric in values.get(PortRef(name, "metrics"), ()):
                self._sums.setdefault(f"{name}/{metric.name}", []).append(float(metric.value))
        self.frames += 1

    def _feed(self, node: Node, given: dict[str, Any]) -> dict[str, Any] | None:
        if node.name not in self.nodes:
            return given
        counted = self._known if node.name in self.judged else self._valid
        if bool(counted.all()):
            return given
        if not bool(counted.any()):
            return None
        return {port: _only(value, counted) for port, value in given.items()}

    def values(self) -> dict[str, float]:
        """Metrics by ``node/metric``."""
        found = {
            f"{node.name}/{name}": float(value)
            for node in self.pooled
            for name, value in node.compute().items()
        }
        return found | {name: sum(all_) / len(all_) for name, all_ in self._sums.items()}


def _only(value: Any, counted: Tensor) -> Any:
    """The pixels that count, as one line; what has no pixels stays."""
    if isinstance(value, list):
        return [_only(item, counted) for item in value]
    if isinstance(value, Tensor) and value.ndim == 4 and value.shape[:3] == counted.shape:
        return value[counted.to(value.device)][None, None]
    return value


def _reached_by_labels(pipeline: Pipeline) -> set[str]:
    """Nodes that labels reach, directly or through others."""
    reached: set[str] = set()
    for name in pipeline.order():
        sources = [ref for refs in pipeline.sources_of(name).values() for ref in refs]
        for ref in sources:
            labels = pipeline.nodes[ref.node].is_source and ref.port in _LABELS
            if labels or ref.node in reached:
                reached.add(name)
    return reached
