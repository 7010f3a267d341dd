"""Settings of trainings: optimiser, schedule, loop."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hsi_batch.errors import HsiBatchWarning
from hsi_batch.training.callbacks_config import CallbacksConfig
from hsi_batch.training.settings import Settings

__all__ = [
    "OptimizerConfig",
    "SchedulerConfig",
    "TrainerConfig",
    "TrainingConfig",
    "without_idle_momentum",
]

#: Optimisers without momentum: they have betas.
ADAMS = ("adam", "adamw")
#: What cuvis-ai writes into every file, whatever the optimiser.
CUVIS_MOMENTUM = 0.9
#: A number of batches, or with a decimal point a share of them.
Limit = Annotated[
    Annotated[int, Field(strict=True, ge=0)] | Annotated[float, Field(ge=0, le=1)],
    Field(union_mode="left_to_right"),
]


class OptimizerConfig(Settings):
    """The optimiser: adam, adamw or sgd.

    ``momentum`` is of sgd, ``betas`` are of the others. Files of the cuvis-ai family carry momentum
    with any optimiser; see :class:`TrainingConfig`.

    Parameters
    ----------
    name : {"adamw", "adam", "sgd"}
        The rule.
    lr : float
        Learning rate.
    weight_decay : float
        As in :mod:`torch.optim`: of the weights with AdamW, else a penalty in the gradient.
    momentum : float, optional
        Of SGD.
    betas : tuple of float, optional
        Of Adam and AdamW: decay of the means of gradients and their squares.

    Examples
    --------
    >>> OptimizerConfig(name="sgd", lr=0.01).momentum
    0.9
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
    """The schedule of the learning rate: reduce_on_plateau, cosine, step, exponential or none.

    Parameters
    ----------
    name : str, optional
        None leaves the rate as it is.
    warmup_epochs : int
        Epochs over which the rate grows from zero.
    min_lr : float
        Lowest learning rate of ``cosine`` and ``reduce_on_plateau``.
    monitor, mode
        Value that ``reduce_on_plateau`` looks at, and whether it should be small or large.
    factor, patience, threshold, threshold_mode, cooldown, eps
        Of ``reduce_on_plateau``, as in :mod:`torch.optim.lr_scheduler`.
    t_max, step_size, gamma
        Of ``cosine``, ``step`` and ``exponential``.
    verbose : bool
        Note each change of the rate in the result.

    Examples
    --------
    >>> SchedulerConfig(name="step", step_size=5, gamma=0.5).to_dict()["gamma"]
    0.5
    """

    name: str | None = None
    warmup_epochs: int = Field(default=0, ge=0)
    min_lr: float = Field(default=1e-6, ge=0)
    t_max: int | None = None
    step_size: int | None = None
    gamma: float | None = None
    monitor: str | None = None
    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = Field(default=10, ge=0)
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = Field(default=0, ge=0)
    eps: float = 1e-8
    verbose: bool = False


class TrainerConfig(Settings):
    """How the training loop runs.

    Parameters
    ----------
    max_epochs : int
        Times that all batches are seen, at most.
    accelerator, devices, precision, default_root_dir
        As in ``Trainer`` of PyTorch Lightning, and so are the other keys.
    callbacks : CallbacksConfig, optional
        What happens between epochs.

    Examples
    --------
    >>> TrainerConfig(max_epochs=20).precision
    '32-true'
    """

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

    Parameters
    ----------
    seed : int
        Order of the frames, places of patches, and what nodes draw.
    pixels : {"valid", "labelled-normal"}
        Pixels that losses without labels count.
    patch : tuple of int, optional
        Lines and columns.
    patches_per_frame : int
        Patches drawn from each frame in an epoch.
    balance : float, optional
        Share of patches that hold a labelled anomaly, where there is one.
    optimizer : OptimizerConfig
        How weights are changed.
    scheduler : SchedulerConfig, optional
        How the learning rate changes.
    trainer : TrainerConfig
        Epochs, precision, device, callbacks.
    release_cuda_cache_on_validation : bool
        Kept for files that name it.

    Examples
    --------
    >>> found = TrainingConfig.from_dict({"max_epochs": 3, "optimizer": {"lr": 0.01}})
    >>> found.trainer.max_epochs, found.optimizer.lr
    (3, 0.01)
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
