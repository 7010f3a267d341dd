"""Rows of statistics: one by one while blocks are converted, many in a chunk once all are.

Workers write the row of each block as a chunk of its own, into ``moments_rows`` and its like. The
end of a conversion packs these into ``moments``, so that the statistics of a hundred thousand
frames are a few thousand files. Whoever converts blocks again has them unpacked first. Either way
the target is marked until it is whole, and the source goes only then, its metadata first: a killed
run leaves at least one that is whole, and none that only seems to be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from hsi_batch.archive.chunk_layout import chunk_tail
from hsi_batch.archive.chunk_reader import PACKED, read_rows
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import create_array, store_place
from hsi_batch.errors import StoreError
from hsi_batch.places import remove_tree

__all__ = [
    "ROWS",
    "pack_rows",
    "packed_rows",
    "row_array",
    "rows_per_chunk",
    "rows_wait",
    "sweep_rows",
    "unpack_rows",
]

#: Arrays with a row for each block.
ROWS = ("moments", "extrema", "moments_normal", "extrema_normal")
#: Bytes of a chunk of rows: reading those of one frame must not cost much more than the frame.
_CHUNK_BYTES = 2**19
_UNFINISHED = "unfinished"
_META = "zarr.json"


def row_array(name: str) -> str:
    """Name of the array with a chunk per row."""
    return f"{name}_rows"


def rows_wait(session: Session, name: str) -> bool:
    """Whether rows are still written one by one; no more once a later run has packed them."""
    if not session.group.store.supports_consolidated_metadata:
        return True
    folder = store_place(session.group) / session.group.path / row_array(name)
    return (folder / _META).is_file()


def rows_per_chunk(array: zarr.Array[Any]) -> int:
    """Rows of a chunk once they are packed."""
    inner = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    return max(min(_CHUNK_BYTES // inner, array.shape[0]), 1)


def packed_rows(array: zarr.Array[Any]) -> Iterator[tuple[int, range]]:
    """Chunks of a packed array, each with the rows that it holds."""
    step, rows = array.chunks[0], array.shape[0]
    for number, first in enumerate(range(0, rows, step)):
        yield number, range(first, min(first + step, rows))


def pack_rows(session: Session, names: Iterable[str] = ROWS) -> None:
    """Put the rows of a session into few chunks; does nothing where they are."""
    for name in names:
        source = _whole(session, row_array(name))
        if source is not None:
            packed = _made(session, name, source, rows_per_chunk(source), {PACKED: True})
            for _, rows in packed_rows(packed):
                packed[rows.start : rows.stop] = read_rows(source, rows)
            _finish(packed)
        _remove(session, row_array(name))


def unpack_rows(session: Session, redone: Collection[int]) -> None:
    """Give each row of a session a chunk of its own.

    Parameters
    ----------
    session : Session
        Open for writing, and not complete.
    redone : collection of int
        Rows that will be written again: they may be lost.

    Raises
    ------
    hsi_batch.errors.StoreError
        Other rows are lost.
    """
    for name in ROWS:
        source = _whole(session, name)
        if _whole(session, row_array(name)) is None and source is not None:
            target = _made(session, row_array(name), source, 1, {})
            for number, rows in packed_rows(source):
                if set(rows) <= set(redone):
                    continue
                if chunk_tail(source, (number, *(0 for _ in source.shape[1:]))) is None:
                    raise lost_rows(session.name, name, rows)
                for row, values in zip(rows, read_rows(source, rows), strict=True):
                    target[row] = values
            _finish(target)
        _remove(session, name)


def lost_rows(session: str, name: str, rows: Sequence[int]) -> StoreError:
    """The error for statistics that are no more."""
    return StoreError(
        f"the {name} of blocks {rows[0]} to {rows[-1]} are missing.",
        session=session,
        hint="Mend the archive with hsi-batch repair, or convert the session again with --force.",
    )


def sweep_rows(session: Session) -> None:
    """Remove what workers of a run that was killed wrote after its rows were packed."""
    for name in ROWS:
        if session.holds(name) and not session.holds(row_array(name)):
            _remove(session, row_array(name))


def _whole(session: Session, name: str) -> zarr.Array[Any] | None:
    array = session.optional(name)
    return None if array is None or _UNFINISHED in array.attrs else array


def _made(
    session: Session, name: str, like: zarr.Array[Any], rows: int, more: Mapping[str, Any]
) -> zarr.Array[Any]:
    """An array like another, with ``rows`` in a chunk."""
    attrs = {k: v for k, v in like.attrs.items() if k != PACKED}
    made = create_array(
        session.group,
        name,
        shape=like.shape,
        chunks=(rows, *like.shape[1:]),
        dtype=str(like.dtype),
        # Metadata of format 3, as all of ours, have them.
        dims=tuple(str(d) for d in like.metadata.dimension_names),  # type: ignore[union-attr]
        attrs={**attrs, **more, _UNFINISHED: True},
    )
    # A chunk that is not there is lost, never empty.
    return made.with_config({"write_empty_chunks": True})


def _finish(array: zarr.Array[Any]) -> None:
    del array.attrs[_UNFINISHED]


def _remove(session: Session, name: str) -> None:
    if not session.group.store.supports_consolidated_metadata:
        # A repository, in which all of a run appears at once.
        if session.optional(name) is not None:
            del session.group[name]
        return
    folder = store_place(session.group) / session.group.path / name
    if folder.is_dir():
        (folder / _META).unlink(missing_ok=True)
        remove_tree(folder)
