"""Running a program on the lines of a frame, leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.nodes import PortRef
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.program import Program, Step
from hsi_batch.statistics.leaves import leaf_lines

__all__ = ["Evaluator", "Lines", "Validity"]

#: ``(start, stop) -> (stop - start, x, C)`` stored pixels of a frame; good until the next call.
Lines = Callable[[int, int], NDArray[Any]]
#: ``(start, stop) -> bool (stop - start, x)``; None if every pixel of the frame is valid.
Validity = Callable[[int, int], "NDArray[np.bool_] | None"]


class Evaluator:
    """Values of ports on the leaves of one frame, computed when asked for.

    A leaf is computed whole, and always from the same pixels, so no bit of a result depends on how
    the frame was cut into blocks. A step with a halo gets its leaf with lines of its neighbours;
    at the edges of the frame it sees the edge, as it would on the whole frame.

    Parameters
    ----------
    program : Program
    lines : callable
        Gives stored lines; asked for whole leaves, and for leaves beyond a block only as far as
        the halo of the program reaches.
    height, width : int
        Lines and pixels per line of the frame.
    given : mapping, optional
        Whole-frame values ``(y, x, channel)`` of the ports in ``program.given``, or what gives
        their lines for a slice.
    valid : callable, optional
        Tells which pixels are valid; all by default.
    """

    def __init__(
        self,
        program: Program,
        lines: Lines,
        height: int,
        width: int,
        given: Mapping[PortRef, Any] | None = None,
        valid: Validity = lambda _start, _stop: None,
    ) -> None:
        self.program = program
        self.height = height
        self._lines = lines
        self._given = given or {}
        self._valid = valid
        self.lines_per_leaf = leaf_lines(width)
        self._producers = program.producers
        self._values: dict[int, dict[PortRef, NDArray[Any]]] = {}

    def leaf_range(self, leaf: int) -> tuple[int, int]:
        """First line and end of a leaf."""
        return leaf * self.lines_per_leaf, min(self.height, (leaf + 1) * self.lines_per_leaf)

    def leaf(self, leaf: int) -> dict[PortRef, NDArray[Any]]:
        """The wanted outputs on a leaf, ``(lines, x, channel)`` each."""
        # Pixels that are no numbers pass through; what becomes of them is marked invalid later.
        with np.errstate(invalid="ignore", over="ignore"):
            found = {ref: self._value(ref, leaf) for ref in self.program.wanted}
        reach = -(-self.program.halo // self.lines_per_leaf)
        for old in [index for index in self._values if index < leaf - 2 * reach]:
            del self._values[old]
        if not self.program.halo:
            self._values.clear()
        return found

    def block(self, start: int, stop: int) -> dict[PortRef, NDArray[Any]]:
        """The wanted outputs on the lines ``start:stop``."""
        parts: dict[PortRef, list[NDArray[Any]]] = {ref: [] for ref in self.program.wanted}
        for leaf in range(start // self.lines_per_leaf, -(-stop // self.lines_per_leaf)):
            first, last = self.leaf_range(leaf)
            for ref, value in self.leaf(leaf).items():
                parts[ref].append(value[max(start - first, 0) : min(stop, last) - first])
        return {ref: np.concatenate(p) if len(p) > 1 else p[0] for ref, p in parts.items()}

    def _value(self, ref: PortRef, leaf: int) -> NDArray[Any]:
        held = self._values.setdefault(leaf, {})
        if ref in held:
            return held[ref]
        first, last = self.leaf_range(leaf)
        if ref == CUBE:
            lines = self._lines(first, last)
            # A source may write over what it gave; neighbours look at it again later.
            held[ref] = lines.copy() if self.program.halo else lines
        elif ref in self._given:
            held[ref] = self._given[ref][first:last]
        else:
            step = self._producers[ref]
            held.update(self._run(step, leaf, first, last))
        return held[ref]

    def _run(self, step: Step, leaf: int, first: int, last: int) -> dict[PortRef, NDArray[Any]]:
        if not step.halo:
            return step.run({ref: self._value(ref, leaf) for ref in step.inputs})
        top, bottom = max(first - step.halo, 0), min(last + step.halo, self.height)
        values = {ref: self._span(ref, top, bottom) for ref in step.inputs}
        if step.masked:
            values = {ref: self._masked(value, top, bottom) for ref, value in values.items()}
        return {
            ref: np.ascontiguousarray(value)
            for ref, value in step.run_within(values, first - top, last - top).items()
        }

    def _masked(self, values: NDArray[Any], top: int, bottom: int) -> NDArray[Any]:
        valid = self._valid(top, bottom)
        if valid is None or valid.all() or values.dtype.kind != "f":
            return values
        return np.where(valid[..., None], values, values.dtype.type(np.nan))

    def _span(self, ref: PortRef, top: int, bottom: int) -> NDArray[Any]:
        parts = []
        for leaf in range(top // self.lines_per_leaf, -(-bottom // self.lines_per_leaf)):
            first, last = self.leaf_range(leaf)
            value = self._value(ref, leaf)
            parts.append(value[max(top - first, 0) : min(bottom, last) - first])
        return np.concatenate(parts)
