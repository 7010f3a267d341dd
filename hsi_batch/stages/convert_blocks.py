"""Converting blocks, on a worker."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.chunk_layout import chunk_tail
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.packing import ROWS, row_array, rows_wait
from hsi_batch.archive.partials import partials_of, save_partial
from hsi_batch.archive.record_objects import Writer, record_writer
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import checksum
from hsi_batch.archive.transactions import changes_at
from hsi_batch.archive.writer import LineWriter, disk_errors, write_row
from hsi_batch.errors import HsiBatchError, SourceError, StorageError, StoreError
from hsi_batch.files import digest_of_file
from hsi_batch.patience import patiently
from hsi_batch.places import Place, place
from hsi_batch.readers.cropped import cropped_labels
from hsi_batch.readers.protocol import Frame
from hsi_batch.scratch import scratch
from hsi_batch.stages.convert_handles import (
    annotation_of,
    calibrated,
    fresh_sources,
    session_of,
    source_of,
)
from hsi_batch.stages.convert_places import placed_flags
from hsi_batch.stages.convert_sums import partial_of, session_sums
from hsi_batch.stages.convert_work import (
    ConvertItem,
    ConvertReport,
    HashItem,
    SessionJob,
    ShardItem,
    item_keys,
)
from hsi_batch.stages.run import TASK_BYTES, Failure, count_done, failed_record, worker_name
from hsi_batch.statistics import Bundle, Forest
from hsi_batch.statistics.grid import summary_forests
from hsi_batch.statistics.quality import flag_pixels
from hsi_batch.statistics.tree import Path as Path_

__all__ = ["convert_items"]


def convert_items(
    items: Iterable[ConvertItem | ShardItem | HashItem], key: str, records: str
) -> ConvertReport:
    """Convert the blocks of some frames: pixels, flags, labels, statistics, records.

    Parameters
    ----------
    items : iterable of ConvertItem, ShardItem or HashItem
    key : str
        Name of the task.
    records : str
        Folder of the run's records.

    Raises
    ------
    hsi_batch.errors.StoreError
        The archive cannot be written; whatever is wrong with a source is a failed block instead.
    """
    report = ConvertReport()
    task = _Task(place(records), key, report)
    with fresh_sources(), disk_errors(records), record_writer(place(records), key) as writer:
        for item in items:
            if isinstance(item, HashItem):
                # A source that went away shows when its blocks are read.
                report.hashes.setdefault(item.session, {})[item.path] = digest_of_file(item.path)
            else:
                task.convert(item, writer)
        task.commit_rows(writer)
    count_done("convert", (key for item in items for key in item_keys(item)), report)
    report.changes = changes_at(task.archive)
    return report


class _Task:
    def __init__(self, folder: Place, key: str, report: ConvertReport) -> None:
        self.folder = folder
        self.key = key
        self.report = report
        self.worker = worker_name()
        self.archive = ""
        # Statistics of many blocks, by session: the records of these wait until the statistics
        # are on the disk.
        self.rows: dict[str, Bundle] = {}
        self.waiting: dict[str, list[BlockRecord]] = {}
        self.waiting_bytes = 0

    def convert(self, item: ConvertItem | ShardItem, writer: Writer) -> None:
        """Convert the blocks of one frame, or of one shard."""
        self.archive = item.job.archive
        with LineWriter() as lines:
            if not isinstance(item, ShardItem):
                for record in self._convert(item, lines, writer):
                    self._record(record, item.job, writer)
                    if self.waiting_bytes >= TASK_BYTES:
                        self.commit_rows(writer)
                return
            done = [r for member in item.items for r in self._convert(member, lines, writer)]
            lines.commit()
            # Nothing of a shard is on the disk before the whole of it is.
            for record in done:
                self._record(record, item.job, writer)

    def _convert(
        self, item: ConvertItem, lines: LineWriter, writer: Writer
    ) -> Iterator[BlockRecord]:
        """Convert the blocks of a frame; yields records of those that were done."""
        job = item.job
        item = self._left(item, writer)
        if not item.ranges:
            return
        try:
            frame = patiently(lambda: source_of(job).frame(item.frame))
        except HsiBatchError as error:
            self._fail(item, item.ranges, error, writer)
            return
        except Exception as error:  # noqa: BLE001 - a reader's defect must not end the run
            self._fail(item, item.ranges, _unexpected(job, item.frame, error), writer)
            return
        for index, (start, stop) in enumerate(item.ranges):
            begun = time.perf_counter()
            key = BlockKey(job.name, item.frame, start, stop)
            try:
                info, sums = patiently(lambda: _convert_block(job, frame, key, lines))  # noqa: B023
            except (StoreError, StorageError):
                raise
            except HsiBatchError as error:
                # In a stream what follows cannot be read either.
                rest = item.ranges[index:] if job.access == "sequential" else ((start, stop),)
                self._fail(item, rest, error, writer)
                if job.access == "sequential":
                    return
                continue
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(item, ((start, stop),), _unexpected(job, item.frame, error), writer)
                continue
            if len(sums):
                held = self.rows.get(job.name, Bundle())
                self.rows[job.name] = held.merge(sums)
            yield BlockRecord(
                key,
                "done",
                job.digest,
                tail=info.pop("tail"),
                checksum=info.pop("checksum"),
                seconds=round(time.perf_counter() - begun, 4),
                worker=self.worker,
                info={**info, **_frame_info(frame)},
            )
            self.report.done += 1
            self.report.done_bytes += job.geometry.bytes_of(key)

    def _record(self, record: BlockRecord, job: SessionJob, writer: Writer) -> None:
        """Keep the record of a block that is on the disk."""
        if not record.tail:
            # Of a codec that Zarr wrote by itself.
            at = (record.key.frame, record.key.start // job.geometry.lines, 0, 0)
            record = replace(record, tail=chunk_tail(session_of(job).cube, at) or "")
        if job.name not in self.rows:
            writer.write(record)
            return
        self.waiting.setdefault(job.name, []).append(record)
        self.waiting_bytes += job.geometry.bytes_of(record.key)

    def _left(self, item: ConvertItem, writer: Writer) -> ConvertItem:
        """The item without what an earlier attempt of this task did before its worker died."""
        job = item.job
        left = []
        for span, key in zip(item.ranges, item_keys(item), strict=True):
            record = writer.earlier.get(key)
            index = (key.frame, key.start // job.geometry.lines, 0, 0)
            if (
                record is None
                or record.outcome != "done"
                or record.digest != job.digest
                or (partial_of(record) and not self._kept(job, record))
                or chunk_tail(session_of(job).cube, index) != record.tail
            ):
                left.append(span)
            else:
                self.report.done += 1
                self.report.done_bytes += job.geometry.bytes_of(key)
        return ConvertItem(job, item.frame, tuple(left))

    def _kept(self, job: SessionJob, record: BlockRecord) -> bool:
        """Whether the file is there that holds what a block adds to many."""
        return (partials_of(job.archive, job.name) / str(partial_of(record))).is_file()

    def commit_rows(self, writer: Writer) -> None:
        """Write the statistics of many blocks, then the records of these."""
        for name, bundle in self.rows.items():
            # A name of its own: another attempt of the task never writes over what records name.
            unique = f"{self.folder.name}-{self.key}-{uuid.uuid4().hex[:8]}.npz"
            file = partials_of(self.archive, name) / unique
            save_partial(file, bundle)
            rows = any(kind.partition(":")[0] in ROWS for kind in bundle)
            told = {"partial" if rows else "sums": file.name}
            records = self.waiting.get(name, [])
            writer.write(*(replace(r, info={**r.info, **told}) for r in records))
        self.rows.clear()
        self.waiting.clear()
        self.waiting_bytes = 0

    def _fail(
        self,
        item: ConvertItem,
        ranges: Iterable[tuple[int, int]],
        error: HsiBatchError,
        writer: Writer,
    ) -> None:
        for start, stop in ranges:
            key = BlockKey(item.job.name, item.frame, start, stop)
            self.report.failures.append(Failure(key, str(error)))
            writer.write(failed_record(key, item.job.digest, error, self.worker))


def _unexpected(job: SessionJob, frame: int, error: Exception) -> SourceError:
    at = traceback.extract_tb(error.__traceback__)[-1]
    found = SourceError(
        f"{type(error).__name__}: {error} (in {Path(at.filename).name}:{at.lineno}).",
        path=job.path,
        frame=frame,
        hint="The reader of this format did not expect this; please report it.",
    )
    found.__cause__ = error
    return found


def _frame_info(frame: Frame) -> dict[str, Any]:
    info = frame.info
    return {
        name: value
        for name, value in (
            ("time_ms", info.time_ms),
            ("frame_id", info.frame_id),
            ("integration_time_ms", info.integration_time_ms),
        )
        if value is not None
    }


def _convert_block(
    job: SessionJob, frame: Frame, key: BlockKey, writer: LineWriter
) -> tuple[dict[str, Any], Bundle]:
    """Read, write and sum one block; returns what the record keeps, and sums that must wait."""
    session, geometry = session_of(job), job.geometry
    with scratch.lent(geometry.block_bytes):
        lines = frame.read(key.start, key.stop)
    _, width, channels = geometry.shape
    expected = (key.stop - key.start, width, channels)
    kind = job.recorded or geometry.dtype
    if lines.shape != expected or lines.dtype != np.dtype(kind):
        raise SourceError(
            f"lines {key.start}:{key.stop} came as {lines.shape} {lines.dtype}; expected"
            f" {expected} {kind}, as the first frame has.",
            path=job.path,
            frame=key.frame,
            hint="Put frames of another shape into a recording of their own.",
        )
    used = None if job.used is None else np.array(job.used)
    flags = flag_pixels(lines, nodata=job.nodata, saturation=job.saturation, used=used)
    if job.recorded is not None:
        lines, flags = calibrated(job, lines, flags, used)
    flags = placed_flags(flags, key.start, expected[:2], job.roi, job.dead_columns)
    annotation = annotation_of(job)
    labels = None
    if annotation is not None:
        labels = cropped_labels(annotation, job.crop, key.frame, key.start, key.stop)

    tail = writer.put(session.cube, key, lines)
    if flags is not None or job.retry:
        marks = np.zeros(expected[:2], dtype=np.uint8) if flags is None else flags
        writer.put(_array(session, "quality"), key, marks, keep_empty=False)
    if annotation is not None:
        filled = np.full(expected[:2], -1, dtype=np.int16) if labels is None else labels
        writer.put(_array(session, "label"), key, filled)
    _write_sample(session, geometry, key, lines, writer, flags if job.recorded else None)
    valid = None if flags is None else flags == 0
    sums = _write_statistics(session, job, key, lines, valid, labels)
    info: dict[str, Any] = {"checksum": checksum(lines), "tail": tail}
    if flags is not None:
        counts = np.bincount(flags.ravel())
        info["flags"] = {str(bits): int(n) for bits, n in enumerate(counts) if bits and n}
    if not len(sums):
        info["sums"] = ""
    if labels is not None:
        info["labelled"] = int(np.count_nonzero(labels >= 0))
        info["anomalous"] = int(np.count_nonzero(labels > 0))
    return info, sums


def _array(session: Session, name: str) -> Any:
    array = session.optional(name)
    if array is None:
        raise _missing(session, name)
    return array


def _missing(session: Session, name: str) -> StoreError:
    return StoreError(
        f"the array {name!r} is missing.",
        session=session.name,
        hint="Convert the session again with --force.",
    )


def _write_sample(
    session: Session,
    geometry: Geometry,
    key: BlockKey,
    lines: NDArray[Any],
    writer: LineWriter,
    flags: NDArray[np.uint8] | None = None,
) -> None:
    picks = geometry.picks(key.start, key.stop)
    first = key.start // geometry.leaf_lines * geometry.picks_per_leaf
    spectra = lines.reshape(-1, lines.shape[-1])[picks]
    if flags is not None:
        # What was flagged before calibration cannot be told from the calibrated values.
        spectra[flags.ravel()[picks] != 0] = np.nan
    stop = first + len(picks)
    writer.put_lines(_array(session, "sample"), key.frame, first, stop, spectra, keep_empty=False)


def _write_statistics(
    session: Session,
    job: SessionJob,
    key: BlockKey,
    lines: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    labels: NDArray[np.int16] | None,
) -> Bundle:
    geometry = job.geometry
    masks: dict[str, Any] = {"": valid}
    if job.annotation is not None:
        if labels is None:
            masks["_normal"] = np.zeros(lines.shape[:2], dtype=bool)
        else:
            normal = labels == 0
            masks["_normal"] = normal if valid is None else normal & valid
    row = geometry.row_frames
    prefix: Path_ = ()
    if row is not None:
        size = min(row, geometry.frames - key.frame // row * row)
        prefix = ((key.frame % row, size),)
    forests: dict[str, Forest[Any]] = {}
    for variant, mask in masks.items():
        same = variant and mask is not None and valid is None and bool(mask.all())
        if same or (variant and _equal(mask, valid)):
            found = forests["moments"], forests["extrema"]
        else:
            found = summary_forests(
                lines, mask, start=key.start, height=geometry.shape[0], prefix=prefix
            )
        forests[f"moments{variant}"], forests[f"extrema{variant}"] = found
    known = labels if job.classes else None
    normal = (forests["moments_normal"], forests["extrema_normal"]) if known is not None else None
    sums = session_sums(geometry, key, lines, valid, known, normal)
    if row is not None:
        rows = {f"{name}:{key.frame // row}": f for name, f in forests.items()}
        return sums.merge(Bundle(rows))
    for name, forest in forests.items():
        value: Any = forest.result()
        stored = value.row if name.startswith("moments") else value.bounds
        if not rows_wait(session, name):
            raise _missing(session, row_array(name))
        write_row(_array(session, row_array(name)), geometry.index(key), stored)
    return sums


def _equal(a: NDArray[np.bool_] | None, b: NDArray[np.bool_] | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b)
