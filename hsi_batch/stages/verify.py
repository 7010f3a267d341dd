"""Checking that a store is complete and undamaged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from distributed import Client

from hsi_batch.archive.chunks import chunk_tail
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import ARCHIVE, SCORES, checksum, groups_of, open_root, state_folder
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.engine.window import batches, run_window
from hsi_batch.errors import StoreError
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.stages.run import TASK_BYTES, Run

__all__ = ["Damage", "VerifyResult", "verify"]

_ROWS = ("moments", "extrema", "moments_normal", "extrema_normal")


@dataclass(frozen=True)
class Damage:
    """Something that is not as it should be.

    Attributes
    ----------
    place : str
        Session, or block.
    problem : str
    """

    place: str
    problem: str


@dataclass(frozen=True)
class VerifyResult:
    """What a check found.

    Attributes
    ----------
    store : str
    deep : bool
        Whether every chunk was decoded.
    sessions, blocks : int
        Looked at.
    damages : tuple of Damage
    seconds : float
    """

    store: str
    deep: bool
    sessions: int
    blocks: int
    damages: tuple[Damage, ...]
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages

    def __str__(self) -> str:
        how = "decoded and compared with their checksums" if self.deep else "are present"
        head = f"{self.sessions} sessions, {self.blocks} blocks {how}; {self.seconds:.1f} s"
        if self.sound:
            return f"sound: {head}"
        shown = [f"  {d.place}: {d.problem}" for d in self.damages[:50]]
        more = len(self.damages) - len(shown)
        if more > 0:
            shown.append(f"  and {more} more")
        return "\n".join(
            [
                f"damaged: {head}; {len(self.damages)} problems",
                *shown,
                "Convert or score these sessions again with --force.",
            ]
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
        Decode every chunk: the CRC32C that each ends in must hold, and the values of cubes must
        have the checksums that were taken as they were converted. Otherwise only presence is
        checked.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`; used by deep checks.

    Raises
    ------
    hsi_batch.errors.StoreError
        It is neither an archive nor a store of scores.
    """
    begun = time.monotonic()
    path = str(Path(store).absolute())
    root = _open(path)
    damages: list[Damage] = []
    keys: list[tuple[BlockKey, int]] = []
    scored: dict[str, list[BlockRecord]] = {}
    if root.attrs.get("format") == SCORES:
        scored = _records(path, root)
        damages.extend(_strangers(path))
    names = sorted(groups_of(root))
    for name in names:
        group = root[name]
        assert isinstance(group, zarr.Group)
        if not group.attrs.get("complete"):
            damages.append(Damage(name, "was not finished; run the stage again"))
            continue
        records = scored.get(name)
        missing, found = _presence(name, group) if records is None else _scored(group, records)
        damages.extend(missing)
        keys.extend(found)
    blocks = len(keys)
    if deep and keys:
        with Run(client, workers=workers, observer=observer) as run:
            damages.extend(_decode(run, path, keys))
        for name in sorted({key.session for key, _ in keys}):
            damages.extend(_check_rest(root, name))
    ordered = tuple(sorted(damages, key=lambda d: (d.place, d.problem)))
    return VerifyResult(path, deep, len(names), blocks, ordered, time.monotonic() - begun)


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


