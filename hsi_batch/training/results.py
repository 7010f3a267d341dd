"""What a gradient training tells while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hsi_batch.engine.events import Progress
from hsi_batch.markup import Raw, Shown, table
from hsi_batch.stages.run import Failure, failure_rows
from hsi_batch.wording import counted

__all__ = ["Best", "TrainProgress", "TrainResult"]


@dataclass
class TrainProgress(Progress):
    """Where a training stands, in batches.

    Attributes
    ----------
    epoch, epochs : int
        From 1.
    loss : float
        Of the last batch.
    waited : float
        Seconds of this run in which the model waited for data.
    """

    epoch: int = 1
    epochs: int = 1
    loss: float = field(default=float("nan"))
    waited: float = 0.0
    unit: str = "batches"

    @property
    def speed(self) -> str:
        """Where the training stands, in words."""
        share = min(self.waited / max(self.seconds, 1e-9), 1.0)
        where = f"epoch {self.epoch}/{self.epochs}, loss {self.loss:.4g}"
        return f"{where}, waited for data {share:.0%}"


@dataclass(frozen=True)
class Best:
    """The state that was kept as the best.

    Attributes
    ----------
    monitor : str
    value : float
    path : str
        Checkpoint.
    """

    monitor: str
    value: float
    path: str


@dataclass(frozen=True, repr=False)
class TrainResult(Shown):
    """What came of a training.

    Attributes
    ----------
    nodes : tuple of str
        Nodes that were trained.
    parameters : int
        Numbers that were trained.
    epochs, steps : int
        Done, those before an interruption too.
    seconds : float
        Of this run.
    waited : float
        Share of the time of the batches in which the model waited for data.
    device : str
        Where it ran, such as ``cpu`` or ``cuda``.
    stopped : bool
        Whether it ended early, because a monitored value got no better.
    history : tuple of dict
        Values of each epoch.
    best : Best, optional
        The state that the pipeline now has; None if that is the last one.
    resumed : int
        Epochs that were done before, in a run that was interrupted.
    failures : tuple of Failure
        Frames that could not be read and were left out.
    notes : tuple of str
        What the settings that are ``verbose`` tell.

    Examples
    --------
    >>> result = TrainResult(("rx",), 64, 2, 10, 1.5, 0.1, "cpu", stopped=False)
    >>> result.epochs, result.failed
    (2, 0)
    """

    nodes: tuple[str, ...]
    parameters: int
    epochs: int
    steps: int
    seconds: float
    waited: float
    device: str
    stopped: bool
    history: tuple[dict[str, float], ...] = ()
    best: Best | None = None
    resumed: int = 0
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Frames that could not be read."""
        return len(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            **{k: getattr(self, k) for k in ("parameters", "epochs", "steps", "resumed")},
            **{k: getattr(self, k) for k in ("seconds", "waited", "device", "stopped")},
            "nodes": list(self.nodes),
            "history": list(self.history),
            "best": self.best and vars(self.best),
            "failed": self.failed,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        how = " (stopped early)" if self.stopped else ""
        how += f", {self.resumed} of them before" if self.resumed else ""
        trained = f"{self.parameters} parameters of {', '.join(self.nodes)}"
        spent = f"{counted(self.steps, 'step')}, {self.seconds:.1f} s on {self.device}"
        waited = f"waited for data {self.waited:.0%} of the time"
        lines = [f"{trained} in {counted(self.epochs, 'epoch')}{how}, {spent}; {waited}"]
        lines += self.notes
        if self.history:
            shown = {k: v for k, v in self.history[-1].items() if k not in ("epoch", "lr")}
            lines.append("last epoch: " + ", ".join(f"{k} {v:.6g}" for k, v in shown.items()))
        if self.best is not None:
            lines.append(f"kept the best, {self.best.monitor} {self.best.value:.6g}")
        return "\n".join(lines)

    def _parts(self) -> Iterator[Raw | None]:
        facts: list[tuple[str, object]] = [
            ("trained", f"{self.parameters} parameters of {', '.join(self.nodes)}"),
            ("epochs, steps", f"{self.epochs}, {self.steps}"),
            ("seconds", round(self.seconds, 2)),
            ("waited for data", f"{self.waited:.0%} of the time"),
            ("device", self.device),
        ]
        if self.best is not None:
            facts.append(("kept the best", f"{self.best.monitor} {self.best.value:.6g}"))
        yield table(facts)
        if self.history:
            first, last = self.history[0], self.history[-1]
            shown = [name for name in last if name != "epoch"]
            rows = [(name, first.get(name), last[name]) for name in shown]
            yield table(rows, ("value", "first epoch", "last epoch"), rest="values")
        yield table(failure_rows(self.failures), ("left out", "why"))
