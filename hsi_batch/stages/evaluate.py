"""Summaries of stored scores: a row per frame, histograms, metrics against labels."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.chunks import read_lines, scratch
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, archive_stamp, groups_of, open_root, state_folder
from hsi_batch.engine.events import Progress
from hsi_batch.engine.reduce import TreeReduction
from hsi_batch.engine.window import batches, run_window
from hsi_batch.files import write_atomically
from hsi_batch.nodes.data import CU3SDataNode, anomalous
from hsi_batch.pipeline.maps import INVALID_DECISION
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.frames import session_of
from hsi_batch.stages.run import Run
from hsi_batch.statistics import Confusion, FloatHistogram, Forest, Moments, roc_curve
from hsi_batch.statistics.grid import lines_forest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evaluation", "evaluate", "load_evaluation"]

_QUANTILES = {"score_p50": 0.5, "score_p95": 0.95, "score_p99": 0.99, "score_p999": 0.999}
#: Bins of the histogram of all scores; those of labelled scores are exact up to a million values.
_COARSE = 2**14
_TASK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class _Job:
    archive: str
    stamp: str
    store: str
    normal: tuple[int, ...]
    anomaly: tuple[int, ...] | None


@dataclass
class Evaluation:
    """What scores look like, and how they agree with labels; mergeable.

    Attributes
    ----------
    rows : list of dict
        A row per frame.
    scores : FloatHistogram
        Of all valid scores, on coarse bins.
    background, target : FloatHistogram
        Of the scores of labelled pixels that count as normal and as anomalous.
    confusion : Confusion
        Of the decisions on labelled pixels.
    decided : bool
        Whether there are decisions.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    scores: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1, _COARSE))
    background: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1))
    target: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1))
    confusion: Confusion = field(default_factory=Confusion)
    decided: bool = False

    def merge(self, other: Evaluation) -> Evaluation:
        """Union of both."""
        return Evaluation(
            self.rows + other.rows,
            self.scores.merge(other.scores),
            self.background.merge(other.background),
            self.target.merge(other.target),
            self.confusion.merge(other.confusion),
            self.decided or other.decided,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Over all labelled pixels, never averaged over frames; empty without labels."""
        found: dict[str, float] = {}
        curve = roc_curve(self.background, self.target)
        if curve is not None:
            found["auc"] = curve.auc
            if curve.auc_error:
                found["auc_error"] = curve.auc_error
            found["average_precision"] = curve.average_precision
        counts = self.confusion
        labelled = counts.true_positive + counts.false_negative
        if self.decided and labelled:
            found |= {
                "precision": counts.precision,
                "recall": counts.recall,
                "f1": counts.f1,
                "iou": counts.iou,
            }
        return found

    def table(self) -> pd.DataFrame:
        """The rows, sorted by session and frame."""
        import pandas as pd

        ordered = sorted(self.rows, key=lambda row: (natural_key(row["session"]), row["frame"]))
        return pd.DataFrame(ordered)


def evaluate(run: Run, pipeline: Pipeline, archive: Archive, store: str) -> Evaluation:
    """Read all stored scores once and write ``summary.parquet`` and the metrics beside them."""
    source = pipeline.source
    assert isinstance(source, CU3SDataNode)
    normal, anomaly = source.normal_class_ids, source.anomaly_class_ids
    job = _Job(str(archive.path.absolute()), archive_stamp(archive.path), store, normal, anomaly)
    root = open_root(store, SCORES)
    items: list[tuple[str, int]] = []
    sizes: dict[tuple[str, int], int] = {}
    for name, group in groups_of(root).items():
        if name not in archive:
            continue
        geometry = archive.session(name).geometry
        failed = group.attrs.get("failed_frames", {})
        assert isinstance(failed, Mapping)
        for frame in range(geometry.frames):
            if str(frame) not in failed:
                items.append((name, frame))
                sizes[name, frame] = geometry.shape[0] * geometry.shape[1] * 4
    progress = Progress("evaluate", len(items), sum(sizes.values()))
    reduction = TreeReduction(run.client)
    tasks = batches(
        items,
        sizes.__getitem__,
        threads=run.threads,
        target=_TASK_BYTES,
        prefix=f"evaluate-{time.monotonic_ns()}",
    )
    for outcome, future in run_window(run.client, _evaluate_items, tasks, job, keep=True):
        progress.done += len(outcome.task.items)
        progress.done_bytes += sum(sizes[item] for item in outcome.task.items)
        if future is not None:
            reduction.add(future)
        run.observer(progress)
    found: Evaluation = reduction.result() or Evaluation()
    _save(found, store)
    return found


def _evaluate_items(items: Iterable[tuple[str, int]], _key: str, job: _Job) -> Evaluation:
    whole = Evaluation()
    scratch.release()
    root = open_root(job.store, SCORES)
    for name, frame in items:
        group = root[name]
        assert isinstance(group, zarr.Group)
        session = session_of(job.archive, name, job.stamp)
        part = _evaluate_frame(session, group, frame, job)
        if part is not None:
            whole = whole.merge(part)
    return whole


def _evaluate_frame(
    session: Session, group: zarr.Group, frame: int, job: _Job
) -> Evaluation | None:
    geometry = session.geometry
    height, width, _ = geometry.shape
    scores, decisions = group.get("scores"), group.get("decisions")
    found = Evaluation(decided=isinstance(decisions, zarr.Array))
    forest: Forest[Moments] = Forest()
    best = (-np.inf, 0, 0)
    valid_pixels = flagged = labelled = targets = 0
    for start, stop in geometry.ranges():
        labels = session.labels(frame, start, stop)
        known, true = _targets(labels, job)
        valid = np.ones((stop - start, width), dtype=bool)
        if isinstance(scores, zarr.Array):
            values = read_lines(scores, frame, start, stop)
            valid = ~np.isnan(values)
            cube = values[..., None]
            forest = forest.merge(
                lines_forest(Moments.empty(1, "float32"), cube, valid, start=start, height=height)
            )
            found.scores = found.scores.update(values[valid][:, None])
            best = max(best, _peak(values, start), key=lambda peak: peak[0])
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
        "pixels": height * width,
        "valid": valid_pixels,
    }
    if isinstance(scores, zarr.Array):
        moments = forest.result()
        if moments is None or moments.count == 0:
            # Not scored in this selection, or nothing valid in it.
            return None
        quantiles = found.scores.quantile(list(_QUANTILES.values()))[:, 0]
        row |= {
            "score_mean": float(moments.mean[0]),
            "score_max": float(best[0]),
            "max_y": best[1],
            "max_x": best[2],
            **dict(zip(_QUANTILES, map(float, quantiles), strict=True)),
        }
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


def _targets(
    labels: NDArray[np.int16] | None, job: _Job
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Which pixels are labelled, and which of them are anomalous."""
    if labels is None:
        return None, None
    return labels >= 0, np.asarray(anomalous(labels, job.normal, job.anomaly))


def _peak(values: NDArray[Any], start: int) -> tuple[float, int, int]:
    if np.isnan(values).all():
        return (-np.inf, 0, 0)
    y, x = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return float(values[y, x]), start + int(y), int(x)


_FILES: Sequence[str] = ("scores", "background", "target")


def _save(found: Evaluation, store: str) -> None:
    folder = state_folder(store)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".summary.parquet.new"
    found.table().to_parquet(temporary)
    temporary.replace(folder / "summary.parquet")
    arrays = {
        f"{name}.{key}": value
        for name in _FILES
        for key, value in getattr(found, name).to_arrays().items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(folder / "histograms.npz", buffer.getvalue())
    content = {
        "metrics": found.metrics,
        "confusion": vars(found.confusion),
        "decided": found.decided,
        "frames": len(found.rows),
    }
    write_atomically(folder / "metrics.json", json.dumps(content, indent=2))


def load_evaluation(store: str | Path) -> Evaluation | None:
    """What :func:`evaluate` left beside a store of scores; None if it is missing or torn."""
    import pandas as pd

    folder = state_folder(store)
    try:
        content = json.loads((folder / "metrics.json").read_text())
        table = pd.read_parquet(folder / "summary.parquet")
        with np.load(folder / "histograms.npz", allow_pickle=False) as file:
            histograms = {
                name: FloatHistogram.from_arrays(
                    {
                        key.partition(".")[2]: file[key]
                        for key in file.files
                        if key.startswith(f"{name}.")
                    }
                )
                for name in _FILES
            }
    except (OSError, ValueError, KeyError):
        return None
    rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    return Evaluation(
        rows,
        **histograms,
        confusion=Confusion(**content["confusion"]),
        decided=bool(content["decided"]),
    )
