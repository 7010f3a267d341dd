"""The lines that a pass reads, cut into what one worker reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import Session
from hsi_batch.archive.stored import sampled_frames
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.passes import whole_frames
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.fit_blocks import FitItem

__all__ = ["PassItems", "Wanted", "needs_of"]

#: What each background needs.
Wanted = Mapping[str, tuple[Need, ...]]


@dataclass(frozen=True)
class PassItems:
    """Cuts frames into items.

    Attributes
    ----------
    pipeline : Pipeline
    sessions : mapping
    selection : Selection
    parts : mapping
        The selection of each background.
    """

    pipeline: Pipeline
    sessions: Mapping[str, Session]
    selection: Selection
    parts: Mapping[str, Selection]

    def of(self, wanted: Wanted, *, sampling: bool) -> tuple[list[FitItem], dict[int, int]]:
        """Items of a pass in order, and the bytes of each by its ``id``.

        With ``sampling``, spectra are kept on the way where conversion kept none.
        """
        needs = needs_of(wanted)
        by_frame = whole_frames(self.pipeline, needs)
        first = sampling and any(need.root == CUBE for need in needs)
        sampled: set[tuple[str, int]] = set()
        if first and not all(session.holds("sample") for session in self.sessions.values()):
            sampled = {at for group in wanted for at in sampled_frames(self.parts[group])}
        items: list[FitItem] = []
        sizes: dict[int, int] = {}
        for item in self.frames(wanted, sampled):
            line = self.sessions[item.session].geometry.line_bytes
            parts = (
                [item]
                if by_frame or len(item.ranges) == 1
                else [
                    FitItem(item.session, item.frame, (span,), item.places, item.sampled)
                    for span in item.ranges
                ]
            )
            for part in parts:
                sizes[id(part)] = line * sum(stop - start for start, stop in part.ranges)
                items.append(part)
        return items, sizes

    def frames(
        self, groups: Iterable[str], sampled: Collection[tuple[str, int]] = ()
    ) -> Iterator[FitItem]:
        """The selected lines of each frame that some backgrounds count, in order."""
        chosen, counts = self._counted(list(groups))
        for name, frames in chosen.frames.items():
            if name not in counts:
                continue
            geometry = self.sessions[name].geometry
            whole = tuple(geometry.ranges())
            for frame, lines in frames.items():
                ranges = whole if lines is None else _cut(whole, lines)
                places = tuple(
                    (group, self.parts[group].place(name, frame, geometry.frames))
                    for group in counts[name]
                )
                # Cut leaves have no fixed places for samples.
                keep = lines is None and (name, frame) in sampled
                yield FitItem(name, frame, ranges, places, keep)

    def _counted(self, groups: list[str]) -> tuple[Selection, dict[str, list[str]]]:
        """The frames that some backgrounds count, and the backgrounds of each session."""
        counts: dict[str, list[str]] = {}
        for group in groups:
            for name in self.parts[group].sessions:
                counts.setdefault(name, []).append(group)
        # Of a thousand backgrounds each has few frames.
        return self.parts[groups[0]] if len(groups) == 1 else self.selection, counts

    def sizes(self, wanted: Wanted) -> tuple[int, NDArray[np.int64]]:
        """Blocks of a pass, and the bytes of each of its items."""
        by_frame = whole_frames(self.pipeline, needs_of(wanted))
        chosen, counts = self._counted(list(wanted))
        blocks, parts = 0, [np.empty(0, dtype=np.int64)]
        for name, frames in chosen.frames.items():
            if name not in counts:
                continue
            geometry = self.sessions[name].geometry
            whole = tuple(geometry.ranges())
            runs = (
                [whole]
                if name in chosen.whole
                else [whole if lines is None else _cut(whole, lines) for lines in frames.values()]
            )
            times = len(frames) if name in chosen.whole else 1
            for ranges in runs:
                sizes = geometry.line_bytes * np.array([b - a for a, b in ranges], dtype=np.int64)
                blocks += times * len(ranges)
                parts.append(np.tile(sizes.sum(keepdims=True) if by_frame else sizes, times))
        return blocks, np.concatenate(parts)


def _cut(ranges: Sequence[tuple[int, int]], lines: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The part of each block that is in a run of lines."""
    first, last = lines
    return tuple(
        (max(start, first), min(stop, last))
        for start, stop in ranges
        if start < last and stop > first
    )


def needs_of(wanted: Wanted) -> tuple[Need, ...]:
    """All statistics that some background needs."""
    return tuple(dict.fromkeys(need for each in wanted.values() for need in each))
