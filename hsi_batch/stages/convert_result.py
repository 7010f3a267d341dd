"""What a conversion did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hsi_batch.markup import Raw, Shown
from hsi_batch.stages.convert_card import convert_tables
from hsi_batch.stages.convert_commit import Finished
from hsi_batch.stages.convert_plan import ConvertPlan
from hsi_batch.stages.run import Failure, Memory, failed_frames
from hsi_batch.stages.slices import prepared_text
from hsi_batch.wording import counted, flags_text

__all__ = ["ConvertResult"]


@dataclass(frozen=True, repr=False)
class ConvertResult(Shown):
    """What a conversion did.

    Attributes
    ----------
    archive : str
    converted : tuple of Finished
        Sessions that were converted in this run.
    up_to_date : int
        Sessions that needed nothing.
    changed : tuple of str
        Sessions whose source differs from what was converted; ``replace`` would redo them.
    broken : tuple of (path, reason)
        Sources that could not be opened, or of which no frame could be read.
    failures : tuple of Failure
        Blocks that failed in this run.
    earlier : tuple of Failure
        Blocks that failed in earlier runs and were left alone.
    skipped : tuple of (path, reason)
        Files that are no recordings.
    blocks, bytes : int
        Done in this run.
    seconds : float
    prepared : int
        Slices that the blocks were left to.
    flags : dict of int
        Pixels by flag, of the sessions that were converted.
    pixels : int
        Of these sessions.
    memory : Memory, optional
    """

    archive: str
    converted: tuple[Finished, ...] = ()
    up_to_date: int = 0
    changed: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    failures: tuple[Failure, ...] = ()
    earlier: tuple[Failure, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    blocks: int = 0
    bytes: int = 0
    seconds: float = 0.0
    prepared: int = 0
    flags: Mapping[str, int] = field(default_factory=dict)
    pixels: int = 0
    memory: Memory | None = None
    plan: ConvertPlan | None = field(default=None, repr=False, compare=False)

    def _parts(self) -> Iterable[Raw | None]:
        return convert_tables(self)

    @property
    def failed(self) -> int:
        """Frames and sources that are not in the archive but should be."""
        return failed_frames(*self.failures, *self.earlier) + len(self.broken) + len(self.changed)

    def __str__(self) -> str:
        if self.prepared and self.plan is not None:
            return prepared_text(self.plan.blocks, self.plan.bytes, self.prepared)
        parts = [f"{counted(len(self.converted), 'session')} converted"]
        if self.up_to_date:
            parts.append(f"{self.up_to_date} up to date")
        if self.changed:
            parts.append(f"{len(self.changed)} changed since and kept as converted (use --replace)")
        if self.skipped:
            parts.append(f"{counted(len(self.skipped), 'file')} skipped")
        if self.failed > len(self.changed):
            parts.append(f"{self.failed - len(self.changed)} failed")
        rate = f", {self.bytes / 1e6 / max(self.seconds, 1e-9):.0f} MB/s" if self.bytes else ""
        memory = f"; {self.memory}" if self.memory and self.blocks else ""
        done = f"{counted(self.blocks, 'block')} in {self.seconds:.1f} s"
        flagged = f"; flagged: {flags_text(self.flags, self.pixels)}" if self.flags else ""
        return f"{', '.join(parts)}; {done}{rate}{memory}{flagged}"
