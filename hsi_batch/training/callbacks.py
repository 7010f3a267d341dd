"""What happens at the ends of epochs: checkpoints, and stopping early."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint

from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.training.callbacks_config import CallbacksConfig

__all__ = ["KeepBest", "KeepLast", "Pause", "best_keeper", "make_callbacks", "monitored"]


class KeepBest(ModelCheckpoint):
    """Keep the best states, under the same names however often the training was killed.

    A file that this training did not keep (of an epoch that is done again because the training was
    killed in it, or of an earlier training) is written over. Names only get a version (``-v1``)
    where two states of one training would have the same.
    """

    def file_exists(self, filepath: str | os.PathLike[str], trainer: pl.Trainer) -> bool:  # noqa: ARG002
        """Whether the name is that of a state that is kept."""
        return str(filepath) in self.best_k_models


class KeepLast(Checkpoint):
    """Keep the state at the end of each epoch in one file, from which a training goes on.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write the file."""
        trainer.save_checkpoint(self.path)


class Pause(Checkpoint):
    """End a stretch of a training after the epoch in which its time is over.

    It must stand behind the callbacks that keep states, for which the training goes on.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.paused = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Look at the clock."""
        if time.monotonic() >= self._until and not trainer.should_stop:
            self.paused = trainer.should_stop = True


def monitored(name: str, losses: Collection[str], metrics: Collection[str]) -> str:
    """The name under which a value is known, from the one in the settings.

    ``val/NODE/METRIC`` is ``NODE/METRIC``, as metrics are of the val frames.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No such value is measured.
    """
    known = ["train_loss", "val_loss"]
    known += [f"{stage}/{loss}" for loss in losses for stage in ("train", "val")]
    for stage in ("train", "val"):
        if name == f"{stage}/loss":
            return f"{stage}_loss"
    if name in known:
        return name
    short = name.removeprefix("val/")
    if short.rpartition("/")[0] in metrics:
        return short
    raise ConfigError(
        f"nothing measures {name!r}.{did_you_mean(name, known)}",
        hint=f"There are {', '.join(known)}, and NODE/METRIC of the metric nodes"
        f" ({', '.join(metrics) or 'none'}).",
    )


def make_callbacks(
    config: CallbacksConfig,
    losses: Collection[str],
    metrics: Collection[str],
    *,
    val_per_epoch: bool = True,
) -> list[Callback]:
    """The callbacks that the settings ask for, those that keep states last.

    With ``val_per_epoch``, one validation at the end of each epoch, states are kept after it, of
    whole epochs; else after each validation, in the middle of epochs too.
    """
    found: list[Callback] = []
    for stopping in config.early_stopping:
        options = stopping.model_dump()
        options["monitor"] = monitored(stopping.monitor, losses, metrics)
        # Reasons are in the notes of the result; the library would log them.
        found.append(EarlyStopping(**{**options, "verbose": False}))
    kept = config.checkpoint
    if kept is not None:
        options = kept.model_dump(exclude={"save_last"})
        options["monitor"] = monitored(kept.monitor, losses, metrics)
        if kept.save_on_train_epoch_end is None and val_per_epoch:
            options["save_on_train_epoch_end"] = True
        found.append(KeepBest(**{**options, "verbose": False}))
        if kept.save_last:
            found.append(KeepLast(Path(kept.dirpath) / "last.ckpt"))
    return found


def best_keeper(callbacks: Collection[Callback]) -> ModelCheckpoint | None:
    """The callback that keeps the best states, if there is one."""
    return next((c for c in callbacks if isinstance(c, ModelCheckpoint)), None)
