"""What a fit did, in numbers and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hsi_batch.pipeline.fitting import FitPlan
from hsi_batch.stages.run import Failure, Memory, failed_frames
from hsi_batch.wording import counted

__all__ = ["FitResult"]


@dataclass(frozen=True)
class FitResult:
    """What a fit did.

    Attributes
    ----------
    passes : int
        Readings of the pixels; 0 if stored statistics sufficed.
    pixels : int
        Pixels that counted.
    sessions, frames : int
        Selected.
    rank, condition : dict
        Effective rank and condition number by node with a covariance.
    precision : dict
        Arithmetic chosen for each score, in words.
    settled : dict
        What else the fit found, in words, by node: thresholds.
    warnings : tuple of str
    failures : tuple of Failure
        Blocks that could not be read and were left out.
    earlier : tuple of Failure
        The same of the earlier fit that is up to date.
    seconds : float
    plan : FitPlan
    blocks, bytes, tasks : int
        What all passes read, or would read.
    memory : Memory, optional
    up_to_date : bool
        Nothing had to be done.
    out : str, optional
        File that was written.
    """

    passes: int
    pixels: int = 0
    sessions: int = 0
    frames: int = 0
    rank: Mapping[str, int] = field(default_factory=dict)
    condition: Mapping[str, float] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    earlier: tuple[Failure, ...] = ()
    seconds: float = 0.0
    plan: FitPlan | None = None
    blocks: int = 0
    bytes: int = 0
    tasks: int = 0
    memory: Memory | None = None
    up_to_date: bool = False
    out: str | None = None

    @property
    def failed(self) -> int:
        """Frames with a block that could not be read."""
        return failed_frames(*self.failures, *self.earlier)

    def __str__(self) -> str:
        if self.up_to_date:
            return (
                f"up to date: fitted from {counted(self.pixels, 'pixel')} of"
                f" {counted(self.frames, 'frame')} before"
            )
        text = (
            f"fitted from {counted(self.pixels, 'pixel')} of {counted(self.frames, 'frame')} in"
            f" {counted(self.sessions, 'session')}, {counted(self.passes, 'pass')} over the pixels,"
            f" {self.seconds:.1f} s"
        )
        for node, rank in self.rank.items():
            text += f"\n  {node}: rank {rank}, condition {self.condition[node]:.3g}"
            if node in self.precision:
                text += f", scores in {self.precision[node]}"
        for node, words in self.settled.items():
            text += f"\n  {node}: {words}"
        for warning in self.warnings:
            text += f"\n  warning: {warning}"
        if self.failures:
            text += f"\n  of {counted(self.failed, 'frame')} a part could not be read"
        if self.memory:
            text += f"\n  {self.memory}"
        return text
