"""What a run tells while it works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hsi_batch.wording import lasting

__all__ = ["Observer", "Progress", "silent"]


@dataclass
class Progress:
    """Where a run stands.

    Attributes
    ----------
    stage : str
        convert, fit, score, ...
    total, done, failed : int
        Blocks, or other units.
    total_bytes, done_bytes : int
        Bytes of stored pixels.
    started : float
        ``time.monotonic`` at the start.
    unit : str
        What is counted, in the plural.

    Examples
    --------
    >>> now = time.monotonic()
    >>> print(Progress("score", 40, 400_000_000, 10, 1, 100_000_000, now - 2))
    score: 10/40 blocks, 1 failed, 50 MB/s, 2 s, 5 s left
    """

    stage: str
    total: int
    total_bytes: int = 0
    done: int = 0
    failed: int = 0
    done_bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    unit: str = "blocks"

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
        return self.seconds / self.done * max(self.total - self.done - self.failed, 0)

    @property
    def speed(self) -> str:
        """How fast it is, in words."""
        return f"{self.rate / 1e6:.0f} MB/s"

    def __str__(self) -> str:
        """What, how far, failed, how fast, how long, how much longer."""
        parts = [f"{self.stage}: {self.done}/{self.total} {self.unit}"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [self.speed, lasting(self.seconds)]
        left = self.remaining
        parts += [] if not left else [f"{lasting(left)} left"]
        return ", ".join(parts)


#: Called after every change; must not block.
Observer = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Observe nothing."""
