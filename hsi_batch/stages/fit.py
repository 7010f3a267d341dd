"""Fitting a pipeline to an archive from mergeable statistics."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, Future
from numpy.typing import NDArray

from hsi_batch._version import __version__
from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.store import archive_stamp
from hsi_batch.archive.stored import (
    has_statistics,
    sampled_frames,
    stored_sample,
    stored_statistic,
    thinned,
)
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.reduce import TreeReduction
from hsi_batch.engine.window import batches, run_window
from hsi_batch.engine.worker import environment
from hsi_batch.errors import ConfigError, DataError, DataWarning
from hsi_batch.files import digest_json
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.fitting import FitPlan, Fitting, plan_fit
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.frames import assembled_channels
from hsi_batch.pipeline.gather import Need, finished
from hsi_batch.pipeline.passes import marks_of, whole_frames
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.reference import Reference
from hsi_batch.stages.agreement import common_axis
from hsi_batch.stages.fit_blocks import (
    FitItem,
    FitJob,
    PassPart,
    fit_items,
    fit_keys,
    report_of,
)
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.stages.memory import assembled_bytes, check_memory
from hsi_batch.stages.run import TASK_BYTES, BlockWork, Failure, Run, judge
from hsi_batch.statistics import Moments

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FitResult", "fit"]

_PIXELS = ("valid", "labelled-normal")
_BLOCKS_HELD = 3
_CUBE_MOMENTS = Need(CUBE, "moments")
#: Most failures, and most sources, that are written into a fitted pipeline.
_REMEMBERED = 1000


def fit(
    pipeline: Pipeline | str | os.PathLike[str],
    data: Archive | str | os.PathLike[str] | xr.DataArray,
    *,
    frames: str | Sequence[str] | None = None,
    pixels: PixelChoice = "valid",
    client: Client | None = None,
    workers: int | None = None,
    task_bytes: int = TASK_BYTES,
    dry_run: bool = False,
    observer: Observer | None = None,
) -> FitResult:
    """Fit the statistical nodes of a pipeline, in place, in as few passes as possible.

    Parameters
    ----------
    pipeline : Pipeline
        Or the path of its YAML (useful with ``dry_run`` only, for the fitted pipeline is not
        returned).
    data : Archive, path or xarray.DataArray
        An archive, or any cube with dimensions ``(frame,) y, x, channel``.
    frames : str or sequence of str, optional
        Selection; everything by default.
    pixels : {"valid", "labelled-normal"}
        All valid pixels, or those that are labelled as background. Unlabelled is not normal.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.
    task_bytes : int
        Bytes of pixels per task; changes no bit of the result.
    dry_run : bool
        Plan only.

    Returns
    -------
    FitResult

    Raises
    ------
    hsi_batch.errors.ConfigError
        The graph is wrong, the selection is empty, sessions do not agree.
    hsi_batch.errors.DataError
        Too few pixels, a constant channel, a singular covariance.
    """
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline.from_yaml(pipeline)
    if pixels not in _PIXELS:
        raise ConfigError(f"pixels {pixels!r} is not one of {', '.join(_PIXELS)}.")
    pipeline.verify()
    if isinstance(data, (str, os.PathLike)):
        data = Archive(data)
    if not isinstance(data, Archive):
        from hsi_batch.stages.fit_array import fit_array

        return fit_array(pipeline, data, dry_run=dry_run)
    with Run(client, workers=workers, scoring=True, observer=observer) as run:
        return _Fit(run, pipeline, data, frames, pixels, task_bytes).execute(dry_run=dry_run)


class _Fit:
    def __init__(
        self,
        run: Run,
        pipeline: Pipeline,
        archive: Archive,
        frames: str | Sequence[str] | None,
        pixels: PixelChoice,
        task_bytes: int,
    ) -> None:
        self.run = run
        self.pipeline = pipeline
        self.archive = archive
        self.pixels: PixelChoice = pixels
        self.task_bytes = task_bytes
        self.begun = time.monotonic()
        self.selection: Selection = archive.select(frames)
        self.sessions: dict[str, Session] = {
            name: archive.session(name) for name in self.selection.sessions
        }
        pipeline.resolve(common_axis(self.sessions))
        self.failures: list[Failure] = []
        self.sample: dict[Any, NDArray[Any]] = {}
        self.passes = 0
        self.read = {"blocks": 0, "bytes": 0, "tasks": 0}
        self.moments: Moments | None = None

    def execute(self, *, dry_run: bool) -> FitResult:
        """Plan, take what is stored, read what is not, fit."""
        stored = [
            kind
            for kind in ("moments", "extrema")
            if has_statistics(self.sessions, self.selection, kind, self.pixels)
        ]
        plan = plan_fit(self.pipeline, stored)
        if dry_run:
            blocks, size, tasks = self._reading(plan)
            self.passes = plan.passes
            planned = self._result(plan, 0, ())
            return replace(planned, blocks=blocks, bytes=size, tasks=tasks)
        fitting = Fitting(self.pipeline, plan, self._sample)
        pixels = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            found = self._stored(fitting.stored())
            while True:
                pixels = max([pixels, *(int(getattr(s, "count", 0)) for s in found.values())])
                self.moments = found.get(_CUBE_MOMENTS, self.moments)
                fitting.supply(found)
                needs = fitting.needs()
                if not needs:
                    break
                self.passes += 1
                found = self._read(needs, plan)
        said = tuple(str(w.message) for w in caught if issubclass(w.category, DataWarning))
        for warning in caught:
            if not issubclass(warning.category, DataWarning):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        result = self._result(plan, pixels, said)
        if self.moments is None and "moments" in stored:
            self.moments = stored_statistic(self.sessions, self.selection, "moments", self.pixels)
        self.pipeline.reference = Reference.of(self.moments)
        self.pipeline.provenance = self._provenance(result)
        return result

    def _stored(self, needs: Sequence[Need]) -> dict[Need, Any]:
        found = {}
        for need in needs:
            assert isinstance(need.kind, str)
            value = stored_statistic(self.sessions, self.selection, need.kind, self.pixels)
            if value is None:
                raise _no_pixels(self.selection)
            found[need] = value
        return found

    def _read(self, needs: tuple[Need, ...], plan: FitPlan) -> dict[Need, Any]:
        """One pass: leaf tasks read and merge, their results merge in a tree on the workers."""
        items, sizes = self._items(needs)
        run = self.run
        geometries = [session.geometry for session in self.sessions.values()]
        held = _BLOCKS_HELD * max(geometry.block_bytes for geometry in geometries)
        if whole_frames(self.pipeline, needs):
            roots = (*(need.root for need in needs), *marks_of(self.pipeline))
            held += assembled_bytes(geometries, assembled_channels(self.pipeline, roots))
        check_memory(run.client, held, "fit")
        job = FitJob(
            str(self.archive.path.absolute()),
            archive_stamp(self.archive.path),
            pack(self.pipeline),
            needs,
            self.pixels,
        )
        # A future of its own: the pipeline travels once to each worker, and survives its loss.
        name = f"fit-{self.passes}-{job.packed.digest[:8]}-{time.monotonic_ns()}"
        shared = run.client.submit(_itself, job, key=f"{name}-job")
        blocks = sum(len(item.ranges) for item in items)
        work = BlockWork(
            Progress(f"fit, pass {self.passes} of {plan.passes}", blocks, sum(sizes.values()))
        )
        run.observer(work.progress)
        self.read["blocks"] += blocks
        self.read["bytes"] += sum(sizes.values())
        tasks = batches(
            items,
            lambda item: sizes[id(item)],
            threads=run.threads,
            target=self.task_bytes,
            prefix=name,
        )
        reduction = TreeReduction(run.client)
        for outcome, future in run_window(run.client, fit_items, tasks, shared, keep=True):
            self.read["tasks"] += 1
            if future is None:
                lost = [
                    Failure(key, str(outcome.error))
                    for item in outcome.task.items
                    for key in fit_keys(item)
                ]
                work.failures.extend(lost)
                work.progress.failed += len(lost)
            else:
                self._count(work, future)
                reduction.add(future)
            run.observer(work.progress)
            judge(work)
        part: PassPart | None = reduction.result()
        self.failures.extend(work.failures)
        if part is None:
            raise _no_pixels(self.selection)
        self.sample.update(part.sample)
        statistics = finished(part.bundle)
        found = {need: statistics.get(str(need)) for need in needs}
        if any(value is None for value in found.values()):
            raise _no_pixels(self.selection)
        return found

    def _count(self, work: BlockWork, future: Future[Any]) -> None:
        report = self.run.client.submit(report_of, future, pure=False).result()
        work.progress.done += report.done
        work.progress.done_bytes += report.done_bytes
        work.progress.failed += len(report.failures)
        work.failures.extend(report.failures)

    def _reading(self, plan: FitPlan) -> tuple[int, int, int]:
        """Blocks, bytes and tasks of all passes."""
        blocks = size = count = 0
        for reading in range(1, plan.passes + 1):
            needs = tuple(dict.fromkeys(n.need for n in plan.nodes if n.reading == reading))
            items, sizes = self._items(needs)
            tasks = batches(
                items,
                lambda item, sizes=sizes: sizes[id(item)],  # type: ignore[misc]
                threads=self.run.expected_threads,
                target=self.task_bytes,
                prefix="plan",
            )
            blocks += sum(len(item.ranges) for item in items)
            size += sum(sizes.values())
            count += sum(1 for _ in tasks)
        return blocks, size, count

    def _items(self, needs: tuple[Need, ...]) -> tuple[list[FitItem], dict[int, int]]:
        by_frame = whole_frames(self.pipeline, needs)
        # Spectra are kept on the way where conversion kept none.
        wanted = not self.sample and any(need.root == CUBE for need in needs)
        keeps = all("sample" in session.group for session in self.sessions.values())
        sampled = set(sampled_frames(self.selection)) if wanted and not keeps else set()
        items: list[FitItem] = []
        sizes: dict[int, int] = {}
        for item in self._frame_items(sampled):
            geometry = self.sessions[item.session].geometry
            parts = (
                [item]
                if by_frame
                else [
                    FitItem(item.session, item.frame, (span,), item.place, item.sampled)
                    for span in item.ranges
                ]
            )
            for part in parts:
                sizes[id(part)] = sum(geometry.bytes_of(key) for key in fit_keys(part))
                items.append(part)
        return items, sizes

    def _frame_items(self, sampled: set[tuple[str, int]]) -> Iterator[FitItem]:
        for name, frame, lines in self.selection:
            geometry = self.sessions[name].geometry
            first, last = lines or (0, geometry.shape[0])
            ranges = tuple(
                (max(start, first), min(stop, last))
                for start, stop in geometry.ranges()
                if start < last and stop > first
            )
            place = self.selection.place(name, frame, geometry.frames)
            # Cut leaves have no fixed places for samples.
            keep = lines is None and (name, frame) in sampled
            yield FitItem(name, frame, ranges, place, keep)

    def _sample(self) -> NDArray[Any] | None:
        stored = stored_sample(self.sessions, self.selection)
        if stored is not None or not self.sample:
            return stored
        return thinned(np.concatenate([self.sample[key] for key in sorted(self.sample)]))

    def _result(self, plan: FitPlan, pixels: int, said: tuple[str, ...]) -> FitResult:
        states = {name: self.pipeline.nodes[name].state for name in self.pipeline.nodes}
        return FitResult(
            passes=self.passes,
            pixels=pixels,
            sessions=len(self.selection.sessions),
            frames=len(self.selection),
            rank={n: int(s["rank"]) for n, s in states.items() if "rank" in s},
            condition={n: float(s["condition"]) for n, s in states.items() if "condition" in s},
            precision={n: str(p) for n, p in self.pipeline.precision.items()},
            settled=self.pipeline.in_words(),
            warnings=said,
            failures=tuple(self.failures),
            seconds=time.monotonic() - self.begun,
            plan=plan,
            memory=self.run.memory() if self.run.started else None,
            blocks=self.read["blocks"],
            bytes=self.read["bytes"],
            tasks=self.read["tasks"],
        )

    def _provenance(self, result: FitResult) -> dict[str, Any]:
        digests = {name: str(s.attrs.get("digest", "")) for name, s in self.sessions.items()}
        return {
            "archive": str(self.archive.path),
            "sources": [
                str(s.attrs.get("source", {}).get("path", ""))
                for s in list(self.sessions.values())[:_REMEMBERED]
            ],
            "selection": self.selection.text,
            "pixels": self.pixels,
            "pixel_count": result.pixels,
            "sessions": result.sessions,
            "frames": result.frames,
            "data_digest": digest_json([digests, [list(item) for item in self.selection]]),
            "left_out": [[*astuple(f.key), f.reason] for f in result.failures[:_REMEMBERED]],
            "passes": result.passes,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": f"hsi_batch {__version__}",
            "environment": environment(),
        }


def _itself(job: FitJob) -> FitJob:
    return job


def _no_pixels(selection: Selection) -> DataError:
    return DataError(
        f"no valid pixel was found in the {len(selection)} selected frames.",
        hint="Select other frames, or look at the quality flags (hsi-batch show).",
    )
