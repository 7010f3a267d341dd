"""Smoothing of score maps."""

from __future__ import annotations

from collections.abc import Mapping

import scipy
import torch
from torch import Tensor

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec

__all__ = ["ScoreMapSmoothing"]

_SCORES = PortSpec(torch.float32, (-1, -1, -1, -1), "score maps")


class ScoreMapSmoothing(Node):
    """Convolve each map with a Gaussian, ``exp(-r^2 / (2 sigma^2))`` up to ``round(4 sigma)``.

    Beyond the edges of a frame the map is mirrored at its outermost pixels. It sees as many lines
    around a pixel as the kernel is wide, so blocks are read with their neighbours.

    Parameters
    ----------
    sigma_px : float
        Standard deviation, pixels; 0 hands the map on.

    Examples
    --------
    >>> spot = torch.zeros(1, 9, 9, 1)
    >>> spot[0, 4, 4] = 1.0
    >>> smooth = ScoreMapSmoothing(1.0)(scores=spot)["scores"]
    >>> round(smooth.max().item(), 4)
    0.1592
    """

    INPUT_SPECS = {"scores": _SCORES}
    OUTPUT_SPECS = {"scores": _SCORES}

    def __init__(self, sigma_px: float = 8.0, name: str | None = None) -> None:
        super().__init__(name, sigma_px=sigma_px)
        need_non_negative(sigma_px=sigma_px)
        self.sigma = float(sigma_px)
        self.radius = round(4.0 * self.sigma)

    @property
    def scope(self) -> Scope:
        """A window; a pixel where nothing is smoothed."""
        return Scope.WINDOW if self.radius else Scope.PIXEL

    @property
    def halo(self) -> int:
        """The radius of the kernel."""
        return self.radius

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"scores": axes["scores"]}

    def forward(self, scores: Tensor) -> dict[str, Tensor]:
        """Smooth ``scores`` (B, y, x, C)."""
        if not self.radius:
            return {"scores": scores}
        values = scores.detach().cpu().double().numpy()
        for axis in (1, 2):
            values = scipy.ndimage.gaussian_filter1d(
                values, self.sigma, axis=axis, mode="mirror", radius=self.radius
            )
        return {"scores": torch.from_numpy(values).to(scores)}
