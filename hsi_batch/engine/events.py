"""What a run tells while it works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Observer", "Progress", "silent"]


@dataclass
class Progress:
    """Where a run stands.

    Attributes
    ----------
    stage : str
        convert, fit, score, ...
    total, done, failed : int
        Blocks.
    total_bytes, done_bytes : int
        Bytes of stored pixels.
    started : float
        ``time.monotonic`` at the start.
    """

    stage: str
    total: int
    total_bytes: int = 0
    done: int = 0
    failed: int = 0
    done_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.done_bytes / max(self.seconds, 1e-9)

    @property
    def remaining(self) -> float | None:
        """Seconds left at this rate; None while nothing is done."""
        if not self.done:
            return None
        return self.seconds / self.done * (self.total - self.done)

    def __str__(self) -> str:
        left = self.remaining
        eta = "" if left is None else f", {left:.0f} s left"
        bad = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.stage}: {self.done}/{self.total} blocks{bad}, {self.rate / 1e6:.0f} MB/s{eta}"
        )


#: Called after every change; must not block.
Observer = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Observe nothing."""
