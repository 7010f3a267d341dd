"""One gradient training on PyTorch Lightning, quiet and without traces."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.trainer.states import TrainerStatus

from hsi_batch.archive.layout import BlockKey
from hsi_batch.errors import ConfigError
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.run import Failure
from hsi_batch.training.callbacks import KeepLast, Pause, best_keeper, make_callbacks
from hsi_batch.training.callbacks_config import CallbacksConfig
from hsi_batch.training.checkpoints import STATE, WholeFiles, state_in
from hsi_batch.training.config import TrainerConfig
from hsi_batch.training.loop_settings import (
    checked_schedule,
    known_names,
    need_no_val,
    validates_at_the_ends,
)
from hsi_batch.training.module import TrainingModule
from hsi_batch.training.node_state import restore_pipeline_state
from hsi_batch.training.notes import training_notes
from hsi_batch.training.results import Best, TrainResult
from hsi_batch.training.surroundings import on_the_cpu_after, own_randomness, quiet

if TYPE_CHECKING:
    from hsi_batch.training.gradient import GradientTrainer

__all__ = [
    "Stretch",
    "best_of",
    "conclude",
    "run_loop",
    "run_stretch",
    "take_checkpoint",
]


@dataclass
class Stretch:
    """Epochs that were run without interruption, and where the training stands after them.

    Attributes
    ----------
    module : TrainingModule
        With the values of each epoch so far.
    kept : ModelCheckpoint or None
        What keeps the best states.
    before, steps : int
        Epochs that were done before; steps so far.
    seconds, waited : float
        Of these epochs; of them, those in which the model waited for data.
    device : str
    paused : bool
        Whether the training goes on.
    failures : dict of BlockKey to str
    """

    module: TrainingModule
    kept: pl.callbacks.ModelCheckpoint | None
    before: int
    steps: int
    seconds: float
    waited: float
    device: str
    paused: bool
    failures: dict[BlockKey, str]


def run_loop(owner: GradientTrainer, resume: Path | None, last: Path | None) -> TrainResult:
    """Train the pipeline of a trainer; see :meth:`.GradientTrainer.fit`."""
    resume = last if resume is None and last is not None and last.exists() else resume
    done = run_stretch(owner, resume, last, WholeFiles())
    return conclude(
        owner,
        history=done.module.history,
        best=None if done.kept is None else best_of(done.kept),
        steps=done.steps,
        seconds=done.seconds,
        waited=done.waited,
        device=done.device,
        resumed=done.before,
        failures=done.failures,
    )


def conclude(
    owner: GradientTrainer,
    *,
    history: list[dict[str, float]],
    best: Best | None,
    waited: float,
    seconds: float,
    failures: dict[BlockKey, str],
    **values: Any,
) -> TrainResult:
    """Take the best state, if one is kept, and say what came of the training."""
    if best is not None and not Path(best.path).exists():
        best = None
    if best is not None:
        take_checkpoint(owner.pipeline, Path(best.path))
    stopped = len(history) < owner.trainer_config.max_epochs
    callbacks, schedule = known_names(owner)
    return TrainResult(
        nodes=tuple(owner.unfrozen),
        parameters=sum(p.numel() for p in owner.pipeline.parameters() if p.requires_grad),
        epochs=len(history),
        seconds=seconds,
        waited=waited / max(seconds, 1e-9),
        stopped=stopped,
        notes=training_notes(history, callbacks, schedule, stopped=stopped),
        history=tuple(history),
        best=best,
        failures=tuple(Failure(key, reason) for key, reason in failures.items()),
        **values,
    )


def run_stretch(
    owner: GradientTrainer,
    resume: Path | None,
    last: Path | None,
    files: WholeFiles,
    seconds: float | None = None,
) -> Stretch:
    """Run epochs, to the end of the training or until the time is over.

    Parameters
    ----------
    owner : GradientTrainer
    resume : Path, optional
        Checkpoint to go on from.
    last : Path, optional
        Where the state is kept at the end of each epoch.
    files : WholeFiles
        Writes and reads checkpoints.
    seconds : float, optional
        After which no other epoch is begun.
    """
    config = owner.trainer_config
    losses = [node.name for node in owner.loss_nodes]
    metrics = [node.name for node in owner.metrics]
    settings = config.callbacks or CallbacksConfig()
    callbacks: list[Any] = make_callbacks(
        settings, losses, metrics, val_per_epoch=validates_at_the_ends(config)
    )
    schedule = checked_schedule(owner.scheduler_config, config, losses, metrics)
    if last is not None:
        callbacks.append(KeepLast(last))
    pause = None if seconds is None else Pause(seconds)
    if pause is not None:
        callbacks.append(pause)
    batches, val = owner.train_batches(), owner.val_batches()
    if val is None:
        need_no_val(callbacks, schedule)
    module = TrainingModule(
        owner.pipeline,
        owner.loss_nodes,
        owner.metrics,
        optimizer=owner.optimizer_config,
        scheduler=schedule,
        max_epochs=config.max_epochs,
        seed=owner.seed,
        batches=batches,
        monitors=owner.monitors,
        log_every=config.log_every_n_steps,
        pixels=owner.pixels,
        observer=owner.observer,
        rate_monitor=settings.learning_rate_monitor,
        release_cuda_cache=owner.release_cuda_cache,
    )
    started = time.monotonic()
    with quiet(), own_randomness(), on_the_cpu_after(owner.pipeline):
        trainer = _trainer(config, callbacks, files)
        held = None if resume is None else files.load_checkpoint(resume)
        before = _whole_epochs(held, resume)
        if held and (held[STATE]["stopped"] or before >= config.max_epochs):
            module.on_load_checkpoint(held)
            _restore_callbacks(callbacks, held)
            steps = int(held["global_step"])
        else:
            _fit(trainer, module, batches, val, resume)
            steps = int(trainer.global_step)
    for monitor in owner.monitors:
        flush = getattr(monitor, "flush", None)
        if flush is not None:
            flush()
    return Stretch(
        module=module,
        kept=best_keeper(callbacks),
        before=before,
        steps=steps,
        seconds=time.monotonic() - started,
        waited=batches.waited,
        device=str(trainer.strategy.root_device),
        paused=pause is not None and pause.paused,
        failures={**batches.failures, **({} if val is None else val.failures)},
    )


def best_of(kept: pl.callbacks.ModelCheckpoint) -> Best | None:
    """The best state that is kept, if one is."""
    if not kept.best_model_path:
        return None
    value = kept.best_model_score
    score = float("nan") if value is None else float(value)
    return Best(str(kept.monitor), score, kept.best_model_path)


def _fit(trainer: pl.Trainer, module: TrainingModule, batches: Any, val: Any, resume: Any) -> None:
    try:
        trainer.fit(module, batches, val, ckpt_path=resume)
    except SystemExit:
        # The library makes this of Ctrl-C.
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    except MisconfigurationException as error:
        raise ConfigError(
            f"the training cannot run: {error}", hint="Change that setting of the training."
        ) from None


def _trainer(config: TrainerConfig, callbacks: list[Any], files: WholeFiles) -> pl.Trainer:
    keeps = any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks)
    options: dict[str, Any] = {
        "precision": config.precision,
        "accumulate_grad_batches": config.accumulate_grad_batches,
        "val_check_interval": config.val_check_interval,
        "check_val_every_n_epoch": config.check_val_every_n_epoch,
        "gradient_clip_val": config.gradient_clip_val,
        "deterministic": config.deterministic or None,
        "benchmark": config.benchmark or None,
    }
    try:
        return pl.Trainer(
            max_epochs=config.max_epochs,
            accelerator=config.accelerator,
            devices=1,
            callbacks=callbacks,
            plugins=[files],
            logger=False,
            enable_checkpointing=keeps,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=config.num_sanity_val_steps or 0,
            **options,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            f"the training cannot run: {error}", hint="Change that setting of the training."
        ) from None


def take_checkpoint(pipeline: Pipeline, path: Path) -> None:
    """Give the nodes of a pipeline the state of a checkpoint."""
    restore_pipeline_state(pipeline, state_in(path)[STATE]["nodes"])


def _whole_epochs(held: dict[str, Any] | None, path: Path | None) -> int:
    """Epochs of a checkpoint, which must be of the end of one."""
    if held is None:
        return 0
    done = len(held[STATE]["history"])
    if "optimizer_states" not in held:
        raise ConfigError(
            "the checkpoint holds weights only (save_weights_only); a training cannot go on from"
            " it.",
            path=str(path),
            hint="Name last.ckpt (save_last).",
        )
    if done != held["epoch"] + 1:
        raise ConfigError(
            f"the checkpoint is of the middle of epoch {held['epoch']}; a training goes on from"
            " the end of one.",
            path=str(path),
            hint="Name last.ckpt (save_last), or keep states at the ends of epochs"
            " (save_on_train_epoch_end).",
        )
    return done


def _restore_callbacks(callbacks: list[Any], held: dict[str, Any]) -> None:
    for callback in callbacks:
        state = held.get("callbacks", {}).get(callback.state_key)
        if state:
            callback.load_state_dict(state)
