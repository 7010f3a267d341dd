"""Checking that a store is complete and undamaged."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from distributed import Client

from hsi_batch.archive.chunk_layout import chunk_tail
from hsi_batch.archive.chunk_reader import UNREADABLE, read_rows
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.packing import ROWS, packed_rows
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.seals import is_sealed, session_problems
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import (
    ARCHIVE,
    SCORES,
    checksum,
    metadata_errors,
    open_root,
    session_folders,
    state_folder,
)
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.tasks import batches
from hsi_batch.engine.window import run_window
from hsi_batch.errors import ConfigError, HsiBatchError, StoreError
from hsi_batch.places import absolute, place, read_anew
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.stages.run import TASK_BYTES, Run
from hsi_batch.stages.verify_files import (
    file_damages,
    links_in,
    metadata_damages,
    root_damages,
    state_damages,
)
from hsi_batch.stages.verify_result import Damage, VerifyResult

__all__ = ["Damage", "VerifyResult", "geometry_of", "maps_of", "verify", "verify_pipeline"]

_UNSEALED = (
    "not sealed (written by an earlier version): metadata were not checked; hsi-batch repair, or"
    " the next command that writes to the store, seals them"
)
_UNVOUCHED = (
    "not sealed (written by hand, by cuvis-ai or by an earlier version): that it can be read is all"
    " that was checked"
)


def verify(
    store: str | os.PathLike[str],
    *,
    deep: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> VerifyResult:
    """Check an archive or a store of scores.

    Parameters
    ----------
    store : path
    deep : bool
        Read every file: the CRC32C that each chunk ends in must hold, the values of cubes must
        have the checksums that were taken as they were converted, metadata and run state must be
        those that were published, and nothing else may lie there. Otherwise only presence is
        checked.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`; used by deep checks.

    Raises
    ------
    hsi_batch.errors.StoreError
        It is neither an archive nor a store of scores.
    """
    begun = time.monotonic()
    path = absolute(store)
    read_anew(path)
    root = _open(path)
    damages: list[Damage] = []
    keys: list[tuple[BlockKey, int]] = []
    scored: dict[str, list[BlockRecord]] = {}
    stage = "score" if root.attrs.get("format") == SCORES else "convert"
    if stage == "score":
        scored = _records(path, root)
        damages.extend(_strangers(path))
    names = session_folders(path)
    complete: set[str] = set()
    mistrusted: set[str] = set()
    sealed = is_sealed(place(path))
    for name in names:
        links = links_in(path, name)
        if links:
            damages.extend(links)
            continue
        try:
            with metadata_errors(path, name):
                group = _group(root, name)
                if not group.attrs.get("complete"):
                    damages.append(Damage(name, "was not finished; run the stage again"))
                    continue
                complete.add(name)
                if deep and sealed and next(session_problems(place(path) / name), None):
                    # Told below; what such metadata say is not followed.
                    mistrusted.add(name)
                    continue
                records = scored.get(name)
                missing, found = (
                    _presence(name, group) if records is None else _scored(group, records)
                )
        except StoreError as error:
            damages.append(Damage(name, error.message, "metadata"))
            continue
        damages.extend(missing)
        keys.extend(found)
    blocks = len(keys)
    if deep and keys:
        with Run(client, workers=workers, observer=observer) as run:
            damages.extend(_decode(run, path, keys))
    if deep:
        missing_in = {damage.place.partition("[")[0] for damage in damages}
        damages.extend(_files(path, root, complete - mistrusted, keys, missing_in))
        damages.extend(metadata_damages(path, set(names), complete) if sealed else ())
        damages.extend(root_damages(path, set(names)))
        damages.extend(state_damages(path, stage))
    ordered = tuple(sorted(damages, key=lambda d: (d.place, d.problem)))
    seconds = time.monotonic() - begun
    notes = () if sealed else (_UNSEALED,)
    return VerifyResult(path, deep, len(names), blocks, ordered, seconds, notes=notes)


def _open(path: str) -> zarr.Group:
    try:
        return open_root(path, ARCHIVE)
    except StoreError:
        try:
            return open_root(path, SCORES)
        except StoreError as error:
            raise StoreError(
                error.message.replace("a score store", "an archive or a score store"),
                path=path,
                hint="Check the path.",
            ) from None


def _group(root: zarr.Group, name: str) -> zarr.Group:
    group = root[name]
    if not isinstance(group, zarr.Group):
        raise TypeError("an array, where a session was expected")
    return group


def maps_of(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Arrays that are kept in blocks."""
    return {
        name: array
        for name, array in group.arrays()
        if len(array.shape) >= 3 and array.metadata.dimension_names[:2] == ("frame", "y")  # type: ignore[union-attr,index]
    }


def geometry_of(maps: dict[str, zarr.Array[Any]]) -> Geometry:
    """Frames, shape and blocks of such arrays."""
    first = maps.get("cube") or next(iter(maps.values()))
    frames, height, width = first.shape[:3]
    channels = first.shape[3] if len(first.shape) > 3 else 1
    return Geometry(frames, (height, width, channels), str(first.dtype), first.chunks[1])


def _presence(name: str, group: zarr.Group) -> tuple[list[Damage], list[tuple[BlockKey, int]]]:
    maps = maps_of(group)
    if not maps:
        return [Damage(name, "holds no array of frames", "metadata")], []
    geometry = geometry_of(maps)
    failed: Any = group.attrs.get("failed_frames") or {}
    damages, found = [], []
    # Quality is stored only where pixels are flagged; scores only where they were asked for.
    required = {k: a for k, a in maps.items() if k not in ("quality", "sample")}
    is_archive = "cube" in maps
    for key in geometry.keys(name):
        if str(key.frame) in failed:
            continue
        absent = [k for k, a in required.items() if _tail(a, key, geometry) is None]
        if len(absent) == len(required) and not is_archive:
            continue
        found.append((key, geometry.bytes_of(key)))
        if absent:
            problem = f"the chunk of {', '.join(absent)} is missing"
            damages.append(_of_block(key, problem))
    if is_archive and group.get("checksum") is None:
        damages.append(Damage(name, "the array of checksums is missing"))
    return damages, found


def _records(path: str, root: zarr.Group) -> dict[str, list[BlockRecord]]:
    """What the run state of a store of scores says was written, by session; none for a copy."""
    found: dict[str, list[BlockRecord]] = {}
    for record in Records(state_folder(path) / "records" / "score").load().values():
        try:
            group = root.get(record.key.session)
        except (zarr.errors.BaseZarrError, ValueError, LookupError, TypeError):
            # Told when the session is looked at.
            continue
        if group is not None and group.attrs.get("digest") == record.digest:
            found.setdefault(record.key.session, []).append(record)
    return found


def _strangers(path: str) -> Iterator[Damage]:
    evaluation = load_evaluation(path)
    for name in evaluation.stale if evaluation is not None else ():
        yield Damage(
            name,
            "was scored with another pipeline, other outputs or other data than the rest; score"
            " all frames again",
            "stale",
        )


def _scored(
    group: zarr.Group, records: list[BlockRecord]
) -> tuple[list[Damage], list[tuple[BlockKey, int]]]:
    """Whether the chunks of the scores are those that were recorded."""
    maps = maps_of(group)
    geometry = geometry_of(maps)
    damages, found = [], []
    for record in sorted(records, key=lambda r: r.key):
        if record.outcome != "done":
            continue
        tails = {k: _tail(array, record.key, geometry) for k, array in maps.items()}
        absent = [name for name, tail in tails.items() if tail is None]
        kept = list(tails.values())
        if absent:
            problem = f"the chunk of {', '.join(sorted(absent))} is missing; score again"
            damages.append(_of_block(record.key, problem))
            continue
        found.append((record.key, geometry.bytes_of(record.key)))
        # Tails are recorded in the order of the outputs, arrays come in any order.
        whole = record.tail
        width = len(whole) // max(len(kept), 1)
        parts = sorted(whole[i : i + width] for i in range(0, len(whole), width or 1))
        if parts != sorted(map(str, kept)):
            problem = "a chunk differs from what was scored; score again"
            damages.append(_of_block(record.key, problem))
    return damages, found


def _of_block(key: BlockKey, problem: str) -> Damage:
    return Damage(str(key), problem, "block", key)


def _tail(array: zarr.Array[Any], key: BlockKey, geometry: Geometry) -> str | None:
    index = (key.frame, key.start // geometry.lines, *(0 for _ in array.shape[2:]))
    return chunk_tail(array, index)


def _decode(run: Run, path: str, keys: list[tuple[BlockKey, int]]) -> Iterator[Damage]:
    progress = Progress("verify", len(keys), sum(size for _, size in keys))
    check = f"verify-{uuid.uuid4().hex[:16]}"
    tasks = batches(
        keys, lambda item: item[1], threads=run.threads, target=TASK_BYTES, prefix=check
    )
    for outcome, _ in run_window(run.client, _check_items, tasks, path, check):
        progress.done += len(outcome.task.items)
        progress.done_bytes += sum(size for _, size in outcome.task.items)
        run.observer(progress)
        if outcome.error is not None:
            yield from (_of_block(key, outcome.error) for key, _ in outcome.task.items)
        else:
            yield from outcome.result


def _files(
    path: str,
    root: zarr.Group,
    names: set[str],
    keys: list[tuple[BlockKey, int]],
    missing_in: set[str],
) -> Iterator[Damage]:
    """Check what belongs to a session and not to one block: spectra kept, rows, coordinates."""
    by_session: dict[str, list[BlockKey]] = {}
    for key, _ in keys:
        by_session.setdefault(key.session, []).append(key)
    for name in sorted(names):
        group = _group(root, name)
        maps = maps_of(group)
        if not maps:
            continue
        geometry = geometry_of(maps)
        blocks = by_session.get(name, [])
        covered = {(key.frame, key.start // geometry.lines) for key in blocks}
        lost = []
        if "cube" in maps and Session(name, group).geometry.row_frames is None:
            lost = list(_lost_rows(group, geometry, blocks))
            yield from lost
        for damage in file_damages(path, root, name, covered, set(ROWS if lost else ())):
            # Chunks that are missing were told block by block.
            told = lost or name in missing_in
            if not (told and damage.problem.endswith("were written")):
                yield damage


def _lost_rows(
    group: zarr.Group, geometry: Geometry, blocks: Sequence[BlockKey]
) -> Iterator[Damage]:
    """Blocks whose statistics are missing or damaged."""
    at = {geometry.index(key): key for key in blocks}
    for name in ROWS:
        array = group.get(name)
        if not isinstance(array, zarr.Array):
            continue
        for _, rows in packed_rows(array):
            held = [index for index in rows if index in at]
            try:
                read_rows(array, held[:1])
            except UNREADABLE as error:
                for index in held:
                    yield _of_block(at[index], f"{name} cannot be decoded: {error}")


def _check_items(
    items: Iterable[tuple[BlockKey, int]], _key: str, path: str, check: str
) -> list[Damage]:
    _read_anew(path, check)
    root = _open(path)
    return [damage for key, _ in items for damage in _check(root, key)]


@lru_cache(maxsize=1)
def _read_anew(path: str, _check: str) -> None:
    """Once per check and worker: what earlier tasks of a worker read of a repository is kept."""
    read_anew(path)


def _expected(group: zarr.Group, index: int) -> int | None:
    """Checksum of the values of a block; None if there is none that can be read."""
    array = group.get("checksum")
    with contextlib.suppress(*UNREADABLE):
        # One that is damaged is told with the files of the session.
        return int(array[index]) if isinstance(array, zarr.Array) else None  # type: ignore[arg-type]
    return None


def _check(root: zarr.Group, key: BlockKey) -> Iterator[Damage]:
    group = root[key.session]
    assert isinstance(group, zarr.Group)
    maps = maps_of(group)
    geometry = geometry_of(maps)
    index = geometry.index(key)
    for name, array in maps.items():
        try:
            values = np.asarray(array[key.frame, key.start : key.stop])
        except UNREADABLE as error:
            yield _of_block(key, f"{name} cannot be decoded: {error}")
            continue
        if name == "cube":
            expected = _expected(group, index)
            if expected is not None and expected != checksum(values):
                yield _of_block(key, "the values differ from those that were converted")


def verify_pipeline(path: str | os.PathLike[str]) -> VerifyResult:
    """Check a fitted pipeline: the YAML and its weights must vouch for each other.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is no such file.
    """
    from hsi_batch.pipeline.pipeline import Pipeline
    from hsi_batch.pipeline.vouching import names_weights

    begun = time.monotonic()
    if not Path(path).exists():
        raise ConfigError("there is no such file.", path=str(path), hint="Check the path.")
    damages: list[Damage] = []
    try:
        Pipeline.from_yaml(path)
    except HsiBatchError as error:
        damages.append(Damage(Path(path).name, str(error)))
    else:
        if not Path(path).with_suffix(".pt").exists():
            damages.append(Damage(Path(path).name, "there are no weights beside it"))
    seconds = time.monotonic() - begun
    notes = () if names_weights(path) else (_UNVOUCHED,)
    return VerifyResult(
        str(path), True, 0, 0, tuple(damages), seconds, store_checked=False, notes=notes
    )
