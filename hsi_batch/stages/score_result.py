"""What a scoring run did, in numbers and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hsi_batch.markup import Raw, Shown, table
from hsi_batch.stages.run import Failure, Memory, failed_frames, failure_rows
from hsi_batch.stages.score_plan import ScorePlan
from hsi_batch.stages.slices import prepared_text
from hsi_batch.wording import counted, sized, some

__all__ = ["ScoreResult"]

#: Names of sessions that a message lists.
_SHOWN = 8


@dataclass(frozen=True, repr=False)
class ScoreResult(Shown):
    """What a scoring run did.

    Attributes
    ----------
    store : str
        Folder of the scores.
    outputs : tuple of str
        Names of the maps.
    sessions, frames : int
        Selected.
    up_to_date : int
        Sessions that needed nothing.
    blocks, bytes : int
        Done in this run.
    failures : tuple of Failure
        Blocks that failed in this run.
    earlier : tuple of Failure
        Blocks that failed in earlier runs and were left alone.
    fallback : tuple of str
        Sessions whose background the pipeline has not seen: they were scored against the fallback.
    metrics : dict
        Over all labelled pixels of the frames that are in the summary; empty without labels.
    evaluated : int
        Frames in the summary: all that the store holds of this pipeline.
    stale : tuple of str
        Sessions in the store that were scored with another pipeline, other outputs or other data;
        they are left out of the summary and the metrics.
    seconds : float
    prepared : int
        Slices that the blocks were left to.
    memory : Memory, optional
    """

    store: str
    outputs: tuple[str, ...] = ()
    sessions: int = 0
    frames: int = 0
    up_to_date: int = 0
    blocks: int = 0
    bytes: int = 0
    failures: tuple[Failure, ...] = ()
    earlier: tuple[Failure, ...] = ()
    fallback: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluated: int = 0
    stale: tuple[str, ...] = ()
    seconds: float = 0.0
    prepared: int = 0
    memory: Memory | None = None
    plan: ScorePlan | None = field(default=None, repr=False, compare=False)

    @property
    def failed(self) -> int:
        """Frames with a block that has no scores."""
        return failed_frames(*self.failures, *self.earlier)

    def __str__(self) -> str:
        if self.prepared and self.plan is not None:
            return prepared_text(self.plan.blocks, self.plan.bytes, self.prepared)
        text = (
            f"{counted(self.frames, 'frame')} of {counted(self.sessions, 'session')}:"
            f" {', '.join(self.outputs)}"
        )
        if self.up_to_date:
            text += f"; {counted(self.up_to_date, 'session')} up to date"
        if self.failed:
            text += f"; {counted(self.failed, 'frame')} failed"
        rate = f", {self.bytes / 1e6 / max(self.seconds, 1e-9):.0f} MB/s" if self.bytes else ""
        text += f"; {counted(self.blocks, 'block')} in {self.seconds:.1f} s{rate}"
        if self.memory and self.blocks:
            text += f"; {self.memory}"
        if self.fallback:
            text += f"\n  scored against the fallback, for lack of their own: {some(self.fallback)}"
        if self.metrics:
            shown = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items())
            text += f"\n  against labels, over {counted(self.evaluated, 'frame')}: {shown}"
        if self.stale:
            text += (
                f"\n  left out of the summary: {', '.join(self.stale[:_SHOWN])}"
                f"{' ...' * (len(self.stale) > _SHOWN)}, scored with another pipeline, other"
                " outputs or other data; score all frames again"
            )
        return text

    def _parts(self) -> Iterator[Raw | None]:
        facts: list[tuple[str, object]] = [
            ("store", self.store),
            ("maps", ", ".join(self.outputs)),
            ("frames, sessions", f"{self.frames}, {self.sessions}"),
            ("sessions up to date", self.up_to_date),
            ("done in this run", f"{counted(self.blocks, 'block')}, {sized(self.bytes)}"),
            ("seconds", round(self.seconds, 2)),
        ]
        if self.memory and self.blocks:
            facts.append(("memory", str(self.memory)))
        if self.fallback:
            facts.append(("scored against the fallback", some(self.fallback)))
        if self.stale:
            facts.append(("left out of the summary", some(self.stale)))
        yield table(facts)
        over = f"against labels, over {counted(self.evaluated, 'frame')}"
        yield table(list(self.metrics.items()), (over, "value"))
        yield table(failure_rows(self.failures, self.earlier), ("failed", "why"))
