"""What a trainrun describes, put together: its trainer, its nodes, its data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsi_batch.data.config import DataConfig
from hsi_batch.data.module import DataModule
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.training.config import TrainingConfig
from hsi_batch.training.gradient import GradientTrainer
from hsi_batch.training.trainrun import TrainRunConfig

if TYPE_CHECKING:
    from distributed import Client

    from hsi_batch.engine.events import Observer

__all__ = ["check_trainable", "gradient_trainer", "in_archive", "trained_nodes", "trainer_of"]


def gradient_trainer(
    config: TrainRunConfig,
    pipeline: Pipeline,
    data: DataModule,
    path: str | os.PathLike[str],
    *,
    observer: Observer | None = None,
    client: Client | None = None,
) -> GradientTrainer:
    """The trainer that a trainrun describes, for its fitted pipeline.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It names nodes that the pipeline does not have, or trains none.
    """
    check_trainable(config, pipeline, path)
    pipeline.freeze_nodes_by_name(list(pipeline.nodes))
    pipeline.unfreeze_nodes_by_name(trained_nodes(config))
    return trainer_of(config, pipeline, data, observer=observer, client=client)


def trainer_of(
    config: TrainRunConfig, pipeline: Pipeline, data: DataModule, **running: Any
) -> GradientTrainer:
    """The trainer that a trainrun describes, whatever its pipeline trains now."""
    training = config.training or TrainingConfig()
    settings = training.trainer.model_copy(deep=True)
    if settings.callbacks is not None and settings.callbacks.checkpoint is not None:
        kept = settings.callbacks.checkpoint
        kept.dirpath = str((Path(config.output_dir) / kept.dirpath).absolute())
    return GradientTrainer(
        pipeline,
        data,
        config.loss_nodes,
        config.metric_nodes or None,
        settings,
        training.optimizer,
        training.scheduler,
        seed=training.seed,
        pixels=training.pixels,
        patch=training.patch,
        patches_per_frame=training.patches_per_frame,
        balance=training.balance,
        release_cuda_cache=training.release_cuda_cache_on_validation,
        resources=config.resources,
        **running,
    )


def trained_nodes(config: TrainRunConfig) -> list[str]:
    """Names of the nodes that are trained."""
    return [name for name in config.unfreeze_nodes if name not in config.freeze_nodes]


def check_trainable(
    config: TrainRunConfig, pipeline: Pipeline, path: str | os.PathLike[str]
) -> None:
    """Raise :class:`~hsi_batch.errors.ConfigError` unless nodes are named that can be trained."""
    for key in ("loss_nodes", "metric_nodes", "freeze_nodes", "unfreeze_nodes"):
        for name in getattr(config, key):
            if name not in pipeline.nodes:
                raise ConfigError(
                    f"{key}: the pipeline has no node {name!r}."
                    f"{did_you_mean(name, pipeline.nodes)}",
                    path=str(path),
                    hint="Name a node of the pipeline.",
                )
    for key, found in (
        ("loss_nodes", config.loss_nodes),
        ("unfreeze_nodes", trained_nodes(config)),
    ):
        if not found:
            raise ConfigError(
                f"{key} names no node, so there is nothing to train.",
                path=str(path),
                hint=f"The pipeline has {', '.join(pipeline.nodes)}.",
            )


def in_archive(config: DataConfig, archive: str | os.PathLike[str]) -> DataConfig:
    """The same frames, of an archive.

    Raises
    ------
    hsi_batch.errors.ConfigError
        They are named by numbers of one recording.
    """
    numbered = [key for key in ("train_ids", "val_ids", "test_ids") if key in config.params]
    if numbered:
        raise ConfigError(
            f"{', '.join(numbered)} are frames of one recording; in an archive frames have the"
            " names of their sessions.",
            hint="Write train, val and test as selections, with data_module: archive.",
        )
    kept = {k: v for k, v in config.params.items() if k in ("train", "val", "test")}
    return config.model_copy(
        update={"data_module": "archive", "params": {**kept, "archive": os.fspath(archive)}}
    )
