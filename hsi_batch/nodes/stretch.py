"""Stretching values between two bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine

__all__ = ["FrameStretch", "Stretch", "StretchNode", "Values"]

Values = NDArray[np.float64]


class Stretch(NamedTuple):
    """``sign x`` from ``[low, high]`` to ``[0, 1]``, clamped and cut into steps."""

    low: Values
    high: Values
    eps: float
    clamp: str = "both"
    levels: int | None = None
    sign: float = 1.0

    def affine(self) -> Affine:
        """The map without clamping and steps."""
        divisor = np.maximum(self.high - self.low, self.eps)
        return Affine.scaling(self.sign / divisor, -self.low / divisor)

    def __call__(self, data: Tensor) -> Tensor:
        """Stretch ``data`` (..., C) in float64, rounded once."""
        low, high = (torch.tensor(b, device=data.device) for b in (self.low, self.high))
        scaled = (self.sign * data.double() - low) / torch.clamp(high - low, min=self.eps)
        if self.clamp != "none":
            scaled = torch.clamp(scaled, 0.0, 1.0 if self.clamp == "both" else None)
        if self.levels is not None:
            scaled = torch.floor(scaled * self.levels) / self.levels
        return scaled.to(torch.float32)


class StretchNode(Node):
    """A node that stretches every channel between two bounds."""

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "n_channels"), "cube")}
    OUTPUT_SPECS = {
        "normalized": PortSpec(torch.float32, (-1, -1, -1, "n_channels"), "cube in [0, 1]")
    }
    CHANNEL_ARGUMENT = "n_channels"

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"normalized": axes["data"]}


class FrameStretch(StretchNode):
    """What a per-frame normaliser becomes once its frame is known."""

    def __init__(self, stretch: Stretch, name: str) -> None:
        super().__init__(name)
        self.n_channels = stretch.low.size
        self._stretch = stretch

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Scale ``data`` (B, y, x, C)."""
        return {"normalized": self._stretch(data)}
