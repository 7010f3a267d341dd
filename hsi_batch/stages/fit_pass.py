"""The passes of a fit over an archive: what each reads, what is kept of it, what it found."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.store import archive_stamp
from hsi_batch.archive.stored import sampled_frames, stored_sample, thinned
from hsi_batch.engine.events import Progress
from hsi_batch.engine.shared import SharedValues
from hsi_batch.engine.tasks import Task, batch_count, batches
from hsi_batch.engine.window import Outcome, run_window
from hsi_batch.errors import StoreError
from hsi_batch.files import digest_json
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.frames import assembled_channels
from hsi_batch.pipeline.gather import Need, finished
from hsi_batch.pipeline.passes import ports_of, whole_frames
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.fit_blocks import (
    FitItem,
    FitJob,
    FlawedPart,
    damaged_of,
    fit_items,
    fit_keys,
    report_of,
)
from hsi_batch.stages.fit_items import PassItems, Wanted, needs_of
from hsi_batch.stages.fit_members import Member, no_pixels
from hsi_batch.stages.fit_partials import (
    KeptFits,
    PassGathering,
    Portion,
    load_portions,
    pass_digest,
    portions_of,
    sample_of,
    session_stamps,
)
from hsi_batch.stages.fit_waves import waves_of
from hsi_batch.stages.memory import (
    LARGE_STATISTICS,
    assembled_bytes,
    check_memory,
    statistic_bytes,
)
from hsi_batch.stages.run import BlockWork, Failure, Run, TaskReport, judge

__all__ = ["PassCounts", "PassReader", "Wanted"]

#: What was found for each background; None where no pixel counted.
Found = dict[str, dict[Need, Any]]

_BLOCKS_HELD = 3
#: Copies of the statistics in a worker at once, per result that is merged at once.
_COPIES = 8


@dataclass
class PassCounts:
    """What all passes read.

    Attributes
    ----------
    blocks, bytes, tasks : int
        Read, or tried to.
    kept : int
        Blocks whose statistics an interrupted run had kept.
    redone : int
        Blocks for which other statistics are kept, which no longer agree (plans only).
    """

    blocks: int = 0
    bytes: int = 0
    tasks: int = 0
    kept: int = 0
    redone: int = 0


@dataclass
class PassReader:
    """Reads what a pass needs, merges it on the workers, and keeps it until the fit ends.

    Attributes
    ----------
    pipeline : Pipeline
        As it was; each background has its own.
    parts : mapping
        The selection of each background.
    """

    run: Run
    pipeline: Pipeline
    archive: Archive
    sessions: Mapping[str, Session]
    selection: Selection
    parts: Mapping[str, Selection]
    pixels: PixelChoice
    task_bytes: int
    kept: KeptFits
    failures: list[Failure] = field(default_factory=list)
    sample: dict[BlockKey, NDArray[Any]] = field(default_factory=dict)
    counts: PassCounts = field(default_factory=PassCounts)

    @cached_property
    def items(self) -> PassItems:
        """What passes read."""
        return PassItems(self.pipeline, self.sessions, self.selection, self.parts)

    # -- plans -------------------------------------------------------------------------------

    def portions(
        self, wanted: Wanted, members: Sequence[Member]
    ) -> tuple[list[Portion], dict[int, int]]:
        """The portions of a pass, and the bytes of each item by its ``id``.

        Where nothing is kept, they have no digests that mean anything.
        """
        items, sizes = self.items.of(wanted, sampling=not self.sample)
        digests, stamps = dict.fromkeys(wanted, ""), dict.fromkeys(self.sessions, "")
        if self.kept.folder is not None:
            stamps = session_stamps(self.archive.path, self.sessions)
            for member in members:
                if member.group in wanted:
                    needs = wanted[member.group]
                    digests[member.group] = pass_digest(member.pipeline, needs, self.pixels)
        cut = portions_of(
            items,
            [sizes[id(item)] for item in items],
            digests,
            stamps,
            statistics=self._statistics(wanted)
            * max((len(item.places) for item in items), default=1),
            task_bytes=self.task_bytes,
        )
        return cut, sizes

    def plan(self, wanted: Wanted, kept: int = 0) -> None:
        """Count what a pass would read; of ``kept`` blocks the statistics are there."""
        blocks, parts = 0, []
        for wave in self.waves(wanted):
            held, sizes = self.items.sizes(wave)
            blocks += held
            parts.append(sizes)
        sizes = np.concatenate(parts)
        tasks = batch_count(sizes, threads=self.run.expected_threads, target=self.task_bytes)
        left = 1 - kept / max(blocks, 1)
        self.counts.blocks += blocks - kept
        self.counts.bytes += round(left * int(sizes.sum()))
        self.counts.tasks += math.ceil(left * tasks)
        self.counts.kept += kept

    def worker_bytes(self, wanted: Wanted) -> tuple[int, int]:
        """Memory of a worker above its base: for pixels, and for statistics."""
        geometries = self._geometries()
        needs = needs_of(wanted)
        held = _BLOCKS_HELD * max(geometry.block_bytes for geometry in geometries)
        if whole_frames(self.pipeline, needs):
            ports = ports_of(self.pipeline, needs)
            held += assembled_bytes(geometries, assembled_channels(self.pipeline, ports))
        one = self._statistics(wanted)
        # At the top of the tree the statistics of all backgrounds come together.
        return held, (_COPIES * _fan_in(one) + 3 * (len(wanted) - 1)) * one

    def waves(self, wanted: Wanted) -> list[Wanted]:
        """The backgrounds that are read together, one run of them after the other."""
        return waves_of(wanted, self._statistics(wanted))

    def _statistics(self, wanted: Wanted) -> int:
        """Bytes of one copy of the statistics of a background."""
        return statistic_bytes(self.pipeline, needs_of(wanted), self._geometries())

    def _geometries(self) -> list[Geometry]:
        return [session.geometry for session in self.sessions.values()]

    def known(self, wanted: Wanted, portions: Sequence[Portion]) -> Found | None:
        """What an interrupted run found in this pass, if it finished it."""
        content = self.kept.finished(_whole(portions))
        if content is None:
            return None
        self.sample.update(sample_of(content["sample"]))
        return _by_need(wanted, content["found"])

    # -- reading -----------------------------------------------------------------------------

    def read(self, wanted: Wanted, members: Sequence[Member], number: int, of: int) -> Found:
        """One pass: leaf tasks read and merge, their results merge in a tree on the workers.

        Parameters
        ----------
        wanted : mapping
            What each background needs.
        members : sequence of Member
            The backgrounds.
        number, of : int
            Of the pass.
        """
        portions, sizes = self.portions(wanted, members)
        known = self.known(wanted, portions)
        if known is not None:
            self.counts.kept += sum(portion.blocks for portion in portions)
            return known
        run = self.run
        held, statistics = self.worker_bytes(wanted)
        check_memory(run.client, held, "fit", statistics)
        path, stamp = str(self.archive.path.absolute()), archive_stamp(self.archive.path)
        pipelines = {member.group: member.pipeline for member in members if member.group in wanted}
        name = f"fit-{number}-{time.monotonic_ns()}"
        # Futures of their own: a pipeline travels once to each worker, and survives its loss.
        jobs = SharedValues(
            run.client,
            lambda g: FitJob(path, stamp, pack(pipelines[g]), wanted[g], self.pixels, g),
            f"{name}-job",
        )
        total, size = sum(p.blocks for p in portions), sum(p.bytes for p in portions)
        work = BlockWork(Progress(f"fit, pass {number} of {of}", total, size))
        run.observer(work.progress)
        one = self._statistics(wanted)
        small = one * len(wanted) < LARGE_STATISTICS
        gathering = PassGathering(
            run.client, self.kept, portions, _fan_in(one), 2 * _fan_in(one) if small else 1
        )
        left, damaged = self._load(portions, gathering, work, name)
        items = [item for portion in left for item in portion.items]
        self.counts.blocks += sum(portion.blocks for portion in left)
        self.counts.bytes += sum(portion.bytes for portion in left)
        tasks = self._tasks(items, sizes, run.threads, name, gathering)
        tasks = jobs.given_to(tasks, lambda item: (group for group, _ in item.places))
        for outcome, future in run_window(
            run.client, fit_items, tasks, keep=True, peek=report_of, peek_at=FlawedPart
        ):
            self.counts.tasks += 1
            _count(work, _report(outcome, lost=future is None, sizes=sizes))
            gathering.add(outcome.task.items, future)
            run.observer(work.progress)
            judge(work)
        part = gathering.result()
        if part is not None:
            # A task that was done again, for its worker died, may have failed where it had not.
            told = {failure.key for failure in work.failures}
            again = [failure for failure in part.report.failures if failure.key not in told]
            _count(work, TaskReport(done=-len(again), failures=again))
            if set(part.damaged) - damaged:
                raise StoreError(
                    "statistics that were kept of this fit could not be read a second time, after"
                    " the worker that held them was lost.",
                    path=str(self.kept.folder),
                    hint="Run the same command again; what is damaged is read from the archive.",
                )
        self.failures.extend(work.failures)
        if part is None:
            raise no_pixels(self.selection)
        self.sample.update(part.sample)
        found = {group: finished(part.bundle.get(group, {})) for group in wanted}
        if not work.failures:
            sample = {astuple(key): spectra for key, spectra in part.sample.items()}
            self.kept.finish(_whole(portions), {"found": found, "sample": sample})
        return _by_need(wanted, found)

    def _load(
        self, portions: list[Portion], gathering: PassGathering, work: BlockWork, name: str
    ) -> tuple[list[Portion], set[int]]:
        """Let the workers load what is kept; what is left to read, and numbers of the damaged."""
        damaged: set[int] = set()
        kept = {portion.number: portion for portion in self.kept.begin(portions)}
        files = gathering.files(kept.values()) if kept else []
        tasks = batches(
            files,
            lambda file: kept[file.number].bytes,
            threads=self.run.threads,
            target=sum(portion.bytes for portion in portions),
            prefix=f"{name}-kept",
        )
        for outcome, future in run_window(
            self.run.client, load_portions, tasks, keep=True, peek=damaged_of, peek_at=FlawedPart
        ):
            numbers = [file.number for file in outcome.task.items]
            if future is None:
                bad = set(numbers)
            else:
                bad = set(outcome.result or ())
                gathering.loaded(future)
            damaged |= bad
            for number in numbers:
                portion = kept[number]
                if number in bad:
                    del kept[number]
                    continue
                work.progress.done += portion.blocks
                work.progress.done_bytes += portion.bytes
                self.counts.kept += portion.blocks
            self.run.observer(work.progress)
        return [portion for portion in portions if portion.number not in kept], damaged

    def _tasks(
        self,
        items: list[FitItem],
        sizes: Mapping[int, int],
        threads: int,
        prefix: str,
        gathering: PassGathering | None = None,
    ) -> Iterator[Task]:
        within = None if gathering is None or self.kept.folder is None else gathering.portion
        return batches(
            items,
            lambda item: sizes[id(item)],
            threads=threads,
            target=self.task_bytes,
            prefix=prefix,
            **({} if within is None else {"within": within}),
        )

    def spectra(self, part: Selection) -> NDArray[Any] | None:
        """Pixels of some frames, on which the precision of scores is measured."""
        stored = stored_sample(self.sessions, part)
        frames = set() if stored is not None else set(sampled_frames(part))
        taken = [self.sample[k] for k in sorted(self.sample) if (k.session, k.frame) in frames]
        return thinned(np.concatenate(taken)) if taken else stored


def _report(outcome: Outcome, *, lost: bool, sizes: Mapping[int, int]) -> TaskReport:
    """What became of the blocks of a task, which says so itself if any failed."""
    items = outcome.task.items
    if lost:
        keys = [key for item in items for key in fit_keys(item)]
        return TaskReport(failures=[Failure(key, str(outcome.error)) for key in keys])
    if outcome.result is None:
        return TaskReport(sum(len(i.ranges) for i in items), sum(sizes[id(i)] for i in items))
    found: TaskReport = outcome.result
    return found


def _count(work: BlockWork, report: TaskReport) -> None:
    work.progress.done += report.done
    work.progress.done_bytes += report.done_bytes
    work.progress.failed += len(report.failures)
    work.failures.extend(report.failures)


def _by_need(wanted: Wanted, found: Mapping[str, Mapping[str, Any]]) -> Found:
    return {
        group: {need: found.get(group, {}).get(str(need)) for need in needs}
        for group, needs in wanted.items()
    }


def _fan_in(statistics: int) -> int:
    return 2 if statistics >= LARGE_STATISTICS else 8


def _whole(portions: Sequence[Portion]) -> str:
    return digest_json([portion.digest for portion in portions])
