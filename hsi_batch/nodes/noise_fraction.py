"""The minimum noise fraction transform."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.gaussian import eigh, whitening
from hsi_batch.nodes.node import Node, Request, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.differences import NeighbourDifferences
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.moments import Moments

__all__ = ["MNF"]


class MNF(Node):
    """Project on the directions of most signal per noise: ``(x - mean) V^T``.

    The rows ``v`` of ``V`` solve ``S v = l N v`` for the sample covariance ``S`` of the pixels and
    that of the noise ``N``, by descending ``l``, scaled to ``v^T N v = 1``: in every output the
    noise has variance 1 and all together ``l``, so outputs with ``l`` near 1 hold nothing else. The
    entry of largest magnitude of each row is positive. ``N`` is half the covariance of the
    differences between neighbours in a line, one more statistic of the same pass; the scene should
    change slowly along lines. Green, Berman, Switzer and Craig, IEEE Trans. Geoscience and Remote
    Sensing 26 (1988) 65-74.

    Parameters
    ----------
    num_channels : int, optional
        Channels of the input; taken from the data if not given.
    n_components : int, optional
        Outputs; all by default.
    loading : float
        Ridge of ``N`` relative to its mean variance, for data whose noise misses directions.

    Attributes
    ----------
    _mean, _components, _eigenvalues : torch.Tensor of float32, shapes (C,), (K, C), (K,)
        ``mean``, ``V`` and ``l``.

    Examples
    --------
    >>> [str(request.kind) for request in MNF(n_components=2).requests()]
    ['moments', 'neighbour differences']
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "cube")}
    OUTPUT_SPECS = {
        "projected": PortSpec(torch.float32, (-1, -1, -1, "n_components"), "components"),
        "eigenvalues": PortSpec(torch.float32, (-1,), "variance over noise", optional=True),
        "components": PortSpec(torch.float32, (-1, -1), "projections as rows", optional=True),
    }
    AFFINE = ("data", "projected")
    PARAMETER_PORTS = {"components": "_components", "eigenvalues": "_eigenvalues"}
    CHANNEL_ARGUMENT = "num_channels"
    _mean: Tensor
    _components: Tensor
    _eigenvalues: Tensor

    def __init__(
        self,
        num_channels: int | None = None,
        n_components: int | None = None,
        loading: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name, num_channels=num_channels, n_components=n_components, loading=loading
        )
        need_non_negative(loading=loading)
        if n_components is not None and n_components < 1:
            raise PipelineError(f"n_components {n_components} must be at least 1.")
        self.num_channels = num_channels
        self.n_components = n_components
        self.loading = float(loading)
        size = num_channels or 0
        self.register_buffer("_mean", torch.zeros(size))
        self.register_buffer("_components", torch.zeros(n_components or size, size))
        self.register_buffer("_eigenvalues", torch.zeros(n_components or size))

    @property
    def mixes_channels(self) -> bool:
        """Components mix channels."""
        return True

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """``n_components`` channels without wavelengths."""
        size = axes["data"].size
        if self.n_components is not None and self.n_components > size:
            raise PipelineError(
                f"{self.name}: n_components {self.n_components} is more than the {size} channels of"
                " its input.",
                hint="Lower it.",
            )
        return {"projected": ChannelAxis(self.n_components or size)}

    def requests(self) -> tuple[Request, ...]:
        """Moments of the data, and of the differences between neighbours."""
        return (Request("data", "moments"), Request("data", NeighbourDifferences()))

    def fit(self, statistic: Moments, differences: FloatMoments) -> None:
        """Solve the generalised eigenproblem, in the space where the noise is white."""
        channels = statistic.channels
        if differences.count < 2:
            raise DataError(
                f"{self.name}: {differences.count} pixels have a valid neighbour in their line, so"
                " there are no differences to take the noise from.",
                hint="Select recordings with lines of more than one valid pixel.",
            )
        noise = differences.covariance() / 2.0
        noise[np.diag_indices(channels)] += self.loading * np.trace(noise) / channels
        factor = whitening(noise)
        if factor is None or differences.count <= channels:
            raise DataError(
                f"{self.name}: the noise covariance of {channels} channels from"
                f" {differences.count} differences between neighbours cannot be inverted.",
                hint="Select more pixels, remove channels (BandpassByWavelength), or set `loading`"
                " (for example 1e-6).",
            )
        values, vectors = eigh(factor @ statistic.covariance() @ factor.T)
        components = (vectors @ factor)[: self.n_components]
        largest = np.argmax(np.abs(components), axis=1)
        components *= np.sign(components[np.arange(len(components)), largest])[:, None]
        kept = values[: self.n_components]
        self.set_state(
            {
                "count": np.array(statistic.count),
                "mean": statistic.mean,
                "noise": noise,
                "components": components,
                "eigenvalues": kept,
            },
            _mean=statistic.mean,
            _components=components,
            _eigenvalues=kept,
        )

    def affine(self) -> Affine:
        """The projection."""
        self._need_fit()
        state = self.exact_state()
        if state is not None:
            mean, components = state["mean"], state["components"]
        else:
            tensors = (self._mean, self._components)
            mean, components = (t.detach().double().cpu().numpy() for t in tensors)
        return Affine(components, -components @ mean)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Project ``data`` (B, y, x, C)."""
        self._need_fit()
        return {
            "projected": (data - self._mean) @ self._components.T,
            "eigenvalues": self._eigenvalues,
            "components": self._components,
        }
