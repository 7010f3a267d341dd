"""What happens at the ends of epochs: checkpoints, and stopping early."""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.files import write_atomically
from hsi_batch.training.config import CallbacksConfig

__all__ = ["KeepLast", "WholeFiles", "best_keeper", "make_callbacks", "monitored"]


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, whenever the process is killed."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002 - as the base has it
    ) -> None:
        """Write a checkpoint."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())


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
    config: CallbacksConfig, losses: Collection[str], metrics: Collection[str]
) -> list[Callback]:
    """The callbacks that the settings ask for, those that keep states last."""
    found: list[Callback] = []
    for stopping in config.early_stopping:
        options = stopping.model_dump()
        options["monitor"] = monitored(stopping.monitor, losses, metrics)
        # Reasons are in the result; the library would log them.
        found.append(EarlyStopping(**{**options, "verbose": False}))
    kept = config.checkpoint
    if kept is not None:
        options = kept.model_dump(exclude={"save_last"})
        options["monitor"] = monitored(kept.monitor, losses, metrics)
        found.append(ModelCheckpoint(**{**options, "verbose": False}))
        if kept.save_last:
            found.append(KeepLast(Path(kept.dirpath) / "last.ckpt"))
    return found


def best_keeper(callbacks: Collection[Callback]) -> ModelCheckpoint | None:
    """The callback that keeps the best states, if there is one."""
    return next((c for c in callbacks if isinstance(c, ModelCheckpoint)), None)
