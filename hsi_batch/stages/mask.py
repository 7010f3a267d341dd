"""Named pixel masks of an archive, with the statistics of their pixels from the same pass."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from distributed import Client

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.catalog import save_catalog
from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.leftovers import remove_leftovers
from hsi_batch.archive.masks import mask_statistics
from hsi_batch.archive.packing import pack_rows, row_array
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import (
    ARCHIVE,
    archive_stamp,
    create_array,
    member,
    open_root,
    plain_group,
)
from hsi_batch.archive.writer import disk_errors, write_lines, write_row
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.tasks import batches
from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.files import digest_of_file
from hsi_batch.patience import patiently
from hsi_batch.stages.frames import session_of
from hsi_batch.stages.mask_terms import Lines, MaskFile, MaskTerm, mask_term
from hsi_batch.stages.outputs import held_store
from hsi_batch.stages.run import TASK_BYTES, BlockWork, Failure, Run, TaskReport, run_blocks
from hsi_batch.statistics import Bundle
from hsi_batch.statistics.grid import summary_forests
from hsi_batch.statistics.moments import is_exact
from hsi_batch.wording import counted

__all__ = ["MaskResult", "mask"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class MaskResult:
    """What a mask holds.

    Attributes
    ----------
    name : str
    sessions : int
    pixels, inside : int
        In all, and within the mask.
    blocks : int
        That were read; each once.
    failures : tuple of Failure
        Blocks that could not be read; their sessions have no such mask.
    seconds : float
    """

    name: str
    sessions: int
    pixels: int
    inside: int
    blocks: int
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Frames that could not be read."""
        return len({(f.key.session, f.key.frame) for f in self.failures})

    def __str__(self) -> str:
        share = 100 * self.inside / max(self.pixels, 1)
        return (
            f"mask {self.name}: {share:.2f} % of {counted(self.pixels, 'pixel')} in"
            f" {counted(self.sessions, 'session')}, one pass over the pixels, {self.seconds:.1f} s;"
            f" use it with --pixels mask:{self.name}"
        )


@dataclass
class _Report(TaskReport):
    inside: dict[str, int] = field(default_factory=dict)
    sums: dict[str, Bundle] = field(default_factory=dict)


def mask(
    archive: str | os.PathLike[str],
    name: str,
    source: str,
    *,
    frames: str | Sequence[str] | None = None,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> MaskResult:
    """Add a mask to sessions of an archive; fits on its pixels then need no pass.

    Cubes are read once and not changed. A mask of the same name is replaced.

    Parameters
    ----------
    archive : path
    name : str
        Letters, digits and ``_``.
    source : str
        What is inside: ``b(800)/b(650) > 1.2`` (physical values), columns ``100:900``,
        ``x=100:900,y=0:50``, ``polygon (x,y) (x,y) (x,y)``, ``label:NAME``, or a mask image, COCO
        file or ``.npz``.
    frames : str or sequence of str, optional
        Whole sessions; all by default.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A name or source that is not understood, or does not fit a session; nothing was changed.
    """
    begun = time.monotonic()
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the name {name!r} of the mask is not made of letters, digits and '_'.",
            hint="Write for example --name product.",
        )
    term = mask_term(source)
    path = str(Path(archive).absolute())
    opened = Archive(path)
    selection = opened.select(frames)
    partly = [n for n in selection.sessions if n not in selection.whole]
    if partly:
        raise ConfigError(
            f"a mask is of whole sessions; of {partly[0]} only a part is selected.",
            hint="Select sessions by name, or say the lines in the mask: y=0:500.",
        )
    sessions = opened.sessions(selection.sessions)
    for session in sessions.values():
        term.check(session)
    with Run(client, workers=workers, observer=observer) as run, held_store(path, "mask"):
        return _execute(run, path, name, source, term, sessions, begun)


def _execute(
    run: Run,
    path: str,
    name: str,
    source: str,
    term: MaskTerm,
    sessions: dict[str, Session],
    begun: float,
) -> MaskResult:
    root = open_root(path, ARCHIVE, mode="r+")
    with disk_errors(path):
        for session in sessions.values():
            _create(plain_group(member(root, session.name)), session, name)
    keys = [
        key
        for session in sessions.values()
        for key in session.geometry.keys(session.name)
        if key.frame not in session.failed_frames
    ]
    size = sum(sessions[key.session].geometry.bytes_of(key) for key in keys)
    work = BlockWork(Progress("mask", len(keys), size))
    tasks = batches(
        keys,
        lambda key: sessions[key.session].geometry.bytes_of(key),
        threads=run.threads,
        target=TASK_BYTES,
        prefix=f"mask-{time.monotonic_ns()}",
    )
    inside: dict[str, int] = dict.fromkeys(sessions, 0)
    sums: dict[str, Bundle] = {}
    stamp = f"{archive_stamp(path)}-{time.monotonic_ns()}"
    for _, report in run_blocks(
        run, work, _mask_blocks, tasks, path, stamp, name, term, blocks_of=lambda key: [key]
    ):
        for session_name, bundle in ({} if report is None else report.sums).items():
            sums[session_name] = sums.get(session_name, Bundle()).merge(bundle)
        for session_name, count in ({} if report is None else report.inside).items():
            inside[session_name] += count
    broken = {failure.key.session for failure in work.failures}
    with disk_errors(path):
        for session_name, session in sessions.items():
            group = plain_group(member(root, session_name))
            if session_name in broken:
                kinds = mask_statistics(name)
                for array in (f"mask_{name}", *kinds, *map(row_array, kinds)):
                    if array in group:
                        del group[array]
                continue
            _finish(group, session, name, sums.get(session_name, Bundle()))
            _tell(group, name, source, term, inside[session_name])
        consolidate(root)
        save_catalog(path, root)
        remove_leftovers(path)
    done = [s for n, s in sessions.items() if n not in broken]
    return MaskResult(
        name,
        len(done),
        sum(s.geometry.frames * s.geometry.shape[0] * s.geometry.shape[1] for s in done),
        sum(inside[s.name] for s in done),
        work.progress.done,
        tuple(work.failures),
        time.monotonic() - begun,
    )


