"""Foreground by brightness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec

__all__ = ["IntensityThresholdSegmenter"]


class IntensityThresholdSegmenter(Node):
    """1 where ``low <= brightness <= high``, else 0.

    Parameters
    ----------
    low, high : float
        Ends, inclusive, in units of the data.
    reduction : {"mean", "max", "band"}
        Brightness is the mean or the maximum over the channels, or one of them.
    band_index : int
        The channel for ``band``; negative ones count from the last.

    Examples
    --------
    >>> node = IntensityThresholdSegmenter(2.0, 5.0)
    >>> node(cube=torch.tensor([[[[1.0, 2.0], [2.0, 4.0]]]]))["mask"]
    tensor([[[0, 1]]], dtype=torch.int32)
    """

    INPUT_SPECS = {"cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    OUTPUT_SPECS = {"mask": PortSpec(torch.int32, (-1, -1, -1), "1 in the foreground")}

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        reduction: Literal["mean", "max", "band"] = "mean",
        band_index: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name, low=low, high=high, reduction=reduction, band_index=band_index)
        if reduction not in ("mean", "max", "band"):
            raise PipelineError(f"reduction {reduction!r} is not one of mean, max, band.")
        if not low <= high:
            raise PipelineError(f"low {low} must not be above high {high}.")
        self.low, self.high = float(low), float(high)
        self.reduction = reduction
        self.band_index = int(band_index)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """Nothing but class numbers; says whether the channel exists."""
        size = axes["cube"].size
        if self.reduction == "band" and not -size <= self.band_index < size:
            raise PipelineError(
                f"{self.name}: band_index {self.band_index} is not among the {size} channels.",
                hint="Choose one from 0 on.",
            )
        return {}

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Segment ``cube`` (B, y, x, C)."""
        if self.reduction == "mean":
            bright = cube.double().mean(dim=-1)
        elif self.reduction == "max":
            bright = cube.amax(dim=-1)
        else:
            bright = cube[..., self.band_index]
        return {"mask": ((bright >= self.low) & (bright <= self.high)).to(torch.int32)}
