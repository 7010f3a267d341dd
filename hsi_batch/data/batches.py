"""Frames of an archive as batches of tensors, for those who loop over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Lines, Selection
from hsi_batch.archive.session import Session

__all__ = ["Batches", "frame_batch", "joined"]


class Batches:
    """Batches of whole frames, in order; can be gone through any number of times.

    A batch is a mapping, with frames of one shape, type and channel axis:

    ============ ======================= =========================================================
    key          type and shape          what
    ============ ======================= =========================================================
    cube         as recorded (B,y,x,C)   the pixels
    mask         int32 (B,y,x)           class numbers; -1 where unlabelled
    valid        bool (B,y,x)            False where the archive flags the pixel
    wavelengths  int32 (B,C)             nm, rounded; absent where the source states none
    mesu_index   int64 (B,)              index of the frame in its session
    stem         list of str             session
    ============ ======================= =========================================================

    Parameters
    ----------
    archive : Archive
    selection : Selection
    batch_size : int
        Frames per batch, at most.
    """

    def __init__(self, archive: Archive, selection: Selection, batch_size: int = 1) -> None:
        self.archive = archive
        self.selection = selection
        self.batch_size = batch_size
        self._sessions = {name: archive.session(name) for name in selection.sessions}

    def __len__(self) -> int:
        return sum(1 for _ in self._groups())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for group in self._groups():
            parts = [frame_batch(self._sessions[name], f, lines) for name, f, lines in group]
            yield joined(parts)

    def _groups(self) -> Iterator[list[tuple[str, int, Lines]]]:
        group: list[tuple[str, int, Lines]] = []
        held: tuple[Any, ...] | None = None
        for name, frame, lines in self.selection:
            kind = self._kind(self._sessions[name], lines)
            if group and (kind != held or len(group) == self.batch_size):
                yield group
                group = []
            group.append((name, frame, lines))
            held = kind
        if group:
            yield group

    @staticmethod
    def _kind(session: Session, lines: Lines) -> tuple[Any, ...]:
        height, width, channels = session.geometry.shape
        first, last = lines or (0, height)
        axis = session.wavelength
        return (
            last - first,
            width,
            channels,
            session.geometry.dtype,
            None if axis is None else axis.tobytes(),
        )


def frame_batch(session: Session, frame: int, lines: Lines = None) -> dict[str, Any]:
    """One frame (or a run of its lines) as a batch.

    Raises
    ------
    hsi_batch.errors.SourceError
        A chunk is missing or damaged.
    """
    height, width, _ = session.geometry.shape
    first, last = lines or (0, height)
    spans = [
        (max(start, first), min(stop, last))
        for start, stop in session.geometry.ranges()
        if start < last and stop > first
    ]
    cube = np.concatenate([session.read(frame, a, b) for a, b in spans])
    labels = [session.labels(frame, a, b) for a, b in spans]
    flags = [session.valid(frame, a, b) for a, b in spans]
    mask = [
        np.full((b - a, width), -1, np.int16) if found is None else found
        for (a, b), found in zip(spans, labels, strict=True)
    ]
    valid = [
        np.ones((b - a, width), bool) if found is None else found
        for (a, b), found in zip(spans, flags, strict=True)
    ]
    batch: dict[str, Any] = {
        "cube": _tensor(cube),
        "mask": _tensor(np.concatenate(mask).astype(np.int32)),
        "valid": _tensor(np.concatenate(valid)),
        "mesu_index": torch.tensor([frame], dtype=torch.int64),
        "stem": [session.name],
    }
    if session.wavelength is not None:
        batch["wavelengths"] = _tensor(np.rint(session.wavelength).astype(np.int32))
    return batch


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    native = array.dtype.newbyteorder("=")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=native)[None])


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Batches of one kind as one."""
    if len(parts) == 1:
        return parts[0]
    whole: dict[str, Any] = {}
    for key, first in parts[0].items():
        values = [part[key] for part in parts]
        if isinstance(first, torch.Tensor):
            whole[key] = torch.cat(values)
        else:
            whole[key] = [item for value in values for item in value]
    return whole
