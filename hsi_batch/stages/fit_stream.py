"""A pass of a fit that hands frames in order to one node, on one worker."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hsi_batch.archive.store import archive_stamp
from hsi_batch.engine.events import Progress
from hsi_batch.engine.shared import SharedValues
from hsi_batch.engine.tasks import Task
from hsi_batch.engine.window import run_window
from hsi_batch.errors import DataError, SourceError
from hsi_batch.files import digest_json
from hsi_batch.pipeline.cache import pack, unpack
from hsi_batch.pipeline.frames import assembled_channels
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.program import inputs_of
from hsi_batch.pipeline.stream import fit_by_stream, stream_inputs
from hsi_batch.stages.fit_blocks import FitItem, FitJob, fit_keys
from hsi_batch.stages.fit_members import Member
from hsi_batch.stages.fit_partials import pass_digest, session_stamps
from hsi_batch.stages.fit_pass import PassReader
from hsi_batch.stages.frames import frame_source, session_of
from hsi_batch.stages.memory import assembled_bytes, check_memory
from hsi_batch.stages.run import BlockWork, Failure, TaskReport

__all__ = ["known_streams", "read_streams", "stream_bytes"]

#: Contents of a ``state_dict``.
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class StreamItem:
    """A whole stream; a piece of it would be another fit.

    Attributes
    ----------
    group : str
        The background.
    node : str
    frames : tuple of FitItem
        In order.
    """

    group: str
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


def read_streams(
    reader: PassReader,
    streams: Mapping[str, str],
    members: Sequence[Member],
    number: int,
    of: int,
) -> dict[str, Weights]:
    """Give a node of each background its frames in order, one worker each.

    Parameters
    ----------
    reader : PassReader
    streams : mapping
        The node of each background.
    members : sequence of Member
        The backgrounds.
    number, of : int
        Of the pass.

    Returns
    -------
    dict
        The ``state_dict`` of each node after its frames.

    Raises
    ------
    hsi_batch.errors.DataError
        There is no frame, or the node raised an error.
    """
    found, blocks = known_streams(reader, streams, members)
    reader.counts.kept += blocks
    todo = {group: name for group, name in streams.items() if group not in found}
    if not todo:
        return found
    run = reader.run
    reader.kept.begin([])
    check_memory(run.client, max(stream_bytes(reader, name) for name in todo.values()), "fit")
    path, stamp = str(reader.archive.path.absolute()), archive_stamp(reader.archive.path)
    pipelines = {member.group: member.pipeline for member in members if member.group in todo}
    name = f"fit-stream-{number}-{time.monotonic_ns()}"
    jobs = SharedValues(
        run.client,
        lambda g: FitJob(path, stamp, pack(pipelines[g]), (), reader.pixels, g),
        f"{name}-job",
    )
    items = [StreamItem(g, n, tuple(reader.items.frames([g]))) for g, n in todo.items()]
    keys = [key for item in items for frame in item.frames for key in fit_keys(frame)]
    size = sum(reader.sessions[key.session].geometry.bytes_of(key) for key in keys)
    reader.counts.blocks += len(keys)
    reader.counts.bytes += size
    reader.counts.tasks += len(items)
    kept = reader.kept.folder is not None
    stamps = session_stamps(reader.archive.path, reader.sessions) if kept else {}
    work = BlockWork(Progress(f"fit, pass {number} of {of}", len(keys), size))
    run.observer(work.progress)
    tasks = (Task(f"{name}-{index:06d}", (item,)) for index, item in enumerate(items))
    shared = jobs.given_to(tasks, lambda item: (item.group,))
    for outcome, _ in run_window(run.client, fit_stream, shared):
        item: StreamItem = outcome.task.items[0]
        if outcome.error is not None:
            raise DataError(
                f"{item.node} ({type(reader.pipeline.nodes[item.node]).__name__}) could not be"
                f" fitted by a stream of frames: {outcome.error}.",
                hint="Mend its statistical_initialization, or leave the node out.",
            )
        raw, report = outcome.result
        work.progress.done += report.done
        work.progress.done_bytes += report.done_bytes
        work.progress.failed += len(report.failures)
        reader.failures.extend(report.failures)
        run.observer(work.progress)
        found[item.group] = _weights(raw)
        if kept and not report.failures:
            digest = _digest(reader, pipelines[item.group], item.group, item.node, stamps)
            reader.kept.finish(digest, raw)
    return found


def known_streams(
    reader: PassReader, streams: Mapping[str, str], members: Sequence[Member]
) -> tuple[dict[str, Weights], int]:
    """What an interrupted run found for nodes, by background, and the blocks it read for them."""
    found: dict[str, Weights] = {}
    blocks = 0
    if reader.kept.folder is None:
        return found, blocks
    stamps = session_stamps(reader.archive.path, reader.sessions)
    for member in members:
        if member.group in streams:
            node = streams[member.group]
            digest = _digest(reader, member.pipeline, member.group, node, stamps)
            raw = reader.kept.finished(digest)
            if raw is not None:
                found[member.group] = _weights(raw)
                blocks += sum(len(item.ranges) for item in reader.items.frames([member.group]))
    return found, blocks


def _digest(
    reader: PassReader, pipeline: Pipeline, group: str, name: str, stamps: Mapping[str, str]
) -> str:
    frames = [[i.session, i.frame, i.ranges] for i in reader.items.frames([group])]
    own = {session: stamps[session] for session in reader.parts[group].sessions}
    return digest_json([pass_digest(pipeline, (), reader.pixels), name, own, frames])


def _weights(raw: bytes) -> Weights:
    found: Weights = torch.load(io.BytesIO(raw), weights_only=True)
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
                f" {len(item.frames)} could be read. The first one was {first.key}: {first.reason}",
                hint="See why with hsi-batch verify --deep.",
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
