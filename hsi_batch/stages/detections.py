"""Detections: connected regions of what a pipeline flags, as a table."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr
from distributed import Client

from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, groups_of, open_member, open_root
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.tasks import batches
from hsi_batch.engine.window import run_window
from hsi_batch.errors import ConfigError, HsiBatchError, StoreError
from hsi_batch.nodes.data import anomalous
from hsi_batch.pipeline.maps import INVALID_DECISION
from hsi_batch.readers.geography import Geography
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.places import LinePositions, Located, PixelPositions, place_of, position_of
from hsi_batch.stages.regions import Runs, regions_of, runs_of
from hsi_batch.stages.run import Run
from hsi_batch.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Detections", "FrameRegions", "find_detections"]

_TASK_BYTES = 32 * 2**20


class FrameRegions(NamedTuple):
    """The regions of one frame.

    Attributes
    ----------
    session : str
    frame : int
    columns : dict of numpy.ndarray
        As :class:`.Regions` has them.
    boxes : list of numpy.ndarray of int64, shape (n, 3)
        Runs ``(y, x0, x1)`` of each region.
    """

    session: str
    frame: int
    columns: dict[str, Any]
    boxes: list[Any]


@dataclass(frozen=True)
class Detections:
    """What was found in a store of scores.

    Attributes
    ----------
    table : pandas.DataFrame
        A row per region: ``session``, ``frame``, ``id`` (from 0 in each frame), ``y0, x0, y1, x1``
        (ends outside), ``area`` (pixels), ``max_score``, ``mean_score``, ``peak_y``, ``peak_x``,
        ``centre_y``, ``centre_x``, ``class``, ``labelled`` (pixels that labels call anomalous; -1
        without labels), and where the recording is georeferenced ``map_x``, ``map_y`` (of the
        centre), ``crs``, and ``position``: ``map``, ``pixel`` (input geometry) or ``line`` (where
        the platform was, not the detection).
    regions : list of FrameRegions
    shapes : dict
        Lines and columns of the frames of each session.
    places : dict of Geography or PixelPositions
        Of the sessions whose pixels are georeferenced; those of which only lines are, are not here.
    """

    table: pd.DataFrame
    regions: list[FrameRegions]
    shapes: dict[str, tuple[int, int]]
    places: dict[str, Geography | PixelPositions]

    def __str__(self) -> str:
        frames = sum(len(found.boxes) > 0 for found in self.regions)
        return (
            f"{counted(len(self.table), 'detection')} in {counted(frames, 'frame')} of"
            f" {len(self.regions)}"
        )


class _Item(NamedTuple):
    session: str
    frame: int


@dataclass(frozen=True)
class _Job:
    store: str
    archive: str | None
    threshold: float | None
    min_area: int


def find_detections(
    store: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    min_area: int = 1,
    archive: str | os.PathLike[str] | None = None,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> Detections:
    """Find the connected regions of a store of scores; blocks are no borders.

    Pixels belong together that touch at a side or a corner. The cubes are not read.

    Parameters
    ----------
    store : path
        Scores.
    threshold : float, optional
        Flag ``scores >= threshold`` instead of taking the stored decisions.
    min_area : int
        Smaller regions are left out.
    archive : path, optional
        Where labels and coordinates come from; what the scores were made of by default.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There are no decisions, and no threshold was given.
    """
    path = str(Path(store).absolute())
    root = open_root(path, SCORES)
    known = archive or root.attrs.get("archive")
    place = str(Path(str(known)).absolute()) if known and Path(str(known)).exists() else None
    job = _Job(path, place, threshold, min_area)
    items, sizes, shapes = [], {}, {}
    for name, group in sorted(groups_of(root).items(), key=lambda pair: natural_key(pair[0])):
        wanted = "scores" if threshold is not None else "decisions"
        array = group.get(wanted)
        if not isinstance(array, zarr.Array):
            raise ConfigError(
                f"the scores of session {name} hold no {wanted}.",
                path=path,
                hint="Score with a pipeline that decides (a CFARThreshold, say), or give"
                " --threshold.",
            )
        frames, height, width = array.shape[:3]
        shapes[name] = (height, width)
        for frame in range(frames):
            items.append(_Item(name, frame))
            sizes[items[-1]] = height * width * 5
    progress = Progress("detections", len(items), sum(sizes.values()), unit="frames")
    found: dict[_Item, FrameRegions] = {}
    with Run(client, workers=workers, observer=observer) as run:
        tasks = batches(
            items,
            sizes.__getitem__,
            threads=run.threads,
            target=_TASK_BYTES,
            prefix=f"detections-{time.monotonic_ns()}",
        )
        for outcome, _ in run_window(run.client, _find, tasks, job):
            if outcome.error is not None:
                raise HsiBatchError(
                    f"the detections could not be found: {outcome.error}",
                    hint="Look at the scores with hsi-batch verify --deep.",
                )
            for one in outcome.result:
                found[_Item(one.session, one.frame)] = one
            progress.done += len(outcome.task.items)
            run.observer(progress)
    regions = [found[item] for item in items if item in found]
    known_places = {n: g for n in shapes if (g := place_of(place, n)) is not None}
    places = {n: g for n, g in known_places.items() if not isinstance(g, LinePositions)}
    return Detections(_table(regions, known_places), regions, shapes, places)


def _find(items: Iterable[_Item], _key: str, job: _Job) -> list[FrameRegions]:
    """On a worker: the regions of some frames."""
    return [_regions(item, job) for item in items]


def _regions(item: _Item, job: _Job) -> FrameRegions:
    group = open_member(job.store, item.session)
    assert group is not None
    scores, decisions = (group.get(name) for name in ("scores", "decisions"))
    array = scores if job.threshold is not None else decisions
    assert isinstance(array, zarr.Array)
    labels = _labels_of(item, job)
    height, step, width = array.shape[1], array.chunks[1], array.shape[2]
    parts = []
    for start in range(0, height, step):
        stop = min(start + step, height)
        lines: Any = array[item.frame, start:stop]
        if job.threshold is not None:
            values, flags = lines, np.nan_to_num(lines, nan=-np.inf) >= job.threshold
        else:
            held = isinstance(scores, zarr.Array) and scores.ndim == 3
            values = scores[item.frame, start:stop] if held else None  # type: ignore[index]
            flags = (lines != 0) & (lines != INVALID_DECISION)
        marks = None if labels is None else labels.labels(item.frame, start, stop)
        wrong = None if marks is None else anomalous(marks)
        parts.append(runs_of(flags, values, wrong, start))
    runs = Runs.join(parts)
    regions = regions_of(runs, width)
    large = np.flatnonzero(regions.columns["area"] >= job.min_area)
    order = np.argsort(regions.of_run, kind="stable")
    bounds = np.searchsorted(regions.of_run[order], [large, large + 1])
    table = np.column_stack([runs.y, runs.x0, runs.x1])[order]
    boxes = [table[a:b] for a, b in bounds.T]
    columns = {name: values[large] for name, values in regions.columns.items()}
    if labels is None:
        columns["labelled"] = np.full(len(large), -1)
    return FrameRegions(item.session, item.frame, columns, boxes)


def _labels_of(item: _Item, job: _Job) -> Session | None:
    if job.archive is None:
        return None
    try:
        session = Session.open(job.archive, item.session)
    except StoreError:
        return None
    return session if session.labelled else None


def _table(regions: list[FrameRegions], places: Mapping[str, Located]) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for found in regions:
        part = pd.DataFrame(found.columns)
        part.insert(0, "session", found.session)
        part.insert(1, "frame", found.frame)
        part.insert(2, "id", np.arange(len(part)))
        part["class"] = "anomaly"
        place = places.get(found.session)
        if place is not None:
            centre = (part[f"centre_{axis}"].to_numpy() + 0.5 for axis in "xy")
            part["map_x"], part["map_y"] = place.at(*centre)
            part["crs"] = place.crs
            part["position"] = position_of(place)
        frames.append(part)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
