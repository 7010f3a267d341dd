"""Statistics that conversion left behind, merged for any selection without reading pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.chunk_layout import store_path
from hsi_batch.archive.chunk_reader import UNREADABLE, read_rows
from hsi_batch.archive.layout import Geometry
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session, variant_of
from hsi_batch.errors import StoreError
from hsi_batch.statistics import Extrema, FloatMoments, Forest, IntegerMoments
from hsi_batch.statistics.columns import ColumnMoments
from hsi_batch.statistics.quality import flag_pixels
from hsi_batch.statistics.tree import Path

__all__ = [
    "has_statistics",
    "moments_from_row",
    "sampled_frames",
    "stored_columns",
    "stored_frame_statistic",
    "stored_sample",
    "stored_statistic",
    "thinned",
]

#: Frames that a sample is taken from.
_SAMPLED_FRAMES = 64
_SAMPLED_SPECTRA = 16384
#: Rows that are read and summed at once, and by how many threads.
_GROUP_BYTES, _THREADS = 4 * 2**20, 4


def _array(session: Session, kind: str, pixels: PixelChoice) -> zarr.Array[Any] | None:
    return session.optional(_name(session, kind, pixels))


def _name(session: Session, kind: str, pixels: PixelChoice) -> str:
    if kind == "columns":
        return kind
    name = f"{kind}{variant_of(pixels)}"
    # What conversion summed up is of the labels that it found.
    by_label = pixels == "labelled-normal" or pixels.startswith("class:")
    later = by_label and session.label_version > 1
    return f"{name}_v{session.label_version}" if later else name


def _by_session(kind: str, pixels: PixelChoice) -> bool:
    """Whether the statistic is kept of whole sessions only."""
    return kind == "columns" or pixels.startswith("class:")


def has_statistics(
    sessions: Mapping[str, Session], selection: Selection, kind: str, pixels: PixelChoice
) -> bool:
    """Whether the statistic of the cube can be had for these frames without reading a pixel.

    It cannot where parts of frames are selected, where rows cover frames that are not selected,
    or where the arrays are missing.
    """
    if kind not in ("moments", "extrema", "columns") or (kind == "columns" and pixels != "valid"):
        return False
    by_session = _by_session(kind, pixels)
    by_label = pixels == "labelled-normal" or pixels.startswith("class:")
    for name, frames in selection.frames.items():
        session = sessions[name]
        unlabelled = by_label and not session.labelled
        if not session.holds(_name(session, kind, pixels)) and not unlabelled:
            return False
        if any(lines is not None for lines in frames.values()):
            return False
        shared = by_session or session.geometry.row_frames is not None
        if shared and name not in selection.whole:
            return False
    return True


def moments_from_row(row: NDArray[Any]) -> IntegerMoments | FloatMoments:
    """Moments of a stored row: exact sums if it is int64, else mean and scatter."""
    return IntegerMoments.from_row(row) if row.dtype.kind == "i" else FloatMoments.from_row(row)


def stored_statistic(
    sessions: Mapping[str, Session], selection: Selection, kind: str, pixels: PixelChoice
) -> Any:
    """Merge stored ``moments``, ``extrema`` or ``columns`` in the fixed tree; None without any.

    What no order of merging can change is summed as it comes, many rows at once.
    """
    if _by_session(kind, pixels):
        return _of_sessions(sessions, selection, kind, pixels)
    found: list[Any] = []
    forest: Forest[Any] = Forest()
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, frames in selection.frames.items():
            array = _array(sessions[name], kind, pixels)
            if array is None:
                continue
            geometry = sessions[name].geometry
            exact = kind == "extrema" or array.dtype.kind == "i"
            if not exact:
                for path, level, row in _placed(array, selection, name, frames, geometry):
                    forest = forest.merge(Forest.of(path, _part(kind, row), level))
                continue
            rows = _rows_of(frames, geometry)
            most = max(_GROUP_BYTES // (array.dtype.itemsize * int(np.prod(array.shape[1:]))), 1)
            groups = [rows[first : first + most] for first in range(0, len(rows), most)]
            found += pool.map(partial(_merged, array, name, kind), groups)
            if len(found) > _THREADS:
                found = [reduce(_merge, found)]
    if found and len(forest):
        raise TypeError("statistics of integer and of float sessions do not merge")
    return reduce(_merge, found) if found else forest.result()


def _of_sessions(
    sessions: Mapping[str, Session], selection: Selection, kind: str, pixels: PixelChoice
) -> Any:
    """Merge what is kept of whole sessions."""
    forest: Forest[Any] = Forest()
    for rank, name in enumerate(selection.frames):
        array = _array(sessions[name], kind, pixels)
        if array is None:
            continue
        if kind == "columns":
            part: Any = ColumnMoments.from_stored(_whole(array, name))
        else:
            number = sessions[name].class_number(pixels)
            held: Any = array.attrs["classes"]
            if number not in held:
                continue
            part = _part(kind, _read(array, name, [held.index(number)])[0])
        forest = forest.merge(Forest.of(((rank, len(selection.frames)),), part))
    return forest.result()


def _whole(array: zarr.Array[Any], session: str) -> NDArray[Any]:
    return _read(array, session, range(array.shape[0]))


def _read(array: zarr.Array[Any], session: str, indices: Sequence[int]) -> NDArray[Any]:
    try:
        return read_rows(array, indices)
    except UNREADABLE as error:
        raise StoreError(
            f"the statistics of blocks {indices[0]} to {indices[-1]} cannot be read: {error}.",
            path=store_path(array),
            session=session,
            hint="Mend the archive with hsi-batch repair, or convert the session again.",
        ) from None


def _merge(one: Any, other: Any) -> Any:
    return one.merge(other)


def _rows_of(frames: Iterable[int], geometry: Geometry) -> Sequence[int]:
    """Rows that hold the statistics of some frames."""
    if geometry.row_frames is not None:
        return range(geometry.rows)
    blocks = geometry.blocks_per_frame
    return [row for frame in frames for row in range(frame * blocks, (frame + 1) * blocks)]


def _merged(array: zarr.Array[Any], session: str, kind: str, indices: Sequence[int]) -> Any:
    rows = _read(array, session, indices)
    if kind == "moments":
        return IntegerMoments.from_rows(rows)
    counts = [int(np.all(low <= high)) for low, high in rows]
    return Extrema(sum(counts), rows[:, 0].min(axis=0), rows[:, 1].max(axis=0))


def _placed(
    array: zarr.Array[Any],
    selection: Selection,
    name: str,
    frames: Iterable[int],
    geometry: Geometry,
) -> Iterator[tuple[Path, int, NDArray[Any]]]:
    """Rows with their place in the fixed tree and its level."""
    if geometry.row_frames is not None:
        level = (geometry.row_frames - 1).bit_length()
        at = selection.place(name, 0, geometry.frames)[0]
        for index in range(geometry.rows):
            yield (at, (index, geometry.frames)), level, _read(array, name, [index])[0]
        return
    blocks = geometry.blocks_per_frame
    for frame in frames:
        prefix = selection.place(name, frame, geometry.frames)
        rows = _read(array, name, range(frame * blocks, (frame + 1) * blocks))
        for index, row in enumerate(rows):
            yield (*prefix, (index, geometry.leaves)), geometry.block_level, row


def stored_columns(session: Session) -> ColumnMoments | None:
    """Moments of the columns of all valid pixels of a session; None if they are not kept."""
    array = session.optional("columns")
    return None if array is None else ColumnMoments.from_stored(_whole(array, session.name))


def stored_frame_statistic(session: Session, frame: int, kind: str, pixels: PixelChoice) -> Any:
    """The stored statistic of one whole frame; None if the archive does not keep it per frame."""
    if _by_session(kind, pixels):
        return None
    array = _array(session, kind, pixels) if kind in ("moments", "extrema") else None
    geometry = session.geometry
    if array is None or geometry.row_frames not in (None, 1):
        return None
    if geometry.row_frames == 1:
        return _part(kind, _read(array, session.name, [frame])[0])
    forest: Forest[Any] = Forest()
    for index, row in enumerate(_read(array, session.name, _rows_of([frame], geometry))):
        path = ((index, geometry.leaves),)
        forest = forest.merge(Forest.of(path, _part(kind, row), geometry.block_level))
    return forest.result()


def _part(kind: str, row: NDArray[Any]) -> Any:
    if kind == "moments":
        return moments_from_row(row)
    # The count of pixels is that of the moments; extrema only tell whether there are any.
    low, high = row
    return Extrema(int(np.all(low <= high)), low, high)


def sampled_frames(selection: Selection) -> list[tuple[str, int]]:
    """Up to 64 frames, evenly spread over a selection, on which precision is measured."""
    chosen = list(selection)
    picked = np.linspace(0, len(chosen) - 1, _SAMPLED_FRAMES).astype(int)
    return list(dict.fromkeys((chosen[i][0], chosen[i][1]) for i in picked))


def stored_sample(sessions: Mapping[str, Session], selection: Selection) -> NDArray[Any] | None:
    """Spectra that conversion kept of the sampled frames of the selection, valid ones only.

    Returns None if the archive keeps none.
    """
    parts = []
    for name, frame in sampled_frames(selection):
        session = sessions[name]
        array = session.optional("sample")
        if array is None:
            return None
        spectra = np.asarray(array[frame])
        good = flag_pixels(
            spectra[None],
            nodata=session.attrs.get("nodata"),
            saturation=session.attrs.get("saturation"),
            used=session.good_band,
        )
        parts.append(spectra if good is None else spectra[good[0] == 0])
    return thinned(np.concatenate(parts))


def thinned(sample: NDArray[Any]) -> NDArray[Any] | None:
    """At most 16384 spectra of a sample, evenly spread; None if it is empty."""
    if not len(sample):
        return None
    return sample[:: -(-len(sample) // _SAMPLED_SPECTRA)]
