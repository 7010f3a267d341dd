"""Stages of a workflow in slices: init, slice and finalise as commands of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hsi_batch.errors import ConfigError
from hsi_batch.workflow import read_workflow
from hsi_batch.workflow_parts import below, convert_arguments, made_again

if TYPE_CHECKING:
    from hsi_batch.documents import Document
    from hsi_batch.engine.events import Observer
    from hsi_batch.stages.convert import ConvertResult
    from hsi_batch.stages.score_result import ScoreResult
    from hsi_batch.stages.slices import SliceResult
    from hsi_batch.workflow_config import WorkflowConfig

__all__ = ["SLICED", "SlicedStage", "finalise_stage", "init_stage", "slice_stage"]

SlicedStage = Literal["convert", "score"]
#: The stages whose blocks are written by themselves.
SLICED: tuple[SlicedStage, ...] = ("convert", "score")


def init_stage(
    path: str | os.PathLike[str],
    stage: SlicedStage,
    slices: int,
    overrides: Sequence[str] = (),
    *,
    replace: bool = False,
    observer: Observer | None = None,
    confirm: Callable[[str], bool] | None = None,
) -> ConvertResult | ScoreResult:
    """Plan a stage, write its metadata, and leave the blocks to so many slices.

    ``replace`` and ``confirm`` are as for :func:`~hsi_batch.workflow.run_workflow`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The workflow is wrong, or has no such stage.
    hsi_batch.errors.StoreError
        Another run, or a slice, uses the store.
    """
    if slices < 1:
        raise ConfigError(f"{slices} slices cannot do anything.", hint="Ask for 1 or more.")
    return _stage(
        path, stage, overrides, observer=observer, slices=slices, replace=replace, confirm=confirm
    )


def finalise_stage(
    path: str | os.PathLike[str],
    stage: SlicedStage,
    overrides: Sequence[str] = (),
    *,
    observer: Observer | None = None,
) -> ConvertResult | ScoreResult:
    """Commit what the slices of a stage have done.

    Raises
    ------
    hsi_batch.errors.IncompleteError
        Blocks are missing.
    """
    return _stage(path, stage, overrides, observer=observer, finalise=True)


def slice_stage(
    path: str | os.PathLike[str],
    stage: SlicedStage,
    text: str,
    overrides: Sequence[str] = (),
    *,
    observer: Observer | None = None,
) -> SliceResult:
    """Do a share of a stage, in this process.

    Parameters
    ----------
    path : path
        The workflow.
    stage : {"convert", "score"}
    text : str
        ``k/n``.
    overrides : sequence of str
    observer : callable, optional

    Raises
    ------
    hsi_batch.errors.StoreError
        Nothing was prepared, or somebody else does it.
    """
    from hsi_batch.stages.convert_slices import slice_convert
    from hsi_batch.stages.score_slices import slice_score
    from hsi_batch.stages.slices import Slice

    part = Slice.parse(text)
    config, document = _read(path, stage, overrides)
    archive = below(document, config.archive)
    if stage == "convert":
        return slice_convert(archive, part, observer=observer)
    assert config.score is not None
    return slice_score(
        _fitted(config, document),
        archive,
        below(document, config.score.out),
        part,
        frames=config.score.frames,
        outputs=config.score.outputs,
        observer=observer,
    )


def _stage(
    path: str | os.PathLike[str],
    stage: SlicedStage,
    overrides: Sequence[str],
    *,
    replace: bool = False,
    confirm: Callable[[str], bool] | None = None,
    **options: Any,
) -> ConvertResult | ScoreResult:
    from hsi_batch.stages.convert import convert
    from hsi_batch.stages.score import score
    from hsi_batch.stages.slices import in_this_process
    from hsi_batch.stages.workflow_text import running

    config, document = _read(path, stage, overrides)
    archive = below(document, config.archive)
    with in_this_process() as client, running(path, overrides):
        if stage == "convert":
            assert config.sources is not None
            config.sources.replace |= replace
            sources, settings = convert_arguments(config.sources, document)
            settings |= {"confirm": confirm, "rescored": made_again(config, document)}
            return convert(sources, archive, client=client, **settings, **options)
        assert config.score is not None
        return score(
            _fitted(config, document),
            archive,
            below(document, config.score.out),
            frames=config.score.frames,
            outputs=config.score.outputs,
            client=client,
            **options,
        )


def _read(
    path: str | os.PathLike[str], stage: SlicedStage, overrides: Sequence[str]
) -> tuple[WorkflowConfig, Document]:
    config, document = read_workflow(path, overrides)
    if stage not in SLICED:
        raise ConfigError(
            f"there are no slices of {stage!r}.", hint=f"Slices are of {' and '.join(SLICED)}."
        )
    if (config.sources if stage == "convert" else config.score) is None:
        section = "sources" if stage == "convert" else "score"
        raise ConfigError(
            f"the workflow has no `{section}`.",
            path=document.path,
            hint="Write one, or choose another --stage.",
        )
    return config, document


def _fitted(config: WorkflowConfig, document: Document) -> str:
    for part in (config.train, config.fit):
        if part is not None:
            return below(document, part.out)
    if not isinstance(config.pipeline, str):
        raise ConfigError(
            "slices need the fitted pipeline in a file of its own.",
            path=document.path,
            hint="Name it under `pipeline`.",
        )
    return below(document, config.pipeline)
