"""Deep support vector data description: a network, the centre of its outputs, and the distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.metrics import Context, Metric
from hsi_batch.nodes.node import Node, Request, Scope, Stage
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.sized import SizedNode, need_channels, seeded
from hsi_batch.statistics.moments import Moments

__all__ = ["DeepSVDDCenterTracker", "DeepSVDDProjection", "DeepSVDDScores"]

_EMBEDDINGS = PortSpec(torch.float32, (-1, -1, -1, -1), "embedding of each pixel")
#: Pixels of an image that go through the network at once; fixed, so that bits do not depend on
#: how many images there are.
_GROUP = 1024


class _Perceptron(nn.Module):
    """One hidden layer; none of the output has a bias, so it cannot shrink to a constant."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        # A layer without inputs stands for weights that are not drawn yet; torch warns about one.
        self.fc1 = nn.Linear(max(inputs, 1), hidden, bias=True)
        self.fc2 = nn.Linear(hidden, outputs, bias=False)
        if inputs == 0:
            self.fc1.weight = nn.Parameter(torch.zeros(hidden, 0))
            return
        nn.init.kaiming_uniform_(self.fc1.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(inputs)
        nn.init.uniform_(self.fc1.bias, -bound, bound)
        nn.init.xavier_uniform_(self.fc2.weight)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return result


class _FourierFeatures(nn.Module):
    """``sqrt(2 / D) cos(x W + b)``: inner products approximate ``exp(-gamma |x - y|^2)``."""

    W: Tensor
    b: Tensor
    z_scale: Tensor

    def __init__(self, inputs: int, features: int, gamma: float) -> None:
        super().__init__()
        self.register_buffer("W", torch.randn(inputs, features) * math.sqrt(2.0 * gamma))
        self.register_buffer("b", torch.rand(features) * (2.0 * math.pi))
        self.register_buffer("z_scale", torch.tensor(math.sqrt(2.0 / features)))

    def forward(self, x: Tensor) -> Tensor:
        return self.z_scale * torch.cos(x @ self.W + self.b)


class DeepSVDDProjection(SizedNode):
    """Embed every spectrum with a small network: ``fc2(relu(fc1(x)))``.

    With ``kernel="rbf"`` the network acts on random Fourier features of the spectrum,
    ``sqrt(2 / D) cos(x W + b)`` with ``W ~ N(0, 2 gamma)`` and ``b ~ U(0, 2 pi)``. Weights are
    random until they are trained; nothing is fitted. Float32. Ruff et al., Deep One-Class
    Classification, ICML 2018; Rahimi and Recht, Random Features for Large-Scale Kernel Machines,
    NIPS 2007.

    Parameters
    ----------
    in_channels : int, optional
        Channels of the input; taken from the data if not given.
    rep_dim : int
        Size of an embedding.
    hidden : int
        Size of the hidden layer.
    kernel : {"linear", "rbf"}
        Spectra as they are, or their random Fourier features.
    n_rff : int
        Number of random Fourier features.
    gamma : float, optional
        Width of the kernel ``exp(-gamma |x - y|^2)``; ``1 / in_channels`` by default.
    mlp_forward_batch_size : int
        Most pixels that go through the network at once.
    seed : int, optional
        Seed of the weights; by default they follow the state of torch's generator, so that two
        runs differ unless it is seeded.

    Examples
    --------
    >>> node = DeepSVDDProjection(in_channels=4, rep_dim=2, seed=0)
    >>> node(data=torch.rand(1, 2, 3, 4))["embeddings"].shape
    torch.Size([1, 2, 3, 2])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "in_channels"), "cube")}
    OUTPUT_SPECS = {"embeddings": PortSpec(torch.float32, (-1, -1, -1, "rep_dim"), "embeddings")}
    CHANNEL_ARGUMENT = "in_channels"
    net: nn.Module

    def __init__(
        self,
        *,
        in_channels: int | None = None,
        rep_dim: int = 32,
        hidden: int = 128,
        kernel: Literal["linear", "rbf"] = "linear",
        n_rff: int = 2048,
        gamma: float | None = None,
        mlp_forward_batch_size: int = 65_536,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            in_channels=in_channels,
            rep_dim=rep_dim,
            hidden=hidden,
            kernel=kernel,
            n_rff=n_rff,
            gamma=gamma,
            mlp_forward_batch_size=mlp_forward_batch_size,
            seed=seed,
        )
        if kernel not in ("linear", "rbf"):
            raise PipelineError(f"kernel {kernel!r} is not one of 'linear', 'rbf'.")
        sizes = {"in_channels": in_channels, "rep_dim": rep_dim, "hidden": hidden, "n_rff": n_rff}
        for argument, value in sizes.items():
            if value is not None and value < 1:
                raise PipelineError(f"{argument} {value} must be at least 1.")
        if gamma is not None and not gamma > 0:
            raise PipelineError(f"gamma {gamma} must be above 0.")
        self.in_channels = in_channels
        self.rep_dim = int(rep_dim)
        self.hidden = int(hidden)
        self.kernel = kernel
        self.n_rff = int(n_rff)
        self.gamma = gamma
        self.seed = seed
        self.group = min(_GROUP, max(1, int(mlp_forward_batch_size)))
        self.draw(in_channels or 0)

    def _draw(self, channels: int) -> None:
        with seeded(self.seed if channels else 0):
            if self.kernel == "linear":
                self.net = _Perceptron(channels, self.hidden, self.rep_dim)
            else:
                gamma = 1.0 / max(channels, 1) if self.gamma is None else float(self.gamma)
                features = _FourierFeatures(channels, self.n_rff, gamma)
                head = _Perceptron(self.n_rff, self.hidden, self.rep_dim)
                self.net = nn.Sequential(features, head)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """``rep_dim`` channels without wavelengths."""
        return {"embeddings": ChannelAxis(self.rep_dim)}

    def _inputs(self) -> int:
        if self.kernel == "rbf":
            return len(self.get_buffer("net.0.W"))
        return int(self.get_parameter("net.fc1.weight").shape[1])

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Embed ``data`` (B, y, x, C) as (B, y, x, rep_dim)."""
        need_channels(self, data, self._inputs())
        network: Callable[[Tensor], Tensor] = self.net
        images = [
            torch.cat([network(group) for group in torch.split(image, self.group)])
            for image in data.reshape(len(data), -1, data.shape[-1])
        ]
        return {"embeddings": torch.stack(images).reshape(*data.shape[:-1], self.rep_dim)}


class DeepSVDDCenterTracker(Node):
    """Hold the centre of the embeddings: their mean over all pixels of the fit.

    In training the centre follows each batch, ``c <- (1 - alpha) c + alpha mean(batch)``, and the
    output is the centre after that step; that of a frozen node stays. Inference never changes it.

    Parameters
    ----------
    rep_dim : int, optional
        Size of an embedding; taken from the graph if not given.
    alpha : float
        Weight of a batch, above 0 and at most 1.
    update_in_eval : bool
        Follow batches in validation and test, too.

    Examples
    --------
    >>> node = DeepSVDDCenterTracker(rep_dim=2)
    >>> node.fit(Moments.empty(2, "float64").update(np.array([[0.0, 2.0], [2.0, 4.0]])))
    >>> from hsi_batch.nodes.metrics import Context
    >>> node(embeddings=torch.zeros(1, 1, 1, 2), context=Context())["center"]
    tensor([1., 3.])
    """

    INPUT_SPECS = {"embeddings": PortSpec(torch.float32, (-1, -1, -1, "rep_dim"), "embeddings")}
    OUTPUT_SPECS = {
        "center": PortSpec(torch.float32, (-1,), "centre of the embeddings"),
        "metrics": PortSpec(list, (), "length of the centre", optional=True),
    }
    TRAINABLE_BUFFERS = ("_tracked_center",)
    PARAMETER_PORTS = {"center": "_tracked_center"}
    CHANNEL_ARGUMENT = "rep_dim"
    _tracked_center: Tensor

    def __init__(
        self,
        *,
        rep_dim: int | None = None,
        alpha: float = 0.1,
        update_in_eval: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name, rep_dim=rep_dim, alpha=alpha, update_in_eval=update_in_eval)
        if not 0 < alpha <= 1:
            raise PipelineError(f"alpha {alpha} must be above 0 and at most 1.")
        self.rep_dim = rep_dim
        self.alpha = float(alpha)
        self.update_in_eval = bool(update_in_eval)
        self.register_buffer("_tracked_center", torch.zeros(rep_dim or 0))

    @property
    def scope(self) -> Scope:
        """A pixel at a time: it gives nothing per pixel, and its value is the same everywhere."""
        return Scope.PIXEL

    def request(self) -> Request:
        """Moments of the embeddings."""
        return Request("embeddings", "moments")

    def fit(self, statistic: Moments) -> None:
        """Take the mean."""
        mean = statistic.mean
        if not np.isfinite(mean).all():
            raise DataError(
                f"{self.name}: the mean of the embeddings is not finite.",
                hint="Scale the input of the projection (ZScoreNormalizerGlobal).",
            )
        self.set_state({"count": np.array(statistic.count), "mean": mean}, _tracked_center=mean)

    def _follows(self, context: Context | None) -> bool:
        if context is None:
            return False
        evaluated = context.stage in (Stage.VAL, Stage.TEST)
        followed = context.stage is Stage.TRAIN and self.training
        return followed or (self.update_in_eval and evaluated)

    def forward(self, embeddings: Tensor, context: Context | None = None) -> dict[str, Any]:
        """Give the centre (rep_dim,), after following ``embeddings`` (B, y, x, rep_dim)."""
        self._need_fit()
        if self._follows(context):
            pixels = embeddings.detach().reshape(-1, embeddings.shape[-1])
            pixels = pixels[torch.isfinite(pixels).all(dim=-1)]
            if len(pixels):
                mean = pixels.mean(dim=0, dtype=torch.float64)
                with torch.no_grad():
                    moved = self._tracked_center.double().lerp(mean, self.alpha)
                    self._tracked_center.copy_(moved)
        center = self._tracked_center.detach().clone()
        at = context or Context()
        length = float(torch.linalg.vector_norm(center))
        metric = Metric("deepsvdd_center/norm", length, at.stage, at.epoch, at.batch_idx)
        return {"center": center, "metrics": [metric]}


class DeepSVDDScores(Node):
    """Score every embedding by its squared distance from the centre: ``sum_d (z_d - c_d)^2``.

    Examples
    --------
    >>> z = torch.tensor([[[[3.0, 4.0]]]])
    >>> DeepSVDDScores()(embeddings=z, center=torch.zeros(2))["scores"]
    tensor([[[[25.]]]])
    """

    INPUT_SPECS = {
        "embeddings": _EMBEDDINGS,
        "center": PortSpec(torch.float32, (-1,), "centre of the embeddings"),
    }
    OUTPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "squared distance")}

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, embeddings: Tensor, center: Tensor) -> dict[str, Tensor]:
        """Score ``embeddings`` (B, y, x, D) in float64, rounded to float32 (B, y, x, 1)."""
        if center.shape != embeddings.shape[-1:]:
            raise PipelineError(
                f"{self.name}: the centre has shape {tuple(center.shape)}, embeddings have"
                f" {embeddings.shape[-1]} dimensions.",
                hint="Connect what gives as many, or fit again.",
            )
        apart = embeddings.double() - center.double()
        return {"scores": apart.square().sum(dim=-1, keepdim=True).to(torch.float32)}
