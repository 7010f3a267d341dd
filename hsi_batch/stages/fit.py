"""Fitting a pipeline to an archive from mergeable statistics."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed import Client

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.stored import has_statistics
from hsi_batch.engine.events import Observer
from hsi_batch.errors import ConfigError
from hsi_batch.nodes.gaussian import single_thread
from hsi_batch.pipeline.channels import check_width
from hsi_batch.pipeline.fitting import FitPlan, plan_fit
from hsi_batch.pipeline.groups import ARCHIVE, POOLED, Groups, check_background
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.agreement import agreed_axis, check_tolerance, spread
from hsi_batch.stages.backgrounds import parts_of
from hsi_batch.stages.bands import BandChoice, check_targets, see, values_of, view_of
from hsi_batch.stages.fit_members import Member, StoredStatistics, refuse
from hsi_batch.stages.fit_partials import KeptFits, discard
from hsi_batch.stages.fit_pass import PassReader
from hsi_batch.stages.fit_plan import count_plan
from hsi_batch.stages.fit_result import FitResult, provenance_of, told_of
from hsi_batch.stages.fit_stream import read_streams
from hsi_batch.stages.label_use import fits_on_labels, picks_by_label
from hsi_batch.stages.pixels import arrays_of, check_pixels, need_pixels
from hsi_batch.stages.run import TASK_BYTES, Run
from hsi_batch.statistics import Measure
from hsi_batch.statistics.columns import COLUMNS

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FitResult", "fit"]


def fit(
    pipeline: Pipeline | str | os.PathLike[str],
    data: Archive | str | os.PathLike[str] | xr.DataArray,
    *,
    frames: str | Sequence[str] | None = None,
    pixels: PixelChoice = "valid",
    background: str = ARCHIVE,
    fallback: str | None = None,
    bands: str = "good",
    exclude_bands: str | None = None,
    raw_values: bool | None = None,
    wavelength_tolerance: float | None = None,
    client: Client | None = None,
    workers: int | None = None,
    task_bytes: int = TASK_BYTES,
    keep: str | os.PathLike[str] | KeptFits | None = None,
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
    pixels : {"valid", "labelled-normal", "class:NAME", "mask:NAME"}
        All valid pixels, those that are labelled as background (unlabelled is not normal) or as
        another class, or those within a mask (:func:`.mask`).
    background : {"archive", "session", "sensor", "attr:NAME"}
        One state for everything, or one for each session, sensor, or value of an attribute of the
        sessions; each is what a fit of its frames alone would give, in as many passes.
    fallback : str, optional
        What sessions of another background are scored with: ``archive``, the state of all pixels,
        which is then fitted too, or the name of a background. Without it they are refused.
    bands : str
        ``good`` (all but those that the sources or their references mark as bad), ``all``, or
        ranges such as ``450-900nm`` or ``3,17,40-44``. No pass is needed for it.
    exclude_bands : str, optional
        Ranges, ``water``, ``constant``, or several of these with commas.
    raw_values : bool, optional
        Nodes see what is stored, not ``stored * scale + offset``. By default only pipelines of
        cuvis-ai do, which knows no physical values.
    wavelength_tolerance : float, optional
        Nanometres that the channels of sessions may be apart and still count as equal; 0.01 by
        default. What was counted as equal is in the result.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.
    task_bytes : int
        Bytes of pixels per task; changes no bit of the result.
    keep : path, optional
        Folder in which statistics are kept while the fit runs, so that the same fit, run again
        after it was killed, reads only what lacks. The workers must see it. Removed at the end,
        but for one that is given as :class:`.KeptFits`. By default nothing is kept.
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

    Examples
    --------
    On an archive, whose statistics spare the passes over the pixels:

    >>> from hsi_batch.pipeline import Pipeline
    >>> pipeline = Pipeline.from_yaml("workflows/pipelines/rx_statistical.yaml")
    >>> fit(pipeline, "archive.zarr", frames="scene_000").pixels
    1200

    On an array, without workers:

    >>> import numpy as np, xarray as xr
    >>> pixels = np.random.default_rng(0).integers(0, 4096, (16, 16, 4), dtype=np.uint16)
    >>> cube = xr.DataArray(pixels, dims=("y", "x", "channel"))
    >>> fit(Pipeline.from_yaml("workflows/pipelines/rx_statistical.yaml"), cube).pixels
    256
    """
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline.from_yaml(pipeline)
    check_pixels(pixels)
    check_background(background, fallback)
    pipeline.verify()
    if isinstance(data, (str, os.PathLike)):
        data = Archive(data)
    tolerance = check_tolerance(wavelength_tolerance)
    choice = BandChoice(bands, exclude_bands, raw_values, tolerance)
    if not isinstance(data, Archive):
        from hsi_batch.stages.fit_array import fit_array

        if background != ARCHIVE:
            raise ConfigError(
                f"background {background!r}: an array has no sessions.",
                hint="Convert the recordings into an archive, and fit to that.",
            )
        return fit_array(pipeline, data, choice, dry_run=dry_run)
    with Run(client, workers=workers, scoring=True, observer=observer) as run:
        fitting = _Fit(run, pipeline, data, frames, pixels, (background, fallback), choice)
        kept = keep if isinstance(keep, KeptFits) else KeptFits(keep)
        result = fitting.execute(task_bytes, kept, dry_run=dry_run)
    if kept is not keep and kept.folder is not None and not dry_run:
        discard(kept.folder)
    return result


