"""Settings of the training loop, checked before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsi_batch.errors import ConfigError
from hsi_batch.training.callbacks import make_callbacks, monitored
from hsi_batch.training.callbacks_config import CallbacksConfig
from hsi_batch.training.config import SchedulerConfig, TrainerConfig
from hsi_batch.training.schedules import check_optimizer, check_schedule

if TYPE_CHECKING:
    from hsi_batch.training.gradient import GradientTrainer

__all__ = ["check_loop", "checked_schedule", "known_names", "need_no_val", "validates_at_the_ends"]

_PRECISIONS = ("32", "32-true", "16-mixed", "bf16-mixed")


def check_loop(owner: GradientTrainer) -> None:
    """Raise :class:`~hsi_batch.errors.ConfigError` for settings with which nothing could run."""
    config = owner.trainer_config
    losses = [node.name for node in owner.loss_nodes]
    metrics = [node.name for node in owner.metrics]
    callbacks = make_callbacks(config.callbacks or CallbacksConfig(), losses, metrics)
    schedule = checked_schedule(owner.scheduler_config, config, losses, metrics)
    check_optimizer(owner.optimizer_config)
    if not owner.validates:
        need_no_val(callbacks, schedule)
    _check_trainer(config)


def _check_trainer(config: TrainerConfig) -> None:
    if config.limit_train_batches == 0:
        raise ConfigError(
            "limit_train_batches 0 leaves nothing to train on.",
            hint="Give a number above 0, or leave it out.",
        )
    if config.default_root_dir is not None:
        raise ConfigError(
            "default_root_dir: nothing is written there.",
            hint="Leave it out; name folders with callbacks.checkpoint.dirpath (output_dir in a"
            " trainrun) and in TensorBoardMonitorNode.",
        )
    if config.enable_checkpointing and (
        config.callbacks is None or config.callbacks.checkpoint is None
    ):
        raise ConfigError(
            "enable_checkpointing: which states are to be kept is not said.",
            hint="Add callbacks.checkpoint, or leave it out.",
        )
    if str(config.precision) not in _PRECISIONS:
        raise ConfigError(f"precision {config.precision!r} is not one of {', '.join(_PRECISIONS)}.")
    if config.devices not in (None, 1, "1", "auto", [0]):
        raise ConfigError(
            f"devices {config.devices!r}: a training runs on one device.", hint="Leave it out."
        )


def checked_schedule(
    config: SchedulerConfig | None,
    trainer: TrainerConfig,
    losses: list[str],
    metrics: list[str],
) -> SchedulerConfig | None:
    """The settings of the schedule, checked, with the name under which its value is known."""
    if config is None:
        return None
    check_schedule(config, trainer.max_epochs)
    if config.monitor is None:
        return config
    return config.model_copy(update={"monitor": monitored(config.monitor, losses, metrics)})


def known_names(
    owner: GradientTrainer,
) -> tuple[CallbacksConfig | None, SchedulerConfig | None]:
    """The settings of callbacks and schedule, with the names under which values are known."""
    config = owner.trainer_config
    losses = [node.name for node in owner.loss_nodes]
    metrics = [node.name for node in owner.metrics]
    schedule = checked_schedule(owner.scheduler_config, config, losses, metrics)
    if config.callbacks is None:
        return None, schedule
    callbacks = config.callbacks.model_copy(deep=True)
    for stopping in callbacks.early_stopping:
        stopping.monitor = monitored(stopping.monitor, losses, metrics)
    if callbacks.checkpoint is not None:
        name = callbacks.checkpoint.monitor
        callbacks.checkpoint.monitor = monitored(name, losses, metrics)
    return callbacks, schedule


def need_no_val(callbacks: list[Any], schedule: SchedulerConfig | None) -> None:
    """Refuse to monitor what only val frames tell, where there are none."""
    wanted = {str(getattr(c, "monitor", None) or "") for c in callbacks}
    if schedule is not None and (schedule.name or "").endswith("plateau"):
        wanted.add(schedule.monitor or "val_loss")
    missing = sorted(name for name in wanted if name and not name.startswith("train"))
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} is monitored, but the data module has no frames for val.",
            hint="Name frames for val, or monitor a value of train (train_loss).",
        )


def validates_at_the_ends(config: TrainerConfig) -> bool:
    """Whether there is one validation in each epoch, at its end."""
    return config.val_check_interval in (None, 1.0) and config.check_val_every_n_epoch in (None, 1)
