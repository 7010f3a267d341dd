"""What the nodes of spectral indices share: a few channels, one number per pixel, a picture."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.display import rainbow
from hsi_batch.nodes.false_color import BAND_INFO, CUBE_IN, RGB, nearest, register_bounds
from hsi_batch.nodes.node import Node, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.wavelengths import known_wavelengths, reaching_axis

__all__ = ["SpectralIndex"]


class SpectralIndex(Node):
    """Base of the nodes that give an index of a few channels, and a picture of it.

    The channels nearest to the wavelengths are taken; one that is further than
    ``band_tolerance_nm`` away is warned about. The index is computed in float64; ``rgb_image``
    shows it as a hue, ``(index - colormap_min) / (colormap_max - colormap_min)`` from red (0) to
    green (1/3), blue (2/3) and red (1). A pixel at a time.
    """

    INPUT_SPECS = CUBE_IN
    OUTPUT_SPECS = {
        "rgb_image": RGB,
        "band_info": BAND_INFO,
        "index_image": PortSpec(torch.float32, (-1, -1, -1, 1), "index"),
    }
    #: What ``band_info`` calls the index.
    STRATEGY: ClassVar[str] = ""

    def __init__(
        self,
        name: str | None,
        *,
        colormap_min: float,
        colormap_max: float,
        eps: float,
        band_tolerance_nm: float,
        others: Mapping[str, float] | None = None,
        **bands: float,
    ) -> None:
        super().__init__(
            name,
            **bands,
            **(others or {}),
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )
        need_non_negative(eps=eps)
        if not colormap_max > colormap_min:
            raise PipelineError(
                f"colormap_max {colormap_max} must be above colormap_min {colormap_min}."
            )
        self.bands = {key.removesuffix("_nm"): float(nm) for key, nm in bands.items()}
        self.colormap_min = float(colormap_min)
        self.colormap_max = float(colormap_max)
        self.eps = float(eps)
        self.tolerance = float(band_tolerance_nm)
        register_bounds(self)

    @abstractmethod
    def index(self, *bands: Tensor) -> Tensor:
        """The index from the channels, in the order of the arguments, float64."""

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One index; red, green and blue."""
        axis = axes["cube"]
        for (label, asked), channel in zip(self.bands.items(), self._indices(axis), strict=True):
            found = known_wavelengths(axis, self.name)[channel]
            if abs(found - asked) > self.tolerance > 0:
                warnings.warn(
                    f"{self.name}: {label} is asked for at {asked:g} nm, but the nearest channel"
                    f" has {found:g} nm; the index may mean nothing for this sensor.",
                    DataWarning,
                    stacklevel=2,
                )
        return {"index_image": ChannelAxis(1), "rgb_image": ChannelAxis(3)}

    def _indices(self, axis: ChannelAxis) -> list[int]:
        wavelengths = known_wavelengths(axis, self.name)
        return [nearest(wavelengths, asked) for asked in self.bands.values()]

    def _guarded(self, denominator: Tensor) -> Tensor:
        """With ``eps`` in place of what is no larger in magnitude."""
        return torch.where(denominator.abs() <= self.eps, self.eps, denominator)

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Any]:
        """Index of ``cube`` (B, y, x, C)."""
        axis = reaching_axis(self, "cube", cube.shape[-1], wavelengths)
        indices = self._indices(axis)
        found = self.index(*(cube[..., channel].double() for channel in indices))[..., None]
        shown = (found - self.colormap_min) / (self.colormap_max - self.colormap_min)
        told = {
            "strategy": self.STRATEGY,
            "band_labels": list(self.bands),
            "band_indices": indices,
            "requested_wavelengths_nm": list(self.bands.values()),
            "resolved_wavelengths_nm": np.asarray(axis.wavelength)[indices].tolist(),
            "rendering": "hsv_colormap",
            "colormap": "hsv",
            "colormap_min": self.colormap_min,
            "colormap_max": self.colormap_max,
        }
        return {
            "index_image": found.to(torch.float32),
            "rgb_image": rainbow(shown).to(torch.float32),
            "band_info": told,
        }
