"""The filter of Savitzky and Golay."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.spectral_map import SpectralMap
from hsi_batch.nodes.wavelengths import known_wavelengths, reaching_axis

__all__ = ["SavitzkyGolay"]

#: What numpy.pad calls the modes of scipy.
_PAD = {"nearest": "edge", "mirror": "reflect", "wrap": "wrap"}
_MODES = (*_PAD, "constant", "interp", "valid")
#: Steps between channels that differ by more than this part of a step are worth a word.
_UNEVEN = 0.05


class SavitzkyGolay(SpectralMap):
    """Smooth spectra, or differentiate them, by local polynomials (Savitzky and Golay, 1964).

    In every window of ``window_length`` channels a polynomial of degree ``polyorder`` is fitted by
    least squares; its value, or that of its ``deriv``-th derivative, replaces the channel in the
    middle. It is a linear map of the spectrum, so fits behind it read no pixels.

    A kernel takes the channels as evenly spaced: ``delta`` apart, or, where the input
    ``wavelengths`` is connected, by the median step, so that a derivative is per nm to the power of
    ``deriv``. Uneven steps are warned about; :class:`SpectralDerivative` respects them.

    Parameters
    ----------
    window_length : int
        Channels of a window, odd.
    polyorder : int
        Degree, less than ``window_length``.
    deriv : int
        Order of the derivative; 0 smooths.
    delta : float
        Distance of channels where ``wavelengths`` is not connected.
    mode : {"nearest", "mirror", "constant", "wrap", "interp", "valid"}
        What stands in beyond the ends of a spectrum, as in :func:`scipy.signal.savgol_filter`;
        ``"valid"`` drops the ``window_length // 2`` channels at either end instead. The other modes
        keep the number of channels, but derivatives then have rank ``C - 1`` or less, so
        :class:`.RXGlobal` behind them needs ``"valid"`` or a ``loading``.

    Attributes
    ----------
    coefs : torch.Tensor of float32, shape (1, 1, window_length)
        The kernel as a correlation, as cuvis-ai stores it.

    Examples
    --------
    >>> node = SavitzkyGolay(window_length=3, polyorder=1)
    >>> node(cube=torch.tensor([[[[0.0, 3.0, 0.0, 0.0]]]]))["cube"].ravel()
    tensor([1., 1., 1., 0.])
    """

    coefs: Tensor

    def __init__(
        self,
        window_length: int = 11,
        polyorder: int = 2,
        deriv: int = 0,
        delta: float = 1.0,
        mode: Literal["nearest", "mirror", "constant", "wrap", "interp", "valid"] = "nearest",
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            window_length=window_length,
            polyorder=polyorder,
            deriv=deriv,
            delta=delta,
            mode=mode,
        )
        if window_length < 1 or window_length % 2 == 0:
            raise PipelineError(f"window_length {window_length} must be odd and at least 1.")
        if not 0 <= polyorder < window_length:
            raise PipelineError(
                f"polyorder {polyorder} must be from 0 to window_length - 1 ({window_length - 1})."
            )
        if not 0 <= deriv <= polyorder:
            raise PipelineError(
                f"deriv {deriv} must be from 0 to polyorder ({polyorder}); higher derivatives of"
                " the polynomial are zero."
            )
        if not (np.isfinite(delta) and delta != 0):
            raise PipelineError(f"delta {delta} must be a distance other than 0.")
        if mode not in _MODES:
            raise PipelineError(f"mode {mode!r} is not one of {', '.join(_MODES)}.")
        self.window_length = int(window_length)
        self.polyorder = int(polyorder)
        self.deriv = int(deriv)
        self.delta = float(delta)
        self.mode = mode
        # Made the way cuvis-ai makes it, so that the bits of its files are those of `coefs`.
        kernel = np.array(
            scipy.signal.savgol_coeffs(window_length, polyorder, deriv, delta)[::-1], np.float64
        )
        self.register_buffer("coefs", torch.empty(0))
        self.set_state({"coefs": kernel}, coefs=kernel[None, None])

    @property
    def margin(self) -> int:
        """Channels of a window on either side of its middle."""
        return self.window_length // 2

    def _weights(self, position: int) -> NDArray[np.float64]:
        """Weights of a window whose polynomial is evaluated at the channel ``position`` in it."""
        weights = scipy.signal.savgol_coeffs(
            self.window_length, self.polyorder, self.deriv, self.delta, pos=position, use="dot"
        )
        return np.asarray(weights, dtype=np.float64)

    def _kernel(self) -> NDArray[np.float64]:
        state = self.exact_state()
        if state is not None:
            return state["coefs"]
        kernel = self.coefs.detach().double().cpu().numpy().reshape(-1)
        if kernel.size != self.window_length:
            raise PipelineError(
                f"{self.name}: coefs has {kernel.size} weights; window_length is"
                f" {self.window_length}.",
                hint="Give as many.",
            )
        return kernel

    def matrix(self, axis: ChannelAxis) -> NDArray[np.float64]:
        """The filter, per nm where ``wavelengths`` is connected."""
        scale = self._per_nm(axis) if "wavelengths" in self.connected else 1.0
        return scale * self._filter(axis.size)

    def _filter(self, size: int) -> NDArray[np.float64]:
        kernel, half, width = self._kernel(), self.margin, self.window_length
        if self.mode in ("interp", "valid") and size < width:
            raise PipelineError(
                f"{self.name}: window_length {width} is more than the {size} channels of its input,"
                f" which the mode {self.mode!r} does not allow.",
                hint="Take a smaller window.",
            )
        rows, taps = np.arange(size)[:, None], np.arange(width)
        padded = np.zeros((size, size + 2 * half))
        padded[rows, rows + taps] = kernel
        matrix = padded[:, half : half + size].copy()
        if self.mode == "valid":
            return matrix[half : size - half]
        if self.mode == "interp":
            for i in range(half):
                matrix[i], matrix[size - 1 - i] = 0.0, 0.0
                matrix[i, :width] = self._weights(i)
                matrix[size - 1 - i, size - width :] = self._weights(width - 1 - i)
        elif self.mode != "constant":
            source = np.pad(np.arange(size), half, mode=_PAD[self.mode])  # type: ignore[call-overload]
            matrix = np.zeros((size, size))
            np.add.at(matrix.T, source, padded.T)
        return matrix

    def _per_nm(self, axis: ChannelAxis) -> float:
        if self.deriv == 0:
            return 1.0
        steps = np.diff(known_wavelengths(axis, self.name))
        if not steps.size:
            return 1.0
        # The lower median, as torch has it.
        step = float(np.sort(steps)[(steps.size - 1) // 2])
        if step == 0:
            raise PipelineError(
                f"{self.name}: most channels have the wavelength of their neighbour, so there is no"
                " step to differentiate by.",
                hint="Differentiate without wavelengths, or mend them.",
            )
        return (self.delta / step) ** self.deriv

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the output; uneven steps are warned about."""
        wavelengths = axes["cube"].wavelength
        if self.deriv and "wavelengths" in self.connected and wavelengths is not None:
            steps = np.diff(wavelengths)
            if steps.size and np.ptp(steps) > _UNEVEN * np.abs(np.median(steps)):
                warnings.warn(
                    f"{self.name}: the channels are {steps.min():.3g} to {steps.max():.3g} nm"
                    " apart; the derivative takes them as evenly spaced. SpectralDerivative"
                    " respects uneven steps; SpectralResample makes them even.",
                    DataWarning,
                    stacklevel=2,
                )
        return super().channel_axis(axes)

    def mapped_axis(self, axis: ChannelAxis) -> ChannelAxis:
        """The channels of the input, in mode ``"valid"`` without those at the ends."""
        if self.mode != "valid":
            return axis
        return axis.select(np.arange(self.margin, axis.size - self.margin))

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Filter ``cube`` (B, y, x, C); a derivative is per nm if ``wavelengths`` is given."""
        filtered = super().forward(cube, wavelengths)["cube"]
        if wavelengths is not None and "wavelengths" not in self.connected:
            axis = reaching_axis(self, "cube", cube.shape[-1], wavelengths)
            filtered = filtered * self._per_nm(axis)
        return {"cube": filtered}
