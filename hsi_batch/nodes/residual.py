"""Distance from the subspace that holds most of the background."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.gaussian import eigh
from hsi_batch.nodes.node import Node, Quadratic, Request
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.moments import Moments

__all__ = ["PCAResidual"]


class PCAResidual(Node):
    """Score pixels by what the leading principal components do not explain.

    ``score(x) = |(I - V^T V)(x - mean)|^2`` with the ``n_components`` leading eigenvectors ``V`` of
    the covariance of the fit as rows: the squared distance from the background's subspace, in
    squared units of the data. Jackson and Mudholkar, Technometrics 21 (1979).

    Parameters
    ----------
    n_components : int
        Dimension of the subspace.
    num_channels : int, optional
        Channels of the input; taken from the data if not given.

    Examples
    --------
    >>> node = PCAResidual(n_components=1)
    >>> node.fit(Moments.empty(2, "uint8").update(np.array([[0, 1], [2, 1], [4, 1]], np.uint8)))
    >>> node(data=torch.tensor([[[[9.0, 3.0]]]]))["scores"].item()
    4.0
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "cube")}
    OUTPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "squared residual")}
    QUADRATIC = ("data", "scores")
    CHANNEL_ARGUMENT = "num_channels"
    mean: Tensor
    residual: Tensor

    def __init__(
        self, n_components: int = 3, num_channels: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(name, n_components=n_components, num_channels=num_channels)
        if n_components < 1:
            raise PipelineError(f"n_components {n_components} must be at least 1.")
        self.n_components = int(n_components)
        self.num_channels = num_channels
        size = num_channels or 0
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("residual", torch.zeros(max(size - self.n_components, 0), size))

    def request(self) -> Request:
        """Moments of the data."""
        return Request("data", "moments")

    def fit(self, *statistics: Moments) -> None:
        """Take the eigenvectors that span the rest."""
        (moments,) = statistics
        if self.n_components >= moments.channels:
            raise DataError(
                f"{self.name}: n_components {self.n_components} leaves nothing of the"
                f" {moments.channels} channels of its input.",
                hint="Ask for fewer components.",
            )
        _, vectors = eigh(moments.covariance())
        rest = vectors[self.n_components :]
        self.set_state(
            {"count": np.array(moments.count), "mean": moments.mean, "residual": rest},
            mean=moments.mean,
            residual=rest,
        )

    def quadratic(self) -> Quadratic:
        """``|residual (x - mean)|^2``."""
        self._need_fit()
        state = self.exact_state()
        if state is not None:
            mean, rest = state["mean"], state["residual"]
        else:
            mean, rest = (t.detach().double().cpu().numpy() for t in (self.mean, self.residual))
        return Quadratic(rest, -rest @ mean)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Score ``data`` (B, y, x, C)."""
        self._need_fit()
        centred = (data - self.mean).double()
        distance = (centred @ self.residual.double().T).square().sum(dim=-1, keepdim=True)
        return {"scores": distance.to(torch.float32)}
