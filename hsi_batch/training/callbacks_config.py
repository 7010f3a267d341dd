"""Settings of what happens beside a training: checkpoints, early stopping, logs."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import AliasChoices, Field

from hsi_batch.training.settings import Settings

__all__ = [
    "CallbacksConfig",
    "EarlyStoppingConfig",
    "LearningRateMonitorConfig",
    "ModelCheckpointConfig",
]

_Mode = Literal["min", "max"]


class EarlyStoppingConfig(Settings):
    """When a training ends because a value no longer gets better.

    Parameters
    ----------
    monitor : str
        Value, such as ``val_loss`` or ``metrics_anomaly/iou``.
    patience : int
        Checks without an improvement of more than ``min_delta`` that are waited for.
    mode : {"min", "max"}
        Whether less or more is better.
    min_delta : float
        A change by less is none.
    stopping_threshold : float, optional
        End once it is better than this.
    divergence_threshold : float, optional
        End once it is worse than this.
    verbose, strict, check_finite, check_on_train_epoch_end, log_rank_zero_only
        As in ``EarlyStopping`` of PyTorch Lightning.

    Examples
    --------
    >>> EarlyStoppingConfig(monitor="metrics_anomaly/iou", mode="max").patience
    10
    """

    monitor: str
    patience: int = Field(default=10, ge=0)
    mode: _Mode = "min"
    min_delta: float = 0.0
    stopping_threshold: float | None = None
    verbose: bool = True
    strict: bool = True
    check_finite: bool = True
    divergence_threshold: float | None = None
    check_on_train_epoch_end: bool | None = None
    log_rank_zero_only: bool = False


class ModelCheckpointConfig(Settings):
    """Which states of a training are kept.

    Parameters
    ----------
    dirpath : str
        Folder of the files, within that of the run.
    filename : str, optional
        Their name, with ``{epoch}``, ``{step}`` and metrics in braces.
    monitor : str
        The metric that says which are best; the last ones are kept without.
    mode : {"min", "max"}
        Whether less or more of it is better.
    save_top_k : int
        Best states that are kept; -1 for all, 0 for none.
    every_n_epochs, save_last, verbose, save_on_exception, save_weights_only
        As in ``ModelCheckpoint`` of PyTorch Lightning, and so are the other keys.

    Examples
    --------
    >>> ModelCheckpointConfig(monitor="val_loss", save_top_k=1).dirpath
    'checkpoints'
    """

    dirpath: str = "checkpoints"
    filename: str | None = None
    monitor: str = "val_loss"
    mode: _Mode = "min"
    save_top_k: int = Field(default=3, ge=-1)
    every_n_epochs: int | None = None
    save_last: bool | None = False
    auto_insert_metric_name: bool = True
    verbose: bool = False
    save_on_exception: bool = False
    save_weights_only: bool = False
    every_n_train_steps: int | None = None
    train_time_interval: timedelta | None = None
    save_on_train_epoch_end: bool | None = None
    enable_version_counter: bool = True


class LearningRateMonitorConfig(Settings):
    """How the learning rate is logged.

    Parameters
    ----------
    logging_interval : {"epoch", "step"}, optional
        When it is logged; when it changes by default.
    log_momentum : bool
        Log momentum, too.
    log_weight_decay : bool
        Log weight decay, too.

    Examples
    --------
    >>> LearningRateMonitorConfig(logging_interval="step").log_momentum
    False
    """

    logging_interval: Literal["step", "epoch"] | None = "epoch"
    log_momentum: bool = False
    log_weight_decay: bool = False


class CallbacksConfig(Settings):
    """What happens beside the training; ``lr_monitor`` is a name of ``learning_rate_monitor``.

    Parameters
    ----------
    checkpoint : ModelCheckpointConfig, optional
        Which states are kept as files.
    early_stopping : list of EarlyStoppingConfig
        When to end before ``max_epochs``; each one may end it.
    learning_rate_monitor : LearningRateMonitorConfig, optional
        Log the learning rate.

    Examples
    --------
    >>> found = CallbacksConfig.from_dict({"lr_monitor": {"logging_interval": "step"}})
    >>> found.learning_rate_monitor.logging_interval
    'step'
    """

    checkpoint: ModelCheckpointConfig | None = None
    early_stopping: list[EarlyStoppingConfig] = Field(default_factory=list)
    learning_rate_monitor: LearningRateMonitorConfig | None = Field(
        default=None, validation_alias=AliasChoices("learning_rate_monitor", "lr_monitor")
    )

    @property
    def lr_monitor(self) -> LearningRateMonitorConfig | None:
        """The name of the seed pages."""
        return self.learning_rate_monitor
