"""The statistical trainer: a fit of the train frames, metrics of the val and test frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hsi_batch.archive.session import PixelChoice
from hsi_batch.data.module import DataModule
from hsi_batch.errors import ConfigError, HsiBatchWarning
from hsi_batch.nodes import CU3SDataNode, Node, Stage
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.fit import fit
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.training.evaluation import StageResults, evaluate_frames

if TYPE_CHECKING:
    from distributed import Client

    from hsi_batch.engine.events import Observer

__all__ = ["StatisticalTrainer"]


class StatisticalTrainer:
    """Fit the statistical nodes of a pipeline to the train frames of a data module.

    Thin over :func:`hsi_batch.fit`: as few passes as possible over the archive, none where its
    stored statistics suffice.

    Parameters
    ----------
    pipeline : Pipeline, optional
        Here or in :meth:`fit`.
    datamodule : DataModule, optional
        Here or in :meth:`fit`.
    metric_nodes : sequence of Node, optional
        Metrics that :meth:`validate` and :meth:`test` give; all of the pipeline by default.
    pixels : {"valid", "labelled-normal"}
        Pixels that the fit counts.
    client, workers, observer
        As for :func:`hsi_batch.fit`.

    Examples
    --------
    >>> from hsi_batch.data import ArchiveDataModule
    >>> pipeline = Pipeline.from_yaml("workflows/pipelines/rx_statistical.yaml")
    >>> module = ArchiveDataModule("archive.zarr", train="scene_000", val="scene_001")
    >>> trainer = StatisticalTrainer(pipeline, module)
    >>> trainer.fit().pixels
    1200
    >>> 0 <= trainer.validate()["metrics_anomaly/iou"] <= 1
    True
    """

    def __init__(
        self,
        pipeline: Pipeline | None = None,
        datamodule: DataModule | None = None,
        metric_nodes: Sequence[Node] | None = None,
        *,
        pixels: PixelChoice = "valid",
        client: Client | None = None,
        workers: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.datamodule = datamodule
        self.metric_nodes = metric_nodes
        self.pixels: PixelChoice = pixels
        self._running = {"client": client, "workers": workers, "observer": observer}

    def fit(
        self, pipeline: Pipeline | None = None, datamodule: DataModule | None = None
    ) -> FitResult:
        """Fit in place; nodes that were fitted before are fitted again.

        A statistical node that was added but not connected yet is fitted to the recorded cube, and
        a warning says so.

        Returns
        -------
        FitResult
        """
        self.pipeline = pipeline or self.pipeline
        self.datamodule = datamodule or self.datamodule
        chosen, data = self._given()
        data.setup("fit")
        whole = _with_loose_nodes(chosen)
        result = fit(
            whole,
            data.archive,
            frames=data.frames("train"),
            pixels=self.pixels,
            # The recipes of cuvis-ai see stored values.
            raw_values=True,
            **self._running,  # type: ignore[arg-type]
        )
        if whole is not chosen:
            chosen.precision = {k: v for k, v in whole.precision.items() if k in chosen.nodes}
            chosen.provenance, chosen.reference = whole.provenance, whole.reference
        return result

    def validate(self) -> StageResults:
        """Metrics of the val frames; see :func:`.evaluate_frames`."""
        return evaluate_frames(*self._given(), Stage.VAL, self.metric_nodes)

    def test(self) -> StageResults:
        """Metrics of the test frames; see :func:`.evaluate_frames`."""
        return evaluate_frames(*self._given(), Stage.TEST, self.metric_nodes)

    def _given(self) -> tuple[Pipeline, DataModule]:
        if self.pipeline is None or self.datamodule is None:
            missing = "pipeline" if self.pipeline is None else "datamodule"
            raise ConfigError(
                f"the trainer has no {missing}.",
                hint="Give it to StatisticalTrainer(pipeline=..., datamodule=...) or to fit().",
            )
        return self.pipeline, self.datamodule


def _with_loose_nodes(pipeline: Pipeline) -> Pipeline:
    """The pipeline, or one of the same nodes in which the loose ones are fed with the cube."""
    joined = {ref.node for edge in pipeline.edges for ref in edge}
    loose = [
        node
        for name, node in pipeline.nodes.items()
        if name not in joined and node.requires_initial_fit and len(_needed(node)) == 1
    ]
    if not loose:
        return pipeline
    whole = Pipeline(pipeline.name, lenient=True)
    for node in pipeline.nodes.values():
        whole.add_node(node)
    whole.connect(
        *(
            (
                pipeline.nodes[edge.source.node].outputs[edge.source.port],
                pipeline.nodes[edge.target.node].inputs[edge.target.port],
            )
            for edge in pipeline.edges
        )
    )
    sources = [node for node in pipeline.nodes.values() if node.is_source]
    source = sources[0] if sources else CU3SDataNode()
    for node in loose:
        (port,) = _needed(node)
        whole.connect(source.outputs["cube"], node.inputs[port])
        warnings.warn(
            f"{node.name} is not connected yet; it is fitted to the cube as recorded.",
            HsiBatchWarning,
            stacklevel=3,
        )
    return whole


def _needed(node: Node) -> list[str]:
    """Inputs without which a node cannot run."""
    return [port for port, spec in node.INPUT_SPECS.items() if not spec.optional]
