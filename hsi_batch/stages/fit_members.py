"""The fits of one run, in lockstep: one of everything, or one per background."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.stored import stored_statistic
from hsi_batch.errors import DataError, DataWarning
from hsi_batch.pipeline.fitting import FitPlan, Fitting
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.groups import POOLED, GroupState
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.reference import Reference
from hsi_batch.statistics import Forest, Moments

__all__ = ["CUBE_MOMENTS", "Member", "StoredStatistics", "no_pixels", "refuse", "summed_up"]

CUBE_MOMENTS = Need(CUBE, "moments")
#: Session names that are kept with a background, and warnings that are shown.
_REMEMBERED = 1000
_SHOWN = 20


class StoredStatistics:
    """Statistics that the archive holds, for any part of a selection.

    Parameters
    ----------
    sessions : mapping
    pixels : {"valid", "labelled-normal"}
    shared : bool
        Parts overlap: what is found of a session is kept, so that it is read once.
    """

    def __init__(
        self, sessions: Mapping[str, Session], pixels: PixelChoice, *, shared: bool
    ) -> None:
        self._sessions = sessions
        self._pixels: PixelChoice = pixels
        self._shared = shared
        self._known: dict[tuple[str, str], Any] = {}

    def of(self, selection: Selection, kind: str) -> Any:
        """The statistic of some frames in the fixed tree; None without any."""
        if not self._shared:
            return stored_statistic(self._sessions, selection, kind, self._pixels)
        forest: Forest[Any] = Forest()
        for rank, name in enumerate(selection.frames):
            if (name, kind) not in self._known:
                whole = selection.whole & {name}
                own = Selection({name: selection.frames[name]}, whole)
                found = stored_statistic(self._sessions, own, kind, self._pixels)
                self._known[name, kind] = found
            # The tree of a session is a branch of that of all.
            part = self._known[name, kind]
            if part is not None:
                forest = forest.merge(Forest.of(((rank, len(selection.frames)),), part))
        return forest.result()


class Member:
    """One fit.

    Parameters
    ----------
    group : str
        The background; ``""`` for that of everything.
    pipeline : Pipeline
        Its own.
    unfitted : Pipeline
        As the pipeline was before.
    selection : Selection
    plan : FitPlan
    sample : callable
        Gives stored pixels of the selection.
    moments : StoredStatistics, optional
        Where the archive holds the moments of the selection.

    Attributes
    ----------
    pixels : int
        That counted.
    state : GroupState, optional
        What was fitted, once it is.
    error : DataError, optional
        Why it cannot be.
    said : list of str
        Warnings.
    """

    def __init__(
        self,
        group: str,
        pipeline: Pipeline,
        unfitted: Pipeline,
        selection: Selection,
        plan: FitPlan,
        sample: Callable[[], NDArray[Any] | None],
        moments: StoredStatistics | None,
    ) -> None:
        self.group = group
        self.selection = selection
        self.plan = plan
        self.pixels = 0
        self.state: GroupState | None = None
        self.error: DataError | None = None
        self.said: list[str] = []
        self._unfitted = unfitted
        self._moments = moments
        self._found: Moments | None = None
        self._pipeline: Pipeline | None = pipeline
        self._fitting: Fitting | None = Fitting(pipeline, plan, sample)
        names = [node.name for node in plan.nodes] + [stream.name for stream in plan.streams]
        self._nodes = tuple(dict.fromkeys(names))

    @property
    def pipeline(self) -> Pipeline:
        """Its pipeline, as far as it is fitted."""
        assert self._pipeline is not None, "fits that are done need none"
        return self._pipeline

    def take_stored(self, stored: StoredStatistics) -> None:
        """Take what the archive holds."""
        assert self._fitting is not None
        needs = self._fitting.stored()
        self.supply({need: stored.of(self.selection, str(need.kind)) for need in needs})

    def needs(self) -> tuple[Need, ...]:
        """What the next pass takes for it; nothing once it is done."""
        return () if self._fitting is None else self._fitting.needs()

    def stream(self) -> str | None:
        """A node that is to be given its stream of frames; it goes before other passes."""
        return None if self._fitting is None else self._fitting.stream()

    def settle(self, name: str, weights: Mapping[str, Any]) -> None:
        """Take what a node holds after its stream, and go on."""
        assert self._fitting is not None
        self._fitting.settle(name, weights)
        if self._fitting.done:
            self._settle()

    def supply(self, found: Mapping[Need, Any]) -> None:
        """Take statistics and go on."""
        assert self._fitting is not None
        try:
            if any(value is None for value in found.values()):
                raise no_pixels(self.selection)
            self.pixels = max([self.pixels, *(int(getattr(s, "count", 0)) for s in found.values())])
            self._found = found.get(CUBE_MOMENTS, self._found)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", DataWarning)
                self._fitting.supply(found)
        except DataError as error:
            self.error = error
            self._fitting = self._pipeline = None
            return
        self.said += [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
        for other in caught:
            if not issubclass(other.category, DataWarning):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        if self._fitting.done:
            self._settle()

    def _settle(self) -> None:
        pipeline = self.pipeline
        if self._found is None and self._moments is not None:
            self._found = self._moments.of(self.selection, "moments")
        pipeline.reference = Reference.of(self._found)
        pipeline.provenance = {
            "session_names": list(self.selection.sessions[:_REMEMBERED]),
            "sessions": len(self.selection.sessions),
            "frames": len(self.selection),
            "pixel_count": self.pixels,
        }
        self.state = GroupState.of(pipeline, self._nodes, self._unfitted)
        # A thousand pipelines take more memory than their states.
        self._fitting = self._pipeline = None


def no_pixels(selection: Selection) -> DataError:
    """The error for frames without any valid pixel."""
    return DataError(
        f"no valid pixel was found in the {len(selection)} selected frames.",
        hint="Select other frames, or look at the quality flags (hsi-batch show).",
    )


def refuse(members: Sequence[Member], by: str, *, by_label: bool = False) -> None:
    """Raise one error for all members that cannot be fitted.

    Raises
    ------
    hsi_batch.errors.DataError
        It names every background, and says what is wrong with the first.
    """
    failed = [member for member in members if member.error is not None]
    if not failed:
        return
    first = failed[0].error
    assert first is not None
    if by_label and not failed[0].pixels:
        first.hint = (
            "What is not labelled is not normal: select labelled frames, or add labels (hsi-batch"
            " label STORE --annotations FILE)."
        )
    if len(members) == 1 and failed[0].group == POOLED:
        raise first
    names = [member.group or "(all pixels)" for member in failed]
    sessions = [name for member in failed if member.group for name in member.selection.sessions]
    without = ",".join(f"!{name}" for name in sessions[:_SHOWN])
    hint = f"{first.hint or ''} Or leave these sessions out (--frames '{without}'"
    hint += f" and {len(sessions) - _SHOWN} more" * (len(sessions) > _SHOWN)
    raise DataError(
        f"{len(failed)} of {len(members)} backgrounds (one per {by}) cannot be fitted:"
        f" {', '.join(names)}. {names[0]}: {first.message}",
        hint=f"{hint}; a fallback then serves to score them), or choose a coarser background.",
    )


def summed_up(members: Sequence[Member], by: str) -> tuple[str, ...]:
    """What members warned of; of many, the first ones."""
    if len(members) == 1 and members[0].group == POOLED:
        return tuple(members[0].said)
    said = [f"{m.group or 'all pixels'}: {text}" for m in members for text in m.said]
    if len(said) <= _SHOWN:
        return tuple(said)
    many = Counter(m.group for m in members if m.said)
    more = f"and {len(said) - _SHOWN} more, on {len(many)} of the backgrounds per {by} in all"
    return (*said[:_SHOWN], more)
