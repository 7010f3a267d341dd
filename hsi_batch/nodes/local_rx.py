"""The Reed-Xiaoli detector against the surroundings of each pixel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from torch import Tensor

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.gaussian import covariance_rank, eigh, single_thread
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.moments import Moments

__all__ = ["LocalRX"]


class LocalRX(Node):
    """Score pixels by their squared Mahalanobis distance from the ring around them.

    The background of a pixel are the pixels of a square window of ``outer`` pixels a side, without
    the ``guard`` window in its middle, which keeps a target of that size out of its own background.
    ``score(x) = (x - m)^T K^-1 (x - m)`` with the mean ``m`` of the ring and ::

        K = (1 - shrinkage) S + shrinkage G + loading tr(S) / C I

    where ``S`` is the sample covariance (n - 1) of the ring and ``G`` that of all pixels of the
    fit, which only ``shrinkage`` asks for. At the edges of a frame the ring is the part of it that
    is inside; invalid pixels are left out. Where ``K`` cannot be inverted the score is NaN. Kwon,
    Der and Nasrabadi, Optical Engineering 42 (2003) 3342-3351.

    Parameters
    ----------
    guard, outer : int
        Sides of the windows in pixels, odd. The ring has ``outer^2 - guard^2`` pixels, at a corner
        about a quarter of them; several times as many as channels make ``S`` reliable.
    shrinkage : float
        Weight of the covariance of all pixels, from 0 to 1.
    loading : float
        Ridge relative to the mean variance of the ring.

    Attributes
    ----------
    cov : torch.Tensor of float32, shape (C, C)
        ``G``; empty without ``shrinkage``.

    Examples
    --------
    >>> cube = torch.tensor([1.0, 3.0, 2.0, 5.0, 7.0]).reshape(1, 1, 5, 1)
    >>> LocalRX(guard=1, outer=3)(data=cube)["scores"].ravel()
    tensor([   nan, 4.5000, 2.0000, 0.0200,    nan])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "squared Mahalanobis distance")
    }
    SKIPS_INVALID = True
    cov: Tensor

    def __init__(
        self,
        guard: int = 5,
        outer: int = 21,
        shrinkage: float = 0.0,
        loading: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name, guard=guard, outer=outer, shrinkage=shrinkage, loading=loading)
        for argument, side in (("guard", guard), ("outer", outer)):
            if side < 1 or side % 2 == 0:
                raise PipelineError(
                    f"{argument} {side} is not an odd number of pixels.",
                    hint="Give 3, 5, 7 and so on.",
                )
        if outer <= guard:
            raise PipelineError(f"outer {outer} must be larger than guard {guard}.")
        need_non_negative(loading=loading)
        if not 0 <= shrinkage <= 1:
            raise PipelineError(
                f"shrinkage {shrinkage} is not from 0 to 1.", hint="Give a number in it."
            )
        self.guard = int(guard)
        self.outer = int(outer)
        self.shrinkage = float(shrinkage)
        self.loading = float(loading)
        self.register_buffer("cov", torch.zeros(0, 0))

    @property
    def scope(self) -> Scope:
        """A window."""
        return Scope.WINDOW

    @property
    def halo(self) -> int:
        """Half the outer window."""
        return self.outer // 2

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel; warns if the ring has too few pixels to be inverted."""
        channels = axes["data"].size
        most = self.outer**2 - self.guard**2
        least = (self.outer // 2 + 1) ** 2 - (self.guard // 2 + 1) ** 2
        if self.shrinkage == 0 and self.loading == 0 and least <= channels:
            advice = (
                "Widen `outer`, remove channels (TrainablePCA), or set `shrinkage` (for example"
                " 0.1) or `loading` (for example 1e-3)."
            )
            if most <= channels:
                raise PipelineError(
                    f"{self.name}: a ring of {most} pixels has no invertible covariance of"
                    f" {channels} channels.",
                    hint=advice,
                )
            warnings.warn(
                f"{self.name}: at the corners of a frame {least} pixels of the ring are left for"
                f" {channels} channels; scores there will be NaN. {advice}",
                DataWarning,
                stacklevel=2,
            )
        return {"scores": ChannelAxis(1)}

    def request(self) -> Request | None:
        """Moments of the data, if their covariance is used."""
        return Request("data", "moments") if self.shrinkage > 0 else None

    def fit(self, statistic: Moments) -> None:
        """Take the covariance of all pixels."""
        covariance = statistic.covariance()
        rank = covariance_rank(eigh(covariance)[0])
        if rank < len(covariance) and self.loading == 0:
            warnings.warn(
                f"{self.name}: the covariance of {len(covariance)} channels has rank {rank} (from"
                f" {statistic.count} pixels), so it makes no other one invertible; most scores will"
                " be NaN. Remove channels (BandpassByWavelength, TrainablePCA), or set `loading`"
                " (for example 1e-3).",
                DataWarning,
                stacklevel=2,
            )
        self.set_state(
            {"count": np.array(statistic.count), "covariance": covariance}, cov=covariance
        )

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Score ``data`` (B, y, x, C) in float64, rounded to float32 (B, y, x, 1)."""
        with single_thread():
            return self.forward_lines(0, data.shape[1], data=data)

    def forward_lines(self, start: int, stop: int, **inputs: Any) -> dict[str, Any]:
        """Score some lines; those around them are background."""
        self._need_fit()
        data: Tensor = inputs["data"]
        images = [self._scores(image.detach().cpu().numpy(), start, stop) for image in data]
        scores = torch.from_numpy(np.stack(images)).to(data.device)
        return {"scores": scores[..., None]}

    def _scores(self, lines: NDArray[Any], start: int, stop: int) -> NDArray[np.float32]:
        from hsi_batch.statistics.rings import ring_moments

        shared = self._shared()
        scores = np.full((stop - start, lines.shape[1]), np.nan, dtype=np.float32)
        for ring in ring_moments(lines, self.guard // 2, self.outer // 2, start, stop):
            here = scores[ring.line - start, ring.first : ring.first + len(ring.pixels)]
            self._regularise(ring.covariance, shared)
            for t in np.flatnonzero(np.isfinite(ring.pixels).all(axis=1) & (ring.counts > 1)):
                here[t] = _distance(ring.pixels[t], ring.covariance[t])
        return scores

    def _shared(self) -> NDArray[np.float64] | None:
        if self.shrinkage == 0:
            return None
        state = self.exact_state()
        if state is None:
            return np.asarray(self.cov.detach().double().cpu().numpy())
        return state["covariance"]

    def _regularise(
        self, covariance: NDArray[np.float64], shared: NDArray[np.float64] | None
    ) -> None:
        """Turn ``S`` into ``K``, in place."""
        channels = covariance.shape[1]
        level = np.trace(covariance, axis1=1, axis2=2) / channels
        if shared is not None:
            covariance *= 1 - self.shrinkage
            covariance += self.shrinkage * shared
        if self.loading:
            diagonal = np.arange(channels)
            covariance[:, diagonal, diagonal] += self.loading * level[:, None]


def _distance(pixel: NDArray[np.float64], covariance: NDArray[np.float64]) -> float:
    """Squared Mahalanobis distance, of the lower triangle; NaN if that is singular."""
    # A lower triangle in C order is an upper one to LAPACK: covariance = upper^T upper.
    upper, info = lapack.dpotrf(covariance.T, lower=0, clean=0)
    # What rounding leaves of a singular covariance is no variance.
    least = len(pixel) * np.finfo(np.float64).eps * float(covariance.diagonal().max())
    if info != 0 or not float(upper.diagonal().min()) ** 2 > least:
        return float("nan")
    whitened = blas.dtrsv(upper, pixel, lower=0, trans=1)
    return float(whitened @ whitened)
