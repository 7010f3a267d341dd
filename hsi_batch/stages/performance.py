"""How well a detector does against labels: per session and pooled, with intervals."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from distributed import Client

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, archive_stamp, groups_of, open_member, open_root
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.tasks import batches
from hsi_batch.engine.window import run_window
from hsi_batch.errors import ConfigError, HsiBatchError
from hsi_batch.nodes.data import anomalous
from hsi_batch.pipeline.groups import group_of
from hsi_batch.pipeline.maps import INVALID_DECISION
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.alarms import binomial_interval, requested_pfa
from hsi_batch.stages.frames import session_of
from hsi_batch.stages.regions import Runs, regions_of, runs_of
from hsi_batch.stages.run import Run
from hsi_batch.stages.split import check_split, fitted_sessions, own_thresholds, parts_of_split
from hsi_batch.statistics import FloatHistogram
from hsi_batch.statistics.detection_rates import Counted, bootstrap, rates
from hsi_batch.wording import counted, some

__all__ = ["Performance", "performance"]


@dataclass(frozen=True)
class Performance:
    """Measures against labels.

    Attributes
    ----------
    pooled : dict of float
        Over all labelled pixels: ``auc``, ``partial_auc`` (to 1e-3), ``average_precision``,
        ``pd_0.0001`` and so on; of decisions ``false_alarm_rate``, of objects ``objects``,
        ``object_pd`` and ``false_objects_per_frame``.
    intervals : dict of (float, float)
        95 % intervals: over units drawn with replacement, of ``false_alarm_rate`` that of the
        binomial law (Clopper and Pearson).
    units : dict of dict
        The same measures of each session, or value of an attribute.
    requested_pfa : float, optional
        What the thresholds of the pipeline were asked for.
    seen : tuple of str
        Sessions that the pipeline was fitted on, too.
    unlabelled : tuple of str
        Sessions that say nothing, for they have no labels.
    parts : dict of dict
        With a split: the measures of ``train`` (units that the pipeline was fitted on) and of
        ``test`` (units that it has not seen); a part without units is absent.
    part_intervals : dict of dict
        Their intervals.
    part_sizes : dict of int
        Sessions of each part.
    split : str, optional
        What is a unit there.
    own_thresholds : tuple of str
        Nodes that take thresholds from the very scores that they decide on.
    """

    pooled: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    units: Mapping[str, Mapping[str, float]]
    requested_pfa: float | None = None
    seen: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    part_intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    part_sizes: Mapping[str, int] = field(default_factory=dict)
    split: str | None = None
    own_thresholds: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{counted(len(self.units), 'unit')} with labels"]
        lines += self._measures(self.pooled, self.intervals)
        for part, found in self.parts.items():
            which = "the fit has seen" if part == "train" else "the fit has not seen"
            unit = str(self.split).removeprefix("attr:")
            lines.append(
                f"{part}: {counted(self.part_sizes[part], 'session')} of a {unit} that {which}"
            )
            lines += self._measures(found, self.part_intervals[part])
        if self.split is not None and "test" not in self.parts:
            lines.append(
                f"  there is no test part: the pipeline was fitted on every {self.split} that has"
                " labels; fit on others (fit --frames), and evaluate again"
            )
        if self.own_thresholds:
            lines.append(
                f"  {some(list(self.own_thresholds))} takes its thresholds from the scores that are"
                " measured here: decisions tell how many were flagged, not how many false alarms a"
                " threshold gives"
            )
        if self.seen:
            lines.append(
                f"  the pipeline was fitted on {some(list(self.seen))} too: these figures say"
                " nothing of sessions that it has not seen"
            )
        if self.unlabelled:
            lines.append(f"  without labels, and left out: {some(list(self.unlabelled))}")
        return "\n".join(lines)

    def _measures(
        self, found: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
    ) -> list[str]:
        lines = []
        for name, value in found.items():
            text = f"  {name}: {value:.6g}"
            if name in intervals:
                text += " ({:.4g} to {:.4g})".format(*intervals[name])
            if name == "false_alarm_rate" and self.requested_pfa is not None:
                text += f", requested {self.requested_pfa:g}"
            lines.append(text)
        return lines


@dataclass
class _Found:
    """Counts of one session."""

    background: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1))
    target: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1))
    false_pixels: int = 0
    background_pixels: int = 0
    objects: int = 0
    found: int = 0
    false_objects: int = 0
    frames: int = 0

    def merge(self, other: _Found) -> _Found:
        return _Found(
            self.background.merge(other.background),
            self.target.merge(other.target),
            *(
                getattr(self, name) + getattr(other, name)
                for name in (
                    "false_pixels",
                    "background_pixels",
                    "objects",
                    "found",
                    "false_objects",
                    "frames",
                )
            ),
        )

    def measures(self) -> dict[str, float]:
        counts = Counted.of([(self.background, self.target)], 2**20)
        found = rates(counts.background[0], counts.target[0])
        if self.background_pixels:
            found["false_alarm_rate"] = self.false_pixels / self.background_pixels
        if self.objects:
            found |= {"objects": self.objects, "object_pd": self.found / self.objects}
        if self.frames:
            found["false_objects_per_frame"] = self.false_objects / self.frames
        return found


@dataclass(frozen=True)
class _Job:
    archive: str
    stamp: str
    store: str
    normal: tuple[int, ...]
    anomaly: tuple[int, ...] | None


def performance(
    store: str | os.PathLike[str],
    *,
    by: str = "session",
    split: str | None = None,
    archive: str | os.PathLike[str] | None = None,
    draws: int = 500,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> Performance:
    """Measure scores against labels: pixels, objects, false alarms.

    Nothing is fitted: thresholds are those of the pipeline, never taken from what is measured.
    Objects are connected regions of labelled anomalies; one is found if any of its pixels is
    flagged, and a flagged region is false if it holds no labelled anomaly and no unlabelled pixel.

    Parameters
    ----------
    store : path
        Scores.
    by : {"session", "sensor", "attr:NAME"}
        Units that are reported, and drawn for intervals.
    split : {"session", "sensor", "attr:NAME"}, optional
        Report apart what the pipeline was fitted on: sessions, or all sessions of a sensor or lot
        of which any was in the fit.
    archive : path, optional
        Where the labels are; what the scores were made of by default.
    draws : int
        Of the bootstrap.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No session has labels, or the archive is gone.
    """
    path = str(Path(store).absolute())
    root = open_root(path, SCORES)
    attrs: dict[str, Any] = dict(root.attrs)
    held = Path(str(archive or attrs.get("archive") or ""))
    if not held.is_dir():
        raise ConfigError(
            f"the archive of these scores ({held}) is not there.",
            path=path,
            hint="Name it with --archive.",
        )
    if split is not None:
        check_split(split)
    opened = Archive(held)
    names = sorted((n for n in groups_of(root) if n in opened), key=natural_key)
    sessions = opened.sessions(names, "label")
    labelled = [name for name in names if sessions[name].labelled]
    if not labelled:
        raise ConfigError(
            f"none of {counted(len(names), 'session')} has labels to compare with.",
            path=path,
            hint="Add labels: hsi-batch label STORE --annotations FILE.",
        )
    normal, anomaly = _classes(attrs)
    job = _Job(str(held.absolute()), archive_stamp(held), path, normal, anomaly)
    found = _gather(job, sessions, labelled, client, workers, observer)
    units = {n: group_of(by, n, sessions[n].attrs) or "(none)" for n in labelled}
    fit = attrs.get("pipeline_provenance") or {}
    trained = fitted_sessions(fit, opened)
    parts: dict[str, dict[str, _Found]] = {}
    if split is not None:
        inside = parts_of_split(split, sessions, opened, trained)
        for part in ("train", "test"):
            chosen = {n: one for n, one in found.items() if inside[n] == part}
            parts |= {part: chosen} if chosen else {}
    summed = {part: _summed(chosen, units, draws) for part, chosen in parts.items()}
    pooled, intervals, members = _summed(found, units, draws)
    return Performance(
        pooled,
        intervals,
        members,
        requested_pfa(attrs),
        tuple(n for n in labelled if n in trained),
        tuple(n for n in names if n not in labelled),
        {part: one[0] for part, one in summed.items()},
        {part: one[1] for part, one in summed.items()},
        {part: len(chosen) for part, chosen in parts.items()},
        split,
        own_thresholds(attrs),
    )


def _summed(
    found: Mapping[str, _Found], units: Mapping[str, str], draws: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, dict[str, float]]]:
    """Measures of some sessions together, their intervals, and the measures of each unit."""
    members: dict[str, _Found] = {}
    pooled = _Found()
    for name, one in found.items():
        unit = units[name]
        members[unit] = members[unit].merge(one) if unit in members else one
        pooled = pooled.merge(one)
    counts = Counted.of([(m.background, m.target) for m in members.values()])
    intervals = dict(bootstrap(counts, draws))
    if pooled.background_pixels:
        intervals["false_alarm_rate"] = binomial_interval(
            pooled.false_pixels, pooled.background_pixels
        )
    return pooled.measures(), intervals, {unit: one.measures() for unit, one in members.items()}


def _classes(attrs: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    for node in (attrs.get("pipeline") or {}).get("nodes", ()):
        given = node.get("hparams") or {}
        if "normal_class_ids" in given:
            other = given.get("anomaly_class_ids")
            return tuple(given["normal_class_ids"]), None if other is None else tuple(other)
    return (0,), None


def _gather(
    job: _Job,
    sessions: Mapping[str, Session],
    names: Iterable[str],
    client: Client | None,
    workers: int | None,
    observer: Observer | None,
) -> dict[str, _Found]:
    items = [(n, f) for n in names for f in range(sessions[n].geometry.frames)]
    pixels = {n: s.geometry.shape[0] * s.geometry.shape[1] for n, s in sessions.items()}
    progress = Progress("evaluate", len(items), sum(pixels[n] * 5 for n, _ in items), unit="frames")
    found: dict[str, _Found] = {}
    with Run(client, workers=workers, observer=observer) as run:
        tasks = batches(
            items,
            lambda item: pixels[item[0]] * 5,
            threads=run.threads,
            target=32 * 2**20,
            prefix=f"performance-{time.monotonic_ns()}",
        )
        for outcome, _ in run_window(run.client, _measure, tasks, job):
            if outcome.error is not None:
                raise HsiBatchError(
                    f"the scores could not be compared: {outcome.error}",
                    hint="Look at the scores with hsi-batch verify --deep.",
                )
            for name, one in outcome.result:
                found[name] = found[name].merge(one) if name in found else one
            progress.done += len(outcome.task.items)
            run.observer(progress)
    return {name: found[name] for name in names if name in found}


def _measure(items: Iterable[tuple[str, int]], _key: str, job: _Job) -> list[tuple[str, _Found]]:
    """On a worker: compare some frames with their labels."""
    return [(name, _frame(name, frame, job)) for name, frame in items]


def _frame(name: str, frame: int, job: _Job) -> _Found:
    session, group = session_of(job.archive, name, job.stamp), open_member(job.store, name)
    assert group is not None
    scores, decisions = (group.get(kind) for kind in ("scores", "decisions"))
    found = _Found()
    said, true = [], []
    width = session.geometry.shape[1]
    unknown = False
    for start, stop in session.geometry.ranges():
        labels = session.labels(frame, start, stop)
        if labels is None:
            return found
        known = labels >= 0
        wanted = np.asarray(anomalous(labels, job.normal, job.anomaly))
        valid = np.ones(known.shape, dtype=bool)
        if isinstance(scores, zarr.Array):
            values: Any = scores[frame, start:stop]
            valid = ~np.isnan(values)
            found.background = found.background.update(values[known & ~wanted & valid][:, None])
            found.target = found.target.update(values[wanted & valid][:, None])
        if isinstance(decisions, zarr.Array):
            flags: Any = decisions[frame, start:stop]
            counts = known & ~wanted & (flags != INVALID_DECISION)
            found.false_pixels += int(np.count_nonzero(counts & (flags == 1)))
            found.background_pixels += int(np.count_nonzero(counts))
            # What is not labelled may be anything; a region that touches it is not called false.
            said.append(runs_of(flags == 1, None, wanted | ~known, start))
            true.append(runs_of(wanted & (flags != INVALID_DECISION), None, flags == 1, start))
        unknown = unknown or bool(known.any())
    if unknown and isinstance(decisions, zarr.Array):
        objects = regions_of(Runs.join(true), width).columns["labelled"]
        regions = regions_of(Runs.join(said), width).columns["labelled"]
        found.objects, found.found = len(objects), int(np.count_nonzero(objects))
        found.false_objects, found.frames = int(np.count_nonzero(regions == 0)), 1
    return found
