"""Nodes whose temperature falls over the epochs of a training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

__all__ = ["Annealed"]


class Annealed(ABC):
    """What a training tells of its epochs, and what of that is saved with the weights."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """Take the temperature of an epoch, counted from 0."""

    @abstractmethod
    def schedule(self) -> dict[str, float]:
        """Where the schedule stands."""

    @abstractmethod
    def restore_schedule(self, values: Mapping[str, float]) -> None:
        """Inverse of :meth:`schedule`."""

    def as_arguments(self) -> dict[str, float]:
        """Constructor arguments by which a new node would stand where this one does."""
        return {}
