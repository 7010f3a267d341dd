"""The training loop's view of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hsi_batch.archive.session import PixelChoice
from hsi_batch.data.loading import TrainingBatches
from hsi_batch.engine.events import Observer
from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes import Context, Node, PortRef, Stage
from hsi_batch.nodes.annealed import Annealed
from hsi_batch.nodes.losses import LossNode
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.training.callbacks_config import LearningRateMonitorConfig
from hsi_batch.training.channel_weights import channel_weights
from hsi_batch.training.checkpoints import STATE
from hsi_batch.training.config import (
    OptimizerConfig,
    SchedulerConfig,
)
from hsi_batch.training.evaluation import Evaluation
from hsi_batch.training.feeding import Feed
from hsi_batch.training.node_state import pipeline_state, restore_pipeline_state
from hsi_batch.training.results import TrainProgress
from hsi_batch.training.schedules import Schedule, make_optimizer

__all__ = ["TrainingModule"]


class TrainingModule(pl.LightningModule):
    """A pipeline in training: one step is the sum of the listed losses of one batch.

    Everything random in a step follows from the seed, the epoch and the batch, so that a training
    that is resumed at the end of an epoch goes on as it would have.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted, with the nodes that train unfrozen.
    losses, metrics : sequence of Node
        Losses that are minimised; metrics of the val frames.
    optimizer, scheduler
        Settings.
    max_epochs, seed : int
    monitors : sequence
        Objects with ``log(name, value, step)``.
    log_every : int
        Steps between two values of the loss that monitors are given.
    pixels : {"valid", "labelled-normal"}
        Pixels that losses without labels count.
    observer : callable
        Told of progress.
    batches : TrainingBatches
    rate_monitor : LearningRateMonitorConfig
        What of the optimiser monitors are given.
    release_cuda_cache : bool
        Hand kept memory of a GPU back around validations.

    Attributes
    ----------
    history : list of dict
        Values of each epoch.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        losses: Sequence[Node],
        metrics: Sequence[Node],
        *,
        optimizer: OptimizerConfig,
        scheduler: SchedulerConfig | None,
        max_epochs: int,
        seed: int,
        batches: TrainingBatches,
        monitors: Sequence[Any] = (),
        log_every: int = 50,
        pixels: PixelChoice = "valid",
        observer: Observer | None = None,
        rate_monitor: LearningRateMonitorConfig | None = None,
        release_cuda_cache: bool = False,
    ) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.pipeline_modules = nn.ModuleList(pipeline.nodes.values())
        self.history: list[dict[str, float]] = []
        self._listed = [node.name for node in losses]
        self._metrics = list(metrics)
        self._settings = optimizer, scheduler
        self._max_epochs = max_epochs
        self._seed = seed
        self._batches = batches
        self._monitors = list(monitors)
        self._log_every = log_every
        self._pixels = pixels
        self._observer = observer
        self._rate_monitor = rate_monitor
        self._release = release_cuda_cache
        self._feed = Feed(pipeline, (), pixels)
        self._sums: dict[str, list[tuple[float, int]]] = {}
        self._values: dict[str, float] = {}
        self._labelled = False
        self._evaluation: Evaluation | None = None
        self._schedule: Schedule | None = None
        self._restored: Mapping[str, Any] = {}
        self.progress = TrainProgress("train", len(batches) * max_epochs, epochs=max_epochs)

    # -- optimiser ---------------------------------------------------------------------------

    def configure_optimizers(self) -> Optimizer:
        """The optimiser of the parameters that are not frozen, and its schedule."""
        trained = [p for p in self.pipeline.parameters() if p.requires_grad]
        optimizer = make_optimizer(trained, self._settings[0])
        self._schedule = Schedule(optimizer, self._settings[1], self._max_epochs)
        self._schedule.restore(self._restored)
        return optimizer

    @property
    def rate(self) -> float:
        """The learning rate."""
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        return float(optimizer.param_groups[0]["lr"])

    # -- training ----------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Anneal, and shuffle."""
        if self.current_epoch == 0 and self._monitors:
            self._log(channel_weights(self.pipeline))
        self._batches.epoch = self.current_epoch
        self.progress.epoch = self.current_epoch + 1
        self._sums = {}
        for node in self.pipeline.nodes.values():
            if isinstance(node, Annealed) and not node.frozen:
                node.begin_epoch(self.current_epoch)
        self._log_rate("epoch")

    def _log_rate(self, interval: str) -> None:
        """Log the rate, and what else of the optimiser is asked for."""
        wanted = self._rate_monitor
        if wanted is None or (wanted.logging_interval or "epoch") != interval:
            return
        optimizer = self.optimizers()
        inner: Any = getattr(optimizer, "optimizer", optimizer)
        name, group = f"lr-{type(inner).__name__}", inner.param_groups[0]
        values = {name: float(group["lr"])}
        if wanted.log_momentum:
            momentum = group["momentum"] if "momentum" in group else group["betas"][0]
            values[f"{name}-momentum"] = float(momentum)
        if wanted.log_weight_decay:
            values[f"{name}-weight_decay"] = float(group["weight_decay"])
        self._log(values)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The sum of the listed losses."""
        seeds = np.random.SeedSequence([self._seed, self.current_epoch, batch_idx])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        context = Context(Stage.TRAIN, self.current_epoch, batch_idx, self.global_step)
        self._labelled |= self._feed.take(batch)
        values = self.pipeline.forward(batch, context=context, keep=("loss",), feed=self._feed)
        losses = {
            name: values[PortRef(name, "loss")]
            for name, node in self.pipeline.nodes.items()
            if isinstance(node, LossNode) and PortRef(name, "loss") in values
        }
        total = torch.stack([losses[name] for name in self._listed]).sum()
        self._judge(total, losses, batch_idx)
        weight = len(batch["cube"])
        for name, value in {"train_loss": total, **_named("train", losses)}.items():
            self._sums.setdefault(name, []).append((float(value.detach()), weight))
        self._tell(float(total.detach()), batch_idx)
        return total

    def _judge(self, total: Tensor, losses: Mapping[str, Tensor], batch_idx: int) -> None:
        if not total.requires_grad:
            raise PipelineError(
                f"the losses {', '.join(self._listed)} do not depend on any node that is trained.",
                hint="Unfreeze a node that feeds them (unfreeze_nodes).",
            )
        if not bool(torch.isfinite(total)):
            bad = [name for name in self._listed if not bool(torch.isfinite(losses[name]))]
            raise DataError(
                f"the loss {', '.join(bad)} is {float(total.detach())} in epoch"
                f" {self.current_epoch}, batch {batch_idx}.",
                hint="Lower the learning rate, clip gradients (gradient_clip_val), or scale the"
                " data.",
            )

    def _tell(self, loss: float, batch_idx: int) -> None:
        step = self.global_step
        if step % self._log_every == 0:
            self._log({"train/loss_step": loss})
        self._log_rate("step")
        self.progress.done = self.current_epoch * len(self._batches) + batch_idx + 1
        self.progress.loss = loss
        self.progress.waited = self._batches.waited
        if self._observer is not None:
            self._observer(self.progress)

    def on_train_epoch_end(self) -> None:
        """Means of the epoch, then the learning rate of the next one."""
        judged = [name for name in self._listed if name in self._feed.judged]
        if judged and not self._labelled:
            raise DataError(
                f"no pixel of the train frames is labelled, so {', '.join(judged)} has nothing to"
                " compare with.",
                hint="Name frames with labels for train, or add labels to the recordings.",
            )
        means = {
            name: math.fsum(v * w for v, w in parts) / sum(w for _, w in parts)
            for name, parts in self._sums.items()
        }
        self._take(means)
        values = {"epoch": float(self.current_epoch), "lr": self.rate, **self._values}
        self.history.append(values)
        self._log(means)
        if self._monitors:
            self._log(channel_weights(self.pipeline))
        assert self._schedule is not None
        self._schedule.end_epoch(self.current_epoch, self._values)
        self._values = {}

    def _take(self, values: Mapping[str, float]) -> None:
        """Make values known to what monitors them."""
        self._values.update(values)
        # In float64, so that the library rounds nothing.
        self.log_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()})

    def _log(self, values: Mapping[str, float]) -> None:
        for monitor in self._monitors:
            for name, value in values.items():
                monitor.log(name, value, step=self.global_step)

    # -- validation --------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Make room on the GPU, if that is asked for."""
        self._make_room()

    def on_validation_end(self) -> None:
        """Make room on the GPU, if that is asked for."""
        self._make_room()

    def _make_room(self) -> None:
        if self._release and self.device.type == "cuda":
            torch.cuda.empty_cache()

    def on_validation_epoch_start(self) -> None:
        """Begin to measure."""
        self._evaluation = Evaluation(self.pipeline, self._metrics, Stage.VAL, self._pixels)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Measure one frame."""
        assert self._evaluation is not None
        context = Context(Stage.VAL, self.current_epoch, batch_idx, self.global_step)
        self._evaluation.add(batch, context)

    def on_validation_epoch_end(self) -> None:
        """Metrics of all val frames together, and means of their losses."""
        assert self._evaluation is not None
        if self.trainer.sanity_checking:
            # Only whether it runs; nothing was trained yet.
            return
        losses = self._evaluation.losses()
        listed = [losses[name] for name in self._listed if name in losses]
        values = {**self._evaluation.values(), **_named("val", losses)}
        if listed:
            values["val_loss"] = math.fsum(listed)
        self._take(values)
        self._log(values)

    # -- checkpoints -------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the nodes, which the names of weights files do not cover."""
        checkpoint[STATE] = {
            "nodes": pipeline_state(self.pipeline),
            "schedule": {} if self._schedule is None else self._schedule.state(),
            "history": [dict(values) for values in self.history],
            "stopped": bool(self.trainer.should_stop),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Inverse of :meth:`on_save_checkpoint`."""
        held = checkpoint[STATE]
        restore_pipeline_state(self.pipeline, held["nodes"])
        self.history = [dict(values) for values in held["history"]]
        self._restored = held["schedule"]
        if self._schedule is not None:
            self._schedule.restore(self._restored)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """Weights by ``node.name``, as in weights files."""
        return {
            f"{name}.{key}": value
            for name, node in self.pipeline.nodes.items()
            for key, value in node.state_dict().items()
        }

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        """Nothing: nodes are restored as a whole."""


def _named(stage: str, losses: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{stage}/{name}": value for name, value in losses.items()}
