"""Running a pipeline over frames with its metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice
from hsi_batch.data.batches import frame_batch
from hsi_batch.data.module import DataModule, Split
from hsi_batch.errors import DataWarning, NotFittedError, PlanError, SourceError
from hsi_batch.nodes import Context, Metric, Node, PortRef, Stage
from hsi_batch.nodes.losses import LossNode
from hsi_batch.pipeline.lazy import MAX_FRAME_BYTES
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.run import Failure
from hsi_batch.training.feeding import Feed

__all__ = ["Evaluation", "StageResults", "check_sizes", "evaluate_frames", "metric_nodes"]

_EVALUATION = frozenset({Stage.VAL, Stage.TEST})


class StageResults(dict[str, Any]):
    """Metrics of a stage: ``results["metrics_anomaly/iou"]``, and all in ``results["metrics"]``.

    Attributes
    ----------
    stage : Stage
        What was measured.
    frames : int
        Frames that were run.
    failures : tuple of Failure
        Frames that could not be read and were left out.

    Parameters
    ----------
    values : mapping
        Values by ``node/metric``.
    stage, frames, failures
        As the attributes.

    Examples
    --------
    >>> results = StageResults({"metrics_anomaly/iou": 0.5}, Stage.VAL, frames=4)
    >>> results["metrics_anomaly/iou"], results["metrics"][0].name
    (0.5, 'metrics_anomaly/iou')
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
    losses: Iterable[Node] = (),
    pixels: PixelChoice = "valid",
) -> StageResults:
    """Run all nodes of a stage on its frames, one after the other, and give the pooled metrics.

    Metrics are fed with the pixels that the archive does not flag, and, where labels reach them,
    with labelled ones only: a frame without labels adds nothing. Values are those of all pixels of
    all frames together. A metric of a plug-in that cannot be pooled (it has no ``reset`` and
    ``compute``) is averaged over frames. Of the ``losses`` the means over frames are among the
    values: ``val_loss``, their sum, and ``val/NAME``.

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
    check_sizes(datamodule, selection)
    nodes = metric_nodes(pipeline) if measured is None else list(measured)
    run = Evaluation(pipeline, nodes, stage, pixels)
    failures = []
    for session, frame, lines in selection:
        try:
            batch = frame_batch(datamodule.archive.session(session), frame, lines)
        except SourceError as error:
            failures.append(Failure(BlockKey(session, frame, *(lines or (0, 0))), str(error)))
            warnings.warn(f"a frame was left out: {error}", DataWarning, stacklevel=3)
            continue
        run.add(batch)
    if nodes and run.frames and not run.labelled and run.judged:
        warnings.warn(
            f"none of the {run.frames} {split} frames is labelled, so there is nothing to compare"
            " with.",
            DataWarning,
            stacklevel=3,
        )
    means = run.losses()
    listed = {node.name: means[node.name] for node in losses if node.name in means}
    values = {f"{split}/{name}": value for name, value in listed.items()}
    if listed:
        values = {f"{split}_loss": math.fsum(listed.values()), **values}
    return StageResults({**run.values(), **values}, stage, run.frames, failures)


def check_sizes(datamodule: DataModule, selection: Selection) -> None:
    """Raise :class:`~hsi_batch.errors.PlanError` for frames that are too large to be run whole."""
    for name in selection.sessions:
        size = datamodule.archive.session(name).geometry.frame_bytes
        if size > MAX_FRAME_BYTES:
            raise PlanError(
                f"frames of session {name} have {size / 2**30:.1f} GiB; at most"
                f" {MAX_FRAME_BYTES / 2**30:.0f} GiB are run whole.",
                hint="Score the archive instead (hb.score): it works by blocks, and its result has"
                " metrics.",
            )


class Evaluation:
    """Metrics and losses of a stage, while frames go by.

    Parameters
    ----------
    pipeline : Pipeline
    nodes : sequence of Node
        Metrics.
    stage : Stage
    pixels : {"valid", "labelled-normal"}
        Pixels that losses without labels count.

    Attributes
    ----------
    frames, labelled : int
        Frames so far, and those of them that have labels.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        nodes: Sequence[Node],
        stage: Stage,
        pixels: PixelChoice = "valid",
    ) -> None:
        self.pipeline = pipeline
        self.stage = stage
        self.nodes = {node.name: node for node in nodes}
        self.feed = Feed(pipeline, self.nodes, pixels)
        self.pooled = [
            node for node in nodes if hasattr(node, "reset") and hasattr(node, "compute")
        ]
        self.frames = 0
        self.labelled = 0
        self._sums: dict[str, list[float]] = {}
        self._losses: dict[str, list[float]] = {}
        for node in self.pooled:
            node.reset()

    @property
    def judged(self) -> bool:
        """Whether labels reach any of the metrics."""
        return any(name in self.feed.judged for name in self.nodes)

    def add(self, batch: Mapping[str, Any], context: Context | None = None) -> None:
        """Run one frame."""
        self.labelled += self.feed.take(batch)
        at = context or Context(self.stage, 0, self.frames, self.frames)
        values = self.pipeline.forward(batch, context=at, keep=("metrics", "loss"), feed=self.feed)
        pooled = {node.name for node in self.pooled}
        for name in self.nodes.keys() - pooled:
            for metric in values.get(PortRef(name, "metrics"), ()):
                self._sums.setdefault(f"{name}/{metric.name}", []).append(float(metric.value))
        for name, node in self.pipeline.nodes.items():
            ref = PortRef(name, "loss")
            if isinstance(node, LossNode) and ref in values:
                self._losses.setdefault(name, []).append(float(values[ref]))
        self.frames += 1

    def values(self) -> dict[str, float]:
        """Metrics by ``node/metric``."""
        found = {
            f"{node.name}/{name}": float(value)
            for node in self.pooled
            for name, value in node.compute().items()
        }
        return found | {name: sum(all_) / len(all_) for name, all_ in self._sums.items()}

    def losses(self) -> dict[str, float]:
        """Mean over the frames of each loss, by the name of its node."""
        return {name: math.fsum(all_) / len(all_) for name, all_ in self._losses.items()}
