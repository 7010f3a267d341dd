"""The training of a workflow: its mistakes, its plan, its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsi_batch.documents import Document
from hsi_batch.errors import ConfigError, Problem
from hsi_batch.places import place
from hsi_batch.workflow_config import TrainConfig
from hsi_batch.workflow_parts import below, output_problems, problems_in

if TYPE_CHECKING:
    from hsi_batch.stages.convert import ConvertResult
    from hsi_batch.training.plan import TrainPlan, TrainSketch
    from hsi_batch.training.trained_run import TrainedRun

__all__ = ["plan_training", "train_part", "training_problems"]


def training_problems(document: Document) -> Iterator[Problem]:
    """What is wrong with the trainrun, and with what is scored by the pipeline that it trains."""
    given = document.data or {}
    named = given.get("train")
    path = named.get("trainrun") if isinstance(named, dict) else None
    if not isinstance(path, str):
        return
    from hsi_batch.training.assembly import check_trainable
    from hsi_batch.training.trainrun import build_pipeline, read_trainrun

    try:
        config, _ = read_trainrun(below(document, path))
        pipeline = build_pipeline(config, below(document, path))
        if config.training is None:
            yield document.problem(f"{path} has no section `training`.", ("train", "trainrun"))
        else:
            check_trainable(config, pipeline, path)
        if isinstance(given.get("score"), dict):
            yield from output_problems(pipeline, given["score"].get("outputs"), document)
    except ConfigError as error:
        yield from problems_in(error)


def plan_training(
    config: TrainConfig,
    document: Document,
    archive: str,
    first: ConvertResult | None,
    common: Mapping[str, Any],
    force: bool,
) -> TrainPlan | TrainSketch | None:
    """What the training would do; None while its archive is not there and not planned."""
    from hsi_batch.training.trained_run import plan

    due = first is not None and first.plan is not None and bool(first.plan.todo)
    if not due and not place(archive).exists():
        return None
    running = {key: common[key] for key in ("client", "workers") if key in common}
    return plan(
        below(document, config.trainrun),
        **_of_training(config, document, archive),
        force=force,
        first=first if due else None,
        **running,
    )


def train_part(
    config: TrainConfig,
    document: Document,
    archive: str,
    common: Mapping[str, Any],
    force: bool,
) -> TrainedRun:
    """Run the training."""
    from hsi_batch.training.trained_run import train

    running = {key: common[key] for key in ("client", "workers", "observer") if key in common}
    return train(
        below(document, config.trainrun),
        **_of_training(config, document, archive),
        force=force,
        **running,
    )


def _of_training(config: TrainConfig, document: Document, archive: str) -> dict[str, Any]:
    """Where a training takes its data from, and where it writes."""
    out = Path(below(document, config.out))
    # Checkpoints lie beside what is written, wherever the command is given.
    settings = [f"output_dir={out.parent / f'{out.stem}_training'}"]
    return {"archive": archive, "out": out, "overrides": settings}
