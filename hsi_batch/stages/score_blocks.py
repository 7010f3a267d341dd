"""Scoring blocks, on a worker."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import zarr
from distributed import get_worker
from numpy.typing import NDArray

from hsi_batch.archive.chunks import chunk_tail
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.record_objects import Writer, record_writer
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.store import checksum, open_member
from hsi_batch.archive.transactions import changes_at
from hsi_batch.archive.writer import disk_errors, write_lines
from hsi_batch.errors import SourceError
from hsi_batch.pipeline.cache import Packed, evaluator
from hsi_batch.pipeline.maps import MapSpec, as_stored
from hsi_batch.places import place
from hsi_batch.stages.frames import frame_source, session_of
from hsi_batch.stages.run import Failure, TaskReport

__all__ = ["ScoreItem", "ScoreJob", "score_items", "score_keys", "tails"]


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


def score_keys(item: ScoreItem) -> list[BlockKey]:
    """Blocks of an item."""
    return [BlockKey(item.session, item.frame, start, stop) for start, stop in item.ranges]


_arrays: OrderedDict[tuple[str, str, str], Mapping[str, zarr.Array[Any]]] = OrderedDict()
_KEPT = 32


def _outputs(job: ScoreJob, session: str) -> Mapping[str, zarr.Array[Any]]:
    key = (job.store, job.run, session)
    if key not in _arrays:
        while len(_arrays) >= _KEPT:
            _arrays.popitem(last=False)
        group = open_member(job.store, session, "r+")
        assert group is not None
        _arrays[key] = {spec.name: group[spec.name] for spec in job.specs}  # type: ignore[misc]
    return _arrays[key]


def score_items(items: Iterable[ScoreItem], key: str, *jobs: ScoreJob) -> TaskReport:
    """Score and write blocks; one that cannot be read is recorded as failed and left out.

    There is a job for each background of the items.
    """
    report = TaskReport()
    worker = _worker_name()
    by_group = {job.group: job for job in jobs}
    with disk_errors(jobs[0].store), record_writer(place(jobs[0].records), key) as writer:
        for item in items:
            job = by_group[item.group]
            scorer = None
            for block, kept in zip(score_keys(item), item.kept, strict=True):
                if _was_done(item, block, job, writer):
                    report.done += 1
                    continue
                try:
                    scorer = scorer or _Scorer(item, job)
                    record = scorer.score(block, kept, worker)
                except SourceError as error:
                    report.failures.append(Failure(block, str(error)))
                    writer.write(
                        BlockRecord(block, "failed", item.digest, reason=str(error), worker=worker)
                    )
                    continue
                writer.write(record)
                report.done += 1
                report.done_bytes += scorer.session.geometry.bytes_of(block)
    report.changes = changes_at(jobs[0].store)
    return report


def _was_done(item: ScoreItem, key: BlockKey, job: ScoreJob, writer: Writer) -> bool:
    """Whether an earlier attempt of this task scored a block before its worker died."""
    record = writer.earlier.get(key)
    if record is None or record.outcome != "done" or record.digest != item.digest:
        return False
    outputs = _outputs(job, item.session)
    lines = next(iter(outputs.values())).chunks[1]
    return tails(outputs.values(), key, lines) == record.tail


def _worker_name() -> str:
    try:
        return str(get_worker().address)
    except ValueError:
        return "local"


class _Scorer:
    """Scores blocks of one frame; frame-scope nodes run as it is made."""

    def __init__(self, item: ScoreItem, job: ScoreJob) -> None:
        self.item = item
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
        for spec in self.specs:
            stored = as_stored(values.pop(spec.ref), valid, spec)
            write_lines(self.outputs[spec.name], key, stored)
            sums = google_crc32c.extend(sums, checksum(stored).to_bytes(4, "little"))
        return BlockRecord(
            key,
            "done",
            self.item.digest,
            tail=tails(self.outputs.values(), key, self.session.geometry.lines) or "",
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
