"""Finite differences and detrending of spectra."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.gaussian import qr_triangle
from hsi_batch.nodes.spectral_map import SpectralMap
from hsi_batch.nodes.wavelengths import monotonic_wavelengths

__all__ = ["SpectralDerivative", "SpectralDetrend"]


class SpectralDerivative(SpectralMap):
    """Differentiate spectra by finite differences, with respect to wavelength.

    ``dy/dl`` by the second-order formula for uneven steps ``a`` to the left and ``b`` to the right,
    ``(a^2 y_(i+1) + (b^2 - a^2) y_i - b^2 y_(i-1)) / (a b (a + b))``, and one-sided differences at
    the ends: what :func:`numpy.gradient` does. It is applied ``order`` times; units are those of
    the data per nm to the power of ``order``. It is linear, so fits behind it read no pixels.

    Parameters
    ----------
    order : int
        Order of the derivative.
    edges : {"one_sided", "drop"}
        Keep all channels, or drop ``order`` at either end, where the differences are one-sided.
        With all of them the derivative has rank ``C - 1`` or less, so :class:`.RXGlobal` behind it
        needs ``"drop"`` or a ``loading``.

    Examples
    --------
    >>> import torch
    >>> node = SpectralDerivative()
    >>> cube = torch.tensor([0.0, 1.0, 4.0]).reshape(1, 1, 1, 3)
    >>> node(cube=cube, wavelengths=np.array([400, 410, 420]))["cube"].flatten()
    tensor([0.1000, 0.2000, 0.3000])
    """

    def __init__(
        self,
        order: int = 1,
        edges: Literal["one_sided", "drop"] = "one_sided",
        name: str | None = None,
    ) -> None:
        super().__init__(name, order=order, edges=edges)
        if order < 1:
            raise PipelineError(f"order {order} must be at least 1.")
        if edges not in ("one_sided", "drop"):
            raise PipelineError(f"edges {edges!r} is not 'one_sided' or 'drop'.")
        self.order = int(order)
        self.edges = edges

    def matrix(self, axis: ChannelAxis) -> NDArray[np.float64]:
        """The differences for the wavelengths of ``axis``."""
        ends = self.order if self.edges == "drop" else 0
        least = max(2, 2 * ends + 1)
        if axis.size < least:
            raise PipelineError(
                f"{self.name}: a derivative of order {self.order} with edges {self.edges!r} needs"
                f" at least {least} channels; {axis.size} reach it."
            )
        wavelengths = monotonic_wavelengths(axis, self.name)
        step = _differences(wavelengths)
        matrix = np.linalg.matrix_power(step, self.order)
        return matrix[ends : axis.size - ends]

    def mapped_axis(self, axis: ChannelAxis) -> ChannelAxis:
        """The channels of the input, with ``edges="drop"`` without those at the ends."""
        ends = self.order if self.edges == "drop" else 0
        return axis.select(np.arange(ends, axis.size - ends))


def _differences(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """First derivative on the points ``x``, ``(C, C)``."""
    size = len(x)
    matrix = np.zeros((size, size))
    step = np.diff(x)
    matrix[0, :2] = -1 / step[0], 1 / step[0]
    matrix[-1, -2:] = -1 / step[-1], 1 / step[-1]
    a, b, inner = step[:-1], step[1:], np.arange(1, size - 1)
    matrix[inner, inner - 1] = -b / (a * (a + b))
    matrix[inner, inner] = (b - a) / (a * b)
    matrix[inner, inner + 1] = a / (b * (a + b))
    return matrix


class SpectralDetrend(SpectralMap):
    """Subtract from each spectrum the polynomial that fits it best.

    ``y = x - P x``, with ``P`` the least-squares fit of a polynomial of ``degree`` over wavelength,
    or over the channel number where the recordings state no wavelengths. Behind
    :class:`.SNVCorrection` with degree 2 it is the treatment of Barnes, Dhanoa and Lister, Appl.
    Spectrosc. 43 (1989). It takes ``degree + 1`` directions away, so :class:`.RXGlobal` behind it
    needs a ``loading``. It is linear, so fits behind it read no pixels.

    Parameters
    ----------
    degree : int
        Degree of the polynomial; 0 subtracts the mean of each spectrum.

    Examples
    --------
    >>> import torch
    >>> line = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    >>> bool(SpectralDetrend()(cube=line, wavelengths=np.arange(4))["cube"].abs().max() < 1e-6)
    True
    """

    def __init__(self, degree: int = 2, name: str | None = None) -> None:
        super().__init__(name, degree=degree)
        if degree < 0:
            raise PipelineError(f"degree {degree} must not be negative.")
        self.degree = int(degree)

    def matrix(self, axis: ChannelAxis) -> NDArray[np.float64]:
        """What is left beside the polynomials."""
        x = np.arange(axis.size, dtype=np.float64) if axis.wavelength is None else axis.wavelength
        points = len(np.unique(x))
        if points < self.degree + 2:
            raise PipelineError(
                f"{self.name}: nothing would be left of {points} channels without a polynomial of"
                f" degree {self.degree}.",
                hint=f"Set degree to {max(points - 2, 0)} or less.",
            )
        scaled = 2 * (x - x.min()) / np.ptp(x) - 1
        basis, _ = qr_triangle(np.polynomial.legendre.legvander(scaled, self.degree))
        return np.eye(axis.size) - basis @ basis.T
