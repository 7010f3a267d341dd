"""Where the pixels of one frame come from, whole, thinned out or turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.nodes import PortRef
from hsi_batch.nodes.grid import Grid
from hsi_batch.pipeline.evaluate import Evaluator, Lines, Validity
from hsi_batch.pipeline.program import Program
from hsi_batch.statistics.leaves import block_lines

__all__ = ["FrameSource", "ThinnedMap", "thinned", "turned"]


@dataclass(frozen=True)
class FrameSource:
    """Pixels of one frame, read by blocks.

    Attributes
    ----------
    lines : callable
        ``(start, stop) -> (lines, x, C)`` as stored.
    valid : callable
        ``(start, stop) -> (lines, x)`` bool or None.
    shape : tuple of int
        ``(y, x, C)``.
    dtype : numpy.dtype
    blocks : tuple of (int, int)
        Line ranges to read at once; whole leaves.
    labels : callable, optional
        ``(start, stop) -> (lines, x)`` class numbers, -1 where unlabelled; None without labels.
    usable : callable, optional
        As ``valid``, of all pixels that hold values; a fit may choose fewer to count. By default
        the same.
    statistics : callable, optional
        Statistics of the whole frame that need no reading, by kind; returns None for others.
    """

    lines: Lines
    valid: Validity
    shape: tuple[int, int, int]
    dtype: Any
    blocks: tuple[tuple[int, int], ...]
    labels: Callable[[int, int], NDArray[np.int16] | None] = field(
        default=lambda _start, _stop: None
    )
    statistics: Callable[[str], Any] = field(default=lambda _kind: None)
    usable: Validity | None = None

    def evaluator(self, program: Program, given: Mapping[PortRef, Any] | None = None) -> Evaluator:
        """Runs a program on this frame."""
        height, width, _ = self.shape
        return Evaluator(program, self.lines, height, width, given, self.usable or self.valid)


def thinned(source: FrameSource, step: int) -> FrameSource:
    """Every ``step``-th pixel of a frame in both directions."""
    height, width, channels = source.shape

    def lines(start: int, stop: int) -> NDArray[Any]:
        return source.lines(start * step, min(stop * step, height))[::step, ::step]

    def some(read: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
        def found(start: int, stop: int) -> Any:
            values = read(start * step, min(stop * step, height))
            return None if values is None else values[::step, ::step]

        return found

    shape = (-(-height // step), -(-width // step), channels)
    return FrameSource(
        lines=lines,
        valid=some(source.valid),
        labels=some(source.labels),
        usable=None if source.usable is None else some(source.usable),
        shape=shape,
        dtype=source.dtype,
        blocks=_blocks(shape),
    )


def turned(source: FrameSource, turns: int) -> FrameSource:
    """A frame that has made quarter turns to the left; what is asked of it is held whole."""
    grid = Grid(1, turns)

    def whole(read: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
        held: list[Any] = []

        def found(start: int, stop: int) -> Any:
            if not held:
                parts = [read(*block) for block in source.blocks]
                some = all(part is not None for part in parts)
                held.append(grid.turn(np.concatenate(parts)) if some else None)
            return None if held[0] is None else held[0][start:stop]

        return found

    shape = (*grid.shape(*source.shape[:2]), source.shape[2])
    return FrameSource(
        lines=whole(source.lines),
        valid=whole(source.valid),
        labels=whole(source.labels),
        usable=None if source.usable is None else whole(source.usable),
        shape=shape,
        dtype=source.dtype,
        blocks=_blocks(shape),
    )


def _blocks(shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    block = block_lines(shape, 4)
    return tuple((start, min(start + block, shape[0])) for start in range(0, shape[0], block))


class ThinnedMap:
    """Every ``step``-th pixel of a port, computed as lines are asked for.

    Lines are asked for in ascending order, and some of them again soon after.
    """

    _KEPT = 4

    def __init__(self, evaluator: Evaluator, port: PortRef, step: int) -> None:
        self._evaluator = evaluator
        self._port = port
        self._step = step
        self._leaves: dict[int, NDArray[Any]] = {}

    def __getitem__(self, lines: slice) -> NDArray[Any]:
        """The lines ``start:stop`` of the thinned map."""
        size, step = self._evaluator.lines_per_leaf, self._step
        rows = range(lines.start * step, lines.stop * step, step)
        parts = []
        for leaf in sorted({row // size for row in rows if row < self._evaluator.height}):
            first, last = self._evaluator.leaf_range(leaf)
            offset = -first % step
            begin = max(rows[0] - first - offset, 0) // step
            end = -(-(min(rows[-1] + 1, last) - first - offset) // step)
            parts.append(self._leaf(leaf, offset)[begin:end])
        return np.concatenate(parts)

    def _leaf(self, leaf: int, offset: int) -> NDArray[Any]:
        if leaf not in self._leaves:
            while len(self._leaves) >= self._KEPT:
                del self._leaves[next(iter(self._leaves))]
            value = self._evaluator.leaf(leaf)[self._port]
            self._leaves[leaf] = value[offset :: self._step, :: self._step].copy()
        return self._leaves[leaf]
