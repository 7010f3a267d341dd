"""Reading frames of an archive on a worker, each block once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.stored import stored_frame_statistic
from hsi_batch.pipeline.frame_source import FrameSource
from hsi_batch.recent import Recent

__all__ = ["frame_source", "session_of"]

_sessions: Recent[Session] = Recent(32)


def session_of(archive: str, name: str, stamp: str) -> Session:
    """A session, opened once per thread and state of the archive."""
    return _sessions.get((archive, name, stamp), lambda: Session.open(archive, name))


_NOTHING: tuple[int, int, NDArray[Any]] = (0, 0, np.empty((0, 0, 0)))


class _Reader:
    """Lines of one frame; holds the block that was read last."""

    def __init__(self, session: Session, frame: int, pixels: PixelChoice) -> None:
        self.session = session
        self.frame = frame
        self.pixels = pixels
        self._held: tuple[int, int, NDArray[Any]] = _NOTHING

    def lines(self, start: int, stop: int) -> NDArray[Any]:
        first, last, block = self._held
        if first <= start and stop <= last:
            return block[start - first : stop - first]
        height = self.session.geometry.lines
        if stop - start > height or start // height != (stop - 1) // height:
            pieces = []
            while start < stop:
                end = min(stop, (start // height + 1) * height)
                pieces.append(self.lines(start, end))
                start = end
            return np.concatenate(pieces)
        # Chunks are read whole anyway.
        top = start // height * height
        bottom = min(top + height, self.session.geometry.shape[0])
        # The block that was held is written over.
        del block
        self._held = _NOTHING
        self._held = (top, bottom, self.session.read(self.frame, top, bottom, reuse=True))
        if bottom < self.session.geometry.shape[0]:
            below = min(bottom + height, self.session.geometry.shape[0])
            self.session.announce(self.frame, bottom, below)
        return self.lines(start, stop)

    def valid(self, start: int, stop: int) -> NDArray[np.bool_] | None:
        return self.session.valid(self.frame, start, stop, self.pixels)

    def usable(self, start: int, stop: int) -> NDArray[np.bool_] | None:
        return self.session.valid(self.frame, start, stop)


def frame_source(
    session: Session,
    frame: int,
    ranges: tuple[tuple[int, int], ...],
    pixels: PixelChoice = "valid",
) -> FrameSource:
    """Pixels of a frame, read by blocks as they are asked for.

    Statistics of the whole frame that conversion left are taken from there, if the whole frame and
    all its valid pixels are meant.
    """
    reader = _Reader(session, frame, pixels)
    geometry = session.geometry
    whole = ranges == tuple(geometry.ranges())

    def stored(kind: str) -> Any:
        return stored_frame_statistic(session, frame, kind, pixels) if whole else None

    return FrameSource(
        lines=reader.lines,
        valid=reader.valid,
        labels=lambda start, stop: session.labels(frame, start, stop),
        shape=geometry.shape,
        dtype=np.dtype(geometry.dtype),
        blocks=ranges,
        statistics=stored,
        usable=reader.usable,
    )
