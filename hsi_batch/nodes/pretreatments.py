"""Pretreatments of single spectra that are not linear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope, need_non_negative
from hsi_batch.nodes.spectral_map import CUBE_IN, CUBE_OUT, WAVELENGTHS
from hsi_batch.nodes.wavelengths import monotonic_wavelengths, reaching_axis

__all__ = ["ContinuumRemoval", "Logarithm", "SNVCorrection"]

#: Spectra whose hulls are held at once.
_GROUP = 16384


class _Pretreatment(Node):
    """A node ``cube -> cube`` that looks at one spectrum at a time and keeps its channels."""

    INPUT_SPECS = {"cube": CUBE_IN}
    OUTPUT_SPECS = {"cube": CUBE_OUT}

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"cube": axes["cube"]}


class SNVCorrection(_Pretreatment):
    """Standard normal variate: each spectrum less its own mean, by its own standard deviation.

    ``y = (x - mean_c x) / max(std_c x, eps)`` with the sample deviation over the channels (C - 1).
    Barnes, Dhanoa and Lister, Appl. Spectrosc. 43 (1989). The channels of the result sum to zero,
    so :class:`.RXGlobal` behind it needs a ``loading``.

    Parameters
    ----------
    eps : float
        Smallest deviation that is divided by.

    Examples
    --------
    >>> SNVCorrection()(cube=torch.tensor([[[[1.0, 2.0, 3.0]]]]))["cube"]
    tensor([[[[-1.,  0.,  1.]]]])
    """

    def __init__(self, eps: float = 1e-8, name: str | None = None) -> None:
        super().__init__(name, eps=eps)
        need_non_negative(eps=eps)
        self.eps = float(eps)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input, of two channels or more."""
        if axes["cube"].size < 2:
            raise PipelineError(
                f"{self.name}: the deviation over channels needs at least 2; 1 reaches it."
            )
        return super().channel_axis(axes)

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Correct ``cube`` (B, y, x, C)."""
        mean = cube.mean(dim=-1, keepdim=True)
        std = cube.std(dim=-1, keepdim=True)
        return {"cube": (cube - mean) / torch.clamp(std, min=self.eps)}


class Logarithm(_Pretreatment):
    """``log(max(x, eps))``; with ``negate`` the absorbance ``log(1 / R)`` of a reflectance.

    Parameters
    ----------
    mode : {"log10", "ln"}
        Base 10 or natural logarithm.
    negate : bool
        Change the sign: absorbance is ``-log10 R``.
    eps : float
        Smaller values count as this, in units of the data; above 0.

    Examples
    --------
    >>> Logarithm(negate=True)(cube=torch.tensor([[[[1.0, 0.1, 0.01]]]]))["cube"]
    tensor([[[[-0., 1., 2.]]]])
    """

    def __init__(
        self,
        mode: Literal["log10", "ln"] = "log10",
        negate: bool = False,
        eps: float = 1e-8,
        name: str | None = None,
    ) -> None:
        super().__init__(name, mode=mode, negate=negate, eps=eps)
        if mode not in ("log10", "ln"):
            raise PipelineError(f"mode {mode!r} is not 'log10' or 'ln'.")
        if not eps > 0:
            raise PipelineError(f"eps {eps} must be above 0, which has no logarithm.")
        self.mode = mode
        self.negate = bool(negate)
        self.eps = float(eps)

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Take the logarithm of ``cube`` (B, y, x, C)."""
        floored = torch.clamp(cube, min=self.eps)
        taken = torch.log(floored) if self.mode == "ln" else torch.log10(floored)
        return {"cube": -taken if self.negate else taken}


class ContinuumRemoval(_Pretreatment):
    """Divide each spectrum by its continuum: ``y = x / max(hull(x), eps)``.

    The continuum is the upper convex hull of the points (wavelength, value), straight between its
    corners; it touches the spectrum at both ends. The result is 1 where there is no absorption and
    less inside a feature, whatever the brightness. Clark and Roush, J. Geophys. Res. 89 (1984).
    It is meant for reflectance: where the hull is not above ``eps``, the result has no meaning.

    The wavelengths come with the data; the input ``wavelengths`` is needed only where the node runs
    on its own. A spectrum with a value that is not finite becomes NaN.

    Parameters
    ----------
    eps : float
        Smallest hull that is divided by, in units of the data.

    Examples
    --------
    >>> cube = torch.tensor([[[[1.0, 1.0, 3.0]]]])
    >>> ContinuumRemoval()(cube=cube, wavelengths=np.array([400, 500, 600]))["cube"]
    tensor([[[[1.0000, 0.5000, 1.0000]]]])
    """

    INPUT_SPECS = {"cube": CUBE_IN, "wavelengths": WAVELENGTHS}

    def __init__(self, eps: float = 1e-8, name: str | None = None) -> None:
        super().__init__(name, eps=eps)
        need_non_negative(eps=eps)
        self.eps = float(eps)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input, whose wavelengths must ascend or descend."""
        monotonic_wavelengths(axes["cube"], self.name)
        return super().channel_axis(axes)

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Remove the continuum of ``cube`` (B, y, x, C)."""
        axis = reaching_axis(self, "cube", cube.shape[-1], wavelengths)
        x = monotonic_wavelengths(axis, self.name)
        # Mirrored, a spectrum has the mirrored hull.
        x = x if x[-1] >= x[0] else -x
        flat = cube.reshape(-1, cube.shape[-1])
        parts = [self._removed(group, x) for group in torch.split(flat, _GROUP)]
        return {"cube": torch.cat(parts).reshape(cube.shape)}

    def _removed(self, spectra: Tensor, x: NDArray[np.float64]) -> Tensor:
        from hsi_batch.nodes.hull import hull_brackets

        found = hull_brackets(x, np.ascontiguousarray(spectra.detach().cpu().numpy()))
        left, right = (torch.from_numpy(side).to(spectra.device) for side in found)
        place = torch.from_numpy(x).to(spectra.device)
        exact = spectra.double()
        low, high = exact.gather(1, left), exact.gather(1, right)
        width = torch.where(right > left, place[right] - place[left], 1.0)
        hull = low + (high - low) * (place - place[left]) / width
        removed = exact / torch.clamp(hull, min=self.eps)
        finite = torch.isfinite(spectra).all(dim=1, keepdim=True)
        return torch.where(finite, removed, torch.nan).to(torch.float32)
