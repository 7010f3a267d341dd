"""Statistics that a conversion keeps of whole sessions: of columns, and of label classes.

They come from the same visit of the pixels as the others. Each task merges those of its blocks,
writes them beside the store, and only then the records of these blocks; the end of the conversion
merges what all tasks left. Without being whole they are not kept: whoever asks for them then takes
a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.partials import load_partial, partials_of
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import create_array
from hsi_batch.statistics import Bundle, Forest
from hsi_batch.statistics.columns import column_forest
from hsi_batch.statistics.grid import summary_forests
from hsi_batch.statistics.moments import is_exact
from hsi_batch.statistics.tree import Path as Path_

__all__ = ["CLASS_LIMIT", "SUMS", "forget_sums", "partial_of", "session_sums", "write_sums"]

#: Arrays of whole sessions, and sessions with more label classes keep nothing of them.
SUMS = ("columns", "moments_class", "extrema_class")
CLASS_LIMIT = 32
#: Said of an array that holds all it should.
_WHOLE = "whole"


def session_sums(
    geometry: Geometry,
    key: BlockKey,
    lines: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    labels: NDArray[np.int16] | None,
    normal: tuple[Forest[Any], Forest[Any]] | None = None,
) -> Bundle:
    """What a block adds to the statistics of its session, as forests.

    Parameters
    ----------
    geometry : Geometry
    key : BlockKey
    lines : numpy.ndarray, shape (lines, x, channel)
    valid : numpy.ndarray of bool, shape (lines, x), optional
    labels : numpy.ndarray of int16, shape (lines, x), optional
        None to keep nothing of classes.
    normal : (Forest, Forest), optional
        Moments and extrema of class 0, if they were taken already.
    """
    at: dict[str, Any] = {"start": key.start, "height": geometry.shape[0]}
    frame: Path_ = ((key.frame, geometry.frames),)
    found: dict[str, Any] = {}
    if geometry.keeps_columns:
        found["columns"] = column_forest(lines, valid, prefix=frame, **at)
    numbers = () if labels is None else np.unique(labels if valid is None else labels[valid])
    for number in (int(n) for n in numbers if n >= 0):
        if number == 0 and normal is not None:
            depth = 0 if geometry.row_frames is None else 1
            moments, extrema = (_placed(forest, frame, depth) for forest in normal)
        else:
            mask = np.asarray(labels == number)
            mask = mask if valid is None else mask & valid
            moments, extrema = summary_forests(lines, mask, prefix=frame, **at)
        found[f"moments_class:{number}"] = moments
        found[f"extrema_class:{number}"] = extrema
    return Bundle(found)


def _placed(forest: Forest[Any], frame: Path_, depth: int) -> Forest[Any]:
    """A forest of one frame, with the frame's place among all instead of the first ``depth``."""
    placed: Forest[Any] = Forest()
    for (path, level), part in forest.parts.items():
        placed = placed.merge(Forest.of((*frame, *path[depth:]), part, level))
    return placed


def partial_of(record: BlockRecord) -> str | None:
    """File that holds what a block adds to many; "" if it adds nothing, None if it is not said."""
    name = record.info.get("partial", record.info.get("sums"))
    return None if name is None else Path(str(name)).name


def forget_sums(session: Session) -> None:
    """Take out what some blocks will no longer be part of."""
    for name in SUMS:
        if session.optional(name) is not None:
            del session.group[name]


def write_sums(
    session: Session,
    archive: str,
    known: Mapping[BlockKey, BlockRecord],
    failed: Mapping[int, str],
) -> None:
    """Merge what the tasks left, and keep it if it is of all blocks that were converted.

    A session whose blocks are mended holds it already.
    """
    held = [array for name in SUMS if (array := session.optional(name)) is not None]
    if held and all(_WHOLE in array.attrs for array in held):
        return
    forget_sums(session)
    done = [record for record in known.values() if record.outcome == "done"]
    names = {partial_of(record) for record in done} - {""}
    if None in names or {r.key.frame for r in done} & set(failed):
        return
    merged = _merged(archive, session, sorted(str(name) for name in names))
    if merged is None:
        return
    columns = merged.get("columns")
    if columns is not None:
        exact = is_exact(session.geometry.dtype)
        terms = "count, sum, sum of squares" if exact else "count, mean, scatter"
        _write(session, "columns", ("column_term", "x", "channel"), columns.stored, terms=terms)
    numbers = sorted(int(n.rpartition(":")[2]) for n in merged if n.startswith("moments_class:"))
    if numbers:
        rows = np.stack([merged[f"moments_class:{n}"].row for n in numbers])
        bounds = np.stack([merged[f"extrema_class:{n}"].bounds for n in numbers])
        _write(session, "moments_class", ("label_class", "term"), rows, classes=numbers)
        dims = ("label_class", "bound", "channel")
        _write(session, "extrema_class", dims, bounds, classes=numbers)
    for name in SUMS:
        # Only now: a run that is killed before writes all of them again.
        array = session.optional(name)
        if array is not None:
            array.attrs[_WHOLE] = True


def _merged(archive: str, session: Session, names: list[str]) -> dict[str, Any] | None:
    folder = partials_of(archive, session.name)
    whole = Bundle()
    try:
        for name in names:
            part = load_partial(folder / name)
            if part is None:
                return None
            kept = {n: f for n, f in part.items() if n.partition(":")[0] in SUMS}
            whole = whole.merge(Bundle(kept))
        return {name: forest.result() for name, forest in whole.items()}
    except ValueError:
        # A block that was done twice.
        return None


def _write(
    session: Session, name: str, dims: tuple[str, ...], values: NDArray[Any], **attrs: Any
) -> None:
    array = create_array(
        session.group,
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype.name,
        dims=dims,
        attrs=attrs,
    )
    array[...] = values
