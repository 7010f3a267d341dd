"""Fitting a pipeline to an archive from mergeable statistics."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, Future
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.store import archive_stamp
from hsi_batch.archive.stored import (
    has_statistics,
    sampled_frames,
    stored_sample,
    thinned,
)
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.reduce import TreeReduction
from hsi_batch.engine.shared import SharedValues
from hsi_batch.engine.window import batches, run_window
from hsi_batch.errors import ConfigError
from hsi_batch.nodes.gaussian import single_thread
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.fitting import FitPlan, plan_fit
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.frames import assembled_channels
from hsi_batch.pipeline.gather import Need, finished
from hsi_batch.pipeline.groups import ARCHIVE, POOLED, Groups, check_background
from hsi_batch.pipeline.passes import marks_of, whole_frames
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.agreement import common_axis
from hsi_batch.stages.backgrounds import parts_of
from hsi_batch.stages.fit_blocks import (
    FitItem,
    FitJob,
    PassPart,
    fit_items,
    fit_keys,
    report_of,
)
from hsi_batch.stages.fit_members import Member, StoredStatistics, no_pixels, refuse
from hsi_batch.stages.fit_result import FitResult, provenance_of, told_of
from hsi_batch.stages.memory import assembled_bytes, check_memory
from hsi_batch.stages.run import TASK_BYTES, BlockWork, Failure, Run, judge

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FitResult", "fit"]

_LOOKED_AT = {
    "valid": ("moments", "extrema"),
    "labelled-normal": ("moments_normal", "extrema_normal", "label"),
}
_BLOCKS_HELD = 3


def fit(
    pipeline: Pipeline | str | os.PathLike[str],
    data: Archive | str | os.PathLike[str] | xr.DataArray,
    *,
    frames: str | Sequence[str] | None = None,
    pixels: PixelChoice = "valid",
    background: str = ARCHIVE,
    fallback: str | None = None,
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
    background : {"archive", "session", "sensor", "attr:NAME"}
        One state for everything, or one for each session, sensor, or value of an attribute of the
        sessions; each is what a fit of its frames alone would give, in as many passes.
    fallback : str, optional
        What sessions of another background are scored with: ``archive``, the state of all pixels,
        which is then fitted too, or the name of a background. Without it they are refused.
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
    if pixels not in _LOOKED_AT:
        raise ConfigError(f"pixels {pixels!r} is not one of {', '.join(_LOOKED_AT)}.")
    check_background(background, fallback)
    pipeline.verify()
    if isinstance(data, (str, os.PathLike)):
        data = Archive(data)
    if not isinstance(data, Archive):
        from hsi_batch.stages.fit_array import fit_array

        if background != ARCHIVE:
            raise ConfigError(
                f"background {background!r}: an array has no sessions.",
                hint="Convert the recordings into an archive, and fit to that.",
            )
        return fit_array(pipeline, data, dry_run=dry_run)
    with Run(client, workers=workers, scoring=True, observer=observer) as run:
        fitting = _Fit(run, pipeline, data, frames, pixels, (background, fallback), task_bytes)
        return fitting.execute(dry_run=dry_run)


class _Fit:
    def __init__(
        self,
        run: Run,
        pipeline: Pipeline,
        archive: Archive,
        frames: str | Sequence[str] | None,
        pixels: PixelChoice,
        background: tuple[str, str | None],
        task_bytes: int,
    ) -> None:
        self.run = run
        self.pipeline = pipeline
        self.archive = archive
        self.pixels: PixelChoice = pixels
        self.task_bytes = task_bytes
        self.begun = time.monotonic()
        self.selection: Selection = archive.select(frames)
        self.sessions: dict[str, Session] = archive.sessions(
            self.selection.sessions, *_LOOKED_AT[pixels], "sample", "good_band"
        )
        pipeline.resolve(common_axis(self.sessions))
        self.by, self.fallback = background
        self.parts = parts_of(self.by, self.fallback, self.selection, self.sessions)
        self.failures: list[Failure] = []
        self.sample: dict[BlockKey, NDArray[Any]] = {}
        self.passes = 0
        self.read = {"blocks": 0, "bytes": 0, "tasks": 0}
        self.members: list[Member] = []

    def execute(self, *, dry_run: bool) -> FitResult:
        """Plan, take what is stored, read what is not, fit."""
        self.pipeline.groups = None
        plans: dict[tuple[str, ...], FitPlan] = {}
        kinds = {group: self._kinds(part) for group, part in self.parts.items()}
        for held in kinds.values():
            if held not in plans:
                plans[held] = plan_fit(self.pipeline, held)
        plan = max(plans.values(), key=lambda p: p.passes)
        if dry_run:
            blocks, size, tasks = self._reading({g: plans[k] for g, k in kinds.items()})
            self.passes = plan.passes
            told = {**told_of([], self.by), "groups": len([g for g in self.parts if g])}
            planned = self._result(plan, told)
            return replace(planned, blocks=blocks, bytes=size, tasks=tasks)
        stored = StoredStatistics(self.sessions, self.pixels, shared=POOLED in self.parts)
        unfitted = self.pipeline if self.by == ARCHIVE else copy.deepcopy(self.pipeline)
        with single_thread():
            for group, part in self.parts.items():
                moments = stored if "moments" in kinds[group] else None
                pipeline = self.pipeline if group == POOLED else copy.deepcopy(unfitted)
                sample = partial(self._sample, part)
                own = plans[kinds[group]]
                member = Member(group, pipeline, unfitted, part, own, sample, moments)
                member.take_stored(stored)
                self.members.append(member)
        refuse(self.members, self.by)
        while wanted := {m.group: needs for m in self.members if (needs := m.needs())}:
            self.passes += 1
            found = self._read(wanted, plan)
            for member in self.members:
                if member.group in wanted:
                    member.supply(found[member.group])
            refuse(self.members, self.by)
        return self._finish(plan)

    def _finish(self, plan: FitPlan) -> FitResult:
        result = self._result(plan, told_of(self.members, self.by))
        pipeline = self.pipeline
        states = {m.group: m.state for m in self.members if m.group and m.state is not None}
        if states:
            pipeline.groups = Groups(self.by, states, self.fallback)
        if POOLED not in self.parts:
            for name in pipeline.groups.nodes if pipeline.groups else ():
                pipeline.nodes[name].mark_fitted(False)
            pipeline.precision, pipeline.reference = {}, None
        pipeline.provenance = provenance_of(
            result,
            self.archive,
            self.selection,
            self.sessions,
            self.pixels,
            (self.by, self.fallback),
        )
        return result

    def _kinds(self, part: Selection) -> tuple[str, ...]:
        """Kinds of statistics that the archive holds for some frames."""
        return tuple(
            kind
            for kind in ("moments", "extrema")
            if has_statistics(self.sessions, part, kind, self.pixels)
        )

    def _read(
        self, wanted: Mapping[str, tuple[Need, ...]], plan: FitPlan
    ) -> dict[str, dict[Need, Any]]:
        """One pass: leaf tasks read and merge, their results merge in a tree on the workers."""
        items, sizes = self._items(wanted)
        needs = tuple(dict.fromkeys(need for each in wanted.values() for need in each))
        run = self.run
        geometries = [session.geometry for session in self.sessions.values()]
        held = _BLOCKS_HELD * max(geometry.block_bytes for geometry in geometries)
        if whole_frames(self.pipeline, needs):
            roots = (*(need.root for need in needs), *marks_of(self.pipeline))
            held += assembled_bytes(geometries, assembled_channels(self.pipeline, roots))
        check_memory(run.client, held, "fit")
        path, stamp = str(self.archive.path.absolute()), archive_stamp(self.archive.path)
        pipelines = {member.group: member.pipeline for member in self.members if member.needs()}
        name = f"fit-{self.passes}-{time.monotonic_ns()}"
        # Futures of their own: a pipeline travels once to each worker, and survives its loss.
        jobs = SharedValues(
            run.client,
            lambda g: FitJob(path, stamp, pack(pipelines[g]), wanted[g], self.pixels, g),
            f"{name}-job",
        )
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
        tasks = jobs.given_to(tasks, lambda item: (group for group, _ in item.places))
        reduction = TreeReduction(run.client)
        for outcome, future in run_window(run.client, fit_items, tasks, keep=True):
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
            raise no_pixels(self.selection)
        self.sample.update(part.sample)
        found = {group: finished(part.bundle.get(group, {})) for group in wanted}
        return {g: {need: found[g].get(str(need)) for need in wanted[g]} for g in wanted}

    def _count(self, work: BlockWork, future: Future[Any]) -> None:
        report = self.run.client.submit(report_of, future, pure=False).result()
        work.progress.done += report.done
        work.progress.done_bytes += report.done_bytes
        work.progress.failed += len(report.failures)
        work.failures.extend(report.failures)

    def _reading(self, plans: Mapping[str, FitPlan]) -> tuple[int, int, int]:
        """Blocks, bytes and tasks of all passes."""
        blocks = size = count = 0
        for reading in range(1, max(plan.passes for plan in plans.values()) + 1):
            taken = {
                group: tuple(dict.fromkeys(n.need for n in plan.nodes if n.reading == reading))
                for group, plan in plans.items()
            }
            items, sizes = self._items({group: needs for group, needs in taken.items() if needs})
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

    def _items(
        self, wanted: Mapping[str, tuple[Need, ...]]
    ) -> tuple[list[FitItem], dict[int, int]]:
        needs = tuple(dict.fromkeys(need for each in wanted.values() for need in each))
        by_frame = whole_frames(self.pipeline, needs)
        # Spectra are kept on the way where conversion kept none.
        first = not self.sample and any(need.root == CUBE for need in needs)
        sampled: set[tuple[str, int]] = set()
        if first and not all("sample" in session.group for session in self.sessions.values()):
            sampled = {at for group in wanted for at in sampled_frames(self.parts[group])}
        items: list[FitItem] = []
        sizes: dict[int, int] = {}
        for item in self._frame_items(wanted, sampled):
            geometry = self.sessions[item.session].geometry
            parts = (
                [item]
                if by_frame
                else [
                    FitItem(item.session, item.frame, (span,), item.places, item.sampled)
                    for span in item.ranges
                ]
            )
            for part in parts:
                sizes[id(part)] = sum(geometry.bytes_of(key) for key in fit_keys(part))
                items.append(part)
        return items, sizes

    def _frame_items(
        self, groups: Iterable[str], sampled: set[tuple[str, int]]
    ) -> Iterator[FitItem]:
        counts: dict[str, list[str]] = {}
        for group in groups:
            for name in self.parts[group].sessions:
                counts.setdefault(name, []).append(group)
        for name, frame, lines in self.selection:
            if name not in counts:
                continue
            geometry = self.sessions[name].geometry
            first, last = lines or (0, geometry.shape[0])
            ranges = tuple(
                (max(start, first), min(stop, last))
                for start, stop in geometry.ranges()
                if start < last and stop > first
            )
            places = tuple(
                (group, self.parts[group].place(name, frame, geometry.frames))
                for group in counts[name]
            )
            # Cut leaves have no fixed places for samples.
            keep = lines is None and (name, frame) in sampled
            yield FitItem(name, frame, ranges, places, keep)

    def _sample(self, part: Selection) -> NDArray[Any] | None:
        stored = stored_sample(self.sessions, part)
        frames = set() if stored is not None else set(sampled_frames(part))
        taken = [self.sample[k] for k in sorted(self.sample) if (k.session, k.frame) in frames]
        return thinned(np.concatenate(taken)) if taken else stored

    def _result(self, plan: FitPlan, told: Mapping[str, Any]) -> FitResult:
        return FitResult(
            passes=self.passes,
            sessions=len(self.selection.sessions),
            frames=len(self.selection),
            failures=tuple(self.failures),
            seconds=time.monotonic() - self.begun,
            plan=plan,
            memory=self.run.memory() if self.run.started else None,
            blocks=self.read["blocks"],
            bytes=self.read["bytes"],
            tasks=self.read["tasks"],
            **told,
        )
