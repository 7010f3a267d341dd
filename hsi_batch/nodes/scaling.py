"""Centring and scaling of channels by statistics of the fit."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataWarning
from hsi_batch.nodes.node import Node, Request
from hsi_batch.nodes.spectral_map import CUBE_IN, CUBE_OUT
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.moments import Moments

__all__ = ["MeanCenter", "UnitVarianceScaling"]

#: Smallest deviation that is divided by.
_LEAST = 1e-8


class _FittedChannels(Node):
    """A node ``cube -> cube`` that is fitted from moments and says in a buffer whether it is."""

    INPUT_SPECS = {"cube": CUBE_IN}
    OUTPUT_SPECS = {"cube": CUBE_OUT}
    AFFINE = ("cube", "cube")
    _initialized: Tensor

    def __init__(self, max_fit_pixels: int, fit_seed: int, name: str | None) -> None:
        super().__init__(name, max_fit_pixels=max_fit_pixels, fit_seed=fit_seed)
        self.register_buffer("_initialized", torch.zeros(1, dtype=torch.bool))

    def mark_fitted(self, fitted: bool) -> None:
        """Say whether the buffers hold fitted values, in the buffer too."""
        super().mark_fitted(fitted)
        self._initialized = torch.tensor([fitted])

    def request(self) -> Request:
        """Moments of the cube."""
        return Request("cube", "moments")


class MeanCenter(_FittedChannels):
    """Subtract the mean spectrum of the fit: ``y = x - mean``.

    Parameters
    ----------
    max_fit_pixels, fit_seed : int
        Kept for pipelines that name them; the mean is that of all pixels.

    Attributes
    ----------
    mean_c : torch.Tensor of float32, shape (C,)
        Mean of each channel.

    Examples
    --------
    >>> node = MeanCenter()
    >>> node.fit(Moments.empty(1, "float64").update(np.array([[1.0], [3.0]])))
    >>> node(cube=torch.tensor([[[[5.0]]]]))["cube"].item()
    3.0
    """

    mean_c: Tensor

    def __init__(
        self, max_fit_pixels: int = 20000, fit_seed: int = 0, name: str | None = None
    ) -> None:
        super().__init__(max_fit_pixels, fit_seed, name)
        self.register_buffer("mean_c", torch.zeros(0))

    def fit(self, statistic: Moments) -> None:
        """Take the mean."""
        self.mark_fitted(True)
        self.set_state({"mean": statistic.mean}, mean_c=statistic.mean)

    def affine(self) -> Affine:
        """A shift per channel."""
        self._need_fit()
        state = self.exact_state()
        mean = _double(self.mean_c) if state is None else state["mean"]
        return Affine.scaling(np.ones(mean.size), -mean)

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Centre ``cube`` (B, y, x, C)."""
        self._need_fit()
        return {"cube": cube - self.mean_c}


class UnitVarianceScaling(_FittedChannels):
    """Divide every channel by its standard deviation of the fit: ``y = x / max(std, 1e-8)``.

    The deviation is that of the sample (n - 1). Channels that are constant over the fit are left
    as they are, with a warning: divided by 1e-8 they would drown all others.

    Parameters
    ----------
    max_fit_pixels, fit_seed : int
        Kept for pipelines that name them; the deviation is that of all pixels.

    Attributes
    ----------
    std_c : torch.Tensor of float32, shape (C,)
        1 for channels that were constant.

    Examples
    --------
    >>> node = UnitVarianceScaling()
    >>> node.fit(Moments.empty(1, "float64").update(np.array([[0.0], [2.0], [4.0]])))
    >>> node(cube=torch.tensor([[[[5.0]]]]))["cube"].item()
    2.5
    """

    std_c: Tensor

    def __init__(
        self, max_fit_pixels: int = 20000, fit_seed: int = 0, name: str | None = None
    ) -> None:
        super().__init__(max_fit_pixels, fit_seed, name)
        self.register_buffer("std_c", torch.zeros(0))

    def fit(self, statistic: Moments) -> None:
        """Take the deviation."""
        std = np.sqrt(statistic.variance())
        constant = np.flatnonzero(std == 0)
        if constant.size:
            warnings.warn(
                f"{self.name}: channels {constant.tolist()} are constant; they are not scaled."
                " Exclude them (BandpassByWavelength) to be rid of them.",
                DataWarning,
                stacklevel=2,
            )
            std[constant] = 1.0
        self.mark_fitted(True)
        self.set_state({"std": std}, std_c=std)

    def affine(self) -> Affine:
        """A factor per channel."""
        self._need_fit()
        state = self.exact_state()
        std = _double(self.std_c) if state is None else state["std"]
        return Affine.scaling(1.0 / np.maximum(std, _LEAST), np.zeros(std.size))

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Scale ``cube`` (B, y, x, C)."""
        self._need_fit()
        return {"cube": cube / torch.clamp(self.std_c, min=_LEAST)}


def _double(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
