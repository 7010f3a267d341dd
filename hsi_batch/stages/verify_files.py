"""What a check finds in the files of a store that blocks do not cover."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import zarr
from zarr.codecs import Crc32cCodec

from hsi_batch.archive.catalog import catalog_problem
from hsi_batch.archive.records import Records
from hsi_batch.archive.seals import (
    SEAL,
    chunk_files,
    sealed_arrays,
    session_problems,
    unsealed_problem,
)
from hsi_batch.archive.shards import PARTIAL
from hsi_batch.archive.store import state_folder
from hsi_batch.places import Place, gathers, place
from hsi_batch.stages.evaluation import evaluation_problem
from hsi_batch.stages.referring import damaged_notes
from hsi_batch.stages.verify_result import Damage

__all__ = [
    "file_damages",
    "foreign",
    "links_in",
    "metadata_damages",
    "root_damages",
    "state_damages",
]

_CRC_BYTES = 4
_META = "zarr.json"


def metadata_damages(path: str, present: set[str], complete: set[str]) -> Iterator[Damage]:
    """Metadata that are not those that were published, of the root and of complete sessions."""
    problem = unsealed_problem(place(path))
    if problem is not None:
        yield Damage("", problem, "metadata")
    gathered = _gathered(path)
    for name in sorted(complete):
        found = list(session_problems(place(path) / name))
        yield from (Damage(name, problem, "metadata") for problem in found)
        if gathered is None or found:
            continue
        if gathered.get(name) != _attributes(place(path) / name).get(SEAL):
            why = "is not what the metadata gathered in the root say of it"
            yield Damage(name, why, "metadata")
    for name in sorted(set(gathered or ()).difference(present)):
        yield Damage(name, "is gone; the metadata gathered in the root list it", "metadata")


def _gathered(path: str) -> dict[str, Any] | None:
    """Seals of the sessions, as the root has them; none if it cannot be read.

    None for stores whose root gathers nothing.
    """
    if not gathers(place(path)):
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = json.loads((place(path) / _META).read_bytes())["consolidated_metadata"]["metadata"]
        return {k: v["attributes"].get(SEAL) for k, v in whole.items() if "/" not in k}
    return {}


def _attributes(folder: Place) -> dict[str, Any]:
    return dict(json.loads((folder / _META).read_bytes())["attributes"])


def file_damages(
    path: str, root: zarr.Group, name: str, covered: set[tuple[int, int]], rows: set[str]
) -> Iterator[Damage]:
    """Files of a session that do not belong there, are missing, or are damaged.

    Parameters
    ----------
    path : str
        Of the store.
    root : zarr.Group
    name : str
        A complete session.
    covered : set of (int, int)
        Frame and row of chunks of the blocks that are decoded elsewhere.
    rows : set of str
        Arrays of statistics, if damages of them were told block by block.
    """
    group = root[name]
    assert isinstance(group, zarr.Group)
    arrays = dict(group.arrays())
    folder = place(path) / name
    counts: Counter[str] = Counter()
    for file in chunk_files(folder):
        below = file.relative_to(folder)
        top = below.parts[0]
        if file.is_symlink():
            yield foreign(
                name, f"{below} is a link, which nothing of ours makes", f"{name}/{below}"
            )
        elif below.parts[1:] != (_META,) or top not in arrays:
            index = _index(arrays[top], below.parts[1:]) if top in arrays else None
            if index is None:
                left = file.name.endswith(PARTIAL)
                why = "was left by a worker that was killed" if left else "does not belong there"
                yield foreign(name, f"the file {below} {why}", f"{name}/{below}")
                continue
            counts[top] += 1
            mapped = arrays[top].metadata.dimension_names[:2] == ("frame", "y")  # type: ignore[union-attr,index]
            if top not in rows and not (mapped and index[:2] in covered):
                yield from _chunk(name, top, arrays[top], file)
    for other, (_, written) in _sealed(folder).items():
        if counts[other] != written:
            yield Damage(
                name, f"{other} has {counts[other]} chunks in files, and {written} were written"
            )


def _sealed(folder: Place) -> dict[str, tuple[str, int]]:
    try:
        return sealed_arrays(folder)
    except (OSError, ValueError, KeyError, TypeError):
        # Told with the metadata.
        return {}


def _index(array: zarr.Array[Any], parts: tuple[str, ...]) -> tuple[int, ...] | None:
    """Index of the chunk that a file is, or None."""
    key = "/".join(parts)
    # Of flat arrays the file is named after all of it.
    first, *rest = key.replace(".", "/").split("/")
    if first != "c" or not all(part.isdecimal() for part in rest):
        return None
    index = tuple(int(part) for part in rest)
    grid = array.shards or array.chunks
    inside = len(index) == len(array.shape) and all(
        i * size < length for i, size, length in zip(index, grid, array.shape, strict=True)
    )
    return index if inside and key == array.metadata.encode_chunk_key(index) else None


def _chunk(name: str, array: str, held: zarr.Array[Any], file: Place) -> Iterator[Damage]:
    codecs = getattr(held.metadata, "codecs", ())
    if not codecs or not isinstance(codecs[-1], Crc32cCodec):
        return
    try:
        raw = file.read_bytes()
    except OSError as error:
        yield Damage(name, f"{array} cannot be decoded: {error}")
        return
    body, tail = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
    if int(google_crc32c.value(body)).to_bytes(_CRC_BYTES, "little") != tail:
        where = f"chunk {'/'.join(file.parts[-len(held.shape) :])}"
        yield Damage(name, f"{array} cannot be decoded: the checksum of {where} is wrong")


def foreign(place: str, problem: str, file: str) -> Damage:
    """A file that does not belong there."""
    return Damage(place, problem, "foreign", file=file)


def links_in(path: str, name: str) -> list[Damage]:
    """The session, or arrays of it, that are links; those are not followed."""
    folder = place(path) / name
    if not isinstance(folder, Path):
        return []
    if folder.is_symlink():
        return [foreign(name, "is a link, which nothing of ours makes", name)]
    return [
        foreign(
            name, f"{entry.name} is a link, which nothing of ours makes", f"{name}/{entry.name}"
        )
        for entry in sorted(folder.iterdir())
        if entry.is_symlink()
    ]


def root_damages(path: str, sessions: set[str]) -> Iterator[Damage]:
    """What lies in the root of a store and is no session."""
    files: list[Place] = [*place(path).iterdir()]
    for file in sorted(files, key=str):
        if file.name in (*sessions, _META) and not (file.name == _META and file.is_symlink()):
            continue
        link = "is a link, which nothing of ours makes"
        why = link if file.is_symlink() else "does not belong in the store"
        yield foreign("", f"{file.name} {why}", file.name)


def state_damages(path: str, stage: str) -> Iterator[Damage]:
    """Files of the run state that are not as they were written."""
    lines = Records(state_folder(path) / "records" / stage).damaged()
    if lines:
        shown = ", ".join(map(str, lines[:5]))
        problem = f"the records of {stage} are damaged (line {shown}); they are not used"
        yield Damage("", problem, "state")
    for found in (catalog_problem(path), evaluation_problem(path)):
        if found is not None:
            yield Damage("", f"run state: {found}; it is not used", "state")
    for file in damaged_notes(path):
        problem = f"run state: the note of scores {file.name} is damaged; it is not used"
        yield Damage("", problem, "state")
