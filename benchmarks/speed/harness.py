"""Contests: several ways to one result, checked first, then timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["SCALES", "Contest", "Line", "Scale", "Timing"]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes
    ----------
    name : str
    repeats : int
        Of kernels.
    rounds : int
        Of whole stages.
    frames : int
        Of the archive.
    recording_lines, frame_lines : int
        Lines of 1000 x 61 values of its frames, and of the cubes that kernels see.
    slow_rows : int
        Pixels for peers that are too slow for all of the data.
    tasks : int
        That do nothing.
    sessions : int
        Of 100 frames, that are fitted to again; ten times as many are planned for.
    """

    name: str
    repeats: int
    rounds: int
    frames: int
    recording_lines: int
    frame_lines: int
    slow_rows: int
    tasks: int
    sessions: int


SCALES = {
    scale.name: scale
    for scale in (
        Scale("full", 7, 7, 42, 1000, 1000, 60_000, 100_000, 1000),
        Scale("quick", 3, 1, 4, 1000, 128, 15_000, 2_000, 20),
        # Shows that everything runs, and nothing else.
        Scale("smoke", 1, 1, 2, 96, 16, 4_000, 50, 2),
    )
}


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Line:
    """A line of the report.

    Attributes
    ----------
    family, what, peer : str
    ours, theirs : float
        In ``unit``; 0 if there is no such thing.
    unit : str
    ratio : float
        What the bar is about.
    wall_ratio : float, optional
        The same by the clock, where ``ratio`` is of CPU time.
    bar : float, optional
    most : bool
        The bar is an upper bound.
    note : str
    """

    family: str
    what: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    wall_ratio: float | None = None
    bar: float | None = None
    most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        return self.ratio <= self.bar if self.most else self.ratio >= self.bar


@dataclass
class _Entry:
    name: str
    function: Callable[[], Any]
    check: Callable[[Any], None]
    work: float
    timings: list[Timing] = field(default_factory=list)
    wrong: str = ""


class Contest:
    """Ways to one result; each is checked before it is timed, and they take turns.

    Parameters
    ----------
    work : float
        Units of work of a call, for rates.
    repeats : int
    """

    def __init__(self, work: float, repeats: int) -> None:
        self._work = work
        self._repeats = repeats
        self._entries: list[_Entry] = []

    def add(
        self,
        name: str,
        function: Callable[[], Any],
        check: Callable[[Any], None],
        work: float | None = None,
    ) -> None:
        """Enter a function. ``work`` differs for what is too slow for all of the data."""
        self._entries.append(_Entry(name, function, check, self._work if work is None else work))

    def run(self) -> dict[str, _Entry]:
        """Check all, then time them; the order turns round with every repeat."""
        for entry in self._entries:
            try:
                # Memory is touched for the first time here, and not while the clock runs.
                entry.check(entry.function())
            except AssertionError as error:
                entry.wrong = str(error).strip().splitlines()[0] if str(error) else "wrong result"
        running = [entry for entry in self._entries if not entry.wrong]
        for turn in range(self._repeats):
            for entry in running if turn % 2 == 0 else reversed(running):
                wall, cpu = time.perf_counter(), time.thread_time()
                entry.function()
                entry.timings.append(Timing(time.perf_counter() - wall, time.thread_time() - cpu))
        return {entry.name: entry for entry in self._entries}

    def lines(
        self,
        family: str,
        what: str,
        ours: str,
        bars: Sequence[tuple[str, float | None]],
        unit: str,
        note: str = "",
    ) -> list[Line]:
        """Run, and compare one with the others.

        Parameters
        ----------
        family, what : str
        ours : str
            Name of the entry that is compared.
        bars : sequence of (str, float or None)
            The others, with the ratio that is to be reached.
        unit : str
        note : str
        """
        found = self.run()
        own = found[ours]
        if own.wrong:
            text = f"WRONG: {own.wrong}"
            return [
                Line(family, what, peer, 0, 0, unit, 0, None, bar, note=text) for peer, bar in bars
            ]
        lines = []
        for peer, bar in bars:
            other = found[peer]
            if other.wrong:
                note_of = f"not timed, its result is wrong: {other.wrong}"
                lines.append(
                    Line(family, what, peer, _rate(own, "cpu"), 0, unit, float("nan"), note=note_of)
                )
                continue
            lines.append(
                Line(
                    family,
                    what,
                    peer,
                    _rate(own, "cpu"),
                    _rate(other, "cpu"),
                    unit,
                    _rate(own, "cpu") / _rate(other, "cpu"),
                    _rate(own, "wall") / _rate(other, "wall"),
                    bar,
                    note=note,
                )
            )
        return lines


def _rate(entry: _Entry, clock: str) -> float:
    return entry.work / median(getattr(timing, clock) for timing in entry.timings)
