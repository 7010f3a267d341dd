"""Letting the system read what comes next while something else is computed."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import zarr

from hsi_batch.archive.chunk_layout import layout_of
from hsi_batch.archive.shards import place_of

__all__ = ["announce"]

#: Linux reads no more than this for sure when it is told what will be needed.
_READ_AHEAD = 128 * 2**10
#: After so many chunks that wait in memory already, one of so many is looked at.
_CALM = 8


class _Seen(threading.local):
    """What this thread saw lately: chunks that waited in memory, and those not looked at since."""

    cached = 0
    passed = 0


_seen = _Seen()


def announce(array: zarr.Array[Any], frame: int, start: int, stop: int) -> None:
    """Let the system read a chunk from the disk while something else is computed.

    The bytes wait in the memory of the system's file cache, not in that of the process.
    """
    if _seen.cached >= _CALM and _seen.passed < _CALM:
        _seen.passed += 1
        return
    _seen.passed = 0
    layout = layout_of(array)
    index = layout.index(frame, start, stop)
    if index is None or not hasattr(os, "posix_fadvise"):
        return
    path = layout.place(index)
    if not isinstance(path, Path):
        return
    with contextlib.suppress(OSError, ValueError), os.fdopen(os.open(path, os.O_RDONLY)) as file:
        place = place_of(file, layout.position(index))
        if place is None:
            return
        end = place.offset + place.size
        if _cached(file.fileno(), place.offset) and _cached(file.fileno(), end - 1):
            _seen.cached += 1
            return
        _seen.cached = 0
        for at in range(place.offset, end, _READ_AHEAD):
            os.posix_fadvise(file.fileno(), at, min(_READ_AHEAD, end - at), os.POSIX_FADV_WILLNEED)


def _cached(file: int, at: int) -> bool:
    """Whether the system can give a byte of a file without waiting for a disk."""
    try:
        return os.preadv(file, [bytearray(1)], at, os.RWF_NOWAIT) == 1
    except (OSError, AttributeError):
        return False
