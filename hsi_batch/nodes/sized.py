"""Nodes with trainable parameters whose sizes come from the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.node import Node

__all__ = ["SizedNode", "need_channels", "seeded"]


class SizedNode(Node):
    """A node whose parameters are drawn when the number of channels is known.

    That is at construction where the number is given, else when the graph is resolved. Parameters
    that were loaded, assigned or trained are never drawn again.
    """

    def __init__(self, name: str | None = None, **hparams: Any) -> None:
        super().__init__(name, **hparams)
        self._drawn = ""

    @abstractmethod
    def _draw(self, channels: int) -> None:
        """Make all parameters for ``channels`` input channels; 0 while they are not known."""

    def draw(self, channels: int) -> None:
        """Draw the parameters and remember them as untouched."""
        self._draw(channels)
        self._size = channels
        self._drawn = self.buffer_digest()

    def settle_channels(self, count: int) -> None:
        """Take the number of channels; draw the parameters if they are for another one."""
        super().settle_channels(count)
        if self._size != count and self.buffer_digest() == self._drawn:
            self.draw(count)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from torch's generator with this seed, and leave the generator as it was.

    Without a seed, the generator is used as it is.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def need_channels(node: Node, data: Tensor, expected: int) -> None:
    """Raise :class:`~hsi_batch.errors.PipelineError` unless the data have the channels needed."""
    found = data.shape[-1]
    if found != expected:
        raise PipelineError(
            f"{node.name}: the data have {found} channels, its weights are for {expected}.",
            hint=f"Set {node.CHANNEL_ARGUMENT} to {found}, or connect the node in a pipeline,"
            " which tells it."
            if expected == 0
            else "Select the channels that the weights were made for.",
        )
