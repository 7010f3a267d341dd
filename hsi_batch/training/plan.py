"""What a training would do: passes, epochs, batches, bytes and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hsi_batch.data.loading import TrainingBatches
from hsi_batch.data.module import Split
from hsi_batch.stages.convert import ConvertResult
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.training.gradient import GradientTrainer
from hsi_batch.wording import counted, sized

__all__ = ["TrainPlan", "TrainSketch", "plan_of", "sketch_of"]

#: Memory of a process that trains, before its first batch.
_BASE_BYTES = 600 * 10**6


@dataclass(frozen=True)
class TrainPlan:
    """What a trainrun would do.

    Attributes
    ----------
    fit : FitResult
        The plan of the statistical fit.
    nodes : tuple of str
        Nodes that would be trained.
    frames : dict of str to int
        Frames of train, val and test.
    epochs, resumed : int
        Of the training, and of them those that an interrupted run has done.
    batches : int
        Of an epoch.
    epoch_bytes, val_bytes : int
        Stored pixels that an epoch and a validation read, at most.
    memory : int
        Bytes that the training process needs, about.
    place : str
        Where it would run.
    up_to_date : bool
        Whether the trained pipeline is there already.
    """

    fit: FitResult
    nodes: tuple[str, ...]
    frames: dict[str, int]
    epochs: int
    resumed: int
    batches: int
    epoch_bytes: int
    val_bytes: int
    memory: int
    place: str
    up_to_date: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For machines; without the plan of the fit."""
        kept = {key: value for key, value in vars(self).items() if key != "fit"}
        return {**kept, "nodes": list(self.nodes)}

    def __str__(self) -> str:
        left = self.epochs - self.resumed
        done = f" ({self.resumed} of {self.epochs} done before)" if self.resumed else ""
        shown = ", ".join(f"{split} {count}" for split, count in self.frames.items())
        each = f"{self.batches} {'batch' if self.batches == 1 else 'batches'} in each"
        read = f"{sized(self.epoch_bytes)}, and {sized(self.val_bytes)}"
        lines = [
            f"trains {', '.join(self.nodes)} {self.place}; frames: {shown}",
            f"  {counted(left, 'epoch')}{done}, {each}; an epoch reads at most {read} for val",
            f"  memory: about {sized(self.memory)}",
        ]
        if self.up_to_date:
            lines.append("  up to date: nothing would be done")
        return "\n".join(lines)


@dataclass(frozen=True)
class TrainSketch:
    """What is known of a trainrun before its recordings are converted.

    Attributes
    ----------
    nodes : tuple of str
        Nodes that would be trained.
    epochs : int
        Of the training, at most.
    place : str
        Where it would run.
    recordings, blocks, bytes : int
        What is converted first.
    """

    nodes: tuple[str, ...]
    epochs: int
    place: str
    recordings: int
    blocks: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """For machines; what cannot be known is None."""
        unknown = ("frames", "batches", "epoch_bytes", "val_bytes", "memory", "resumed")
        return {**vars(self), "nodes": list(self.nodes), **dict.fromkeys(unknown), "fit": None}

    def __str__(self) -> str:
        first = f"{counted(self.recordings, 'recording')}, {counted(self.blocks, 'block')}"
        return (
            f"trains {', '.join(self.nodes)} {self.place}; at most {counted(self.epochs, 'epoch')}"
            f"\n  {first} of {sized(self.bytes)} are converted first; until then frames, batches,"
            " bytes and memory are not known"
        )


def sketch_of(trainer: GradientTrainer, nodes: Sequence[str], first: ConvertResult) -> TrainSketch:
    """What is known of a trainer while a conversion is due."""
    assert first.plan is not None
    return TrainSketch(
        nodes=tuple(nodes),
        epochs=trainer.trainer_config.max_epochs,
        place=_place(trainer),
        recordings=sum(bool(session.todo) for session in first.plan.sessions),
        blocks=first.plan.blocks,
        bytes=first.plan.bytes,
    )


def _place(trainer: GradientTrainer) -> str:
    wanted = ", ".join(f"{name}: {value:g}" for name, value in trainer.resources.items())
    return f"on a worker that offers {wanted}" if wanted else "in this process"


def plan_of(
    trainer: GradientTrainer,
    fit: FitResult,
    nodes: Sequence[str],
    resumed: int,
    *,
    up_to_date: bool,
) -> TrainPlan:
    """The plan of a trainer, for its pipeline, which need not be fitted or unfrozen."""
    data = trainer.datamodule
    batches, val = trainer.train_batches(), trainer.val_batches()
    splits: tuple[Split, ...] = ("train", "val", "test")
    return TrainPlan(
        fit=fit,
        nodes=tuple(nodes),
        frames={split: len(data.selection(split)) for split in splits if data.has(split)},
        epochs=trainer.trainer_config.max_epochs,
        resumed=resumed,
        batches=len(batches),
        epoch_bytes=batches.bytes,
        val_bytes=0 if val is None else val.bytes,
        memory=_BASE_BYTES + max(_needed(trainer, b) for b in (batches, val) if b is not None),
        place=_place(trainer),
        up_to_date=up_to_date,
    )


def _needed(trainer: GradientTrainer, batches: TrainingBatches) -> int:
    """Batches that are read ahead, and what the nodes hold of one for its gradient, about."""
    values, item = batches.most_values, batches.most_item_bytes
    cubes = sum(
        any(len(spec.shape) == 4 and spec.shape[-1] != 1 for spec in node.OUTPUT_SPECS.values())
        for node in trainer.pipeline.nodes.values()
    )
    ahead = (batches.threads + 2) * values * item + batches.threads * batches.most_block_bytes
    return ahead + 2 * cubes * values * 4
