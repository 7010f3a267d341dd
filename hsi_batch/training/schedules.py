"""The learning rate over the epochs of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.training.config import OptimizerConfig, SchedulerConfig

__all__ = ["Schedule", "check_optimizer", "check_schedule", "make_optimizer"]

_NAMES = ("reduce_on_plateau", "plateau", "cosine", "step", "exponential", "none")
_OPTIMIZERS = ("adam", "adamw", "sgd")


class Schedule:
    """Learning rates by epoch: a warm-up, then what the settings name.

    With ``w`` epochs of warm-up, epoch ``e < w`` has ``lr (e + 1) / (w + 1)``. After it, with
    ``n = e - w``: cosine ``min_lr + (lr - min_lr) (1 + cos(pi n / t_max)) / 2`` (Loshchilov and
    Hutter 2017), step ``lr gamma^(n // step_size)``, exponential ``lr gamma^n``. On a plateau the
    rate is multiplied by ``factor`` whenever the monitored value got no better for ``patience``
    epochs.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    config : SchedulerConfig, optional
        None keeps the rate.
    max_epochs : int

    Attributes
    ----------
    monitor : str or None
        The value that a plateau looks at.
    """

    def __init__(
        self, optimizer: Optimizer, config: SchedulerConfig | None, max_epochs: int
    ) -> None:
        self.config = config or SchedulerConfig()
        check_schedule(self.config, max_epochs)
        self.name = (self.config.name or "none").lower()
        self.max_epochs = max_epochs
        self._optimizer = optimizer
        self._lr = float(optimizer.param_groups[0]["lr"])
        self._plateau: ReduceLROnPlateau | None = None
        self.monitor: str | None = None
        if self.name in ("reduce_on_plateau", "plateau"):
            c = self.config
            self.monitor = c.monitor or "val_loss"
            self._plateau = ReduceLROnPlateau(
                optimizer,
                mode=c.mode,
                factor=c.factor,
                patience=c.patience,
                threshold=c.threshold,
                threshold_mode=c.threshold_mode,
                cooldown=c.cooldown,
                min_lr=c.min_lr,
                eps=c.eps,
            )
        else:
            self._set(self.rate(0))

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, for schedules that look at nothing else."""
        c, warm = self.config, self.config.warmup_epochs
        if epoch < warm:
            return self._lr * (epoch + 1) / (warm + 1)
        after = epoch - warm
        if self.name == "cosine":
            whole = c.t_max or max(self.max_epochs - warm, 1)
            share = (1 + math.cos(math.pi * after / whole)) / 2
            return c.min_lr + (self._lr - c.min_lr) * share
        if self.name == "step":
            fallen = after // (c.step_size or 1)
            return float(self._lr * (0.1 if c.gamma is None else c.gamma) ** fallen)
        if self.name == "exponential":
            return float(self._lr * (0.99 if c.gamma is None else c.gamma) ** after)
        return self._lr

    def end_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Set the rate of the epoch after ``epoch``, of which these are the values."""
        if self._plateau is None:
            self._set(self.rate(epoch + 1))
        elif self.monitor is not None and self.monitor in values:
            self._plateau.step(values[self.monitor])

    def _set(self, rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """What a resumed training needs; the rate itself is part of the optimiser."""
        if self._plateau is None:
            return {}
        kept = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {key: getattr(self._plateau, key) for key in kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        for key, value in state.items():
            setattr(self._plateau, key, value)


def check_schedule(config: SchedulerConfig, max_epochs: int) -> None:
    """Raise :class:`~hsi_batch.errors.ConfigError` for settings that mean nothing."""
    name = (config.name or "none").lower()
    if name not in _NAMES:
        raise ConfigError(
            f"there is no schedule {config.name!r}.{did_you_mean(name, _NAMES)}",
            hint=f"There are {', '.join(_NAMES)}.",
        )
    if config.warmup_epochs >= max_epochs:
        raise ConfigError(
            f"warmup_epochs {config.warmup_epochs} must be less than max_epochs {max_epochs}."
        )
    if config.warmup_epochs and name in ("reduce_on_plateau", "plateau"):
        raise ConfigError("a schedule on a plateau has no warm-up.", hint="Set warmup_epochs to 0.")


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise :class:`~hsi_batch.errors.ConfigError` if there is no such optimiser."""
    name = config.name.lower()
    if name not in _OPTIMIZERS:
        raise ConfigError(
            f"there is no optimiser {config.name!r}.{did_you_mean(name, _OPTIMIZERS)}",
            hint=f"There are {', '.join(_OPTIMIZERS)}.",
        )
    if config.idle_momentum:
        raise ConfigError(
            f"momentum {config.momentum:g} is of sgd; {name} has none.",
            hint="Leave it out, or write betas: the first of them is what momentum is to sgd.",
        )
    if name == "sgd" and config.betas is not None:
        raise ConfigError("betas are of adam and adamw; sgd has none.", hint="Leave them out.")


def make_optimizer(parameters: list[Any], config: OptimizerConfig) -> Optimizer:
    """The optimiser that the settings name, over the parameters that train."""
    from torch.optim import SGD, Adam, AdamW

    check_optimizer(config)
    name = config.name.lower()
    if name == "sgd":
        return SGD(
            parameters,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum or 0.0,
        )
    cls = Adam if name == "adam" else AdamW
    betas = config.betas or (0.9, 0.999)
    return cls(parameters, lr=config.lr, weight_decay=config.weight_decay, betas=betas)
