"""Summaries of stored scores: a row per frame, histograms, metrics against labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.chunk_reader import read_lines
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, archive_stamp, groups_of, open_root
from hsi_batch.archive.transactions import pinned
from hsi_batch.engine.events import Progress
from hsi_batch.engine.reduce import TreeReduction
from hsi_batch.engine.tasks import batches
from hsi_batch.engine.window import run_window
from hsi_batch.nodes.data import CU3SDataNode, anomalous
from hsi_batch.patience import patiently
from hsi_batch.pipeline.maps import INVALID_DECISION
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.readers.paths import natural_key
from hsi_batch.scratch import scratch
from hsi_batch.stages.evaluation import Evaluation, save_evaluation
from hsi_batch.stages.frames import session_of
from hsi_batch.stages.label_use import label_stamps
from hsi_batch.stages.run import Run
from hsi_batch.stages.score_plan import ScorePlan
from hsi_batch.statistics import Confusion, FloatHistogram, roc_curve

__all__ = ["covered", "evaluate", "holds"]

_QUANTILES = {"score_p50": 0.5, "score_p95": 0.95, "score_p99": 0.99, "score_p999": 0.999}
_TASK_BYTES = 128 * 2**20
#: Of scores without labels so many summaries are merged here: they are small.
_FETCHED = 16


@dataclass(frozen=True)
class _Job:
    archive: str
    stamp: str
    store: str
    normal: tuple[int, ...]
    anomaly: tuple[int, ...] | None


class _Scored(NamedTuple):
    """A frame and the lines of it that were scored."""

    session: str
    frame: int
    lines: tuple[tuple[int, int], ...]


def covered(archive: Archive, plan: ScorePlan) -> tuple[dict[str, str], dict[str, str]]:
    """Sessions in the store that hold scores of the planned pipeline and of the archive as it is.

    With the versions of their labels (:func:`~.label_use.label_stamps`). A store may hold more:
    sessions that were scored with another pipeline and not selected since.
    """
    found = {}
    groups = {n: g for n, g in groups_of(open_root(plan.store, SCORES)).items() if n in archive}
    sessions = archive.sessions(groups)
    for name, session in sessions.items():
        digest = plan.states.digest_of(session)
        if digest is not None and groups[name].attrs.get("digest") == digest:
            found[name] = digest
    return found, label_stamps({name: sessions[name] for name in found})


def holds(found: Evaluation, archive: Archive, plan: ScorePlan) -> bool:
    """Whether an evaluation is of these scores, and of the labels that hold now."""
    return (found.covers, found.labels) == covered(archive, plan)


def evaluate(
    run: Run,
    pipeline: Pipeline,
    archive: Archive,
    plan: ScorePlan,
    records: Mapping[BlockKey, BlockRecord],
    meanwhile: Callable[[], object],
) -> Evaluation:
    """Read all scores of the pipeline once; write ``summary.parquet`` and the metrics beside them.

    Parameters
    ----------
    run : Run
    pipeline : Pipeline
    archive : Archive
    plan : ScorePlan
        Of the store, whose sessions of other pipelines are left out.
    records : mapping
        Latest record of each block.
    meanwhile : callable
        What is to be done here while the workers read.
    """
    store = plan.store
    source = pipeline.source
    assert isinstance(source, CU3SDataNode)
    normal, anomaly = source.normal_class_ids, source.anomaly_class_ids
    job = _Job(
        str(archive.path.absolute()), archive_stamp(archive.path), pinned(store), normal, anomaly
    )
    root = open_root(store, SCORES)
    covers, labels = covered(archive, plan)
    items = _scored_frames(covers, records)
    widths = {name: archive.session(name).geometry.shape[1] for name in covers}
    sizes = {item: sum(b - a for a, b in item.lines) * widths[item.session] * 4 for item in items}
    progress = Progress("evaluate", len(items), sum(sizes.values()), unit="frames")
    # Histograms of labelled scores are exact, and large.
    labelled = any(archive.session(name).labelled for name in covers)
    reduction = TreeReduction(run.client, fetched=1 if labelled else _FETCHED)
    tasks = batches(
        items,
        sizes.__getitem__,
        threads=run.threads,
        target=_TASK_BYTES,
        prefix=f"evaluate-{time.monotonic_ns()}",
    )
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(meanwhile)
        for outcome, future in run_window(run.client, _evaluate_items, tasks, job, keep=True):
            progress.done += len(outcome.task.items)
            progress.done_bytes += sum(sizes[item] for item in outcome.task.items)
            if future is not None:
                reduction.add(future)
            run.observer(progress)
        found: Evaluation = reduction.result() or Evaluation()
        done.result()
    found.covers = covers
    found.labels = labels
    found.stale = tuple(sorted(set(groups_of(root)) - set(covers), key=natural_key))
    save_evaluation(found, store)
    return found


def _scored_frames(
    covers: Mapping[str, str], records: Mapping[BlockKey, BlockRecord]
) -> list[_Scored]:
    lines: dict[tuple[str, int], list[tuple[int, int]]] = {}
    failed = set()
    for key, record in records.items():
        if record.digest != covers.get(key.session):
            continue
        if record.outcome == "failed":
            failed.add((key.session, key.frame))
        elif record.outcome == "done":
            lines.setdefault((key.session, key.frame), []).append(record.lines)
    ordered = sorted(set(lines) - failed, key=lambda place: (natural_key(place[0]), place[1]))
    return [_Scored(name, frame, tuple(sorted(lines[name, frame]))) for name, frame in ordered]


def _evaluate_items(items: Iterable[_Scored], _key: str, job: _Job) -> Evaluation:
    whole = Evaluation()
    scratch.release()
    root = open_root(job.store, SCORES)
    for name, frames in groupby(items, key=lambda item: item.session):
        group = root[name]
        assert isinstance(group, zarr.Group)
        session = session_of(job.archive, name, job.stamp)
        maps = group.get("scores"), group.get("decisions")
        for item in frames:
            whole = whole.merge(patiently(_evaluate_frame, session, *maps, item, job))
    return whole


def _evaluate_frame(
    session: Session, scores: object, decisions: object, item: _Scored, job: _Job
) -> Evaluation:
    geometry, frame = session.geometry, item.frame
    width = geometry.shape[1]
    found = Evaluation(decided=isinstance(decisions, zarr.Array))
    sums: list[float] = []
    best = (-np.inf, 0, 0)
    valid_pixels = flagged = labelled = targets = 0
    scored = [
        (start, stop)
        for start, stop in geometry.ranges()
        if any(first < stop and last > start for first, last in item.lines)
    ]
    for start, stop in scored:
        labels = session.labels(frame, start, stop)
        known, true = _targets(labels, job)
        valid = np.ones((stop - start, width), dtype=bool)
        if isinstance(scores, zarr.Array):
            values = read_lines(scores, frame, start, stop)
            valid = ~np.isnan(values)
            # By lines, so that their exact sum does not depend on the height of blocks.
            numbers = values if valid.all() else np.where(valid, values, 0)
            sums += numbers.sum(axis=1, dtype=np.float64).tolist()
            found.scores = found.scores.update(values.reshape(-1, 1))
            best = max(best, _peak(values, valid, start), key=lambda peak: peak[0])
            if known is not None and true is not None:
                for chosen, name in ((known & ~true, "background"), (known & true, "target")):
                    pixels = values[chosen & valid][:, None]
                    setattr(found, name, getattr(found, name).update(pixels))
        if isinstance(decisions, zarr.Array):
            said = read_lines(decisions, frame, start, stop)
            valid &= said != INVALID_DECISION
            flagged += int(np.count_nonzero(said == 1))
            if known is not None and true is not None:
                counted = known & valid
                found.confusion = found.confusion.merge(
                    Confusion.of(said[counted] == 1, true[counted])
                )
        valid_pixels += int(np.count_nonzero(valid))
        if known is not None and true is not None:
            labelled += int(np.count_nonzero(known & valid))
            targets += int(np.count_nonzero(true & valid))
    row: dict[str, Any] = {
        "session": session.name,
        "frame": frame,
        "pixels": sum(last - first for first, last in item.lines) * width,
        "valid": valid_pixels,
    }
    if isinstance(scores, zarr.Array):
        row |= _score_columns(sums, found.scores, best)
    if found.decided:
        row["flagged"] = flagged
    if labelled:
        curve = roc_curve(found.background, found.target)
        counts = found.confusion
        row |= {
            "labelled": labelled,
            "anomalous": targets,
            "auc": None if curve is None else curve.auc,
        }
        if found.decided:
            row |= {
                "true_positive": counts.true_positive,
                "false_positive": counts.false_positive,
                "false_negative": counts.false_negative,
            }
    found.rows = [row]
    return found


def _score_columns(
    sums: list[float], scores: FloatHistogram, best: tuple[float, int, int]
) -> dict[str, float | None]:
    """Spread of the scores of a frame; nothing where no pixel is valid."""
    if scores.count == 0:
        return dict.fromkeys(("score_mean", "score_max", "max_y", "max_x", *_QUANTILES))
    quantiles = scores.quantile(list(_QUANTILES.values()))[:, 0]
    return {
        "score_mean": _exact_sum(sums) / scores.count,
        "score_max": best[0],
        "max_y": best[1],
        "max_x": best[2],
        **dict(zip(_QUANTILES, map(float, quantiles), strict=True)),
    }


def _targets(
    labels: NDArray[np.int16] | None, job: _Job
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Which pixels are labelled, and which of them are anomalous."""
    if labels is None:
        return None, None
    return labels >= 0, np.asarray(anomalous(labels, job.normal, job.anomaly))


def _exact_sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # too large, or infinities of both signs
        return float(np.sum(values))


def _peak(values: NDArray[Any], valid: NDArray[np.bool_], start: int) -> tuple[float, int, int]:
    if not valid.any():
        return (-np.inf, 0, 0)
    known = values if valid.all() else np.where(valid, values, -np.inf)
    y, x = np.unravel_index(int(np.argmax(known)), values.shape)
    return float(values[y, x]), start + int(y), int(x)
