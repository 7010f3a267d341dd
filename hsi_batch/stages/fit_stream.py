"""A pass of a fit that hands frames in order to one node, on one worker."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hsi_batch.archive.store import archive_stamp
from hsi_batch.engine.events import Progress
from hsi_batch.engine.window import Task, run_window
from hsi_batch.errors import DataError, SourceError
from hsi_batch.files import digest_json
from hsi_batch.pipeline.cache import pack, unpack
from hsi_batch.pipeline.frames import assembled_channels
from hsi_batch.pipeline.program import inputs_of
from hsi_batch.pipeline.stream import fit_by_stream, stream_inputs
from hsi_batch.stages.fit_blocks import FitItem, FitJob, fit_keys
from hsi_batch.stages.fit_partials import pass_digest, session_stamps
from hsi_batch.stages.fit_pass import PassReader
from hsi_batch.stages.frames import frame_source, session_of
from hsi_batch.stages.memory import assembled_bytes, check_memory
from hsi_batch.stages.run import Failure, TaskReport

__all__ = ["known_stream", "read_stream", "stream_bytes"]


@dataclass(frozen=True)
class StreamItem:
    """A whole stream; a piece of it would be another fit.

    Attributes
    ----------
    node : str
    frames : tuple of FitItem
        In order.
    """

    node: str
    frames: tuple[FitItem, ...]


def stream_bytes(reader: PassReader, name: str) -> int:
    """Memory of the worker above its base: the frame it is given, the next one, their blocks."""
    graph = reader.pipeline
    geometries = [session.geometry for session in reader.sessions.values()]
    ports, _ = inputs_of(graph, name)
    channels = sum(axis.size for port, axis in graph.nodes[name].axes.items() if port in ports)
    roots = tuple(ref for refs in ports.values() for ref in refs)
    frames = assembled_bytes(geometries, channels + assembled_channels(graph, roots))
    return frames + 3 * max(geometry.block_bytes for geometry in geometries)


def read_stream(reader: PassReader, name: str, number: int, of: int) -> Mapping[str, torch.Tensor]:
    """Give a node the selected frames in order; returns its ``state_dict`` after them.

    Raises
    ------
    hsi_batch.errors.DataError
        There is no frame, or the node raised an error.
    """
    run, pipeline = reader.run, reader.pipeline
    frames = tuple(reader.frame_items())
    geometry = {n: session.geometry for n, session in reader.sessions.items()}
    keys = [key for item in frames for key in fit_keys(item)]
    size = sum(geometry[key.session].bytes_of(key) for key in keys)
    known, _ = known_stream(reader, name)
    if known is not None:
        reader.counts.kept += len(keys)
        return known
    reader.kept.begin([])
    check_memory(run.client, stream_bytes(reader, name), "fit")
    job = FitJob(
        str(reader.archive.path.absolute()),
        archive_stamp(reader.archive.path),
        pack(pipeline),
        (),
        reader.pixels,
    )
    progress = Progress(f"fit, pass {number} of {of}", len(keys), size)
    run.observer(progress)
    reader.counts.blocks += len(keys)
    reader.counts.bytes += size
    reader.counts.tasks += 1
    task = Task(f"fit-stream-{time.monotonic_ns()}", (StreamItem(name, frames),))
    raw, report = b"", TaskReport()
    for outcome, _ in run_window(run.client, fit_stream, [task], job):
        if outcome.error is not None:
            raise DataError(
                f"{name} ({type(pipeline.nodes[name]).__name__}) could not be fitted by a stream"
                f" of frames: {outcome.error}."
            )
        raw, report = outcome.result
    progress.done, progress.done_bytes = report.done, report.done_bytes
    progress.failed = len(report.failures)
    run.observer(progress)
    reader.failures.extend(report.failures)
    if not report.failures:
        reader.kept.finish(_digest(reader, name), raw)
    return _weights(raw)


def known_stream(reader: PassReader, name: str) -> tuple[Mapping[str, torch.Tensor] | None, int]:
    """What an interrupted run found for a node, if anything, and the blocks it read for it."""
    kept = reader.kept.finished(_digest(reader, name))
    blocks = sum(len(item.ranges) for item in reader.frame_items())
    return (None if kept is None else _weights(kept)), blocks


def _digest(reader: PassReader, name: str) -> str:
    stamps = session_stamps(reader.archive.path, reader.sessions)
    told = [name, stamps, [[i.session, i.frame, i.ranges] for i in reader.frame_items()]]
    return digest_json([pass_digest(reader.pipeline, (), reader.pixels), told])


def _weights(raw: bytes) -> Mapping[str, torch.Tensor]:
    found: Mapping[str, torch.Tensor] = torch.load(io.BytesIO(raw), weights_only=True)
    return found


def fit_stream(items: tuple[StreamItem], _key: str, job: FitJob) -> tuple[bytes, TaskReport]:
    """On a worker: the weights of the node after the stream, and what became of the frames."""
    item = items[0]
    report = TaskReport()
    node = unpack(job.packed).nodes[item.node]
    frames = _frames(item, job, report)
    try:
        weights = fit_by_stream(node, frames)
    except DataError as error:
        if report.failures and not report.done:
            first = report.failures[0]
            raise DataError(
                f"{item.node} ({type(node).__name__}) is fitted by a stream of frames, but none of"
                f" {len(item.frames)} could be read. The first one was {first.key}: {first.reason}"
            ) from error
        raise
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue(), report


def _frames(
    item: StreamItem, job: FitJob, report: TaskReport
) -> Iterator[tuple[dict[str, Any], bool]]:
    for frame in item.frames:
        keys = fit_keys(frame)
        session = session_of(job.archive, frame.session, job.stamp)
        source = frame_source(session, frame.frame, frame.ranges, job.pixels)
        try:
            # Not held here while the node looks at it.
            box = [stream_inputs(job.packed, item.node, source, frame.ranges)]
        except SourceError as error:
            report.failures.extend(Failure(key, str(error)) for key in keys)
            continue
        report.done += len(keys)
        report.done_bytes += sum(session.geometry.bytes_of(key) for key in keys)
        yield box.pop()
