"""The maps of a store of scores, frame by frame, as exports write them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zarr

from hsi_batch.archive.session import Session
from hsi_batch.errors import ConfigError, StoreError
from hsi_batch.pipeline.maps import INVALID_DECISION
from hsi_batch.readers.geography import Geography
from hsi_batch.stages.export import score_groups

__all__ = ["LINES", "StoredMap", "each_map", "geography_of", "maps_of", "nodata_of"]

#: Lines of a map that are read at once.
LINES = 256


class StoredMap(NamedTuple):
    """A map of one frame.

    Attributes
    ----------
    session : str
    frame : int
    output : str
        Its name.
    array : zarr.Array
        Of all frames, ``(frame, y, x)`` or ``(frame, y, x, channel)``.
    """

    session: str
    frame: int
    output: str
    array: zarr.Array[Any]

    @property
    def stem(self) -> str:
        """Name of its file, without suffix; frames are numbered where there are several."""
        numbered = f"_{self.frame:03d}" if self.array.shape[0] > 1 else ""
        return f"{self.session}{numbered}_{self.output}"


def maps_of(group: zarr.Group, *, channels: bool = True) -> list[str]:
    """Names of the maps of a session; with ``channels`` also of those that have several."""
    return sorted(
        name for name, array in group.arrays() if array.ndim == 3 or (channels and array.ndim == 4)
    )


def each_map(
    store: str | os.PathLike[str], outputs: Sequence[str] | None, *, channels: bool = True
) -> Iterator[StoredMap]:
    """Every frame of every map, or of those that are named; session by session.

    All are looked for before the first one is given.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A session has no such map, or one with channels where ``channels`` is false.
    """
    chosen: list[tuple[str, str, zarr.Array[Any]]] = []
    for name, group in score_groups(store).items():
        known = maps_of(group, channels=channels)
        for output in outputs or known:
            array = group.get(output)
            if output not in known or not isinstance(array, zarr.Array):
                one = "" if channels else " of one channel"
                raise ConfigError(
                    f"session {name} has no map {output!r}{one}.",
                    path=str(store),
                    hint=f"There are {', '.join(known) or 'none'}.",
                )
            chosen.append((name, output, array))
    for name, output, array in chosen:
        for frame in range(array.shape[0]):
            yield StoredMap(name, frame, output, array)


def nodata_of(array: zarr.Array[Any]) -> float | int:
    """What invalid pixels of a map hold: NaN, 255 for decisions, -1 for class numbers."""
    return {"u": INVALID_DECISION, "i": -1}.get(array.dtype.kind, float("nan"))


def geography_of(archive: Any, name: str) -> Geography | None:
    """Where on the ground a session is, if its archive is there and says so."""
    if not archive or not Path(str(archive)).exists():
        return None
    try:
        return Geography.of_attrs(Session.open(str(archive), name).attrs.get("geography"))
    except StoreError:
        return None
