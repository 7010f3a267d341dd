"""Scoring blocks, on a worker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.chunk_layout import chunk_tail
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.record_objects import Writer, record_writer
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.store import checksum, open_member
from hsi_batch.archive.transactions import changes_at
from hsi_batch.archive.writer import LineWriter, disk_errors
from hsi_batch.errors import SourceError
from hsi_batch.patience import patiently
from hsi_batch.pipeline.cache import Packed, evaluator
from hsi_batch.pipeline.maps import MapSpec, as_stored
from hsi_batch.places import place
from hsi_batch.recent import Recent
from hsi_batch.stages.frames import frame_source, session_of
from hsi_batch.stages.run import Failure, TaskReport, count_done, failed_record, worker_name

__all__ = [
    "ScoreItem",
    "ScoreJob",
    "ScoreShard",
    "score_items",
    "score_keys",
    "score_shards",
    "tails",
]


@dataclass(frozen=True)
class ScoreJob:
    """What a worker must know of a scoring run; travels once per worker.

    Attributes
    ----------
    archive, stamp : str
        The archive and its state.
    store : str
        Folder of the scores.
    run : str
        Names the run, so that arrays of an earlier one are not used.
    records : str
        Folder of the run's records.
    packed : Packed
        The fitted pipeline.
    specs : tuple of MapSpec
        What is stored.
    group : str
        The background whose state the pipeline holds.
    """

    archive: str
    stamp: str
    store: str
    run: str
    records: str
    packed: Packed
    specs: tuple[MapSpec, ...]
    group: str = ""


@dataclass(frozen=True)
class ScoreItem:
    """Blocks of one frame that one worker scores.

    Attributes
    ----------
    session : str
    frame : int
    ranges : tuple of (int, int)
        Blocks to write.
    kept : tuple of (int, int)
        Lines of each that are selected.
    digest : str
        Of the session, the pipeline and the outputs.
    group : str
        The background that it is scored against.
    """

    session: str
    frame: int
    ranges: tuple[tuple[int, int], ...]
    kept: tuple[tuple[int, int], ...]
    digest: str
    group: str = ""


@dataclass(frozen=True)
class ScoreShard:
    """Blocks whose scores share a shard, which one task writes."""

    items: tuple[ScoreItem, ...]

    @property
    def group(self) -> str:
        """The background that they are scored against."""
        return self.items[0].group

    @property
    def digest(self) -> str:
        """Of the session, the pipeline and the outputs."""
        return self.items[0].digest


def score_shards(
    items: Iterable[ScoreItem], geometry: Geometry, shard: tuple[int, int]
) -> list[ScoreShard]:
    """Gather items of a session by the shards that their blocks are in; in order.

    An item whose blocks are in several shards has all of these to itself.

    Parameters
    ----------
    items : iterable of ScoreItem
    geometry : Geometry
    shard : (int, int)
        Frames, and blocks of each, that a shard holds.
    """
    found: dict[tuple[int, int], list[ScoreItem]] = {}
    for item in items:
        at = geometry.shard_index(shard, item.frame, item.ranges[0][0])
        found.setdefault(at, []).append(item)
    return [ScoreShard(tuple(group)) for group in found.values()]


def score_keys(item: ScoreItem | ScoreShard) -> list[BlockKey]:
    """Blocks of an item."""
    if isinstance(item, ScoreShard):
        return [key for member in item.items for key in score_keys(member)]
    return [BlockKey(item.session, item.frame, start, stop) for start, stop in item.ranges]


_arrays: Recent[Mapping[str, zarr.Array[Any]]] = Recent(32)


def _outputs(job: ScoreJob, session: str) -> Mapping[str, zarr.Array[Any]]:
    def opened() -> Mapping[str, zarr.Array[Any]]:
        group = open_member(job.store, session, "r+")
        assert group is not None
        return {spec.name: group[spec.name] for spec in job.specs}  # type: ignore[misc]

    return _arrays.get((job.store, job.run, session), opened)


def score_items(items: Iterable[ScoreItem | ScoreShard], key: str, *jobs: ScoreJob) -> TaskReport:
    """Score and write blocks; one that cannot be read is recorded as failed and left out.

    There is a job for each background of the items.
    """
    report = TaskReport()
    by_group = {job.group: job for job in jobs}
    with disk_errors(jobs[0].store), record_writer(place(jobs[0].records), key) as writer:
        for item in items:
            job = by_group[item.group]
            with LineWriter() as lines:
                if isinstance(item, ScoreItem):
                    for record in _score(item, job, lines, writer, report):
                        writer.write(_with_tail(record, item.session, job))
                    continue
                done = [
                    (record, member.session)
                    for member in item.items
                    for record in _score(member, job, lines, writer, report)
                ]
                lines.commit()
            # Nothing of a shard is on the disk before the whole of it is.
            writer.write(*(_with_tail(record, session, job) for record, session in done))
    count_done("score", (block for item in items for block in score_keys(item)), report)
    report.changes = changes_at(jobs[0].store)
    return report


def _score(
    item: ScoreItem, job: ScoreJob, lines: LineWriter, writer: Writer, report: TaskReport
) -> Iterator[BlockRecord]:
    """Score the blocks of a frame; yields records of those that were done."""
    scorer = None
    worker = worker_name()
    for block, kept in zip(score_keys(item), item.kept, strict=True):
        if _was_done(item, block, job, writer):
            report.done += 1
            continue
        try:
            scorer = scorer or patiently(_Scorer, item, job, lines)
            record = patiently(scorer.score, block, kept, worker)
        except SourceError as error:
            report.failures.append(Failure(block, str(error)))
            writer.write(failed_record(block, item.digest, error, worker))
            continue
        yield record
        report.done += 1
        report.done_bytes += scorer.session.geometry.bytes_of(block)


def _with_tail(record: BlockRecord, session: str, job: ScoreJob) -> BlockRecord:
    """The record with its tail, of chunks that Zarr wrote too."""
    if record.tail:
        return record
    outputs = _outputs(job, session)
    lines = next(iter(outputs.values())).chunks[1]
    return replace(record, tail=tails(outputs.values(), record.key, lines) or "")


def _was_done(item: ScoreItem, key: BlockKey, job: ScoreJob, writer: Writer) -> bool:
    """Whether an earlier attempt of this task scored a block before its worker died."""
    record = writer.earlier.get(key)
    if record is None or record.outcome != "done" or record.digest != item.digest:
        return False
    outputs = _outputs(job, item.session)
    lines = next(iter(outputs.values())).chunks[1]
    return tails(outputs.values(), key, lines) == record.tail


class _Scorer:
    """Scores blocks of one frame; frame-scope nodes run as it is made."""

    def __init__(self, item: ScoreItem, job: ScoreJob, lines: LineWriter) -> None:
        self.item = item
        self.lines = lines
        self.specs = job.specs
        self.session = session_of(job.archive, item.session, job.stamp)
        self.source = frame_source(self.session, item.frame, tuple(self.session.geometry.ranges()))
        self.outputs = _outputs(job, item.session)
        refs = tuple(spec.ref for spec in job.specs)
        self.evaluator = evaluator(job.packed, refs, self.source)

    def score(self, key: BlockKey, kept: tuple[int, int], worker: str) -> BlockRecord:
        begun = time.perf_counter()
        whole = kept == (key.start, key.stop)
        valid = self.source.valid(key.start, key.stop)
        if not whole:
            valid = _within(key, kept, self.session.geometry.shape[1], valid)
        values = self.evaluator.block(key.start, key.stop)
        sums = 0
        written = []
        for spec in self.specs:
            stored = as_stored(values.pop(spec.ref), valid, spec)
            written.append(self.lines.put(self.outputs[spec.name], key, stored))
            sums = google_crc32c.extend(sums, checksum(stored).to_bytes(4, "little"))
        return BlockRecord(
            key,
            "done",
            self.item.digest,
            tail="".join(written) if all(written) else "",
            checksum=sums,
            seconds=round(time.perf_counter() - begun, 4),
            worker=worker,
            info={} if whole else {"lines": list(kept)},
        )


def _within(
    key: BlockKey, kept: tuple[int, int], width: int, valid: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Valid pixels of a block on the lines that are selected."""
    lines = np.arange(key.start, key.stop)
    chosen = (lines >= kept[0]) & (lines < kept[1])
    everywhere = np.ones((len(lines), width), dtype=bool) if valid is None else valid
    return everywhere & chosen[:, None]


def tails(arrays: Iterable[zarr.Array[Any]], key: BlockKey, lines: int) -> str | None:
    """CRC32C of the chunks that hold a block, one after the other; None if any is missing."""
    found = []
    for array in arrays:
        index = (key.frame, key.start // lines, *(0 for _ in array.shape[2:]))
        tail = chunk_tail(array, index)
        if tail is None:
            return None
        found.append(tail)
    return "".join(found)
