"""Choosing few channels by weights that are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.annealed import Annealed
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.metrics import Context
from hsi_batch.nodes.node import Stage, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.sized import SizedNode, need_channels
from hsi_batch.statistics.affine import Affine

__all__ = ["ConcreteBandSelector", "ConcreteChannelMixer"]


class ConcreteChannelMixer(Annealed, SizedNode):
    """Pick one channel per output, by weights that are trained through a relaxation.

    In training each output is a mixture with the weights ``softmax((logits + g) / tau)``, ``g``
    drawn from a Gumbel distribution; the temperature falls from ``tau_start`` to ``tau_end`` over
    the epochs, geometrically. Elsewhere it is the channel of the largest logit, or, without
    ``use_hard_inference``, the mixture at ``tau_end``. Nothing is fitted: before training all
    logits are 0, and each output is the first channel. Abid, Balin and Zou, Concrete Autoencoders,
    ICML 2019.

    Parameters
    ----------
    input_channels : int, optional
        Channels of the input; taken from the data if not given.
    output_channels : int
        Outputs.
    tau_start, tau_end : float
        Temperatures, above 0.
    max_epochs : int
        Epochs over which the temperature falls.
    use_hard_inference : bool
        Pick channels outside of training.
    eps : float
        Added below the logarithms of the Gumbel distribution.

    Examples
    --------
    >>> node = ConcreteChannelMixer(3, 2)
    >>> with torch.no_grad():
    ...     node.logits[:, :] = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    >>> node.eval()(data=torch.tensor([[[[1.0, 2.0, 3.0]]]]))["rgb"].ravel()
    tensor([2., 3.])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "input_channels"), "cube")}
    OUTPUT_SPECS = {
        "rgb": PortSpec(torch.float32, (-1, -1, -1, "output_channels"), "mixed channels"),
        "selection_weights": PortSpec(
            torch.float32, ("output_channels", -1), "weights per output and channel"
        ),
    }
    AFFINE = ("data", "rgb")
    PARAMETER_PORTS = {"selection_weights": "weights_now"}
    CHANNEL_ARGUMENT = "input_channels"
    logits: Tensor

    def __init__(
        self,
        input_channels: int | None = None,
        output_channels: int = 3,
        tau_start: float = 10.0,
        tau_end: float = 0.1,
        max_epochs: int = 20,
        use_hard_inference: bool = True,
        eps: float = 1e-6,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            input_channels=input_channels,
            output_channels=output_channels,
            tau_start=tau_start,
            tau_end=tau_end,
            max_epochs=max_epochs,
            use_hard_inference=use_hard_inference,
            eps=eps,
        )
        need_non_negative(eps=eps)
        if output_channels < 1:
            raise PipelineError(f"output_channels {output_channels} must be at least 1.")
        for argument, value in (("tau_start", tau_start), ("tau_end", tau_end)):
            if not value > 0:
                raise PipelineError(f"{argument} {value} must be above 0.")
        self.input_channels = input_channels
        self.output_channels = int(output_channels)
        self.tau_start = float(tau_start)
        self.tau_end = float(tau_end)
        self.max_epochs = int(max_epochs)
        self.use_hard_inference = bool(use_hard_inference)
        self.eps = float(eps)
        self.epoch = 0
        self.draw(input_channels or 0)

    def _draw(self, channels: int) -> None:
        self.logits = nn.Parameter(torch.zeros(self.output_channels, channels))

    @property
    def mixes_channels(self) -> bool:
        """Whether inference mixes channels, and does not pick them."""
        return not self.use_hard_inference

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """``output_channels`` channels; their wavelengths may change in training."""
        return {"rgb": ChannelAxis(self.output_channels)}

    def begin_epoch(self, epoch: int) -> None:
        """Note the epoch of a training."""
        self.epoch = epoch

    def schedule(self) -> dict[str, float]:
        """The last epoch."""
        return {"epoch": self.epoch}

    def restore_schedule(self, values: Mapping[str, float]) -> None:
        """Take an epoch that was saved."""
        self.epoch = int(values["epoch"])

    def temperature(self, epoch: int | None = None) -> float:
        """Temperature of an epoch, counted from 0; of the last one that was trained by default."""
        epoch = self.epoch if epoch is None else epoch
        if self.max_epochs <= 1:
            return self.tau_end
        done = min(max(epoch, 0), self.max_epochs - 1) / (self.max_epochs - 1)
        return math.exp((1 - done) * math.log(self.tau_start) + done * math.log(self.tau_end))

    def get_selection_weights(self, deterministic: bool = True) -> Tensor:
        """Weights (K, C) without noise: at the middle temperature, or at ``tau_end``."""
        middle = math.sqrt(self.tau_start * self.tau_end)
        return torch.softmax(self.logits / (middle if deterministic else self.tau_end), dim=-1)

    def get_selected_bands(self) -> Tensor:
        """Channel of the largest logit of each output, ``(K,)``; the first of equal ones."""
        # Not torch's argmax, which may take any of equal ones.
        largest = self.logits.detach() == self.logits.detach().amax(dim=-1, keepdim=True)
        return largest.to(torch.int8).sort(dim=-1, descending=True, stable=True).indices[:, 0]

    @property
    def weights_now(self) -> Tensor:
        """Weights (K, C) of inference."""
        if self.use_hard_inference:
            picked = nn.functional.one_hot(self.get_selected_bands(), self.logits.shape[1])
            return picked.to(self.logits.dtype)
        return torch.softmax(self.logits / self.tau_end, dim=-1)

    def affine(self) -> Affine:
        """Selection or mixture, as in inference."""
        if self.use_hard_inference:
            picked = self.get_selected_bands().cpu().numpy()
            return Affine.selection(picked, self.logits.shape[1])
        exponent = self.logits.detach().double().cpu().numpy() / self.tau_end
        raised = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        weights = raised / raised.sum(axis=1, keepdims=True)
        return Affine(weights, np.zeros(len(weights)))

    def forward(self, data: Tensor, context: Context | None = None) -> dict[str, Tensor]:
        """Mix ``data`` (B, y, x, C) into (B, y, x, K)."""
        need_channels(self, data, self.logits.shape[1])
        at = context or Context()
        if self.training and at.stage is Stage.TRAIN:
            uniform = torch.rand_like(self.logits)
            noise = -torch.log(-torch.log(uniform + self.eps) + self.eps)
            weights = torch.softmax((self.logits + noise) / self.temperature(at.epoch), dim=-1)
        else:
            weights = self.weights_now
            if self.use_hard_inference:
                picked = data[..., self.get_selected_bands()]
                return {"rgb": picked, "selection_weights": weights}
        return {"rgb": data @ weights.T, "selection_weights": weights}


#: The name of the seed pages.
ConcreteBandSelector = ConcreteChannelMixer
