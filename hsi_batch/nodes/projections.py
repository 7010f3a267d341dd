"""Linear projections of spectra."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataError, DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.gaussian import covariance_rank, eigh
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.moments import Moments

__all__ = ["PCA", "TrainablePCA"]


_COMPONENTS = {
    "projected": PortSpec(torch.float32, (-1, -1, -1, "n_components"), "principal components"),
    "explained_variance_ratio": PortSpec(
        torch.float32, ("n_components",), "share of the variance", optional=True
    ),
    "components": PortSpec(
        torch.float32, ("n_components", -1), "eigenvectors as rows", optional=True
    ),
}


class TrainablePCA(Node):
    """Project on the leading eigenvectors of the covariance: ``(x - mean) V^T``.

    Eigenvectors of the sample covariance in float64, by descending eigenvalue; the entry of
    largest magnitude of each is positive. With ``whiten`` each output is divided by
    ``sqrt(eigenvalue + eps)``. ``explained_variance_ratio`` is relative to the variance of all
    channels, as in scikit-learn; it is NaN where files do not tell that variance.

    Parameters
    ----------
    num_channels : int, optional
        Channels of the input; taken from the data if not given.
    n_components : int
        Outputs.
    whiten : bool
        Scale outputs to unit variance.
    init_method : str
        Kept for pipelines that name it; the fit is always exact.
    eps : float
        Added to the eigenvalues when whitening.
    input_dim : int, optional
        Another name of ``num_channels``.

    Examples
    --------
    >>> pixels = np.array([[0, 0], [3, 4], [6, 8]], dtype=np.float32)
    >>> node = TrainablePCA(2, 1)
    >>> node.fit(Moments.empty(2, "float32").update(pixels))
    >>> node.components.numpy().round(3)
    array([[0.6, 0.8]], dtype=float32)
    >>> node(data=torch.from_numpy(pixels)[None, None])["projected"].ravel()
    tensor([-5.,  0.,  5.])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "cube")}
    OUTPUT_SPECS = _COMPONENTS
    AFFINE = ("data", "projected")
    TRAINABLE_BUFFERS = ("_components",)
    PARAMETER_PORTS = {
        "components": "_components",
        "explained_variance_ratio": "_explained_variance_ratio",
    }
    CHANNEL_ARGUMENT = "num_channels"
    _mean: Tensor
    _components: Tensor
    _explained_variance: Tensor

    def __init__(
        self,
        num_channels: int | None = None,
        n_components: int = 3,
        whiten: bool = False,
        init_method: str = "svd",
        eps: float = 1e-6,
        input_dim: int | None = None,
        name: str | None = None,
    ) -> None:
        num_channels = input_dim if num_channels is None else num_channels
        super().__init__(
            name,
            num_channels=num_channels,
            n_components=n_components,
            whiten=whiten,
            init_method=init_method,
            eps=eps,
        )
        need_non_negative(eps=eps)
        if n_components < 1:
            raise PipelineError(f"n_components {n_components} must be at least 1.")
        self.num_channels = num_channels
        self.n_components = int(n_components)
        self.whiten = bool(whiten)
        self.eps = float(eps)
        size = num_channels or 0
        self.register_buffer("_mean", torch.zeros(size))
        self.register_buffer("_explained_variance", torch.zeros(n_components))
        self.register_buffer("_components", torch.zeros(n_components, size))

    @property
    def explained_variance(self) -> Tensor:
        """Eigenvalues of the components, ``(n_components,)`` float32."""
        return self._explained_variance

    @property
    def _explained_variance_ratio(self) -> Tensor:
        total = float(self.state.get("total_variance", np.nan))
        return self._explained_variance / total if total != 0 else self._explained_variance

    @property
    def mixes_channels(self) -> bool:
        """Components mix channels."""
        return True

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """``n_components`` channels without wavelengths."""
        return _component_axis(self.name, self.n_components, axes)

    def request(self) -> Request:
        """Moments of the data."""
        return Request("data", "moments")

    def fit(self, statistic: Moments) -> None:
        """Diagonalise the covariance."""
        values, vectors = eigh(statistic.covariance())
        rank = covariance_rank(values)
        values = np.clip(values, 0.0, None)
        kept, components = values[: self.n_components], vectors[: self.n_components]
        if rank < self.n_components:
            self._judge_rank(rank, statistic)
        self.set_state(
            {
                "count": np.array(statistic.count),
                "mean": statistic.mean,
                "components": components,
                "explained_variance": kept,
                "total_variance": np.array(values.sum()),
            },
            _mean=statistic.mean,
            _components=components,
            _explained_variance=kept,
        )

    def _judge_rank(self, rank: int, statistic: Moments) -> None:
        text = (
            f"{self.name}: {self.n_components} components are asked for, but the"
            f" {statistic.channels} channels vary in {rank} directions only (over"
            f" {statistic.count} pixels); the other components are arbitrary"
        )
        advice = f"Set n_components to {max(rank, 1)} or less, or select more pixels."
        if self.whiten and self.eps == 0:
            raise DataError(f"{text}, and whitening divides by their spread.", hint=advice)
        warnings.warn(f"{text}. {advice}", DataWarning, stacklevel=3)

    def affine(self) -> Affine:
        """The projection."""
        self._need_fit()
        state = self.exact_state()
        if state is not None:
            mean, components = state["mean"], state["components"]
            variance = state["explained_variance"]
        else:
            tensors = (self._mean, self._components, self._explained_variance)
            mean, components, variance = (t.detach().double().cpu().numpy() for t in tensors)
        if self.whiten:
            components = components / np.sqrt(variance + self.eps)[:, None]
        return Affine(components, -components @ mean)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Project ``data`` (B, y, x, C)."""
        self._need_fit()
        projected = (data - self._mean) @ self._components.T
        if self.whiten:
            projected = projected / torch.sqrt(self._explained_variance + self.eps)
        return {
            "projected": projected,
            "explained_variance_ratio": self._explained_variance_ratio,
            "components": self._components,
        }


class PCA(Node):
    """Project every frame on the principal components of its own pixels.

    As :class:`TrainablePCA`, from the mean and covariance of the one frame; nothing is fitted
    beforehand. Components of different frames do not mean the same.

    Parameters
    ----------
    n_components : int
        Outputs.
    eps : float
        Kept for pipelines that name it; it does nothing.

    Examples
    --------
    >>> line = torch.tensor([[[[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]]])
    >>> PCA(1)(data=line)["projected"].ravel()
    tensor([-5.,  0.,  5.])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    OUTPUT_SPECS = _COMPONENTS
    AFFINE = ("data", "projected")

    def __init__(self, n_components: int, eps: float = 1e-6, name: str | None = None) -> None:
        super().__init__(name, n_components=n_components, eps=eps)
        if n_components < 1:
            raise PipelineError(f"n_components {n_components} must be at least 1.")
        self.n_components = int(n_components)

    @property
    def scope(self) -> Scope:
        """A frame at once."""
        return Scope.FRAME

    @property
    def mixes_channels(self) -> bool:
        """Components mix channels."""
        return True

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """``n_components`` channels without wavelengths."""
        return _component_axis(self.name, self.n_components, axes)

    def request(self) -> Request:
        """Moments of the frame."""
        return Request("data", "moments")

    def frame_fit(self, statistic: Moments) -> TrainablePCA:
        """The projection of this frame."""
        node = TrainablePCA(statistic.channels, self.n_components, name=self.name)
        node.axes = dict(self.axes)
        node.fit(statistic)
        return node

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Project each image of ``data`` (B, y, x, C); the other outputs are of the last one."""
        outputs: list[dict[str, Tensor]] = []
        for image in data:
            pixels = image.detach().reshape(-1, image.shape[-1]).cpu().numpy()
            pixels = pixels[np.isfinite(pixels).all(axis=1)]
            moments = FloatMoments.zero(pixels.shape[1]).update(pixels)
            outputs.append(self.frame_fit(moments).to(data.device)(data=image[None]))
        return {**outputs[-1], "projected": torch.cat([out["projected"] for out in outputs])}


def _component_axis(
    name: str, count: int, axes: Mapping[str, ChannelAxis]
) -> dict[str, ChannelAxis]:
    if count > axes["data"].size:
        raise PipelineError(
            f"{name}: n_components {count} is more than the {axes['data'].size} channels of its"
            " input.",
            hint="Lower it.",
        )
    return {"projected": ChannelAxis(count)}
