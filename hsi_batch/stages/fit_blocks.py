"""One pass of a fit over blocks, on a worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.errors import SourceError
from hsi_batch.patience import patiently
from hsi_batch.pipeline.cache import Packed
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.passes import gather_frame
from hsi_batch.stages.frames import frame_source, session_of
from hsi_batch.stages.run import Failure, TaskReport, count_done
from hsi_batch.statistics import Bundle
from hsi_batch.statistics.tree import Path

__all__ = [
    "FitItem",
    "FitJob",
    "FlawedPart",
    "PassPart",
    "damaged_of",
    "fit_items",
    "fit_keys",
    "flawed",
    "report_of",
]


@dataclass(frozen=True)
class FitJob:
    """What a worker must know of a pass; travels once per worker.

    Attributes
    ----------
    archive : str
    stamp : str
        State of the archive.
    packed : Packed
        The pipeline as far as it is fitted.
    needs : tuple of Need
    pixels : {"valid", "labelled-normal"}
    group : str
        The background that is fitted.
    """

    archive: str
    stamp: str
    packed: Packed
    needs: tuple[Need, ...]
    pixels: PixelChoice
    group: str = ""


@dataclass(frozen=True, slots=True)
class FitItem:
    """Lines of one frame that one worker reads.

    Attributes
    ----------
    session : str
    frame : int
    ranges : tuple of (int, int)
    places : tuple of (str, path)
        The backgrounds that count the frame, and its place in the fixed tree of each.
    sampled : bool
        Keep spectra to measure precision.
    """

    session: str
    frame: int
    ranges: tuple[tuple[int, int], ...]
    places: tuple[tuple[str, Path], ...]
    sampled: bool = False


@dataclass
class PassPart:
    """What part of a pass found; mergeable.

    Attributes
    ----------
    bundle : Bundle
        By background: a bundle of forests by need.
    report : TaskReport
    sample : dict
        Spectra by block, as the archive would keep them.
    damaged : tuple of int
        Portions that were kept by an earlier run, but cannot be trusted.
    """

    bundle: Bundle = field(default_factory=Bundle)
    report: TaskReport = field(default_factory=TaskReport)
    sample: dict[BlockKey, NDArray[Any]] = field(default_factory=dict)
    damaged: tuple[int, ...] = ()

    def merge(self, other: PassPart) -> PassPart:
        """Union of both."""
        report = TaskReport(
            self.report.done + other.report.done,
            self.report.done_bytes + other.report.done_bytes,
            self.report.failures + other.report.failures,
        )
        sample = {**self.sample, **other.sample}
        damaged = (*self.damaged, *other.damaged)
        return PassPart(self.bundle.merge(other.bundle), report, sample, damaged)


class FlawedPart(PassPart):
    """A part with something to be told of: blocks that failed, portions that are damaged."""


def flawed(part: PassPart) -> PassPart:
    """The same, of the type that says whether there is something to be told of it."""
    if not part.report.failures and not part.damaged:
        return part
    return FlawedPart(part.bundle, part.report, part.sample, part.damaged)


def report_of(part: PassPart) -> TaskReport:
    """The small part of a result."""
    return part.report


def damaged_of(part: PassPart) -> tuple[int, ...]:
    """Portions that could not be loaded."""
    return part.damaged


def fit_keys(item: FitItem) -> list[BlockKey]:
    """Blocks of an item."""
    return [BlockKey(item.session, item.frame, start, stop) for start, stop in item.ranges]


def fit_items(items: Iterable[FitItem], _key: str, *jobs: FitJob) -> PassPart:
    """Take the statistics of some blocks; a block that cannot be read is reported and left out.

    There is a job for each background that the items count for.
    """
    by_group = {job.group: job for job in jobs}
    whole = PassPart()
    ordered = list(items)
    for item, after in zip_longest(ordered, ordered[1:]):
        if after is not None and (after.session, after.frame) != (item.session, item.frame):
            # Within a frame, reading a block announces the next one.
            own = by_group[after.places[0][0]]
            session_of(own.archive, after.session, own.stamp).announce(
                after.frame, *after.ranges[0]
            )
        places = [(by_group[group], at) for group, at in item.places]
        try:
            whole = whole.merge(patiently(_one, item, places))
        except SourceError as error:
            failed = [Failure(key, str(error)) for key in fit_keys(item)]
            whole = whole.merge(PassPart(report=TaskReport(failures=failed)))
    count_done("fit", (key for item in ordered for key in fit_keys(item)), whole.report)
    return flawed(whole)


def _one(item: FitItem, places: Sequence[tuple[FitJob, Path]]) -> PassPart:
    keys = fit_keys(item)
    job = places[0][0]
    session = session_of(job.archive, item.session, job.stamp)
    sample: dict[BlockKey, NDArray[Any]] = {}
    source = frame_source(session, item.frame, item.ranges, job.pixels)
    bundle = Bundle(
        {
            own.group: gather_frame(own.packed, own.needs, source, item.ranges, place)
            for own, place in places
        }
    )
    if item.sampled:
        for key in keys:
            sample[key] = _sample(session, key, source.lines(key.start, key.stop))
    size = sum(session.geometry.bytes_of(key) for key in keys)
    return PassPart(bundle, TaskReport(len(keys), size), sample)


def _sample(session: Session, key: BlockKey, lines: NDArray[Any]) -> NDArray[Any]:
    picks = session.geometry.picks(key.start, key.stop)
    valid = session.valid(key.frame, key.start, key.stop)
    spectra = lines.reshape(-1, lines.shape[-1])[picks]
    return spectra if valid is None else spectra[np.asarray(valid).ravel()[picks]]
