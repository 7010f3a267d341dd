"""False-colour pictures of channels that are picked, averaged or weighted by wavelength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.false_color import BAND_INFO, FalseColor, NormMode, nearest
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.wavelengths import known_wavelengths
from hsi_batch.statistics.affine import Affine

__all__ = [
    "CIRSelector",
    "CameraEmulationFalseRGBSelector",
    "FixedWavelengthSelector",
    "RangeAverageFalseRGBSelector",
    "checked_range",
    "range_info",
    "range_weights",
]

Range = tuple[float, float]
_NAMES = ("red", "green", "blue")


class _Picked(FalseColor):
    """The channels nearest to given wavelengths."""

    targets: tuple[float, ...] = ()

    def _indices(self, axis: ChannelAxis) -> list[int]:
        wavelengths = known_wavelengths(axis, self.name)
        return [nearest(wavelengths, target) for target in self.targets]

    def compose(self, axis: ChannelAxis) -> Affine:
        """Selection of the nearest channels."""
        return Affine.selection(self._indices(axis), axis.size)

    def info(self, axis: ChannelAxis) -> dict[str, Any]:
        """Indices, their wavelengths, and those that were asked for."""
        indices = self._indices(axis)
        return {
            "band_indices": indices,
            "band_wavelengths_nm": known_wavelengths(axis, self.name)[indices].tolist(),
            "target_wavelengths_nm": list(self.targets),
        }


class FixedWavelengthSelector(_Picked):
    """A picture of the channels nearest to given wavelengths.

    Scaling (see :class:`.FalseColor`) is for three channels; of any other number the channels are
    handed on as they are, whatever ``normalize_output`` says.

    Parameters
    ----------
    target_wavelengths : sequence of float
        nm, one per output.
    normalize_output : bool
        Scale to [0, 1].
    norm_mode : {"running", "statistical", "per_frame"}
        Where the bounds come from.
    apply_gamma : bool
        Compand to sRGB.
    freeze_running_bounds_after_frames : int, optional
        ``running`` only: frames that may widen the bounds; None for all.
    running_warmup_frames : int
        ``running`` only: frames that are scaled by their own quantiles.

    Examples
    --------
    >>> nm = np.array([450, 550, 650, 850], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.2, 0.3, 0.6]]]])
    >>> node = FixedWavelengthSelector((660.0, 540.0, 450.0), normalize_output=False)
    >>> node(cube=cube, wavelengths=nm)["rgb_image"].ravel()
    tensor([0.3000, 0.2000, 0.1000])
    """

    OUTPUT_SPECS = {
        "rgb_image": PortSpec(torch.float32, (-1, -1, -1, -1), "picked channels"),
        "band_info": BAND_INFO,
    }

    def __init__(
        self,
        target_wavelengths: Sequence[float] = (650.0, 550.0, 450.0),
        normalize_output: bool = True,
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        name: str | None = None,
    ) -> None:
        targets = tuple(float(target) for target in target_wavelengths)
        if not targets:
            raise PipelineError("target_wavelengths is empty; give at least one, in nm.")
        super().__init__(
            name,
            target_wavelengths=list(targets),
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output and len(targets) == 3,
        )
        self.hparams["normalize_output"] = bool(normalize_output)
        self.targets = targets
        self.STRATEGY = (  # type: ignore[misc]
            "baseline_false_rgb" if len(targets) == 3 else "stacked_bands"
        )


class CIRSelector(_Picked):
    """Colour infrared: near infrared shown as red, red as green, green as blue.

    Parameters
    ----------
    nir_nm, red_nm, green_nm : float
        The nearest channels are picked, nm.
    norm_mode, apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`FixedWavelengthSelector`.
    normalize_output : bool
        Scale to [0, 1].

    Examples
    --------
    >>> nm = np.array([450, 550, 650, 850], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.2, 0.3, 0.6]]]])
    >>> CIRSelector(normalize_output=False)(cube=cube, wavelengths=nm)["rgb_image"].ravel()
    tensor([0.6000, 0.3000, 0.2000])
    """

    STRATEGY = "cir_false_color"

    def __init__(
        self,
        nir_nm: float = 860.0,
        red_nm: float = 670.0,
        green_nm: float = 560.0,
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            nir_nm=nir_nm,
            red_nm=red_nm,
            green_nm=green_nm,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )
        self.targets = (float(nir_nm), float(red_nm), float(green_nm))


class RangeAverageFalseRGBSelector(FalseColor):
    """A picture of the means over three ranges of wavelengths.

    A range without a channel gives 0; three of them are an error.

    Parameters
    ----------
    red_range, green_range, blue_range : (float, float)
        Ends, inclusive, nm.
    norm_mode, apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`FixedWavelengthSelector`.
    normalize_output : bool
        Scale to [0, 1].

    Examples
    --------
    >>> nm = np.array([450, 550, 650, 850], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.2, 0.3, 0.6]]]])
    >>> node = RangeAverageFalseRGBSelector(red_range=(600, 900), normalize_output=False)
    >>> node(cube=cube, wavelengths=nm)["rgb_image"].ravel()
    tensor([0.4500, 0.2000, 0.1000])
    """

    STRATEGY = "range_average_false_rgb"

    def __init__(
        self,
        red_range: Range = (580.0, 650.0),
        green_range: Range = (500.0, 580.0),
        blue_range: Range = (420.0, 500.0),
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        given = {"red_range": red_range, "green_range": green_range, "blue_range": blue_range}
        ranges = {key: checked_range(key, value) for key, value in given.items()}
        super().__init__(
            name,
            **{key: list(value) for key, value in ranges.items()},
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )
        self.ranges = tuple(ranges.values())
        # cuvis-ai stores them with the weights.
        self.register_buffer("_ranges", torch.tensor(self.ranges))

    def compose(self, axis: ChannelAxis) -> Affine:
        """Means over the channels of each range."""
        return range_weights(self.name, self.ranges, axis)

    def info(self, axis: ChannelAxis) -> dict[str, Any]:
        """Channels of each range."""
        return range_info(self.ranges, self.compose(axis), axis)


class CameraEmulationFalseRGBSelector(FalseColor):
    """What a colour camera with Gaussian responses would see.

    ``w_kc = exp(-((lambda_c - peak_k) / sigma_k)^2 / 2)``, divided by its sum over ``c``.

    Parameters
    ----------
    r_peak, g_peak, b_peak : float
        Wavelengths of greatest response, nm.
    r_sigma, g_sigma, b_sigma : float
        Widths (standard deviations), nm.
    norm_mode, apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`FixedWavelengthSelector`.
    normalize_output : bool
        Scale to [0, 1].

    Examples
    --------
    >>> nm = np.array([450, 550, 650, 850], dtype=np.int32)
    >>> node = CameraEmulationFalseRGBSelector(normalize_output=False)
    >>> node(cube=torch.full((1, 1, 1, 4), 0.5), wavelengths=nm)["rgb_image"].ravel()
    tensor([0.5000, 0.5000, 0.5000])
    """

    STRATEGY = "camera_emulation"

    def __init__(
        self,
        r_peak: float = 610.0,
        g_peak: float = 540.0,
        b_peak: float = 460.0,
        r_sigma: float = 40.0,
        g_sigma: float = 35.0,
        b_sigma: float = 30.0,
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            r_peak=r_peak,
            g_peak=g_peak,
            b_peak=b_peak,
            r_sigma=r_sigma,
            g_sigma=g_sigma,
            b_sigma=b_sigma,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )
        for key, width in {"r_sigma": r_sigma, "g_sigma": g_sigma, "b_sigma": b_sigma}.items():
            if not width > 0:
                raise PipelineError(f"{key} {width} must be above 0 nm.")
        self.peaks = (float(r_peak), float(g_peak), float(b_peak))
        self.sigmas = (float(r_sigma), float(g_sigma), float(b_sigma))

    def compose(self, axis: ChannelAxis) -> Affine:
        """Responses, each with sum 1."""
        apart = known_wavelengths(axis, self.name) - np.array(self.peaks)[:, None]
        exponent = -0.5 * (apart / np.array(self.sigmas)[:, None]) ** 2
        # Relative to the nearest channel, so that a camera far from all channels sees that one.
        response = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        return Affine(response / response.sum(axis=1, keepdims=True), np.zeros(3))

    def info(self, axis: ChannelAxis) -> dict[str, Any]:
        """Peaks and widths."""
        return {
            "peaks_nm": dict(zip("RGB", self.peaks, strict=True)),
            "sigmas_nm": dict(zip("RGB", self.sigmas, strict=True)),
            "sensor_bands_total": axis.size,
        }


def checked_range(key: str, ends: Sequence[float]) -> Range:
    """A range of wavelengths; :class:`~hsi_batch.errors.PipelineError` if it is none."""
    if len(ends) != 2 or not ends[0] <= ends[1]:
        raise PipelineError(f"{key} {list(ends)} is not (lowest nm, highest nm).")
    return float(ends[0]), float(ends[1])


def range_weights(name: str, ranges: Sequence[Range], axis: ChannelAxis) -> Affine:
    """Means over the channels of ranges; 0 for a range without channels.

    Raises
    ------
    hsi_batch.errors.PipelineError
        No range holds a channel.
    """
    wavelengths = known_wavelengths(axis, name)
    inside: NDArray[np.float64] = np.stack(
        [(wavelengths >= low) & (wavelengths <= high) for low, high in ranges]
    ).astype(np.float64)
    if not inside.any():
        raise PipelineError(
            f"{name}: no channel lies in {', '.join(f'{a:g}..{b:g}' for a, b in ranges)} nm; the"
            f" data have {wavelengths.min():g}..{wavelengths.max():g} nm.",
            hint="Change the ranges.",
        )
    return Affine(
        inside / np.maximum(inside.sum(axis=1, keepdims=True), 1.0), np.zeros(len(ranges))
    )


def range_info(ranges: Sequence[Range], composed: Affine, axis: ChannelAxis) -> dict[str, Any]:
    """What ``band_info`` tells of averaged ranges."""
    indices = [np.flatnonzero(row).tolist() for row in composed.matrix]
    assert axis.wavelength is not None
    return {
        "band_indices": indices,
        "band_wavelengths_nm": [axis.wavelength[each].tolist() for each in indices],
        "ranges_nm": {n: list(ends) for n, ends in zip(_NAMES, ranges, strict=True)},
        "aggregation": "mean",
        "missing_channels": [n for n, each in zip(_NAMES, indices, strict=True) if not each],
    }
