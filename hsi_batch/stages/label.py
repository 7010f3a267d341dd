"""Labels that come after the conversion: versions beside each other, cubes are not touched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.catalog import forget_catalog, save_catalog
from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.labels import begin_version, enforce, label_versions
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.leftovers import remove_leftovers
from hsi_batch.archive.session import Session, label_array
from hsi_batch.archive.store import ARCHIVE, archive_stamp, member, open_root, plain_group
from hsi_batch.archive.writer import LineWriter, disk_errors
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.tasks import batches
from hsi_batch.errors import ConfigError, HsiBatchError
from hsi_batch.places import is_url
from hsi_batch.readers.cropped import cropped_labels
from hsi_batch.readers.labels_border import Rest
from hsi_batch.stages.frames import session_of
from hsi_batch.stages.label_files import LabelFile, label_files
from hsi_batch.stages.outputs import held_store
from hsi_batch.stages.run import TASK_BYTES, BlockWork, Failure, Run, TaskReport, run_blocks
from hsi_batch.wording import counted, some

__all__ = ["LabelResult", "label", "use_labels"]


@dataclass(frozen=True)
class LabelResult:
    """What was labelled.

    Attributes
    ----------
    versions : dict of int
        Version that holds now, of each session with new labels.
    planned : dict of str
        Of a dry run, the file of each session that would get labels.
    up_to_date : tuple of str
        Sessions whose labels were these already.
    untouched : tuple of str
        Sessions that the file says nothing of; their labels are what they were.
    labelled, anomalous : int
        Pixels that are labelled now, and those of them with another class than 0.
    masks : tuple of str
        Masks that were made from earlier labels, and are what they were.
    failures : tuple of Failure
        Frames whose labels could not be read; their sessions keep the labels that they had.
    seconds : float
    """

    versions: Mapping[str, int]
    planned: Mapping[str, str] = field(default_factory=dict)
    up_to_date: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    labelled: int = 0
    anomalous: int = 0
    masks: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Frames whose labels could not be read."""
        return len({(f.key.session, f.key.frame) for f in self.failures})

    def __str__(self) -> str:
        parts = []
        if self.planned:
            parts.append(f"labels would be added to {counted(len(self.planned), 'session')}:")
            shown = list(self.planned.items())[:20]
            parts += [f"  {name} from {path}" for name, path in shown]
            if len(shown) < len(self.planned):
                parts.append(f"  and {len(self.planned) - len(shown)} more")
        if self.versions:
            told = [f"{name} (version {number})" for name, number in self.versions.items()]
            parts.append(
                f"labels of {some(told)}: {counted(self.labelled, 'pixel')}, {self.anomalous} of"
                f" them anomalous; no cube was read, {self.seconds:.1f} s"
            )
            parts.append(
                "  fits on labelled-normal pixels, metrics and trainings that use these sessions"
                " are stale now; run the same commands again"
            )
        if self.masks:
            parts.append(f"  masks {some(list(self.masks))} were made from earlier labels")
        if self.up_to_date:
            parts.append(f"{counted(len(self.up_to_date), 'session')} up to date")
        if self.untouched:
            parts.append(f"nothing is said of {some(list(self.untouched))}")
        return "\n".join(parts)


@dataclass
class _Report(TaskReport):
    #: By session: labelled frames, labelled and anomalous pixels.
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Item:
    """Frames of a session that share files of the store."""

    file: LabelFile
    array: str
    keys: tuple[BlockKey, ...]