def _maps(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Arrays that are kept in blocks."""
    return {
        name: array
        for name, array in group.arrays()
        if len(array.shape) >= 3 and array.metadata.dimension_names[:2] == ("frame", "y")  # type: ignore[union-attr,index]
    }


def _geometry(maps: dict[str, zarr.Array[Any]]) -> Geometry:
    first = maps.get("cube") or next(iter(maps.values()))
    frames, height, width = first.shape[:3]
    channels = first.shape[3] if len(first.shape) > 3 else 1
    return Geometry(frames, (height, width, channels), str(first.dtype), first.chunks[1])


def _presence(name: str, group: zarr.Group) -> tuple[list[Damage], list[tuple[BlockKey, int]]]:
    maps = _maps(group)
    if not maps:
        return [Damage(name, "holds no array of frames")], []
    geometry = _geometry(maps)
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
            damages.append(Damage(str(key), f"the chunk of {', '.join(absent)} is missing"))
    if is_archive and group.get("checksum") is None:
        damages.append(Damage(name, "the array of checksums is missing"))
    return damages, found


def _records(path: str, root: zarr.Group) -> dict[str, list[BlockRecord]]:
    """What the run state of a store of scores says was written, by session; none for a copy."""
    found: dict[str, list[BlockRecord]] = {}
    for record in Records(state_folder(path) / "records" / "score").load().values():
        group = root.get(record.key.session)
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
        )


def _scored(
    group: zarr.Group, records: list[BlockRecord]
) -> tuple[list[Damage], list[tuple[BlockKey, int]]]:
    """Whether the chunks of the scores are those that were recorded."""
    maps = _maps(group)
    geometry = _geometry(maps)
    damages, found = [], []
    for record in sorted(records, key=lambda r: r.key):
        if record.outcome != "done":
            continue
        tails = {k: _tail(array, record.key, geometry) for k, array in maps.items()}
        absent = [name for name, tail in tails.items() if tail is None]
        kept = list(tails.values())
        if absent:
            problem = f"the chunk of {', '.join(sorted(absent))} is missing; score again"
            damages.append(Damage(str(record.key), problem))
            continue
        found.append((record.key, geometry.bytes_of(record.key)))
        # Tails are recorded in the order of the outputs, arrays come in any order.
        whole = record.tail
        width = len(whole) // max(len(kept), 1)
        parts = sorted(whole[i : i + width] for i in range(0, len(whole), width or 1))
        if parts != sorted(map(str, kept)):
            damages.append(
                Damage(str(record.key), "a chunk differs from what was scored; score again")
            )
    return damages, found


def _tail(array: zarr.Array[Any], key: BlockKey, geometry: Geometry) -> str | None:
    index = (key.frame, key.start // geometry.lines, *(0 for _ in array.shape[2:]))
    return chunk_tail(array, index)


def _decode(run: Run, path: str, keys: list[tuple[BlockKey, int]]) -> Iterator[Damage]:
    progress = Progress("verify", len(keys), sum(size for _, size in keys))
    tasks = batches(
        keys,
        lambda item: item[1],
        threads=run.threads,
        target=TASK_BYTES,
        prefix=f"verify-{time.monotonic_ns()}",
    )
    for outcome, _ in run_window(run.client, _check_items, tasks, path):
        progress.done += len(outcome.task.items)
        progress.done_bytes += sum(size for _, size in outcome.task.items)
        run.observer(progress)
        if outcome.error is not None:
            yield from (Damage(str(key), outcome.error) for key, _ in outcome.task.items)
        else:
            yield from outcome.result


def _check_rest(root: zarr.Group, name: str) -> Iterator[Damage]:
    """Decode what belongs to a session and not to one block: spectra kept, rows, coordinates."""
    group = root[name]
    assert isinstance(group, zarr.Group)
    maps = _maps(group)
    per_block = _ROWS if "cube" in maps and Session(name, group).geometry.row_frames is None else ()
    for other, array in group.arrays():
        if other in maps or other in per_block:
            continue
        step = array.chunks[0]
        for start in range(0, array.shape[0], step):
            try:
                array[start : start + step]
            except (OSError, ValueError, RuntimeError, zarr.errors.BaseZarrError) as error:
                yield Damage(name, f"{other} cannot be decoded: {error}")
                break


def _check_items(items: Iterable[tuple[BlockKey, int]], _key: str, path: str) -> list[Damage]:
    root = _open(path)
    return [damage for key, _ in items for damage in _check(root, key)]


def _check(root: zarr.Group, key: BlockKey) -> Iterator[Damage]:
    group = root[key.session]
    assert isinstance(group, zarr.Group)
    maps = _maps(group)
    geometry = _geometry(maps)
    index = geometry.index(key)
    for name, array in maps.items():
        if name == "sample":
            continue
        try:
            values = np.asarray(array[key.frame, key.start : key.stop])
        except (OSError, ValueError, RuntimeError, zarr.errors.BaseZarrError) as error:
            yield Damage(str(key), f"{name} cannot be decoded: {error}")
            continue
        if name == "cube":
            expected = group.get("checksum")
            if isinstance(expected, zarr.Array) and int(expected[index]) != checksum(values):  # type: ignore[arg-type]
                yield Damage(str(key), "the values differ from those that were converted")
    session = Session(key.session, group)
    if "cube" in maps and geometry.row_frames is None:
        for name in _ROWS:
            rows = session.optional(name)
            if rows is None:
                continue
            try:
                rows[index]
            except (OSError, ValueError, RuntimeError, zarr.errors.BaseZarrError) as error:
                yield Damage(str(key), f"{name} cannot be decoded: {error}")
