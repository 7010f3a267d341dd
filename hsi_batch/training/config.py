"""Settings of trainings, as models that know their defaults and their files."""

from __future__ import annotations

import json
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hsi_batch.documents import Document, read_yaml
from hsi_batch.errors import HsiBatchWarning
from hsi_batch.files import write_atomically
from hsi_batch.validation import validate

__all__ = [
    "CallbacksConfig",
    "EarlyStoppingConfig",
    "LearningRateMonitorConfig",
    "ModelCheckpointConfig",
    "OptimizerConfig",
    "SchedulerConfig",
    "Settings",
    "TrainerConfig",
    "TrainingConfig",
    "without_idle_momentum",
]

Mode = Literal["min", "max"]
#: Optimisers without momentum: they have betas.
ADAMS = ("adam", "adamw")
#: What cuvis-ai writes into every file, whatever the optimiser.
CUVIS_MOMENTUM = 0.9
#: A number of batches, or with a decimal point a share of them.
Limit = Annotated[
    Annotated[int, Field(strict=True, ge=0)] | Annotated[float, Field(ge=0, le=1)],
    Field(union_mode="left_to_right"),
]


class Settings(BaseModel):
    """Base of the models: unknown keys are errors, values are checked when they are assigned."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, populate_by_name=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        hsi_batch.errors.ConfigError
            With all mistakes at once.
        """
        return validate(cls, Document(data, {}, cls.__name__))

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of :meth:`to_json`; YAML is read too."""
        return validate(cls, read_yaml(cls.__name__, text=text))

    def save_to_file(self, path: str | os.PathLike[str]) -> Path:
        """Write a YAML file."""
        target = Path(path)
        write_atomically(target, yaml.safe_dump(self.to_dict(), sort_keys=False, width=100))
        return target

    @classmethod
    def load_from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a YAML file.

        Raises
        ------
        hsi_batch.errors.ConfigError
            With file and line of every mistake.
        """
        return validate(cls, read_yaml(path))


