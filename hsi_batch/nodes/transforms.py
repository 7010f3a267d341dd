"""Fixed functions of single values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine

__all__ = ["DisplayNormalizer", "IdentityNormalizer", "SigmoidTransform"]

_ANY = (-1, -1, -1, -1)


class IdentityNormalizer(Node):
    """Hand the data on unchanged, where a graph needs a normaliser that does nothing.

    Examples
    --------
    >>> IdentityNormalizer()(data=torch.ones(1, 1, 1, 2))["normalized"].ravel()
    tensor([1., 1.])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, _ANY, "cube")}
    OUTPUT_SPECS = {"normalized": PortSpec(torch.float32, _ANY, "the same cube")}
    AFFINE = ("data", "normalized")

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def affine(self) -> Affine:
        """The identity."""
        return Affine.identity(self.axes["data"].size)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Hand on ``data`` (B, y, x, C)."""
        return {"normalized": data}


class SigmoidTransform(Node):
    """``1 / (1 + exp(-x))``: from logits to (0, 1), value by value.

    Examples
    --------
    >>> SigmoidTransform()(data=torch.zeros(1, 1, 1, 1))["transformed"].item()
    0.5
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, _ANY, "logits, or any values")}
    OUTPUT_SPECS = {"transformed": PortSpec(torch.float32, _ANY, "values in (0, 1)")}

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"transformed": axes["data"]}

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Transform ``data`` (B, y, x, C)."""
        return {"transformed": torch.sigmoid(data)}


class DisplayNormalizer(Node):
    """Encode linear values in [0, 1] for a screen, as sRGB does (IEC 61966-2-1).

    ``12.92 x`` up to ``x = 0.0031308``, else ``1.055 x^(1/2.4) - 0.055``. Nothing is clipped; put
    :class:`.PercentileNormalizer` before it.

    Examples
    --------
    >>> DisplayNormalizer()(data=torch.tensor([[[[0.0, 0.2140, 1.0]]]]))["normalized"]
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, _ANY, "values in [0, 1]")}
    OUTPUT_SPECS = {"normalized": PortSpec(torch.float32, _ANY, "values in [0, 1], encoded")}

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"normalized": axes["data"]}

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Encode ``data`` (B, y, x, C)."""
        # The power of what the other branch takes would spoil its gradient.
        above = 1.055 * torch.clamp(data, min=0.0031308) ** (1 / 2.4) - 0.055
        return {"normalized": torch.where(data <= 0.0031308, 12.92 * data, above)}
