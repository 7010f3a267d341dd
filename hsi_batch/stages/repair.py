"""Redoing what a check finds damaged, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import zarr
from distributed import Client

from hsi_batch.archive.catalog import forget_catalog, save_catalog
from hsi_batch.archive.chunk_layout import chunk_place
from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.mending import mend_metadata, mend_root, move_aside
from hsi_batch.archive.packing import ROWS, packed_rows
from hsi_batch.archive.records import Records
from hsi_batch.archive.seals import is_sealed, unsealed_problem
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import (
    ARCHIVE,
    SCORES,
    holds_scores,
    member,
    open_root,
    plain_group,
    state_folder,
)
from hsi_batch.cluster import connect
from hsi_batch.engine.events import Observer
from hsi_batch.errors import StoreError
from hsi_batch.places import Place, absolute, gathers, place
from hsi_batch.stages.evaluation import evaluation_problem, forget_evaluation
from hsi_batch.stages.outputs import held_store
from hsi_batch.stages.referring import damaged_notes
from hsi_batch.stages.repair_result import RepairResult
from hsi_batch.stages.repair_sources import redo_scores, redo_sessions
from hsi_batch.stages.run import workers_on_demand
from hsi_batch.stages.verify import geometry_of, maps_of, verify
from hsi_batch.stages.verify_result import Damage, VerifyResult

__all__ = ["RepairResult", "repair"]

_REMOVED = "removed"


@dataclass
class _Repair:
    path: str
    dry_run: bool
    client: Client | None
    observer: Observer | None
    archive: str | None
    pipeline: str | None
    actions: list[str] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)
    blocks: int = 0

    @property
    def common(self) -> dict[str, Any]:
        """What the stages are told, too."""
        return {"dry_run": self.dry_run, "client": self.client, "observer": self.observer}

    @property
    def scores(self) -> bool:
        """Whether the store holds scores."""
        return holds_scores(self.path)

    def verify(self) -> VerifyResult:
        """Look at everything."""
        return verify(self.path, deep=True, client=self.client, observer=self.observer)


def repair(
    store: str | os.PathLike[str],
    *,
    archive: str | os.PathLike[str] | None = None,
    pipeline: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> RepairResult:
    """Redo what ``verify --deep`` finds damaged in an archive or a store of scores.

    Damaged or missing blocks are converted again from their sources, or scored again; metadata are
    written again from their copies; the run state is made again. What does not belong in the store
    is moved to ``<store>.hsi-batch/removed``. Nothing else is touched.

    Parameters
    ----------
    store : path or URL
    archive, pipeline : path, optional
        For scores: what they were made of; by default where the store says that they were.
    dry_run : bool
        Say what would be done.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.

    Returns
    -------
    RepairResult
        What could not be mended (a source that is gone, or changed) does not raise; it is listed.

    Raises
    ------
    hsi_batch.errors.StoreError
        It is no store of ours, in use, or in a transactional repository.

    Examples
    --------
    >>> repair("archive.zarr", dry_run=True)  # doctest: +SKIP
    """
    begun = time.monotonic()
    path = absolute(store)
    if not gathers(place(path)):
        raise StoreError(
            "repair does not change transactional repositories, whose versions stay as they are.",
            path=path,
            hint="Open an earlier version (add @v1 to the URL), or convert or score what is damaged"
            " again with --force.",
        )
    work = _Repair(
        path,
        dry_run,
        client,
        observer,
        None if archive is None else str(archive),
        None if pipeline is None else str(pipeline),
    )
    with workers_on_demand(lambda: connect(workers=workers)):
        found = _mended_metadata(work)
        again = work.verify() if work.actions and not dry_run else found
        _redo(work, again)
        done = bool(work.actions) and not dry_run
        left = work.verify() if done else again
    return RepairResult(
        work.path,
        dry_run,
        found.damages,
        left.damages,
        tuple(work.actions),
        work.blocks,
        tuple(work.hopeless),
        time.monotonic() - begun,
    )


@contextmanager
def _held(work: _Repair) -> Iterator[None]:
    with held_store(work.path, "repair"):
        yield


def _mended_metadata(work: _Repair) -> VerifyResult:
    """Mend what is needed to read blocks: foreign files, metadata, the run state."""
    path = place(work.path)
    if path.is_dir() and any(path.glob("*/zarr.json")) and _root_is_lost(path):
        work.actions.append("write the metadata of the root again from the sessions")
        if work.dry_run:
            damage = Damage("", "the metadata of the root cannot be read", "metadata")
            return VerifyResult(work.path, True, 0, 0, (damage,), 0.0)
        with _held(work):
            if not mend_root(path):
                raise StoreError(
                    "neither the root nor any session has metadata that hold.",
                    path=work.path,
                    hint="Convert or score into a new store.",
                )
    found = work.verify()
    foreign = [d for d in found.damages if d.kind == "foreign"]
    broken = sorted({d.place for d in found.damages if d.kind == "metadata"})
    unsealed = not is_sealed(path)
    if not (foreign or broken or unsealed):
        return found
    aside = state_folder(path) / _REMOVED
    work.actions.extend(f"move {d.file} to {aside / d.file}" for d in foreign)
    work.actions.extend(f"write the metadata of {name or 'the root'} again" for name in broken)
    if unsealed:
        work.actions.append("seal the metadata")
    if work.dry_run:
        return found
    with _held(work):
        for damage in foreign:
            move_aside(path, damage.file, aside)
        root_broken = unsealed_problem(path) is not None and not unsealed
        for name in filter(None, broken):
            if root_broken or not mend_metadata(path, name):
                work.hopeless.append(
                    f"{name}: its metadata, and their copy in the root, are damaged; convert or"
                    " score it again"
                )
        if root_broken:
            mend_root(path)
        elif broken or unsealed:
            consolidate(open_root(path, SCORES if work.scores else ARCHIVE, "r+"))
        _mend_state(work)
    return found


def _root_is_lost(path: Place) -> bool:
    for kind in (ARCHIVE, SCORES):
        try:
            open_root(path, kind)
        except StoreError:
            continue
        return False
    return True


def _mend_state(work: _Repair) -> None:
    root = open_root(work.path, SCORES if work.scores else ARCHIVE)
    records = Records(state_folder(work.path) / "records" / ("score" if work.scores else "convert"))
    if records.damaged():
        records.pack(records.load().values())
    if work.scores:
        if evaluation_problem(work.path) is not None:
            forget_evaluation(work.path)
    else:
        save_catalog(work.path, root)
    # The next scoring writes a note again.
    for note in damaged_notes(work.path):
        note.unlink(missing_ok=True)


def _redo(work: _Repair, found: VerifyResult) -> None:
    """Redo blocks and sessions from what they were made of."""
    state = [d for d in found.damages if d.kind == "state"]
    work.actions.extend(f"make again: {d.problem}" for d in state)
    blocks: dict[str, set[BlockKey]] = {}
    for damage in found.damages:
        if damage.kind == "block" and damage.key is not None:
            blocks.setdefault(damage.key.session, set()).add(damage.key)
    names = {d.place for d in found.damages if d.kind in ("session", "metadata") and d.place}
    names = {name.partition("[")[0] for name in names}
    if work.dry_run:
        # What metadata that are damaged say is not followed before they are mended.
        names -= {d.place for d in found.damages if d.kind == "metadata"}
    whole = sorted(names)
    parts = {name: sorted(keys) for name, keys in sorted(blocks.items()) if name not in names}
    if state and not work.dry_run:
        with _held(work):
            _mend_state(work)

    def take_out(names: Iterable[str]) -> None:
        _take_out(work, {name: parts[name] for name in names if name in parts})

    if not work.scores:
        done = redo_sessions(work.path, parts, whole, take_out, **work.common)
    else:
        done = redo_scores(
            work.path,
            parts,
            whole,
            take_out,
            archive=work.archive,
            pipeline=work.pipeline,
            measure=bool(state),
            **work.common,
        )
    work.actions.extend(done.actions)
    work.hopeless.extend(done.hopeless)
    work.blocks += done.blocks


def _take_out(work: _Repair, parts: dict[str, list[BlockKey]]) -> None:
    """Remove the chunks of damaged blocks; the stage then finds them missing."""
    with _held(work):
        root = open_root(work.path, SCORES if work.scores else ARCHIVE, "r+")
        if not work.scores:
            # It says that these sessions are complete.
            forget_catalog(work.path)
        for name, keys in parts.items():
            group = plain_group(member(root, name))
            group.attrs["complete"] = False
            maps = maps_of(group)
            geometry = geometry_of(maps)
            for key in keys:
                row = key.start // geometry.lines
                for kind, array in maps.items():
                    if _came_later(group, kind):
                        continue
                    index = (key.frame, row, *(0 for _ in array.shape[2:]))
                    chunk_place(array, index).unlink(missing_ok=True)
            session = Session(name, group)
            if "cube" in maps and session.geometry.row_frames is None:
                _take_out_rows(session, {geometry.index(key) for key in keys})


def _came_later(group: zarr.Group, array: str) -> bool:
    """Whether an array was added after the conversion, which cannot make it again."""
    if array == "label":
        told: Any = group.attrs.get("labels") or {}
        return bool(told.get("versions", {}).get("1", {"by": "convert"}).get("by") != "convert")
    return array.startswith(("mask_", "label_v"))


def _take_out_rows(session: Session, redone: set[int]) -> None:
    """Remove chunks of statistics all rows of which will be written again."""
    kept = set(range(session.geometry.blocks)) - redone
    failed = session.failed_frames
    each = session.geometry.blocks_per_frame
    for array in filter(None, map(session.optional, ROWS)):
        for number, rows in packed_rows(array):
            if not any(row in kept and row // each not in failed for row in rows):
                index = (number, *(0 for _ in array.shape[1:]))
                chunk_place(array, index).unlink(missing_ok=True)