def label(
    archive: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    frames: str | Sequence[str] | None = None,
    ignore_border: int = 0,
    rest: Rest | None = None,
    dry_run: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> LabelResult:
    """Add a version of labels to sessions of an archive; it holds from then on.

    Earlier versions stay (:func:`use_labels`, ``archive.session(name).labels(..., version=1)``).
    Cubes and their statistics are neither read nor changed. Labels that are in force already are
    not added again.

    Parameters
    ----------
    archive : path
    annotations : path
        A file for one session, or of polygons on the ground for all that lie there; a folder of
        files that are named after the recordings; or ``"sibling"``, the files beside them.
    frames : str or sequence of str, optional
        Whole sessions; all by default.
    ignore_border, rest
        As for :func:`~hsi_batch.readers.annotations.open_annotation`.
    dry_run : bool
        Say which files would label which sessions, and do nothing.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is not clear which sessions are meant.
    hsi_batch.errors.SourceError
        A file cannot be read, or does not fit its session; nothing was changed.
    """
    begun = time.monotonic()
    if ignore_border < 0:
        raise ConfigError(f"ignore_border {ignore_border} is below 0.", hint="Write for example 2.")
    path = _local(archive)
    sessions = _whole(Archive(path), frames)
    files = label_files(sessions, os.fspath(annotations), ignore_border, rest)
    current = {name: _current(sessions[name]) for name in files}
    todo = {name: file for name, file in files.items() if current[name] != file.digest}
    done = tuple(name for name in files if name not in todo)
    silent = tuple(name for name in sessions if name not in files)
    if not todo:
        return LabelResult({}, up_to_date=done, untouched=silent, seconds=time.monotonic() - begun)
    if dry_run:
        planned = {name: file.path for name, file in todo.items()}
        return LabelResult({}, planned, done, silent, seconds=time.monotonic() - begun)
    with Run(client, workers=workers, observer=observer) as run, held_store(path, "label"):
        return _execute(run, path, sessions, todo, begun, up_to_date=done, untouched=silent)


def use_labels(
    archive: str | os.PathLike[str],
    version: int,
    *,
    frames: str | Sequence[str] | None = None,
) -> LabelResult:
    """Let an earlier version of labels, or a later one, hold again.

    Parameters
    ----------
    archive : path
    version : int
        1 is what the conversion found, or the first that was added.
    frames : str or sequence of str, optional
        Whole sessions; all by default.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A session has no such version; nothing was changed.
    """
    begun = time.monotonic()
    path = _local(archive)
    sessions = _whole(Archive(path), frames)
    lacking = [n for n, s in sessions.items() if version not in label_versions(s)]
    if lacking:
        known = sorted({v for s in sessions.values() for v in label_versions(s)})
        raise ConfigError(
            f"{some(lacking)} of {counted(len(sessions), 'session')} have no version {version} of"
            f" labels; there are {', '.join(map(str, known)) or 'none'}.",
            hint="See them with --list, and select sessions with --frames.",
        )
    todo = {name: s for name, s in sessions.items() if s.label_version != version}
    if todo:
        with held_store(path, "label"), disk_errors(path):
            forget_catalog(path)
            root = open_root(path, ARCHIVE, mode="r+")
            for name, session in todo.items():
                _enforce(path, plain_group(member(root, name)), session, version)
            consolidate(root)
            save_catalog(path, root)
            remove_leftovers(path)
    entries = [label_versions(session)[version] for session in todo.values()]
    return LabelResult(
        dict.fromkeys(todo, version),
        up_to_date=tuple(name for name in sessions if name not in todo),
        labelled=sum(int(entry.get("labelled", 0)) for entry in entries),
        anomalous=sum(int(entry.get("anomalous", 0)) for entry in entries),
        masks=_masks(todo.values()),
        seconds=time.monotonic() - begun,
    )


def _local(archive: str | os.PathLike[str]) -> str:
    if is_url(archive):
        raise ConfigError(
            "labels are added to archives on this machine's file systems only.",
            path=os.fspath(archive),
            hint="Put the annotations beside the recordings and convert again with --replace.",
        )
    return str(Path(archive).absolute())


def _whole(archive: Archive, frames: str | Sequence[str] | None) -> dict[str, Session]:
    selection = archive.select(frames)
    partly = [n for n in selection.sessions if n not in selection.whole]
    if partly:
        raise ConfigError(
            f"labels are of whole sessions; of {partly[0]} only a part is selected.",
            hint="Select sessions by name; a COCO file says which frames are labelled.",
        )
    return archive.sessions(selection.sessions)


def _current(session: Session) -> Any:
    return label_versions(session).get(session.label_version, {}).get("digest")


def _enforce(path: str, group: Any, session: Session, number: int, entry: Any = None) -> None:
    enforce(group, session, number, entry)
    # Workers keep sessions as long as the root is what it was; this run may end before it is
    # published again.
    os.utime(Path(path) / "zarr.json")


def _masks(sessions: Iterable[Session]) -> tuple[str, ...]:
    made = {
        name
        for session in sessions
        for name, told in session.masks.items()
        if str(told.get("from", "")).startswith("label:")
    }
    return tuple(sorted(made))


def _execute(
    run: Run,
    path: str,
    sessions: Mapping[str, Session],
    todo: Mapping[str, LabelFile],
    begun: float,
    **told: Any,
) -> LabelResult:
    root = open_root(path, ARCHIVE, mode="r+")
    items, numbers = [], {}
    with disk_errors(path):
        # Whoever opens the archive until this ends looks at the sessions themselves.
        forget_catalog(path)
        for name, file in todo.items():
            group = plain_group(member(root, name))
            numbers[name], array = begin_version(group, sessions[name], file.classes)
            items += _items(sessions[name], file, array.basename)
    pixels = {n: sessions[n].geometry.shape[0] * sessions[n].geometry.shape[1] for n in todo}
    sizes = {id(item): 2 * pixels[item.file.session] * len(item.keys) for item in items}
    work = BlockWork(Progress("label", sum(len(i.keys) for i in items), sum(sizes.values())))
    tasks = batches(
        items,
        lambda item: sizes[id(item)],
        threads=run.threads,
        target=TASK_BYTES,
        prefix=f"label-{time.monotonic_ns()}",
    )
    stamp = f"{archive_stamp(path)}-{time.monotonic_ns()}"
    counts = {name: np.zeros(3, dtype=np.int64) for name in todo}
    for _, report in run_blocks(
        run, work, _label_frames, tasks, path, stamp, blocks_of=lambda item: item.keys
    ):
        for name, found in ({} if report is None else report.counts).items():
            counts[name] += found
    broken = {failure.key.session for failure in work.failures}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    with disk_errors(path):
        for name, file in todo.items():
            group = plain_group(member(root, name))
            if name in broken:
                del group[label_array(numbers[name])]
                continue
            frames, labelled, anomalous = map(int, counts[name])
            entry = {**file.entry, "made": made, "labelled_frames": frames}
            entry |= {"labelled": labelled, "anomalous": anomalous}
            _enforce(path, group, sessions[name], numbers[name], entry)
        consolidate(root)
        save_catalog(path, root)
        remove_leftovers(path)
    versions = {name: number for name, number in numbers.items() if name not in broken}
    return LabelResult(
        versions,
        labelled=sum(int(counts[name][1]) for name in versions),
        anomalous=sum(int(counts[name][2]) for name in versions),
        masks=_masks(sessions[name] for name in versions),
        failures=tuple(work.failures),
        seconds=time.monotonic() - begun,
        **told,
    )


def _items(session: Session, file: LabelFile, array: str) -> list[_Item]:
    """Frames that one task must write together, for they share files."""
    together = 1 if session.shard is None else session.shard[0]
    height, failed = session.geometry.shape[0], session.failed_frames
    found = []
    for first in range(0, session.geometry.frames, together):
        numbers = range(first, min(first + together, session.geometry.frames))
        keys = tuple(BlockKey(session.name, n, 0, height) for n in numbers if n not in failed)
        if keys:
            found.append(_Item(file, array, keys))
    return found


def _label_frames(items: Iterable[_Item], _key: str, path: str, stamp: str) -> _Report:
    """On a worker: write the labels of some frames, whole files at a time."""
    report = _Report()
    with disk_errors(path):
        for item in items:
            session = session_of(path, item.file.session, stamp)
            array: Any = Session.open(path, session.name, "r+").group[item.array]
            found = np.zeros(3, dtype=np.int64)
            try:
                with item.file.opened() as annotation, LineWriter() as writer:
                    for key in item.keys:
                        labelled = False
                        for start, stop in session.geometry.ranges():
                            lines = cropped_labels(
                                annotation, item.file.crop, key.frame, start, stop
                            )
                            if lines is None:
                                break
                            block = BlockKey(session.name, key.frame, start, stop)
                            writer.put(array, block, np.ascontiguousarray(lines))
                            labelled |= bool((lines >= 0).any())
                            found[1:] += np.count_nonzero(lines >= 0), np.count_nonzero(lines > 0)
                        found[0] += labelled
                    writer.commit()
            except HsiBatchError as error:
                if error.exit_code == 3:
                    raise
                report.failures.append(_failure(item, error))
                continue
            held = report.counts.get(session.name, (0, 0, 0))
            report.counts[session.name] = tuple(
                int(a + b) for a, b in zip(held, found, strict=True)
            )  # type: ignore[assignment]
            report.done += len(item.keys)
            report.done_bytes += 2 * len(item.keys) * session.geometry.shape[0]
    return report


def _failure(item: _Item, error: HsiBatchError) -> Failure:
    frame = getattr(error, "frame", None)
    key = next((k for k in item.keys if k.frame == frame), item.keys[0])
    return Failure(key, str(error))
