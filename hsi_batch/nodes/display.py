"""From values to what a screen shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["rainbow", "srgb", "stretch"]


def stretch(image: Tensor, low: NDArray[Any], high: NDArray[Any]) -> Tensor:
    """``(x - low) / (high - low)`` per channel, clamped to [0, 1]; 0 where the bounds are equal.

    Parameters
    ----------
    image : torch.Tensor, shape (..., C)
    low, high : numpy.ndarray, shape (C,)

    Examples
    --------
    >>> stretch(torch.tensor([[1.0, 7.0], [4.0, 7.0]]), np.array([0, 7]), np.array([2, 7]))
    tensor([[0.5000, 0.0000],
            [1.0000, 0.0000]])
    """
    span = np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)
    scale = np.where(span > 0, 1.0 / np.where(span > 0, span, 1.0), 0.0)
    base = torch.from_numpy(np.asarray(low, dtype=np.float64)).to(image.device)
    scaled = (image.double() - base) * torch.from_numpy(scale).to(image.device)
    return torch.clamp(scaled, 0.0, 1.0).to(torch.float32)


def srgb(linear: Tensor) -> Tensor:
    """Companding of linear light in [0, 1] to sRGB in [0, 1].

    ``12.92 x`` up to 0.0031308, above ``1.055 x^(1/2.4) - 0.055``.

    Source: IEC 61966-2-1.

    Examples
    --------
    >>> srgb(torch.tensor([0.0, 0.002, 0.5, 1.0]))
    tensor([0.0000, 0.0258, 0.7354, 1.0000])
    """
    above = 1.055 * torch.clamp(linear, min=0.0031308).pow(1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, above)


def rainbow(values: Tensor) -> Tensor:
    """Hues of full saturation and value: 0 is red, 1/3 green, 2/3 blue, 1 red again.

    Parameters
    ----------
    values : torch.Tensor, shape (..., 1)
        Clamped to [0, 1].

    Returns
    -------
    torch.Tensor, shape (..., 3)
        Red, green and blue in [0, 1]; NaN where the value is NaN.

    Examples
    --------
    >>> rainbow(torch.tensor([[0.0], [0.25], [2 / 3]]))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.5000, 1.0000, 0.0000],
            [0.0000, 0.0000, 1.0000]])
    """
    hue = 6.0 * torch.clamp(values, 0.0, 1.0)
    # Distance on the circle of hues, in sixths, from the hue at which a primary is strongest.
    peaks = torch.tensor([0.0, 2.0, 4.0], dtype=hue.dtype, device=hue.device)
    apart = torch.abs(hue - peaks)
    return torch.clamp(2.0 - torch.minimum(apart, 6.0 - apart), 0.0, 1.0)
