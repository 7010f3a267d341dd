"""Mixing channels into few by a small network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.gaussian import eigh
from hsi_batch.nodes.metrics import Context
from hsi_batch.nodes.node import Request, Scope, Stage, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.sized import SizedNode, need_channels, seeded
from hsi_batch.statistics.moments import Moments

__all__ = ["LearnableChannelMixer"]

_NORMALIZATIONS = ("batchnorm_sigmoid", "per_frame_minmax", "sigmoid_only", "none")
_METHODS = ("xavier", "kaiming", "pca", "zeros")


class LearnableChannelMixer(SizedNode):
    """Mix channels into few with a stack of 1 x 1 convolutions, to be trained.

    ``rgb = normalise(conv_n(... leaky(conv_1(x))))``. A leaky ReLU follows every layer but the
    last (the last one too without ``normalize_output``). In training, validation and test the
    result goes through batch normalisation and a sigmoid, in inference through
    ``inference_normalization``. Zeegers et al., Task-driven learned hyperspectral data reduction
    using end-to-end supervised deep learning, Journal of Imaging 6 (2020).

    Parameters
    ----------
    input_channels : int, optional
        Channels of the input; taken from the data if not given.
    output_channels : int
        Outputs.
    leaky_relu_negative_slope : float
        Slope below 0.
    use_bias, use_activation : bool
        Whether there are biases, and activations.
    normalize_output : bool
        Whether the result is normalised.
    inference_normalization : str
        ``batchnorm_sigmoid``, ``per_frame_minmax`` (each frame and channel to [0, 1], which takes
        frames whole), ``sigmoid_only`` or ``none``.
    init_method : {"xavier", "kaiming", "pca", "zeros"}
        Weights at the start; ``pca`` is fitted: the first layer gets the leading eigenvectors of
        the covariance, the entry of largest magnitude of each positive. Biases are 0.
    eps : float
        Smallest range that is divided by.
    reduction_scheme : sequence of int, optional
        Channels between the layers, from ``input_channels`` to ``output_channels``; one layer by
        default.
    seed : int, optional
        Seed of the weights; by default they follow the state of torch's generator.

    Examples
    --------
    >>> node = LearnableChannelMixer(4, 3, seed=0)
    >>> node.eval()(data=torch.rand(1, 2, 2, 4))["rgb"].shape
    torch.Size([1, 2, 2, 3])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "input_channels"), "cube")}
    OUTPUT_SPECS = {
        "rgb": PortSpec(torch.float32, (-1, -1, -1, "output_channels"), "mixed channels"),
        "weights": PortSpec(
            torch.float32, ("output_channels", -1), "weights of the last layer", optional=True
        ),
    }
    PARAMETER_PORTS = {"weights": "last_weights"}
    CHANNEL_ARGUMENT = "input_channels"
    convs: nn.ModuleList

    def __init__(
        self,
        input_channels: int | None = None,
        output_channels: int = 3,
        leaky_relu_negative_slope: float = 0.01,
        use_bias: bool = True,
        use_activation: bool = True,
        normalize_output: bool = True,
        inference_normalization: Literal[
            "batchnorm_sigmoid", "per_frame_minmax", "sigmoid_only", "none"
        ] = "batchnorm_sigmoid",
        init_method: Literal["xavier", "kaiming", "pca", "zeros"] = "xavier",
        eps: float = 1e-6,
        reduction_scheme: Sequence[int] | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            input_channels=input_channels,
            output_channels=output_channels,
            leaky_relu_negative_slope=leaky_relu_negative_slope,
            use_bias=use_bias,
            use_activation=use_activation,
            normalize_output=normalize_output,
            inference_normalization=inference_normalization,
            init_method=init_method,
            eps=eps,
            reduction_scheme=reduction_scheme,
            seed=seed,
        )
        need_non_negative(eps=eps)
        if inference_normalization not in _NORMALIZATIONS:
            raise PipelineError(
                f"inference_normalization {inference_normalization!r} is not one of"
                f" {', '.join(_NORMALIZATIONS)}."
            )
        if init_method not in _METHODS:
            raise PipelineError(f"init_method {init_method!r} is not one of {', '.join(_METHODS)}.")
        scheme = [input_channels or 0, output_channels]
        if reduction_scheme is not None:
            scheme = [int(size) for size in reduction_scheme]
        if len(scheme) < 2 or scheme[-1] != output_channels or min(scheme[1:]) < 1:
            raise PipelineError(
                f"reduction_scheme {scheme} must hold two sizes or more and end with"
                f" output_channels {output_channels}."
            )
        if input_channels is not None and scheme[0] != input_channels:
            raise PipelineError(
                f"reduction_scheme {scheme} must begin with input_channels {input_channels}.",
                hint="Begin it with the number of channels, or leave it out.",
            )
        self.input_channels = input_channels
        self.output_channels = int(output_channels)
        self.slope = float(leaky_relu_negative_slope)
        self.use_bias = bool(use_bias)
        self.use_activation = bool(use_activation)
        self.normalize_output = bool(normalize_output)
        self.inference_normalization = inference_normalization
        self.init_method = init_method
        self.eps = float(eps)
        self.seed = seed
        self._scheme = scheme
        self.draw(input_channels or 0)

    def _draw(self, channels: int) -> None:
        sizes = [channels, *self._scheme[1:]]
        with seeded(self.seed if channels else 0):
            self.convs = nn.ModuleList(
                nn.Conv2d(max(a, 1), b, kernel_size=1, bias=self.use_bias)
                for a, b in pairwise(sizes)
            )
            if self.normalize_output:
                self.output_bn = nn.BatchNorm2d(self.output_channels)
            for conv in self.convs:
                assert isinstance(conv, nn.Conv2d)
                self._start(conv)
            if channels == 0:
                # Stands for weights that are not drawn yet.
                self.convs[0].weight = nn.Parameter(torch.zeros(sizes[1], 0, 1, 1))

    def _start(self, conv: nn.Conv2d) -> None:
        if self.init_method == "zeros":
            nn.init.zeros_(conv.weight)
        elif self.init_method == "kaiming":
            nn.init.kaiming_uniform_(conv.weight, a=self.slope)
        else:
            nn.init.xavier_uniform_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)

    @property
    def scope(self) -> Scope:
        """A pixel at a time; a frame if inference scales by the range of the frame."""
        by_frame = self.normalize_output and self.inference_normalization == "per_frame_minmax"
        return Scope.FRAME if by_frame else Scope.PIXEL

    @property
    def last_weights(self) -> Tensor:
        """Weights of the last layer, ``(output_channels, k)``."""
        weight: Tensor = self.get_parameter(f"convs.{len(self.convs) - 1}.weight")
        return weight[:, :, 0, 0]

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """``output_channels`` channels without wavelengths."""
        return {"rgb": ChannelAxis(self.output_channels)}

    def request(self) -> Request | None:
        """Moments of the data for ``init_method="pca"``."""
        return Request("data", "moments") if self.init_method == "pca" else None

    def fit(self, statistic: Moments) -> None:
        """Put the leading eigenvectors into the first layer."""
        values, vectors = eigh(statistic.covariance())
        weight = self.get_parameter("convs.0.weight")
        rows = min(len(weight), len(vectors))
        with torch.no_grad():
            weight[:rows, :, 0, 0] = torch.from_numpy(vectors[:rows]).to(weight)
        self.set_state(
            {
                "count": np.array(statistic.count),
                "components": vectors[:rows],
                "explained_variance": values[:rows],
            }
        )

    def forward(self, data: Tensor, context: Context | None = None) -> dict[str, Tensor]:
        """Mix ``data`` (B, y, x, C) into (B, y, x, K)."""
        self._need_fit()
        need_channels(self, data, self.get_parameter("convs.0.weight").shape[1])
        mixed = data.permute(0, 3, 1, 2)
        for index, conv in enumerate(self.convs):
            mixed = conv(mixed)
            last = index == len(self.convs) - 1
            if self.use_activation and not (last and self.normalize_output):
                mixed = nn.functional.leaky_relu(mixed, self.slope)
        if self.normalize_output:
            mixed = self._normalised(mixed, context)
        return {"rgb": mixed.permute(0, 2, 3, 1), "weights": self.last_weights}

    def _normalised(self, mixed: Tensor, context: Context | None) -> Tensor:
        stage = context.stage if context else Stage.TRAIN if self.training else Stage.INFERENCE
        how = self.inference_normalization if stage is Stage.INFERENCE else "batchnorm_sigmoid"
        if how == "batchnorm_sigmoid":
            return torch.sigmoid(self.output_bn(mixed))
        if how == "sigmoid_only":
            return torch.sigmoid(mixed)
        if how == "none":
            return mixed
        known = torch.isfinite(mixed)
        low = torch.where(known, mixed, torch.inf).amin(dim=(2, 3), keepdim=True)
        high = torch.where(known, mixed, -torch.inf).amax(dim=(2, 3), keepdim=True)
        return (mixed - low) / torch.clamp(high - low, min=self.eps)
