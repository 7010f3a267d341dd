"""Resampling spectra to the channels of another sensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Scope
from hsi_batch.nodes.spectral_map import SpectralMap
from hsi_batch.nodes.wavelengths import known_wavelengths

__all__ = ["SpectralResample"]

#: Standard deviations of a Gaussian in its full width at half maximum.
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
#: Shares of a channel in another from which on they count: rounding is larger.
_NOTHING = 1e-18
#: Part of a width by which a response may reach beyond the data: rounding.
_SLACK = 1e-6


class SpectralResample(SpectralMap):
    """What a sensor with other channels would have measured.

    ``y_k = sum_c w_kc x_c / sum_c w_kc``, with ``w_kc`` the integral of the Gaussian response of
    channel ``k`` (centre ``wavelengths[k]``, full width at half maximum ``fwhm[k]``) over the share
    of the spectrum that the input channel ``c`` stands for: half-way to its neighbours on either
    side. So uneven channels are weighted by their width, and a response narrower than they are
    takes the nearest one. It is a rectangular linear map, so fits behind it read no pixels.

    Where the recordings know the wavelengths of every column (``convert --wavelength-map``: smile),
    each column has weights of its own. The map is then not one for all pixels, so a fit behind it
    takes a pass.

    The wavelengths of the input come with the data; the input ``wavelengths`` is needed only where
    the node runs on its own.

    Parameters
    ----------
    wavelengths : sequence of float
        Centres of the new channels, nm, in any order.
    fwhm : float or sequence of float, optional
        Full width at half maximum, nm, one for all or one per channel; by default the distance of
        the new channels from their neighbours (the mean of both sides).

    Raises
    ------
    hsi_batch.errors.PipelineError
        The input states no wavelengths, a response reaches beyond the input at half maximum, or
        lies in a gap of it.

    Examples
    --------
    >>> import torch
    >>> node = SpectralResample([450.0], fwhm=20)
    >>> cube = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> node(cube=cube, wavelengths=np.array([440, 450, 460]))["cube"]
    tensor([[[[2.]]]])
    """

    def __init__(
        self,
        wavelengths: Sequence[float],
        fwhm: float | Sequence[float] | None = None,
        name: str | None = None,
    ) -> None:
        centres = np.array([float(w) for w in wavelengths])
        one_width = fwhm is None or isinstance(fwhm, (int, float))
        kept = fwhm if one_width else [float(w) for w in fwhm]  # type: ignore[union-attr]
        super().__init__(name, wavelengths=centres.tolist(), fwhm=kept)
        if not centres.size or not np.isfinite(centres).all():
            raise PipelineError("wavelengths must be at least one number, in nm.")
        if np.unique(centres).size < centres.size:
            raise PipelineError("wavelengths must be different from each other.")
        self.centres = centres
        self.widths = _spacing(centres) if kept is None else np.asarray(kept, dtype=np.float64)
        if self.widths.ndim and self.widths.size != centres.size:
            raise PipelineError(
                f"fwhm has {self.widths.size} values for {centres.size} wavelengths; give one, or"
                " one for each."
            )
        self.widths = np.broadcast_to(self.widths, centres.shape)
        self._held: tuple[NDArray[np.float64], Tensor, Tensor] | None = None
        if not (np.isfinite(self.widths).all() and (self.widths > 0).all()):
            raise PipelineError("fwhm must be above 0 nm.")

    def matrix(self, axis: ChannelAxis) -> NDArray[np.float64]:
        """The weights, each row of sum 1."""
        given = known_wavelengths(axis, self.name)
        order = np.argsort(given, kind="stable")
        places = given[order]
        if places[0] == places[-1]:
            raise PipelineError(
                f"{self.name}: channels at one wavelength ({places[0]:g} nm) cannot be resampled.",
                hint="Leave all but one of them out.",
            )
        middles = (places[:-1] + places[1:]) / 2
        edges = np.concatenate(
            [[2 * places[0] - middles[0]], middles, [2 * places[-1] - middles[-1]]]
        )
        self._check(places, edges)
        sigma = self.widths / _FWHM
        below: NDArray[np.float64] = ndtr((edges - self.centres[:, None]) / sigma[:, None])
        weights = np.zeros((self.centres.size, given.size))
        weights[:, order] = np.diff(below, axis=1)
        normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return normalised

    def _check(self, places: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
        reach = self.widths * (0.5 - _SLACK)
        beyond = (self.centres - reach < edges[0]) | (self.centres + reach > edges[-1])
        if beyond.any():
            raise PipelineError(
                f"{self.name}: the new channels {_listed(self.centres[beyond])} nm reach, at half"
                f" maximum, beyond the data, which cover {edges[0]:g}..{edges[-1]:g} nm.",
                hint="Leave them out of `wavelengths`, or give a smaller `fwhm`.",
            )
        distance = np.abs(self.centres[:, None] - places).min(axis=1)
        gaps = distance > self.widths / 2 + np.median(np.diff(places))
        if gaps.any():
            raise PipelineError(
                f"{self.name}: the new channels {_listed(self.centres[gaps])} nm lie in a gap of"
                f" the data, {distance[gaps].max():g} nm from the nearest channel.",
                hint="Leave them out of `wavelengths`, or keep the channels that are missing.",
            )

    @property
    def by_column(self) -> bool:
        """Where the wavelengths of columns are known."""
        return self._columns() is not None

    @property
    def width(self) -> int:
        """Columns whose wavelengths are known."""
        columns = self._columns()
        return 0 if columns is None else len(columns)

    @property
    def scope(self) -> Scope:
        """A pixel; whole lines where the wavelengths of columns are known."""
        return Scope.PIXEL if self._columns() is None else Scope.WINDOW

    def _columns(self) -> NDArray[np.float64] | None:
        axis = self.axes.get("cube")
        return None if axis is None else axis.columns

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Map ``cube`` (B, y, x, C) to (B, y, x, m), in float64, rounded once."""
        columns = self._columns()
        if columns is None or columns.shape[1] != cube.shape[-1]:
            return super().forward(cube, wavelengths)
        if len(columns) != cube.shape[2]:
            raise PipelineError(
                f"{self.name}: lines of {cube.shape[2]} columns came, with wavelengths of"
                f" {len(columns)}.",
                hint="Do not thin out or turn cubes before it.",
            )
        first, weights = self._bands_of(columns)
        out = torch.zeros((*cube.shape[:3], len(self.centres)), dtype=torch.float64)
        for step in range(weights.shape[2]):
            picked = (first + step).expand(*cube.shape[:2], -1, -1)
            out += torch.gather(cube, 3, picked).double() * weights[..., step]
        return {"cube": out.to(torch.float32)}

    def _bands_of(self, columns: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """First channel ``(x, m)`` and weights ``(x, m, k)`` of the channels that count."""
        if self._held is None or self._held[0] is not columns:
            matrices = [self.matrix(ChannelAxis.of(nm)) for nm in columns]
            found = np.stack([m > _NOTHING for m in matrices])
            first = found.argmax(axis=2)
            last = found.shape[2] - found[..., ::-1].argmax(axis=2)
            span = int((last - first).max())
            first = np.minimum(first, found.shape[2] - span)
            picked = first[..., None] + np.arange(span)
            weights = np.take_along_axis(np.stack(matrices), picked, axis=2)
            self._held = (columns, torch.from_numpy(first), torch.from_numpy(weights))
        return self._held[1], self._held[2]

    def mapped_axis(self, axis: ChannelAxis) -> ChannelAxis:  # noqa: ARG002
        """The new channels."""
        return ChannelAxis.of(self.centres)


def _spacing(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance of each place from its neighbours."""
    if centres.size < 2:
        raise PipelineError("fwhm is needed where there is one wavelength only.")
    order = np.argsort(centres)
    spacing = np.empty(centres.size)
    spacing[order] = np.gradient(centres[order])
    return spacing


def _listed(values: NDArray[np.float64]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:6])
    return f"{shown} and {values.size - 6} more" if values.size > 6 else shown