class _Fit:
    def __init__(
        self,
        run: Run,
        pipeline: Pipeline,
        archive: Archive,
        frames: str | Sequence[str] | None,
        pixels: PixelChoice,
        background: tuple[str, str | None],
        choice: BandChoice,
    ) -> None:
        self.run = run
        self.pipeline = pipeline
        self.archive = archive
        self.pixels: PixelChoice = pixels
        self.begun = time.monotonic()
        self.selection: Selection = archive.select(frames)
        self.sessions: dict[str, Session] = archive.sessions(
            self.selection.sessions, *arrays_of(pixels), "sample", "good_band"
        )
        need_pixels(self.sessions, pixels)
        self.by, self.fallback = background
        self.tolerance = choice.tolerance
        axis = agreed_axis(self.sessions, self.by, self.tolerance)
        see(pipeline, view_of(pipeline, choice, self.sessions, self.selection, axis))
        pipeline.resolve(axis)
        check_targets(pipeline, self.sessions)
        for name, session in self.sessions.items():
            check_width(pipeline, session.geometry.shape[1], f"session {name}", fitted=False)
        self.parts = parts_of(self.by, self.fallback, self.selection, self.sessions)
        self.passes = 0

    def execute(self, task_bytes: int, kept: KeptFits, *, dry_run: bool) -> FitResult:
        """Plan, take what is stored, read what is not, fit."""
        self.pipeline.groups = None
        plans: dict[tuple[str | Measure, ...], FitPlan] = {}
        kinds = {group: self._kinds(part) for group, part in self.parts.items()}
        for held in kinds.values():
            if held not in plans:
                plans[held] = plan_fit(self.pipeline, held)
        plan = max(plans.values(), key=lambda p: p.passes)
        reader = PassReader(
            self.run,
            self.pipeline,
            self.archive,
            self.sessions,
            self.selection,
            self.parts,
            self.pixels,
            task_bytes,
            kept,
        )
        if dry_run:
            members = [] if kept.empty else self._members(reader, plans, kinds, copies=True)
            needed = count_plan(reader, {g: plans[k] for g, k in kinds.items()}, members)
            self.passes = plan.passes
            told = {**told_of([], self.by), "groups": len([g for g in self.parts if g])}
            return self._result(reader, plan, {**told, "worker_bytes": needed})
        members = self._members(reader, plans, kinds)
        refuse(members, self.by, by_label=picks_by_label(self.pixels))
        while True:
            streams = {m.group: name for m in members if (name := m.stream()) is not None}
            wanted = {m.group: needs for m in members if (needs := m.needs())}
            if not streams and not wanted:
                break
            self.passes += 1
            about = (members, self.passes, plan.passes)
            if streams:
                weights = read_streams(reader, streams, *about)
                for member in members:
                    if member.group in streams:
                        member.settle(streams[member.group], weights[member.group])
                continue
            waves = reader.waves(wanted)
            if POOLED in wanted and len(waves) > 1:
                # Its pixels are read once more, by the other backgrounds.
                self.passes += 1
            for wave in waves:
                found = reader.read(wave, *about)
                for member in members:
                    if member.group in wave:
                        member.supply(found.pop(member.group))
            refuse(members, self.by, by_label=picks_by_label(self.pixels))
        return self._finish(reader, plan, members)

    def _members(
        self,
        reader: PassReader,
        plans: Mapping[tuple[str | Measure, ...], FitPlan],
        kinds: Mapping[str, tuple[str | Measure, ...]],
        *,
        copies: bool = False,
    ) -> list[Member]:
        """The fits that go side by side, with what is stored; of copies, to see where they get."""
        members = []
        stored = StoredStatistics(self.sessions, self.pixels, shared=POOLED in self.parts)
        single = self.by == ARCHIVE and not copies
        unfitted = self.pipeline if single else copy.deepcopy(self.pipeline)
        with single_thread():
            for group, part in self.parts.items():
                moments = stored if "moments" in kinds[group] else None
                own = group == POOLED and not copies
                pipeline = self.pipeline if own else copy.deepcopy(unfitted)
                sample = partial(reader.spectra, part)
                chosen = plans[kinds[group]]
                member = Member(group, pipeline, unfitted, part, chosen, sample, moments)
                member.take_stored(stored)
                members.append(member)
        return members

    def _finish(self, reader: PassReader, plan: FitPlan, members: Sequence[Member]) -> FitResult:
        pipeline = self.pipeline
        states = {m.group: m.state for m in members if m.group and m.state is not None}
        if states:
            pipeline.groups = Groups(self.by, states, self.fallback)
        if POOLED not in self.parts:
            for name in pipeline.groups.nodes if pipeline.groups else ():
                pipeline.nodes[name].mark_fitted(False)
            pipeline.precision, pipeline.reference = {}, None
        told = {**told_of(members, self.by), "settled": pipeline.in_words()}
        result = self._result(reader, plan, told)
        pipeline.provenance = provenance_of(
            result,
            self.archive,
            self.selection,
            self.sessions,
            self.pixels,
            (self.by, self.fallback),
            values_of(pipeline, self.sessions, self.tolerance),
            by_label=fits_on_labels(pipeline, self.pixels),
        )
        return result

    def _kinds(self, part: Selection) -> tuple[str | Measure, ...]:
        """Kinds of statistics that the archive holds for some frames."""
        return tuple(
            kind
            for kind in ("moments", "extrema", COLUMNS)
            if has_statistics(self.sessions, part, str(kind), self.pixels)
        )

    def _result(self, reader: PassReader, plan: FitPlan, told: Mapping[str, Any]) -> FitResult:
        return FitResult(
            passes=self.passes,
            sessions=len(self.selection.sessions),
            frames=len(self.selection),
            failures=tuple(reader.failures),
            seconds=time.monotonic() - self.begun,
            plan=plan,
            memory=self.run.memory() if self.run.started else None,
            blocks=reader.counts.blocks,
            bytes=reader.counts.bytes,
            tasks=reader.counts.tasks,
            kept=reader.counts.kept,
            redone=reader.counts.redone,
            apart_nm=spread(self.sessions),
            **told,
        )
