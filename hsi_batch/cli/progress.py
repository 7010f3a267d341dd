"""Progress on stderr: a bar on a terminal, elsewhere a line every 30 s."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsi_batch.engine.events import Observer, Progress

__all__ = ["observing"]

_EVERY_SECONDS = 30.0


@contextmanager
def observing(*, quiet: bool) -> Iterator[Observer | None]:
    """An observer that shows progress while the block runs; None if it should be quiet."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as observer:
            yield observer
    else:
        yield _Lines()


class _Lines:
    """One line per stage at once, then one every 30 s, and one at its end."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        if not progress.total:
            return
        now = time.monotonic()
        ended = progress.done + progress.failed >= progress.total
        if progress.stage != self._stage or ended or now - self._last >= _EVERY_SECONDS:
            self._stage, self._last = progress.stage, now
            sys.stderr.write(f"{progress}\n")
            sys.stderr.flush()


@contextmanager
def _bar() -> Iterator[Observer]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}{task.fields[failed]}{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=False,
    )
    tasks: dict[str, Any] = {}

    def observe(progress: Progress) -> None:
        if not progress.total:
            return
        if progress.stage not in tasks:
            tasks[progress.stage] = bar.add_task(
                progress.stage, total=progress.total, rate="", failed="", unit=progress.unit
            )
        bar.update(
            tasks[progress.stage],
            completed=progress.done + progress.failed,
            rate=f", {progress.speed}",
            failed=f", {progress.failed} failed" if progress.failed else "",
            unit=progress.unit,
        )

    with bar:
        yield observe
