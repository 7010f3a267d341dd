"""The passes of a fit over an archive: what each reads, what is kept of it, what it found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import Future
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.store import archive_stamp
from hsi_batch.archive.stored import sampled_frames, stored_sample, thinned
from hsi_batch.engine.events import Progress
from hsi_batch.engine.window import Task, batches, run_window
from hsi_batch.errors import DataError
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.frames import assembled_channels
from hsi_batch.pipeline.gather import Need, finished
from hsi_batch.pipeline.passes import marks_of, whole_frames
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.fit_blocks import (
    FitItem,
    FitJob,
    damaged_of,
    fit_items,
    fit_keys,
    report_of,
)
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
from hsi_batch.stages.memory import (
    LARGE_STATISTICS,
    assembled_bytes,
    check_memory,
    statistic_bytes,
)
from hsi_batch.stages.run import BlockWork, Failure, Run, judge

__all__ = ["PassCounts", "PassReader", "no_pixels"]

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
    """Reads what a pass needs, merges it on the workers, and keeps it until the fit ends."""

    run: Run
    pipeline: Pipeline
    archive: Archive
    sessions: Mapping[str, Session]
    selection: Selection
    pixels: PixelChoice
    task_bytes: int
    kept: KeptFits
    failures: list[Failure] = field(default_factory=list)
    sample: dict[Any, NDArray[Any]] = field(default_factory=dict)
    counts: PassCounts = field(default_factory=PassCounts)

    # -- plans -------------------------------------------------------------------------------

    def portions(self, needs: tuple[Need, ...], digest: str = "") -> tuple[list[Portion], Any]:
        """The portions of a pass, and a function that gives the bytes of an item."""
        items, sizes = self._items(needs)
        geometries = [session.geometry for session in self.sessions.values()]
        cut = portions_of(
            items,
            [sizes[id(item)] for item in items],
            digest,
            session_stamps(self.archive.path, self.sessions),
            statistics=statistic_bytes(self.pipeline, needs, geometries),
            task_bytes=self.task_bytes,
        )
        return cut, lambda item: sizes[id(item)]

    def plan(self, needs: tuple[Need, ...], kept: int = 0) -> None:
        """Count what a pass would read; of ``kept`` blocks the statistics are there."""
        portions, size_of = self.portions(needs)
        items = [item for portion in portions for item in portion.items]
        tasks = sum(1 for _ in self._tasks(items, size_of, self.run.expected_threads, "plan"))
        blocks = sum(portion.blocks for portion in portions)
        left = 1 - kept / max(blocks, 1)
        self.counts.blocks += blocks - kept
        self.counts.bytes += round(left * sum(portion.bytes for portion in portions))
        self.counts.tasks += -(-round(1000 * left * tasks) // 1000)
        self.counts.kept += kept

    def worker_bytes(self, needs: tuple[Need, ...]) -> tuple[int, int]:
        """Memory of a worker above its base: for pixels, and for statistics."""
        geometries = [session.geometry for session in self.sessions.values()]
        held = _BLOCKS_HELD * max(geometry.block_bytes for geometry in geometries)
        if whole_frames(self.pipeline, needs):
            roots = (*(need.root for need in needs), *marks_of(self.pipeline))
            held += assembled_bytes(geometries, assembled_channels(self.pipeline, roots))
        statistics = statistic_bytes(self.pipeline, needs, geometries)
        return held, _COPIES * _fan_in(statistics) * statistics

    def digest(self, needs: tuple[Need, ...]) -> str:
        """Of what the statistics of a pass depend on, beside the data."""
        return pass_digest(self.pipeline, needs, self.pixels)

    def known(self, needs: tuple[Need, ...], portions: list[Portion]) -> dict[Need, Any] | None:
        """What an interrupted run found in this pass, if it finished it."""
        content = self.kept.finished(_whole(portions))
        if content is None or any(str(need) not in content["found"] for need in needs):
            return None
        self.sample.update(sample_of(content["sample"]))
        return {need: content["found"][str(need)] for need in needs}

    # -- reading -----------------------------------------------------------------------------

    def read(self, needs: tuple[Need, ...], number: int, of: int) -> dict[Need, Any]:
        """One pass: leaf tasks read and merge, their results merge in a tree on the workers."""
        portions, size_of = self.portions(needs, self.digest(needs))
        found = self.known(needs, portions)
        if found is not None:
            self.counts.kept += sum(portion.blocks for portion in portions)
            return found
        run = self.run
        held, statistics = self.worker_bytes(needs)
        check_memory(run.client, held, "fit", statistics)
        job = FitJob(
            str(self.archive.path.absolute()),
            archive_stamp(self.archive.path),
            pack(self.pipeline),
            needs,
            self.pixels,
        )
        # A future of its own: the pipeline travels once to each worker, and survives its loss.
        name = f"fit-{number}-{job.packed.digest[:8]}-{time.monotonic_ns()}"
        shared = run.client.submit(_itself, job, key=f"{name}-job")
        total, size = sum(p.blocks for p in portions), sum(p.bytes for p in portions)
        work = BlockWork(Progress(f"fit, pass {number} of {of}", total, size))
        run.observer(work.progress)
        fan_in = _fan_in(statistic_bytes(self.pipeline, needs, self._geometries()))
        gathering = PassGathering(run.client, self.kept, portions, fan_in)
        left = self._load(portions, gathering, work, name)
        items = [item for portion in left for item in portion.items]
        self.counts.blocks += sum(portion.blocks for portion in left)
        self.counts.bytes += sum(portion.bytes for portion in left)
        tasks = self._tasks(items, size_of, run.threads, name, gathering)
        for outcome, future in run_window(run.client, fit_items, tasks, shared, keep=True):
            self.counts.tasks += 1
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
            gathering.add(outcome.task.items, future)
            run.observer(work.progress)
            judge(work)
        part = gathering.result()
        self.failures.extend(work.failures)
        if part is None:
            raise no_pixels(self.selection)
        self.sample.update(part.sample)
        by_name = finished(part.bundle)
        if any(by_name.get(str(need)) is None for need in needs):
            raise no_pixels(self.selection)
        if not work.failures:
            sample = {(k.session, k.frame, k.start, k.stop): v for k, v in part.sample.items()}
            self.kept.finish(_whole(portions), {"found": by_name, "sample": sample})
        return {need: by_name[str(need)] for need in needs}

    def _load(
        self, portions: list[Portion], gathering: PassGathering, work: BlockWork, name: str
    ) -> list[Portion]:
        """Let the workers load what is kept; what is left to read."""
        kept = {portion.number: portion for portion in self.kept.begin(portions)}
        files = gathering.files(kept.values()) if kept else []
        tasks = batches(
            files,
            lambda file: kept[file.number].bytes,
            threads=self.run.threads,
            target=sum(portion.bytes for portion in portions),
            prefix=f"{name}-kept",
        )
        for outcome, future in run_window(self.run.client, load_portions, tasks, keep=True):
            numbers = [file.number for file in outcome.task.items]
            if future is None:
                bad = set(numbers)
            else:
                bad = set(self.run.client.submit(damaged_of, future, pure=False).result())
                gathering.loaded(future)
            for number in numbers:
                portion = kept[number]
                if number in bad:
                    del kept[number]
                    continue
                work.progress.done += portion.blocks
                work.progress.done_bytes += portion.bytes
                self.counts.kept += portion.blocks
            self.run.observer(work.progress)
        return [portion for portion in portions if portion.number not in kept]

    def _count(self, work: BlockWork, future: Future[Any]) -> None:
        report = self.run.client.submit(report_of, future, pure=False).result()
        work.progress.done += report.done
        work.progress.done_bytes += report.done_bytes
        work.progress.failed += len(report.failures)
        work.failures.extend(report.failures)

    def _tasks(
        self,
        items: list[FitItem],
        size_of: Any,
        threads: int,
        prefix: str,
        gathering: PassGathering | None = None,
    ) -> Iterator[Task]:
        within = None if gathering is None or self.kept.folder is None else gathering.portion
        return batches(
            items,
            size_of,
            threads=threads,
            target=self.task_bytes,
            prefix=prefix,
            **({} if within is None else {"within": within}),
        )

    def _geometries(self) -> list[Any]:
        return [session.geometry for session in self.sessions.values()]

    # -- items -------------------------------------------------------------------------------

    def _items(self, needs: tuple[Need, ...]) -> tuple[list[FitItem], dict[int, int]]:
        by_frame = whole_frames(self.pipeline, needs)
        # Spectra are kept on the way where conversion kept none.
        wanted = not self.sample and any(need.root == CUBE for need in needs)
        keeps = all("sample" in session.group for session in self.sessions.values())
        sampled = set(sampled_frames(self.selection)) if wanted and not keeps else set()
        items: list[FitItem] = []
        sizes: dict[int, int] = {}
        for item in self.frame_items(sampled):
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

    def frame_items(self, sampled: set[tuple[str, int]] | None = None) -> Iterator[FitItem]:
        """The selected lines of each frame, in order."""
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
            keep = lines is None and (name, frame) in (sampled or ())
            yield FitItem(name, frame, ranges, place, keep)

    def spectra(self) -> NDArray[Any] | None:
        """Pixels on which the precision of scores is measured."""
        stored = stored_sample(self.sessions, self.selection)
        if stored is not None or not self.sample:
            return stored
        return thinned(np.concatenate([self.sample[key] for key in sorted(self.sample)]))


def _fan_in(statistics: int) -> int:
    return 2 if statistics >= LARGE_STATISTICS else 8


def _whole(portions: list[Portion]) -> str:
    from hsi_batch.files import digest_json

    return digest_json([portion.digest for portion in portions])


def _itself(job: FitJob) -> FitJob:
    return job


def no_pixels(selection: Selection) -> DataError:
    """Nothing that was selected counts."""
    return DataError(
        f"no valid pixel was found in the {len(selection)} selected frames.",
        hint="Select other frames, or look at the quality flags (hsi-batch show).",
    )
