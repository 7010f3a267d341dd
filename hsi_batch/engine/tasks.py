"""Tasks: what one worker does at a time, and how items of work are grouped into them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Task", "batch_count", "batches"]


@dataclass(frozen=True)
class Task:
    """A batch of work that one worker does in about a second.

    Attributes
    ----------
    key : str
        Unique in the run.
    items : tuple
        The work; if a task kills its worker, each item is tried alone to find the culprit.
    shared : tuple of Future
        What this task needs besides the arguments of all tasks; passed on after them.
    """

    key: str
    items: tuple[Any, ...]
    shared: tuple[Any, ...] = ()


def batches(
    items: Iterable[Any],
    size_of: Callable[[Any], int],
    *,
    threads: int,
    target: int,
    prefix: str,
    within: Callable[[Any], object] = lambda _item: None,
) -> Iterator[Task]:
    """Group items in order into tasks of about ``target`` bytes, at least four per thread.

    Tasks become shorter towards the end, down to a sixteenth, so that the workers end together.

    Parameters
    ----------
    items : iterable
        Small descriptions of work.
    size_of : callable
        Bytes an item stands for.
    threads : int
        Of the cluster.
    target : int
        Bytes of a task.
    prefix : str
        Of the keys of the tasks.
    within : callable
        Items for which it differs come into different tasks.
    """
    ordered = list(items)
    total = left = sum(size_of(item) for item in ordered)
    limit = _limit(total, left, threads, target)
    count = itertools.count()
    group: list[Any] = []
    held = 0
    for item in ordered:
        if group and within(item) != within(group[-1]):
            yield Task(f"{prefix}-{next(count):06d}", tuple(group))
            group, held, left = [], 0, left - held
            limit = _limit(total, left, threads, target)
        group.append(item)
        held += size_of(item)
        if held >= limit:
            yield Task(f"{prefix}-{next(count):06d}", tuple(group))
            group, held, left = [], 0, left - held
            limit = _limit(total, left, threads, target)
    if group:
        yield Task(f"{prefix}-{next(count):06d}", tuple(group))


def _limit(total: int, left: int, threads: int, target: int) -> int:
    """Bytes of the next task, of so many that are left."""
    even = min(target, max(total // (4 * threads), 1))
    return min(even, max(left // (2 * threads), target // 16, 1))


def batch_count(sizes: NDArray[np.int64], *, threads: int, target: int) -> int:
    """How many tasks :func:`batches` makes of items of these sizes, for millions of them.

    Examples
    --------
    >>> batch_count(np.full(10, 100), threads=1, target=300)
    5
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    count = done = held = 0
    while done < len(ends):
        limit = _limit(total, total - held, threads, target)
        done = int(np.searchsorted(ends, held + limit)) + 1
        held = int(ends[min(done, len(ends)) - 1])
        count += 1
    return count
