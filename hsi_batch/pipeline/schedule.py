"""In which pass over the pixels each node of a fit gets what it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Job", "schedule"]


@dataclass(frozen=True)
class Job:
    """A node that is to be fitted.

    Attributes
    ----------
    name : str
    waits : tuple
        For each statistic that it asks for first, the nodes that must be fitted before it can be
        taken; None if it is stored.
    more : int
        Passes that it takes at most after the one that completes those statistics.
    alone : bool
        It reads a stream of frames, in a pass of its own.
    """

    name: str
    waits: tuple[frozenset[str] | None, ...]
    more: int = 0
    alone: bool = False


def schedule(jobs: Iterable[Job]) -> dict[str, tuple[tuple[int, ...], int]]:
    """The pass that takes each statistic of a node (0 if stored), and that which fits it at last.

    A pass serves every node that is ready. Streams go first: they need their passes anyway, and
    what waits for them may then share the next one.

    Examples
    --------
    >>> nobody, mean = frozenset(), frozenset({"mean"})
    >>> schedule([Job("mean", (nobody,), alone=True), Job("rx", (mean,)), Job("max", (nobody,))])
    {'mean': ((1,), 1), 'rx': ((2,), 2), 'max': ((2,), 2)}
    """
    open_ = {job.name: job for job in jobs}
    taken: dict[str, list[int | None]] = {
        name: [0 if waits is None else None for waits in job.waits] for name, job in open_.items()
    }
    left = {name: job.more for name, job in open_.items()}
    found: dict[str, tuple[tuple[int, ...], int]] = {}

    def close(number: int) -> None:
        for name in list(open_):
            readings = [reading for reading in taken[name] if reading is not None]
            if len(readings) == len(taken[name]) and left[name] <= 0:
                found[name] = (tuple(readings), number)
                del open_[name]

    close(0)
    number = 0
    while open_:
        number += 1
        alone = next((job for job in open_.values() if job.alone and _ready(job, open_)), None)
        if alone is not None:
            taken[alone.name] = [number]
        else:
            _share(number, open_, taken, left)
        close(number)
    return found


def _ready(job: Job, open_: dict[str, Job]) -> bool:
    return not any(waits & open_.keys() for waits in job.waits if waits is not None)


def _share(
    number: int,
    open_: dict[str, Job],
    taken: dict[str, list[int | None]],
    left: dict[str, int],
) -> None:
    """One pass for all that can be taken now."""
    for name, job in open_.items():
        if job.alone:
            continue
        readings: Sequence[int | None] = taken[name]
        if None not in readings:
            left[name] -= 1
            continue
        for index, waits in enumerate(job.waits):
            if readings[index] is None and waits is not None and not waits & open_.keys():
                taken[name][index] = number
