"""The gradient trainer: losses of the train frames are minimised over the nodes that are named."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsi_batch.archive.session import PixelChoice
from hsi_batch.data.loading import TrainingBatches
from hsi_batch.data.module import DataModule
from hsi_batch.data.patches import PatchPlan
from hsi_batch.errors import ConfigError, NotFittedError, did_you_mean
from hsi_batch.nodes import Node, Stage, TensorBoardMonitorNode
from hsi_batch.nodes.losses import LossNode
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.training.config import OptimizerConfig, SchedulerConfig, TrainerConfig
from hsi_batch.training.evaluation import (
    StageResults,
    check_sizes,
    evaluate_frames,
    metric_nodes,
)
from hsi_batch.training.results import TrainResult
from hsi_batch.training.split_check import check_splits

if TYPE_CHECKING:
    from distributed import Client

    from hsi_batch.engine.events import Observer

__all__ = ["GradientTrainer"]


class GradientTrainer:
    """Minimise losses over the nodes of a fitted pipeline that are not frozen.

    Losses that are listed are minimised, their sum; others of the graph are measured only. What is
    reported of an epoch are means over its batches, and metrics of all val frames together. Nodes
    that are frozen stay as they are, parameters and buffers. It runs on PyTorch Lightning (extra
    ``train``).

    Parameters
    ----------
    pipeline : Pipeline
        Fitted; :meth:`.Pipeline.unfreeze_nodes_by_name` says what is trained.
    datamodule : DataModule
        Where the batches of each stage come from.
    loss_nodes : sequence of Node or str
        At least one.
    metric_nodes : sequence of Node or str, optional
        Metrics of the val and test frames; all of the pipeline by default.
    trainer_config, optimizer_config, scheduler_config : optional
        Settings of the loop, the optimiser and the learning rate.
    monitors : sequence, optional
        Objects with ``log(name, value, step)`` that are given every value; the
        :class:`.TensorBoardMonitorNode` of the pipeline by default.
    seed : int
        Order of the frames, places of patches, and what nodes draw.
    pixels : {"valid", "labelled-normal"}
        Pixels that losses without labels count.
    patch, patches_per_frame, balance
        Random patches (lines, pixels) instead of whole frames, how many of each frame, and the
        share of them that hold a labelled anomaly, where there is one.
    observer : callable, optional
        Told of progress.
    release_cuda_cache : bool
        On a GPU, hand memory that is kept for batches back before and after each validation.
    resources : mapping of str to float, optional
        Train on a worker of the cluster that offers these (``{"GPU": 1}``), not in this process.
        Checkpoints, values and progress come back, and are written here.
    client : distributed.Client, optional
        Of the cluster; the current one by default.

    Examples
    --------
    >>> from hsi_batch.data import ArchiveDataModule
    >>> from hsi_batch.training import StatisticalTrainer, TrainerConfig
    >>> from hsi_batch.training.trainrun import build_pipeline, read_trainrun
    >>> run = "workflows/trainruns/channel_selector.yaml"
    >>> pipeline = build_pipeline(read_trainrun(run)[0], run)
    >>> module = ArchiveDataModule("archive.zarr", train="scene_000", val="scene_001")
    >>> fitted = StatisticalTrainer(pipeline, module).fit()
    >>> pipeline.unfreeze_nodes_by_name(["selector"])
    >>> short = TrainerConfig(max_epochs=2, enable_progress_bar=False)
    >>> losses = [pipeline.nodes["bce"]]
    >>> GradientTrainer(pipeline, module, loss_nodes=losses, trainer_config=short).fit().epochs
    2
    """

    def __init__(
        self,
        pipeline: Pipeline,
        datamodule: DataModule,
        loss_nodes: Sequence[Node | str],
        metric_nodes: Sequence[Node | str] | None = None,
        trainer_config: TrainerConfig | None = None,
        optimizer_config: OptimizerConfig | None = None,
        scheduler_config: SchedulerConfig | None = None,
        monitors: Sequence[Any] | None = None,
        *,
        seed: int = 42,
        pixels: PixelChoice = "valid",
        patch: Sequence[int] | None = None,
        patches_per_frame: int = 1,
        balance: float | None = None,
        observer: Observer | None = None,
        release_cuda_cache: bool = False,
        resources: Mapping[str, float] | None = None,
        client: Client | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.datamodule = datamodule
        self.loss_nodes = [self._node(n, "loss") for n in loss_nodes]
        self.metric_nodes = (
            None if metric_nodes is None else [self._node(n, "metric") for n in metric_nodes]
        )
        self.trainer_config = trainer_config or TrainerConfig()
        self.optimizer_config = optimizer_config or OptimizerConfig()
        self.scheduler_config = scheduler_config
        self.monitors = (
            [n for n in pipeline.nodes.values() if isinstance(n, TensorBoardMonitorNode)]
            if monitors is None
            else list(monitors)
        )
        self.seed = seed
        self.pixels: PixelChoice = pixels
        self.observer = observer if self.trainer_config.enable_progress_bar else None
        self.release_cuda_cache = release_cuda_cache
        self.resources = dict(resources or {})
        self.client = client
        self._patches = None
        if patch is not None:
            tall, wide = (int(n) for n in patch) if len(patch) == 2 else (0, 0)
            source: Any = pipeline.source
            self._patches = PatchPlan(
                (tall, wide),
                patches_per_frame,
                balance,
                positive=lambda labels: source.classes(labels) == 1,
            )
        elif patches_per_frame != 1 or balance is not None:
            raise ConfigError(
                "patches_per_frame and balance need `patch`, the size of patches.",
                hint="Give it, or leave them out.",
            )
        self.result: TrainResult | None = None

    def _node(self, given: Node | str, kind: str) -> Node:
        name = given if isinstance(given, str) else given.name
        found = self.pipeline.nodes.get(name)
        if found is None or (isinstance(given, Node) and found is not given):
            raise ConfigError(
                f"the {kind} node {name!r} is not in the pipeline."
                f"{did_you_mean(name, self.pipeline.nodes)}",
                hint=f"It has {', '.join(self.pipeline.nodes)}. Connect the node first.",
            )
        if kind == "loss" and not isinstance(found, LossNode):
            raise ConfigError(
                f"{name} ({type(found).__name__}) is no loss.",
                hint="A loss has one output `loss`, a number.",
            )
        return found

    # -- fit -----------------------------------------------------------------------------------

    def fit(
        self,
        ckpt_path: str | os.PathLike[str] | None = None,
        *,
        last: str | os.PathLike[str] | None = None,
    ) -> TrainResult:
        """Train in place; the best state is taken in the end, if the settings keep one.

        Parameters
        ----------
        ckpt_path : path, optional
            Go on from this checkpoint of the same training.
        last : path, optional
            Keep the state at the end of each epoch in this file, and go on from it if it is there.

        Raises
        ------
        hsi_batch.errors.ConfigError
            Nothing would be trained, train frames are in val or test, or settings are wrong;
            nothing was started.
        hsi_batch.errors.NotFittedError
            The pipeline is not fitted.
        hsi_batch.errors.DataError
            A loss is not a finite number, or has no labels to compare with.
        """
        self._check()
        self.check_settings()
        resume = None if ckpt_path is None else Path(ckpt_path)
        kept = None if last is None else Path(last)
        if self.resources:
            from hsi_batch.training.elsewhere import run_elsewhere

            client, self.client = self.client, None
            try:
                self.result = run_elsewhere(self, resume, kept, client, self.resources)
            finally:
                self.client = client
        else:
            from hsi_batch.training.loop import run_loop

            self.result = run_loop(self, resume, kept)
        self._note(self.result)
        return self.result

    def check_settings(self) -> None:
        """Check what can be checked before the pipeline is fitted.

        Raises
        ------
        hsi_batch.errors.ConfigError
            Settings are wrong, no loss is listed, or train frames are in val or test.
        """
        if not self.loss_nodes:
            raise ConfigError(
                "no loss is listed.",
                hint="List the nodes whose losses are minimised (loss_nodes).",
            )
        import_lightning()
        from hsi_batch.training.loop_settings import check_loop

        check_loop(self)
        check_splits(self.datamodule)

    def _check(self) -> None:
        pipeline = self.pipeline
        if not pipeline.fitted:
            missing = ", ".join(name for name, node in pipeline.nodes.items() if not node.fitted)
            raise NotFittedError(
                f"the pipeline {pipeline.name!r} is not fitted ({missing}).",
                hint="Fit it first: StatisticalTrainer(pipeline, datamodule).fit().",
            )
        pipeline.unfreeze_nodes_by_name([n for n in pipeline.nodes if n in self.unfrozen])
        if not any(p.requires_grad for p in pipeline.parameters()):
            raise ConfigError(
                "nothing would be trained: all nodes are frozen, or have no parameters.",
                hint="Name nodes to train (pipeline.unfreeze_nodes_by_name, or unfreeze_nodes in a"
                " trainrun).",
            )

    @property
    def unfrozen(self) -> list[str]:
        """Names of the nodes that are trained."""
        return [name for name, node in self.pipeline.nodes.items() if not node.frozen]

    @property
    def metrics(self) -> list[Node]:
        """Metrics that are measured."""
        return metric_nodes(self.pipeline) if self.metric_nodes is None else self.metric_nodes

    def train_batches(self) -> TrainingBatches:
        """Batches of the train frames."""
        data = self.datamodule
        selection = data.selection("train")
        if self._patches is None:
            check_sizes(data, selection)
        return TrainingBatches(
            data.archive,
            selection,
            data.batch_size,
            seed=self.seed,
            patches=self._patches,
            threads=data.num_workers or 2,
            limit=self.trainer_config.limit_train_batches,
        )

    def val_batches(self) -> TrainingBatches | None:
        """The val frames, one by one and in order; None if there are none."""
        data = self.datamodule
        if not self.validates:
            return None
        selection = data.selection("val")
        check_sizes(data, selection)
        limit = self.trainer_config.limit_val_batches
        return TrainingBatches(data.archive, selection, shuffle=False, limit=limit)

    @property
    def validates(self) -> bool:
        """Whether there are val frames to look at."""
        return self.datamodule.has("val") and self.trainer_config.limit_val_batches != 0

    def _note(self, result: TrainResult) -> None:
        # Measured on scores that are no more.
        self.pipeline.precision = {}
        self.pipeline.provenance = {
            **self.pipeline.provenance,
            "training": {
                "nodes": list(result.nodes),
                "losses": [node.name for node in self.loss_nodes],
                "epochs": result.epochs,
                "seed": self.seed,
                "best": None if result.best is None else [result.best.monitor, result.best.value],
            },
        }

    # -- evaluation ------------------------------------------------------------------------------

    def validate(self, ckpt_path: str | os.PathLike[str] | None = None) -> StageResults:
        """Metrics of the val frames and means of the losses; see :func:`.evaluate_frames`.

        Parameters
        ----------
        ckpt_path : path or "best", optional
            Take the state of a checkpoint first.
        """
        return self._evaluate(Stage.VAL, ckpt_path)

    def test(self, ckpt_path: str | os.PathLike[str] | None = "best") -> StageResults:
        """Metrics of the test frames and means of the losses; see :func:`.evaluate_frames`."""
        return self._evaluate(Stage.TEST, ckpt_path)

    def _evaluate(self, stage: Stage, path: str | os.PathLike[str] | None) -> StageResults:
        if path == "best":
            path = (
                None if self.result is None or self.result.best is None else self.result.best.path
            )
        if path is not None and Path(path).exists():
            from hsi_batch.training.loop import take_checkpoint

            take_checkpoint(self.pipeline, Path(path))
        elif path is not None:
            raise ConfigError(
                "there is no such checkpoint.", path=os.fspath(path), hint="Check the path."
            )
        return evaluate_frames(
            self.pipeline, self.datamodule, stage, self.metrics, self.loss_nodes, self.pixels
        )


def import_lightning() -> None:
    """Raise :class:`~hsi_batch.errors.ConfigError` where PyTorch Lightning is not installed."""
    try:
        import pytorch_lightning  # noqa: F401
    except ImportError:
        raise ConfigError(
            "gradient training needs the package pytorch-lightning, which is not installed.",
            hint="Install it: pip install 'hsi-batch[train]'.",
        ) from None
