"""Scoring an archive with a fitted pipeline."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.gathering import consolidate, session_heads
from hsi_batch.archive.leftovers import remove_leftovers
from hsi_batch.archive.record_objects import record_writer
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.store import (
    SCORES,
    archive_stamp,
    create_root,
    state_folder,
)
from hsi_batch.archive.transactions import absorb, committed
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.shared import SharedValues
from hsi_batch.engine.tasks import Task, batch_count, batches
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.places import Place, absolute, place, public
from hsi_batch.stages.evaluate import evaluate, holds
from hsi_batch.stages.evaluation import Evaluation, load_evaluation
from hsi_batch.stages.memory import check_memory
from hsi_batch.stages.moved import warn_of_fit
from hsi_batch.stages.outputs import held_store
from hsi_batch.stages.run import (
    TASK_BYTES,
    BlockWork,
    Run,
    run_blocks,
)
from hsi_batch.stages.score_blocks import (
    ScoreItem,
    ScoreJob,
    ScoreShard,
    score_items,
    score_keys,
)
from hsi_batch.stages.score_commit import begin, finish
from hsi_batch.stages.score_plan import ScorePlan, plan_score
from hsi_batch.stages.score_result import ScoreResult
from hsi_batch.stages.score_slices import prepare_slices, work_of
from hsi_batch.stages.slices import forget_slices, refuse_missing

__all__ = ["ScoreResult", "score"]


def score(
    pipeline: Pipeline | str | os.PathLike[str],
    archive: Archive | str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    frames: str | Sequence[str] | None = None,
    outputs: str | Sequence[str] | None = None,
    force: bool = False,
    only_failed: bool = False,
    dry_run: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    task_bytes: int = TASK_BYTES,
    observer: Observer | None = None,
    slices: int = 0,
    finalise: bool = False,
) -> ScoreResult:
    """Score frames of an archive; what is there already and has not changed is left alone.

    Parameters
    ----------
    pipeline : Pipeline or path
        Fitted.
    archive : Archive or path
        What is scored.
    store : path
        Folder of the scores; made if needed. It mirrors the sessions of the archive.
    frames : str or sequence of str, optional
        Selection; everything by default.
    outputs : str or sequence of str, optional
        Ports to store; ``scores`` and ``decisions`` as far as the pipeline has them by default.
    force : bool
        Score again what is there.
    only_failed : bool
        Try again what failed before.
    dry_run : bool
        Plan only; the plan is in the result.
    client, workers, task_bytes, observer, slices, finalise
        As for :func:`~hsi_batch.stages.convert.convert`.

    Returns
    -------
    ScoreResult

    Raises
    ------
    hsi_batch.errors.NotFittedError, hsi_batch.errors.ConfigError
        The pipeline is not fitted, or does not match the archive.
    hsi_batch.errors.StoreError
        The scores are in use, are something else, or cannot be written.

    Examples
    --------
    >>> result = score("fitted.yaml", "archive.zarr", "scores.zarr")
    >>> result.failed
    0
    >>> import xarray as xr
    >>> xr.open_zarr("scores.zarr", group="scene_000").scores.shape
    (1, 40, 30)
    """
    begun = time.monotonic()
    file = None if isinstance(pipeline, Pipeline) else str(Path(pipeline).absolute())
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline.from_yaml(pipeline)
    if not isinstance(archive, Archive):
        archive = Archive(archive)
    names = (outputs,) if isinstance(outputs, str) else outputs
    target = absolute(store)
    warn_of_fit(pipeline.provenance, archive)
    arguments: dict[str, Any] = {
        "frames": frames,
        "outputs": names,
        "force": force,
        "only_failed": only_failed,
    }
    with Run(client, workers=workers, scoring=True, observer=observer) as run:
        if dry_run:
            plan = plan_score(pipeline, archive, target, **arguments)
            plan.tasks = _task_count(plan, run.expected_threads, task_bytes)
            return _result(plan, begun)
        with held_store(target, "score") as target:
            plan = plan_score(pipeline, archive, target, **arguments)
            if slices:
                return _prepare(pipeline, archive, plan, begun, slices, file)
            if finalise:
                refuse_missing(target, "score", [k for s in plan.sessions for k in s.todo])
            evaluation = load_evaluation(target)
            if plan.todo or evaluation is None or not holds(evaluation, archive, plan):
                return _execute(run, pipeline, archive, plan, begun, task_bytes, file)
            _tidy(target)
        return _result(plan, begun, **_measured(evaluation))


def _prepare(
    pipeline: Pipeline,
    archive: Archive,
    plan: ScorePlan,
    begun: float,
    slices: int,
    file: str | None,
) -> ScoreResult:
    root = create_root(plan.store, SCORES)
    records = Records(state_folder(plan.store) / "records" / "score").new_run()
    begin(root, pipeline, archive, plan, file)
    prepare_slices(plan, work_of(plan)[0], records, slices, uuid.uuid4().hex)
    return _result(plan, begun, prepared=slices)


def _tidy(store: str) -> None:
    """Do what an earlier run left undone that was killed at its very end."""
    forget_slices(store)
    records = Records(state_folder(store) / "records" / "score")
    if records.unpacked:
        records.pack(records.load().values())
    remove_leftovers(store)


def _result(plan: ScorePlan, begun: float, **values: Any) -> ScoreResult:
    return ScoreResult(
        store=public(plan.store),
        outputs=tuple(spec.name for spec in plan.specs),
        sessions=len(plan.sessions),
        frames=len(plan.selection),
        up_to_date=sum(s.status == "done" for s in plan.sessions),
        earlier=tuple(f for s in plan.sessions for f in s.earlier),
        fallback=plan.states.fallen_back([s.session for s in plan.sessions]),
        seconds=time.monotonic() - begun,
        plan=plan,
        **values,
    )


def _execute(
    run: Run,
    pipeline: Pipeline,
    archive: Archive,
    plan: ScorePlan,
    begun: float,
    task_bytes: int,
    file: str | None,
) -> ScoreResult:
    check_memory(run.client, plan.worker_bytes, "score")
    root = create_root(plan.store, SCORES)
    records = Records(state_folder(plan.store) / "records" / "score")
    folder = records.new_run()
    begin(root, pipeline, archive, plan, file)
    root = committed(root, plan.store)
    name = f"score-{time.monotonic_ns()}"
    places = (str(archive.path.absolute()), archive_stamp(archive.path), plan.store)
    run_id = uuid.uuid4().hex

    def job(group: str) -> ScoreJob:
        packed = plan.states.packed(group)
        return ScoreJob(*places, run_id, str(folder), packed, plan.specs, group)

    # Futures of their own: a pipeline travels once to each worker, and survives its loss.
    jobs = SharedValues(run.client, job, f"{name}-job")
    tasks = jobs.given_to(_tasks(plan, run.threads, task_bytes, name), lambda item: (item.group,))
    work = BlockWork(Progress("score", plan.blocks, plan.bytes))
    run.observer(work.progress)
    for items, report in run_blocks(
        run,
        work,
        score_items,
        tasks,
        blocks_of=score_keys,
    ):
        if report is None:
            _record_killed(folder, items, work)
        else:
            absorb(plan.store, report.changes)
    root = committed(root, plan.store)
    latest = records.load()

    def publish() -> None:
        finish(root, plan, latest, torn=run.lost_workers)
        consolidate(committed(root, plan.store))

    # Written last: a run that was killed before has none, and is finished by the next one.
    evaluation: Evaluation = evaluate(run, pipeline, archive, plan, latest, meanwhile=publish)
    kept = {s.name for s in plan.sessions} | set(session_heads(place(plan.store)))
    records.pack(r for k, r in latest.items() if k.session in kept)
    forget_slices(plan.store)
    remove_leftovers(plan.store)
    return _result(
        plan,
        begun,
        blocks=work.progress.done,
        bytes=work.progress.done_bytes,
        failures=tuple(work.failures),
        memory=run.memory(),
        **_measured(evaluation),
    )


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metrics": evaluation.metrics,
        "evaluated": len(evaluation.rows),
        "stale": evaluation.stale,
    }


def _task_count(plan: ScorePlan, threads: int, task_bytes: int) -> int:
    """How many tasks :func:`_tasks` makes; of millions of blocks, without making them."""
    if plan.by_frame or any(planned.session.shard for planned in plan.todo):
        return sum(1 for _ in _tasks(plan, threads, task_bytes, "plan"))
    sizes = np.concatenate([np.empty(0, dtype=np.int64), *(s.sizes for s in plan.todo)])
    return batch_count(sizes, threads=threads, target=task_bytes)


def _tasks(plan: ScorePlan, threads: int, task_bytes: int, prefix: str) -> Iterator[Task]:
    items, sizes = work_of(plan)
    return batches(
        items,
        lambda item: sizes[id(item)],
        threads=threads,
        target=task_bytes,
        prefix=prefix,
    )


def _record_killed(folder: Place, items: Sequence[ScoreItem | ScoreShard], work: BlockWork) -> None:
    """Record blocks whose scoring kept killing its worker, in the worker's place."""
    reasons = {failure.key: failure.reason for failure in work.failures}
    with record_writer(folder, "killed") as writer:
        for item in items:
            for key in score_keys(item):
                writer.write(BlockRecord(key, "failed", item.digest, reason=reasons.get(key, "")))
