"""Which pixels can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.false_color import CUBE_IN
from hsi_batch.nodes.node import Node, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec

__all__ = ["SaturatedPixelDetector", "SpectralValidity"]

_FLAG = PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged")


class SaturatedPixelDetector(Node):
    """Share of the channels of a pixel that are saturated, ``x >= saturation_value``.

    Parameters
    ----------
    saturation_value : float
        In units of the data.
    mask_threshold : float
        Pixels with a larger share are flagged.

    Examples
    --------
    >>> node = SaturatedPixelDetector(100.0, mask_threshold=0.4)
    >>> out = node(cube=torch.tensor([[[[1.0, 100.0], [3.0, 4.0]]]]))
    >>> out["scores"].flatten(), out["decisions"].flatten()
    (tensor([0.5000, 0.0000]), tensor([ True, False]))
    """

    INPUT_SPECS = {"cube": CUBE_IN["cube"]}
    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "share of saturated channels"),
        "decisions": _FLAG,
    }

    def __init__(
        self,
        saturation_value: float = 1.0,
        mask_threshold: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name, saturation_value=saturation_value, mask_threshold=mask_threshold)
        self.saturation_value = float(saturation_value)
        self.mask_threshold = float(mask_threshold)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Judge ``cube`` (B, y, x, C)."""
        share = (cube >= self.saturation_value).float().mean(dim=-1, keepdim=True)
        return {"scores": share, "decisions": share > self.mask_threshold}