def _create(group: zarr.Group, session: Session, name: str) -> None:
    geometry = session.geometry
    height, width, channels = geometry.shape
    held: Any = group.attrs.get("masks", {})
    masks = dict(held)
    if masks.pop(name, None) is not None:
        # Until the new one is finished there is none.
        group.attrs["masks"] = masks
    create_array(
        group,
        f"mask_{name}",
        shape=(geometry.frames, height, width),
        chunks=(1, geometry.lines, width),
        dtype="uint8",
        dims=("frame", "y", "x"),
        attrs={"long_name": "1 within the mask", "flag_values": [0, 1]},
    )
    row = "block" if geometry.row_frames is None else "row"
    each = geometry.row_frames is None
    moments, extrema = mask_statistics(name)
    for old in (moments, extrema):
        if each and old in group:
            del group[old]
    # As those of a conversion: written one by one, and packed at the end.
    moments, extrema = (row_array(n) if each else n for n in (moments, extrema))
    create_array(
        group,
        moments,
        shape=(geometry.rows, geometry.terms),
        chunks=(1, geometry.terms),
        dtype="int64" if is_exact(geometry.dtype) else "float64",
        dims=(row, "term"),
        attrs={"long_name": f"moments of the valid pixels of the mask {name}"},
    )
    create_array(
        group,
        extrema,
        shape=(geometry.rows, 2, channels),
        chunks=(1, 2, channels),
        dtype=geometry.dtype,
        dims=(row, "bound", "channel"),
        attrs={"bounds": "minimum, maximum"},
    )


def _mask_blocks(
    keys: Iterable[BlockKey], _key: str, path: str, stamp: str, name: str, term: MaskTerm
) -> _Report:
    """On a worker: write the mask of some blocks, and take the statistics of its pixels."""
    report = _Report()
    with disk_errors(path):
        for key in keys:
            session = session_of(path, key.session, stamp)
            try:
                lines = patiently(session.read, key.frame, key.start, key.stop)
            except SourceError as error:
                report.failures.append(Failure(key, str(error)))
                continue
            found = term.inside(Lines(session, key.frame, key.start, lines))
            # Replaced whole, so that doing it twice does no harm.
            group = Session.open(path, key.session, "r+").group
            write_lines(group[f"mask_{name}"], key, found.astype(np.uint8))  # type: ignore[arg-type]
            valid = session.valid(key.frame, key.start, key.stop)
            _statistics(session, key, lines, found if valid is None else found & valid, report)
            if session.geometry.row_frames is None:
                _write(group, session, name, key, report.sums.pop(key.session))
            report.inside[key.session] = report.inside.get(key.session, 0) + int(found.sum())
            report.done += 1
            report.done_bytes += lines.nbytes
    return report


def _statistics(session: Session, key: BlockKey, lines: Any, chosen: Any, report: _Report) -> None:
    geometry = session.geometry
    row, prefix = geometry.row_frames, ()
    if row is not None:
        size = min(row, geometry.frames - key.frame // row * row)
        prefix = ((key.frame % row, size),)  # type: ignore[assignment]
    moments, extrema = summary_forests(
        lines, chosen, start=key.start, height=geometry.shape[0], prefix=prefix
    )
    at = 0 if row is None else key.frame // row
    own = Bundle({f"moments:{at}": moments, f"extrema:{at}": extrema})
    report.sums[key.session] = report.sums.get(key.session, Bundle()).merge(own)


def _write(group: zarr.Group, session: Session, name: str, key: BlockKey, sums: Bundle) -> None:
    for kind, forest in sums.items():
        value = forest.result()
        which = kind.partition(":")[0]
        stored = value.row if which == "moments" else value.bounds
        array: Any = group[row_array(f"{which}_mask_{name}")]
        write_row(array, session.geometry.index(key), stored)


def _finish(group: zarr.Group, session: Session, name: str, sums: Bundle) -> None:
    """Write the rows that cover many blocks; put the rows of blocks into few chunks."""
    if session.geometry.row_frames is None:
        pack_rows(Session(session.name, group), mask_statistics(name))
    for kind, forest in sums.items() if session.geometry.row_frames is not None else ():
        which, _, row = kind.partition(":")
        value = forest.result()
        stored = value.row if which == "moments" else value.bounds
        array: Any = group[f"{which}_mask_{name}"]
        write_row(array, int(row), stored)


def _tell(group: zarr.Group, name: str, source: str, term: MaskTerm, inside: int) -> None:
    attrs: Any = group.attrs
    masks, versions = dict(attrs.get("masks", {})), dict(attrs.get("mask_versions", {}))
    versions[name] = int(versions.get(name, 0)) + 1
    masks[name] = {
        "from": source,
        "version": versions[name],
        "pixels": inside,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"sha256": digest_of_file(term.path)} if isinstance(term, MaskFile) else {}),
    }
    # The mask holds from here on.
    group.update_attributes({"mask_versions": versions, "masks": masks})