class OptimizerConfig(Settings):
    """The optimiser: adam, adamw or sgd.

    ``momentum`` is of sgd, ``betas`` are of the others. Files of the cuvis-ai family carry momentum
    with any optimiser; see :class:`TrainingConfig`.
    """

    name: str = "adamw"
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float | None = Field(default=CUVIS_MOMENTUM, ge=0)
    betas: tuple[float, float] | None = None

    @property
    def idle_momentum(self) -> bool:
        """Whether momentum was given to an optimiser that has none."""
        given = "momentum" in self.model_fields_set and self.momentum is not None
        return given and self.name.lower() in ADAMS

    @model_serializer(mode="wrap")
    def _serialized(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        if self.name.lower() in ADAMS and "momentum" not in self.model_fields_set:
            found.pop("momentum", None)
        return found


class SchedulerConfig(Settings):
    """The schedule of the learning rate: reduce_on_plateau, cosine, step, exponential or none."""

    name: str | None = None
    warmup_epochs: int = Field(default=0, ge=0)
    min_lr: float = Field(default=1e-6, ge=0)
    t_max: int | None = None
    step_size: int | None = None
    gamma: float | None = None
    monitor: str | None = None
    mode: Mode = "min"
    factor: float = 0.1
    patience: int = Field(default=10, ge=0)
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = Field(default=0, ge=0)
    eps: float = 1e-8
    verbose: bool = False


class EarlyStoppingConfig(Settings):
    """When a training ends because a value no longer gets better."""

    monitor: str
    patience: int = Field(default=10, ge=0)
    mode: Mode = "min"
    min_delta: float = 0.0
    stopping_threshold: float | None = None
    verbose: bool = True
    strict: bool = True
    check_finite: bool = True
    divergence_threshold: float | None = None
    check_on_train_epoch_end: bool | None = None
    log_rank_zero_only: bool = False


class ModelCheckpointConfig(Settings):
    """Which states of a training are kept."""

    dirpath: str = "checkpoints"
    filename: str | None = None
    monitor: str = "val_loss"
    mode: Mode = "min"
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
    """How the learning rate is logged."""

    logging_interval: Literal["step", "epoch"] | None = "epoch"
    log_momentum: bool = False
    log_weight_decay: bool = False


class CallbacksConfig(Settings):
    """What happens beside the training; ``lr_monitor`` is a name of ``learning_rate_monitor``."""

    checkpoint: ModelCheckpointConfig | None = None
    early_stopping: list[EarlyStoppingConfig] = Field(default_factory=list)
    learning_rate_monitor: LearningRateMonitorConfig | None = Field(
        default=None, validation_alias=AliasChoices("learning_rate_monitor", "lr_monitor")
    )

    @property
    def lr_monitor(self) -> LearningRateMonitorConfig | None:
        """The name of the seed pages."""
        return self.learning_rate_monitor


class TrainerConfig(Settings):
    """How the training loop runs."""

    max_epochs: int = Field(default=100, ge=1, le=10000)
    accelerator: str = "auto"
    devices: int | str | list[int] | None = None
    default_root_dir: str | None = None
    precision: str | int = "32-true"
    accumulate_grad_batches: int = Field(default=1, ge=1)
    enable_progress_bar: bool = True
    enable_checkpointing: bool = False
    log_every_n_steps: int = Field(default=50, ge=1)
    val_check_interval: float | int | None = 1.0
    check_val_every_n_epoch: int | None = 1
    limit_train_batches: Limit | None = None
    limit_val_batches: Limit | None = None
    num_sanity_val_steps: int | None = Field(default=None, ge=0)
    gradient_clip_val: float | None = Field(default=None, ge=0)
    deterministic: bool = False
    benchmark: bool = False
    callbacks: CallbacksConfig | None = None


class TrainingConfig(Settings):
    """A gradient training.

    What concerns the loop stands under ``trainer``, as in the seed pages; the flat form of released
    cuvis-ai files, with those keys beside the others, is read too. ``pixels``, ``patch``,
    ``patches_per_frame`` and ``balance`` are as for :class:`.GradientTrainer`.

    Momentum that a file in the flat form gives to adam or adamw, and the 0.9 that cuvis-ai writes
    into every file, is left out with a warning; any other is refused when the training starts.
    """

    seed: int = Field(default=42, ge=0)
    pixels: Literal["valid", "labelled-normal"] = "valid"
    patch: tuple[int, int] | None = None
    patches_per_frame: int = Field(default=1, ge=1)
    balance: float | None = Field(default=None, ge=0, le=1)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig | None = None
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    release_cuda_cache_on_validation: bool = False

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        flat = {key: value[key] for key in value if key in TrainerConfig.model_fields}
        value = without_idle_momentum(value, foreign=bool(flat))
        if not flat:
            return value
        rest = {key: found for key, found in value.items() if key not in flat}
        trainer = rest.get("trainer") or {}
        if isinstance(trainer, TrainerConfig):
            trainer = trainer.model_dump(exclude_unset=True)
        if not isinstance(trainer, dict):
            return value
        twice = sorted(set(flat) & set(trainer))
        if twice:
            raise ValueError(f"{twice[0]} stands here and under `trainer`; write it once")
        return {**rest, "trainer": {**flat, **trainer}}


def without_idle_momentum(value: dict[str, Any], *, foreign: bool) -> dict[str, Any]:
    """A section without the momentum that cuvis-ai writes for optimisers that have none."""
    optimizer = value.get("optimizer")
    if not isinstance(optimizer, dict) or optimizer.get("momentum") is None:
        return value
    name, momentum = str(optimizer.get("name", "adamw")), optimizer["momentum"]
    if name.lower() not in ADAMS or not (foreign or momentum == CUVIS_MOMENTUM):
        return value
    warnings.warn(
        f"optimizer.momentum {momentum} is left out: {name} has betas instead.",
        HsiBatchWarning,
        stacklevel=3,
    )
    kept = {key: found for key, found in optimizer.items() if key != "momentum"}
    return {**value, "optimizer": kept}
