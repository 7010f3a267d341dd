"""Colours as the standard observer of the CIE sees them."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.cie import BRADFORD, D65, OBSERVER, WAVELENGTHS, XYZ_TO_SRGB
from hsi_batch.nodes.false_color import FalseColor, NormMode
from hsi_batch.nodes.wavelengths import known_wavelengths
from hsi_batch.statistics.affine import Affine

__all__ = ["CIETristimulusRGBSelector"]

Values = NDArray[np.float64]

_ILLUMINANTS = ("D65", "E")
#: Shares of the white's X, Y and Z in reach of the sensor: below the first, colours lack something;
#: below the second, white cannot be made neutral.
_WHOLE, _ENOUGH = 0.99, 0.5


class CIETristimulusRGBSelector(FalseColor):
    """Linear sRGB of the spectrum, by the colour-matching functions of the 1931 observer.

    ``XYZ = sum_c cmf(lambda_c) S(lambda_c) x_c dlambda_c``, then, for ``D65``, adapted (Bradford)
    so that a spectrum of ones is white, then to linear sRGB, at least 0. ``E`` (all wavelengths
    equal) is neither adapted nor normalised. For D65 spectra are reflectances. Where the channels
    reach less than half of the white's X, Y or Z, only Y is normalised.

    Parameters
    ----------
    illuminant : {"D65", "E"}
        What the scene is shown under.
    norm_mode, apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`.FixedWavelengthSelector`.
    normalize_output : bool
        Scale to [0, 1].

    Examples
    --------
    >>> nm = np.arange(380, 781, 10, dtype=np.int32)
    >>> node = CIETristimulusRGBSelector(normalize_output=False)
    >>> white = node(cube=torch.ones(1, 1, 1, nm.size), wavelengths=nm)["rgb_image"]
    >>> white.ravel().round(decimals=3)
    tensor([1., 1., 1.])
    """

    FLOOR = 0.0
    STRATEGY = "cie_tristimulus"
    _xyz_to_srgb_matrix: Tensor
    _bounds_illuminant: Tensor

    def __init__(
        self,
        illuminant: Literal["D65", "E"] = "D65",
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            illuminant=illuminant,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )
        if illuminant not in _ILLUMINANTS:
            raise PipelineError(f"illuminant {illuminant!r} is not one of D65, E.")
        self.illuminant = illuminant
        self.register_buffer("_xyz_to_srgb_matrix", torch.from_numpy(XYZ_TO_SRGB).float())
        # Bounds hold for the illuminant they were found under; the file says which.
        self.register_buffer("_bounds_illuminant", torch.tensor(_ILLUMINANTS.index(illuminant)))

    @property
    def has_bounds(self) -> bool:
        """Whether there are bounds, found under this illuminant."""
        return self._found_under == self.illuminant and super().has_bounds

    @property
    def _found_under(self) -> str:
        return _ILLUMINANTS[int(self._bounds_illuminant)]

    def _need_fit(self) -> None:
        super()._need_fit()
        found = self._found_under
        if self.requires_initial_fit and found != self.illuminant:
            raise PipelineError(
                f"{self.name}: the bounds were fitted under illuminant {found}, but the node shows"
                f" {self.illuminant}.",
                hint=f"Set illuminant to {found}, or fit again.",
            )

    def fit(self, statistic: Any) -> None:
        """Take the quantiles of all pixels."""
        self._bounds_illuminant = torch.tensor(_ILLUMINANTS.index(self.illuminant))
        super().fit(statistic)

    def channel_axis(self, axes: Any) -> dict[str, ChannelAxis]:
        """Red, green and blue."""
        axis = axes["cube"]
        known_wavelengths(axis, self.name)
        reach = self._reach(axis)
        if self.illuminant == "D65" and reach.min() < _WHOLE:
            shares = ", ".join(f"{100 * share:.0f} %" for share in reach)
            lost = (
                "colours lack what is beyond" if reach.min() >= _ENOUGH else "grey is not neutral"
            )
            warnings.warn(
                f"{self.name}: the channels reach {shares} of X, Y, Z of white; {lost}.",
                DataWarning,
                stacklevel=2,
            )
        return {"rgb_image": ChannelAxis(3)}

    def _observer(self, axis: ChannelAxis) -> Values:
        """Colour-matching functions times channel spacings, ``(3, C)``."""
        wavelengths = known_wavelengths(axis, self.name)
        seen = np.stack(
            [np.interp(wavelengths, WAVELENGTHS, bar, left=0.0, right=0.0) for bar in OBSERVER]
        )
        if not seen[1].any() or axis.size < 2:
            raise PipelineError(
                f"{self.name}: the {axis.size} channels of {wavelengths.min():g}.."
                f"{wavelengths.max():g} nm show no colour; two or more are needed, some of them in"
                " 380..780 nm."
            )
        return np.asarray(seen * np.abs(np.gradient(wavelengths)))

    def _lit(self, axis: ChannelAxis) -> Values:
        observer = self._observer(axis)
        if self.illuminant == "E":
            return observer
        return np.asarray(
            observer * np.interp(known_wavelengths(axis, self.name), WAVELENGTHS, D65)
        )

    def _reach(self, axis: ChannelAxis) -> Values:
        """Shares of X, Y and Z of the whole white that the channels see."""
        light = D65 if self.illuminant == "D65" else 1.0
        whole = (OBSERVER * light).sum(axis=1) * 5.0
        return np.asarray(self._lit(axis).sum(axis=1) / whole)

    def compose(self, axis: ChannelAxis) -> Affine:
        """From spectra to linear sRGB."""
        weights = self._lit(axis)
        white = weights.sum(axis=1)
        if self.illuminant == "D65":
            if self._reach(axis).min() < _ENOUGH:
                weights = weights / white[1]
            else:
                target = np.linalg.solve(XYZ_TO_SRGB, np.ones(3))
                gain = (BRADFORD @ target) / (BRADFORD @ white)
                weights = np.linalg.solve(BRADFORD, gain[:, None] * BRADFORD) @ weights
        return Affine(XYZ_TO_SRGB @ weights, np.zeros(3))

    def info(self, axis: ChannelAxis) -> dict[str, Any]:
        """Illuminant, and how much of the white the channels see."""
        reach = self._reach(axis)
        daylight = self.illuminant == "D65"
        wavelengths = known_wavelengths(axis, self.name)
        return {
            "illuminant": self.illuminant,
            "white_normalised": daylight,
            "white_adapted": bool(reach.min() >= _ENOUGH) if daylight else None,
            "white_xyz_coverage": np.round(reach, 4).tolist() if daylight else None,
            "apply_gamma": self.apply_gamma and self.normalize_output,
            "sensor_bands_total": axis.size,
            "sensor_bands_visible": int((self._observer(axis) > 0).any(axis=0).sum()),
            "wavelength_range_nm": [float(wavelengths[0]), float(wavelengths[-1])],
        }
