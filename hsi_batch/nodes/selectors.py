"""Nodes that weight channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.annealed import Annealed
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.moments import Moments

__all__ = ["SoftChannelSelector", "TopKIndices"]

#: Below it a softmax is a choice, and logits divided by it leave the range of float32.
_COLDEST = 1e-6


class SoftChannelSelector(Annealed, Node):
    """Weight every channel: ``y_c = w_c x_c`` with ``w = n_select softmax(logits / temperature)``.

    It is a gate: the number of channels stays. With ``hard``, outside of training, the weights are
    1 for the ``n_select`` largest logits (the first ones of equal logits) and 0 elsewhere; nodes
    behind it are then fitted on what they will score.

    Parameters
    ----------
    n_select : int
        Sum of the weights.
    input_channels : int, optional
        Channels of the input; taken from the data if not given.
    init_method : {"uniform", "variance"}
        Equal logits, or ``log(variance + eps)`` of each channel.
    temperature_init, temperature_min, temperature_decay : float
        Softmax temperature and its schedule: in epoch ``e`` of a training in which the node is
        not frozen it is ``max(temperature_min, temperature_init temperature_decay^e)``, and it
        stays what it was in the last one.
    hard : bool
        Pick channels outside of training.
    eps : float
        Added to the variance.

    Examples
    --------
    >>> node = SoftChannelSelector(2, 4)
    >>> from hsi_batch.statistics import Moments
    >>> node.fit(Moments.empty(4, "float32"))
    >>> node(data=torch.ones(1, 1, 1, 4))["weights"]
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "input_channels"), "cube")}
    OUTPUT_SPECS = {
        "selected": PortSpec(torch.float32, (-1, -1, -1, "input_channels"), "weighted cube"),
        "weights": PortSpec(torch.float32, (-1,), "weight per channel"),
    }
    AFFINE = ("data", "selected")
    TRAINABLE_BUFFERS = ("channel_logits",)
    PARAMETER_PORTS = {"weights": "weights_now"}
    CHANNEL_ARGUMENT = "input_channels"
    channel_logits: Tensor

    def __init__(
        self,
        n_select: int,
        input_channels: int | None = None,
        init_method: Literal["uniform", "variance"] = "uniform",
        temperature_init: float = 5.0,
        temperature_min: float = 0.1,
        temperature_decay: float = 0.9,
        hard: bool = False,
        eps: float = 1e-6,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            n_select=n_select,
            input_channels=input_channels,
            init_method=init_method,
            temperature_init=temperature_init,
            temperature_min=temperature_min,
            temperature_decay=temperature_decay,
            hard=hard,
            eps=eps,
        )
        if init_method not in ("uniform", "variance"):
            raise PipelineError(f"init_method {init_method!r} is not 'uniform' or 'variance'.")
        need_non_negative(
            eps=eps, temperature_min=temperature_min, temperature_decay=temperature_decay
        )
        if n_select < 1:
            raise PipelineError(f"n_select {n_select} must be at least 1.")
        if not temperature_init > 0:
            raise PipelineError(f"temperature_init {temperature_init} must be above 0.")
        if input_channels is not None:
            self._check_count(n_select, input_channels)
        self.n_select = int(n_select)
        self.input_channels = input_channels
        self.init_method = init_method
        self.temperature_init = float(temperature_init)
        self.temperature_min = float(temperature_min)
        self.temperature_decay = float(temperature_decay)
        self.temperature = self.temperature_init
        self.hard = bool(hard)
        self.eps = float(eps)
        self.register_buffer("channel_logits", torch.zeros(input_channels or 0))

    def request(self) -> Request:
        """Moments of the data (its variances, or how many channels there are)."""
        return Request("data", "moments")

    def _check_count(self, n_select: int, channels: int) -> None:
        if n_select > channels:
            raise PipelineError(
                f"{self.name}: n_select {n_select} is more than the {channels} channels of its"
                " input.",
                hint="Lower it.",
            )

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        self._check_count(self.n_select, axes["data"].size)
        return {"selected": axes["data"]}

    def fit(self, statistic: Moments) -> None:
        """Set the logits."""
        self._check_count(self.n_select, statistic.channels)
        if self.init_method == "uniform":
            logits = np.zeros(statistic.channels)
        else:
            logits = np.log(statistic.variance() + self.eps)
        self.set_state({"logits": logits}, channel_logits=logits)

    def update_temperature(self, epoch: int) -> None:
        """Take the temperature of an epoch, counted from 0."""
        fallen = self.temperature_init * self.temperature_decay**epoch
        self.temperature = max(self.temperature_min, fallen, _COLDEST)

    def begin_epoch(self, epoch: int) -> None:
        """As :meth:`update_temperature`."""
        self.update_temperature(epoch)

    def schedule(self) -> dict[str, float]:
        """The temperature."""
        return {"temperature": self.temperature}

    def restore_schedule(self, values: Mapping[str, float]) -> None:
        """Take a temperature that was saved."""
        self.temperature = float(values["temperature"])

    def as_arguments(self) -> dict[str, float]:
        """The temperature as that of the start."""
        return {"temperature_init": self.temperature}

    @property
    def default_is_fitted(self) -> bool:
        """Equal logits are what the uniform method gives."""
        return self.init_method == "uniform"

    def get_selection_weights(self) -> Tensor:
        """Weight per channel, ``(C,)`` float32, as the next forward will use them."""
        if self.hard and not self.training:
            return self._chosen()
        return self.n_select * torch.softmax(self.channel_logits / self.temperature, dim=0)

    def _chosen(self) -> Tensor:
        chosen = torch.zeros_like(self.channel_logits)
        order = torch.sort(self.channel_logits, descending=True, stable=True).indices
        chosen[order[: self.n_select]] = 1.0
        return chosen

    @property
    def weights_now(self) -> Tensor:
        """What the port ``weights`` hands out."""
        return self.get_selection_weights()

    def affine(self) -> Affine:
        """Scaling by the weights that inference will use."""
        self._need_fit()
        state = self.exact_state()
        logits = (
            self.channel_logits.detach().double().cpu().numpy()
            if state is None
            else state["logits"]
        )
        if self.hard:
            weights = self._chosen().double().cpu().numpy()
        else:
            exponent = logits / self.temperature
            raised = np.exp(exponent - exponent.max())
            weights = self.n_select * raised / raised.sum()
        return Affine.scaling(weights, np.zeros(logits.size))

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Weight ``data`` (B, y, x, C)."""
        self._need_fit()
        weights = self.get_selection_weights()
        return {"selected": data * weights, "weights": weights}


class TopKIndices(Node):
    """Indices of the ``k`` largest weights, the largest first; the first ones of equal weights.

    Parameters
    ----------
    k : int
        How many.

    Examples
    --------
    >>> TopKIndices(2)(weights=torch.tensor([0.2, 0.5, 0.5]))["indices"]
    tensor([1, 2])
    """

    INPUT_SPECS = {"weights": PortSpec(torch.float32, (-1,), "weight per channel")}
    OUTPUT_SPECS = {"indices": PortSpec(torch.int64, (-1,), "channel numbers, from 0")}

    def __init__(self, k: int, name: str | None = None) -> None:
        super().__init__(name, k=k)
        if k < 1:
            raise PipelineError(f"k {k} must be at least 1.")
        self.k = int(k)

    @property
    def scope(self) -> Scope:
        """A pixel at a time: it looks at none."""
        return Scope.PIXEL

    def forward(self, weights: Tensor) -> dict[str, Tensor]:
        """Rank ``weights`` (C,)."""
        if self.k > len(weights):
            raise PipelineError(
                f"{self.name}: k {self.k} is more than the {len(weights)} weights.",
                hint="Lower it.",
            )
        order = torch.sort(weights, descending=True, stable=True).indices
        return {"indices": order[: self.k]}
