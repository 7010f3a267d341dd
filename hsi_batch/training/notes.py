"""What happened in a training, in words, from the values of its epochs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from hsi_batch.training.callbacks_config import (
    CallbacksConfig,
    EarlyStoppingConfig,
    ModelCheckpointConfig,
)
from hsi_batch.training.config import (
    SchedulerConfig,
)

__all__ = ["training_notes"]

_History = Sequence[Mapping[str, float]]


def training_notes(
    history: _History,
    callbacks: CallbacksConfig | None,
    schedule: SchedulerConfig | None,
    *,
    stopped: bool,
) -> tuple[str, ...]:
    """What the parts of the settings that are ``verbose`` tell; epochs count from 1.

    Names that are monitored are those of the values.

    Examples
    --------
    >>> schedule = SchedulerConfig(verbose=True)
    >>> training_notes([{"lr": 0.1}, {"lr": 0.01}], None, schedule, stopped=False)
    ('epoch 2: learning rate 0.1 -> 0.01',)
    """
    notes: list[str] = []
    settings = callbacks or CallbacksConfig()
    if schedule is not None and schedule.verbose:
        notes += _rates(history)
    if settings.checkpoint is not None and settings.checkpoint.verbose:
        notes += _best(history, settings.checkpoint)
    if stopped:
        for stopping in settings.early_stopping:
            if stopping.verbose:
                notes += _reason(history, stopping)
    return tuple(notes)


def _rates(history: _History) -> Iterator[str]:
    rates = [values["lr"] for values in history]
    for epoch, (was, now) in enumerate(itertools.pairwise(rates), start=2):
        if was != now:
            yield f"epoch {epoch}: learning rate {was:.6g} -> {now:.6g}"


def _best(history: _History, kept: ModelCheckpointConfig) -> Iterator[str]:
    best: float | None = None
    for epoch, value in _values(history, kept.monitor):
        if best is None or _better(value, best, kept.mode, 0.0):
            best = value
            yield f"epoch {epoch}: {kept.monitor} {value:.6g}, the best so far"


def _reason(history: _History, stopping: EarlyStoppingConfig) -> Iterator[str]:
    """Why it was the last epoch, if it was this value."""
    name, mode = stopping.monitor, stopping.mode
    best: tuple[int, float] | None = None
    waited = 0
    for epoch, value in _values(history, name):
        at = f"stopped after epoch {epoch}: {name} {value:.6g}"
        limit, worst = stopping.stopping_threshold, stopping.divergence_threshold
        if stopping.check_finite and not math.isfinite(value):
            reason = at
        elif limit is not None and _better(value, limit, mode, 0.0):
            reason = f"{at} is better than {limit:.6g}"
        elif worst is not None and _better(worst, value, mode, 0.0):
            reason = f"{at} is worse than {worst:.6g}"
        elif best is None or _better(value, best[1], mode, stopping.min_delta):
            best, waited, reason = (epoch, value), 0, ""
        else:
            waited += 1
            reason = f"{at} is no better than {best[1]:.6g} of epoch {best[0]}"
            reason = reason if waited >= stopping.patience else ""
        if reason and epoch == len(history):
            yield reason


def _values(history: _History, name: str) -> Iterator[tuple[int, float]]:
    for epoch, values in enumerate(history, start=1):
        if name in values:
            yield epoch, values[name]


def _better(value: float, than: float, mode: str, margin: float) -> bool:
    return value < than - abs(margin) if mode == "min" else value > than + abs(margin)
