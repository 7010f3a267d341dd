"""The Laplacian anomaly detector."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataWarning
from hsi_batch.nodes.gaussian import square_root
from hsi_batch.nodes.node import Node, Quadratic, Request, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.moments import Moments

__all__ = ["LADGlobal"]

#: Added to denominators, as cuvis-ai does.
_TINY = 1e-12
#: Pixels scored at once by ``forward``.
_GROUP = 65536


class LADGlobal(Node):
    """Score pixels by the Laplacian of a graph of channels: ``(x - M)^T L (x - M)``.

    ``M`` is the mean of all valid pixels and ``a`` the mean of ``M`` over channels. Channels are
    the vertices, joined with the weights ``A_ij = 1 / (1 + (|M_i - M_j| / (a + 1e-12))^2)``
    (Cauchy), ``A_ii = 0``; ``L = D - A`` with ``D`` the diagonal matrix of the row sums ``d``.
    Normalised, ``L`` is ``S L S`` with ``S = diag(1 / (sqrt(d) + 1e-12))``. After Verdoja and
    Grangetto, Graph Laplacian for image anomaly detection, Machine Vision and Applications 31
    (2020), with the spectral graph built from the means alone.

    The weights compare differences with ``a``, so the input must not be centred.

    Parameters
    ----------
    num_channels : int, optional
        Channels of the input; taken from the data if not given.
    eps : float
        Kept for pipelines that name it; it does nothing.
    normalize_laplacian : bool
        Use the symmetrically normalised Laplacian.
    use_numpy_laplacian : bool
        False puts the constant of ``S`` below the root, ``1 / sqrt(d + 1e-12)``.

    Attributes
    ----------
    M, L : torch.Tensor of float64, shapes (C,), (C, C)
        Mean and Laplacian; if one is assigned, both are used as they are.

    Examples
    --------
    >>> node = LADGlobal(2)
    >>> node.fit(Moments.empty(2, "float64").update(np.array([[1.0, 1.0], [3.0, 3.0]])))
    >>> node(data=torch.tensor([[[[2.0, 2.0], [3.0, 2.0]]]]))["scores"].ravel()
    tensor([0., 1.])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "cube")}
    OUTPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "Laplacian score")}
    QUADRATIC = ("data", "scores")
    TRAINABLE_BUFFERS = ("M", "L")
    CHANNEL_ARGUMENT = "num_channels"
    M: Tensor
    L: Tensor

    def __init__(
        self,
        num_channels: int | None = None,
        eps: float = 1e-8,
        normalize_laplacian: bool = True,
        use_numpy_laplacian: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            num_channels=num_channels,
            eps=eps,
            normalize_laplacian=normalize_laplacian,
            use_numpy_laplacian=use_numpy_laplacian,
        )
        need_non_negative(eps=eps)
        self.num_channels = num_channels
        self.normalize_laplacian = bool(normalize_laplacian)
        self.use_numpy_laplacian = bool(use_numpy_laplacian)
        size = num_channels or 0
        self.register_buffer("M", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("L", torch.zeros(size, size, dtype=torch.float64))

    def request(self) -> Request:
        """Moments of the data, for their mean."""
        return Request("data", "moments")

    def fit(self, statistic: Moments) -> None:
        """Build the graph from the mean spectrum."""
        mean = statistic.mean
        average = abs(float(mean.mean()))
        spread = float(np.sqrt(statistic.variance(ddof=0).mean()))
        if average < 1e-3 * max(spread, float(np.ptp(mean))):
            warnings.warn(
                f"{self.name}: the means of the channels average to {average:.3g}, almost nothing"
                f" against the spread {spread:.3g} of the values, so its graph means nothing. Put"
                " LADGlobal in front of nodes that centre (ZScoreNormalizerGlobal, TrainablePCA).",
                DataWarning,
                stacklevel=2,
            )
        laplacian = self._laplacian(mean)
        self.set_state(
            {
                "count": np.array(statistic.count),
                "mean": mean,
                "laplacian": laplacian,
                "factor": square_root(laplacian),
            },
            M=mean,
            L=laplacian,
        )

    def _laplacian(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = np.abs(mean[:, None] - mean[None, :]) / (mean.mean() + _TINY)
        weights = 1.0 / (1.0 + apart**2)
        np.fill_diagonal(weights, 0.0)
        degree = weights.sum(axis=1)
        laplacian: NDArray[np.float64] = np.diag(degree) - weights
        if self.normalize_laplacian:
            root = np.sqrt(degree) + _TINY if self.use_numpy_laplacian else np.sqrt(degree + _TINY)
            laplacian /= root[:, None] * root[None, :]
        return laplacian

    def quadratic(self) -> Quadratic:
        """``|factor (x - M)|^2`` with ``factor^T factor = L``."""
        self._need_fit()
        state = self.exact_state()
        if state is not None:
            mean, factor = state["mean"], state["factor"]
        else:
            mean = self.M.detach().double().cpu().numpy()
            factor = square_root(self.L.detach().double().cpu().numpy())
        return Quadratic(factor, -factor @ mean)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Score ``data`` (B, y, x, C) in float64, rounded to float32 (B, y, x, 1)."""
        self._need_fit()
        scores = []
        for group in torch.split(data.reshape(-1, data.shape[-1]), _GROUP):
            centred = group.double() - self.M.double()
            scores.append(((centred @ self.L.double()) * centred).sum(dim=-1))
        return {"scores": torch.cat(scores).to(torch.float32).reshape(*data.shape[:-1], 1)}
