"""Frames of an archive as batches of tensors, for those who loop over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Lines, Selection
from hsi_batch.archive.session import Session

__all__ = ["Batches", "Block", "Pixels", "frame_batch", "joined"]


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
        Where frames are read from.
    selection : Selection
        The frames, in the order that unshuffled batches have.
    batch_size : int
        Frames per batch, at most.

    Examples
    --------
    >>> from hsi_batch.archive import open_archive
    >>> archive = open_archive("archive.zarr")
    >>> batches = Batches(archive, archive.select("glob:scene_*"), batch_size=2)
    >>> [tuple(batch["cube"].shape) for batch in batches]
    [(2, 40, 30, 8)]
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
    pixels = Pixels.empty(1, last - first, width, session)
    for start, stop in session.geometry.ranges():
        if start < last and stop > first:
            a, b = max(start, first), min(stop, last)
            pixels.take(0, slice(a - first, b - first), Block(session, frame, a, b))
    return pixels.batch(session, frame)


class Block:
    """A run of lines of a frame, with labels and flags; valid until the next one is read.

    Parameters
    ----------
    session : Session
    frame, start, stop : int
    """

    def __init__(self, session: Session, frame: int, start: int, stop: int) -> None:
        # One block per thread that reads, however many follow each other.
        self.cube = session.read(frame, start, stop, reuse=True)
        self.labels = session.labels(frame, start, stop)
        self.valid = session.valid(frame, start, stop)


@dataclass
class Pixels:
    """Images of one size that are filled block by block, in the native byte order.

    Attributes
    ----------
    cube : ndarray
        (B, y, x, C), as recorded.
    mask : ndarray of int32
        (B, y, x).
    valid : ndarray of bool
        (B, y, x).
    """

    cube: NDArray[Any]
    mask: NDArray[np.int32]
    valid: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int, tall: int, wide: int, session: Session) -> Pixels:
        """Room for images of a session; unlabelled and valid."""
        shape = count, tall, wide
        dtype = np.dtype(session.geometry.dtype).newbyteorder("=")
        return cls(
            np.empty((*shape, session.geometry.shape[2]), dtype),
            np.full(shape, -1, np.int32),
            np.ones(shape, bool),
        )

    def take(
        self,
        image: int,
        into: slice,
        block: Block,
        lines: slice = slice(None),
        samples: slice = slice(None),
    ) -> None:
        """Copy lines of a block into lines of an image."""
        self.cube[image, into] = block.cube[lines, samples]
        if block.labels is not None:
            self.mask[image, into] = block.labels[lines, samples]
        if block.valid is not None:
            self.valid[image, into] = block.valid[lines, samples]

    def batch(self, session: Session, frame: int) -> dict[str, Any]:
        """The images as a batch."""
        count = len(self.cube)
        batch: dict[str, Any] = {
            "cube": torch.from_numpy(self.cube),
            "mask": torch.from_numpy(self.mask),
            "valid": torch.from_numpy(self.valid),
            "mesu_index": torch.full((count,), frame, dtype=torch.int64),
            "stem": [session.name] * count,
        }
        if session.wavelength is not None:
            axis = torch.from_numpy(np.rint(session.wavelength).astype(np.int32))
            batch["wavelengths"] = axis.repeat(count, 1)
        return batch


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