class SpectralValidity(Node):
    """Marks pixels whose spectra can be trusted; fits use no others.

    The reason is the first that applies: 1 a channel is no finite number, 2 the length of the
    spectrum is below ``norm_floor``, 3 a channel is saturated, 4 the pixel lies outside the region
    of interest; 0 for valid pixels. Data with other channels than expected are invalid altogether
    (reason 1, status 2).

    Statistics of a fit, of whatever port, count only pixels that every node of this kind in the
    graph marks as valid. It must come before the nodes that are fitted.

    Parameters
    ----------
    n_features : int, optional
        Channels that are expected.
    expected_wavelengths : sequence of float, optional
        Wavelengths that are expected, nm.
    wavelength_tol_nm : float
        How far they may be off.
    norm_floor : float
        Smallest Euclidean length of a spectrum, in units of the data.
    saturation_value : float, optional
        Values from here on are saturated; none are by default.
    roi_margin_px : int
        Margin around the region of interest, in pixels of a frame of ``roi_reference_hw``.
    roi_reference_hw : (int, int)
        Lines and columns that the margin refers to; 1000 by 1080 by default.
    min_valid_fraction : float
        A frame with a smaller share of valid pixels in the region has status 1, else 0.

    Examples
    --------
    >>> cube = torch.tensor([[[[1.0, 2.0], [torch.nan, 2.0]]]])
    >>> SpectralValidity()(cube=cube)["valid_mask"].ravel()
    tensor([ True, False])
    """

    INPUT_SPECS = CUBE_IN
    OUTPUT_SPECS = {
        "valid_mask": PortSpec(torch.bool, (-1, -1, -1, 1), "True where valid"),
        "invalid_reason": PortSpec(torch.int32, (-1, -1, -1, 1), "0 valid, else 1 to 4"),
        "frame_status": PortSpec(torch.int32, (-1,), "0 good, 1 few pixels, 2 other channels"),
        "valid_fraction": PortSpec(torch.float32, (-1,), "share of the region that is valid"),
    }
    MARKS_VALID = "valid_mask"

    def __init__(
        self,
        n_features: int | None = None,
        expected_wavelengths: Sequence[float] | None = None,
        wavelength_tol_nm: float = 1.0,
        norm_floor: float = 1.0,
        saturation_value: float | None = None,
        roi_margin_px: int = 0,
        roi_reference_hw: Sequence[int] | None = None,
        min_valid_fraction: float = 0.5,
        name: str | None = None,
    ) -> None:
        reference = [1000, 1080] if roi_reference_hw is None else [int(n) for n in roi_reference_hw]
        super().__init__(
            name,
            n_features=n_features,
            expected_wavelengths=None if expected_wavelengths is None else [*expected_wavelengths],
            wavelength_tol_nm=wavelength_tol_nm,
            norm_floor=norm_floor,
            saturation_value=saturation_value,
            roi_margin_px=roi_margin_px,
            roi_reference_hw=reference,
            min_valid_fraction=min_valid_fraction,
        )
        need_non_negative(
            wavelength_tol_nm=wavelength_tol_nm,
            norm_floor=norm_floor,
            roi_margin_px=roi_margin_px,
            min_valid_fraction=min_valid_fraction,
        )
        if n_features is not None and n_features < 1:
            raise PipelineError(f"n_features {n_features} must be at least 1.")
        if len(reference) != 2 or min(reference) < 1:
            raise PipelineError(f"roi_reference_hw {reference} is not (lines, columns).")
        self.n_features = n_features
        self.expected = None if expected_wavelengths is None else np.asarray(expected_wavelengths)
        self.tolerance = float(wavelength_tol_nm)
        self.norm_floor = float(norm_floor)
        self.saturation_value = saturation_value
        self.margin = int(roi_margin_px)
        self.reference = reference
        self.min_valid_fraction = float(min_valid_fraction)

    @property
    def scope(self) -> Scope:
        """A pixel at a time; a frame where its margin matters."""
        return Scope.FRAME if self.margin else Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One flag and one reason."""
        axis = axes["cube"]
        if self._differs(axis.size, axis.wavelength):
            warnings.warn(
                f"{self.name}: the {axis.size} channels of the data are not those expected, so no"
                " pixel is valid. Change n_features or expected_wavelengths.",
                DataWarning,
                stacklevel=2,
            )
        return {"valid_mask": ChannelAxis(1), "invalid_reason": ChannelAxis(1)}

    def _differs(self, channels: int, wavelengths: Any) -> bool:
        if self.n_features is not None and channels != self.n_features:
            return True
        if self.expected is None or wavelengths is None:
            return False
        found = np.asarray(wavelengths, dtype=np.float64).reshape(-1)
        same = found.shape == self.expected.shape
        return not same or bool((np.abs(found - self.expected) > self.tolerance).any())

    def _region(self, height: int, width: int) -> Tensor:
        inside = torch.ones(height, width, dtype=torch.bool)
        if self.margin:
            scaled = [
                min(round(self.margin * size / whole), (size - 1) // 2)
                for size, whole in zip((height, width), self.reference, strict=True)
            ]
            top, left = scaled
            inside[:] = False
            inside[top : height - top, left : width - left] = True
        return inside

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Judge ``cube`` (B, y, x, C)."""
        axis = self.axes.get("cube")
        known = wavelengths if axis is None or axis.wavelength is None else axis.wavelength
        batch, height, width, channels = cube.shape
        if self._differs(channels, known):
            reason = torch.ones(batch, height, width, dtype=torch.int32, device=cube.device)
            status = torch.full((batch,), 2, dtype=torch.int32, device=cube.device)
            return self._told(reason, status, torch.zeros(batch, device=cube.device))
        region = self._region(height, width).to(cube.device).expand(batch, -1, -1)
        reason = torch.where(region, 0, 4).to(torch.int32)
        if self.saturation_value is not None:
            reason[(cube >= self.saturation_value).any(dim=-1)] = 3
        reason[torch.linalg.vector_norm(cube.double(), dim=-1) < self.norm_floor] = 2
        reason[~torch.isfinite(cube).all(dim=-1)] = 1
        valid = (reason == 0).sum(dim=(1, 2))
        share = valid / torch.clamp(region.sum(dim=(1, 2)), min=1)
        return self._told(reason, (share < self.min_valid_fraction).to(torch.int32), share)

    @staticmethod
    def _told(reason: Tensor, status: Tensor, share: Tensor) -> dict[str, Tensor]:
        return {
            "valid_mask": (reason == 0)[..., None],
            "invalid_reason": reason[..., None],
            "frame_status": status,
            "valid_fraction": share.to(torch.float32),
        }
