"""Losses of parameters: of weights of channels, and of the rows of projections."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.losses import LossNode
from hsi_batch.nodes.node import need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes

__all__ = [
    "DistinctnessLoss",
    "OrthogonalityLoss",
    "SelectorDiversityRegularizer",
    "SelectorEntropyRegularizer",
]

_WEIGHTS = PortSpec(torch.float32, (-1,), "weight per channel")


class OrthogonalityLoss(LossNode):
    """How far the rows of a projection are from orthonormal: ``weight |W W^T - I|_F^2``.

    Parameters
    ----------
    weight : float
        Factor of the loss.

    Examples
    --------
    >>> OrthogonalityLoss()(components=2 * torch.eye(2, 4))["loss"]
    tensor(18.)
    """

    INPUT_SPECS = {"components": PortSpec(torch.float32, (-1, -1), "components as rows")}

    def __init__(self, weight: float = 1.0, name: str | None = None) -> None:
        super().__init__(name, weight=weight)
        self.weight = float(weight)

    def forward(self, components: Tensor) -> dict[str, Tensor]:
        """Loss of ``components`` (K, C)."""
        need_shapes(self, components=components)
        gram = components @ components.T
        away = gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return {"loss": self.weight * away.square().sum()}


class DistinctnessLoss(LossNode):
    """Keep the outputs of a mixer apart: ``weight`` times the mean ``|cos|`` over pairs of rows.

    All ``K (K - 1) / 2`` pairs count, those at right angles with 0, so that wholly distinct rows
    give 0. (The mean of cuvis-ai is over the pairs that are not 0, which is NaN there.) With one
    row the loss is 0.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    eps : float
        Smallest norm that a row is divided by.
    signed : bool
        Take the cosine as it is, as cuvis-ai does: opposite rows are then rewarded, though one
        tells as much as the other. It differs only where weights are negative.

    Examples
    --------
    >>> rows = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    >>> DistinctnessLoss()(selection_weights=rows)["loss"]  # a tenth of the cosine
    tensor(0.0500)
    >>> DistinctnessLoss()(selection_weights=torch.eye(2, 3))["loss"]
    tensor(0.)
    """

    INPUT_SPECS = {
        "selection_weights": PortSpec(torch.float32, (-1, -1), "weights, a row per output")
    }

    def __init__(
        self,
        weight: float = 0.1,
        eps: float = 1e-6,
        signed: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name, weight=weight, eps=eps, signed=signed)
        need_non_negative(eps=eps)
        self.weight = float(weight)
        self.eps = float(eps)
        self.signed = bool(signed)

    def forward(self, selection_weights: Tensor) -> dict[str, Tensor]:
        """Loss of ``selection_weights`` (K, C)."""
        need_shapes(self, selection_weights=selection_weights)
        rows = len(selection_weights)
        if rows < 2:
            return {"loss": 0.0 * selection_weights.sum()}
        unit = normalize(selection_weights, dim=-1, eps=self.eps)
        cosines = (unit @ unit.T).triu(diagonal=1)
        total = cosines.sum() if self.signed else cosines.abs().sum()
        return {"loss": self.weight * total / (rows * (rows - 1) / 2)}


class SelectorEntropyRegularizer(LossNode):
    """Entropy of the weights of a selector: ``-weight H``, or ``weight (H - target)^2``.

    ``H = -sum p log(p + eps)`` with ``p = w / (sum w + eps)``, in nats. Without a target the
    entropy is raised, which spreads the weights over the channels.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    target_entropy : float, optional
        Entropy to hold, in nats; at most the logarithm of the number of channels.
    eps : float
        Added to the sum and inside of the logarithm.

    Examples
    --------
    >>> even, one = torch.ones(4), torch.eye(4)[0]
    >>> [round(SelectorEntropyRegularizer()(weights=w)["loss"].item(), 4) for w in (even, one)]
    [-0.0139, 0.0]
    """

    INPUT_SPECS = {"weights": _WEIGHTS}

    def __init__(
        self,
        weight: float = 0.01,
        target_entropy: float | None = None,
        eps: float = 1e-6,
        name: str | None = None,
    ) -> None:
        super().__init__(name, weight=weight, target_entropy=target_entropy, eps=eps)
        need_non_negative(eps=eps)
        self.weight = float(weight)
        self.target_entropy = None if target_entropy is None else float(target_entropy)
        self.eps = float(eps)

    def forward(self, weights: Tensor) -> dict[str, Tensor]:
        """Loss of ``weights`` (C,), none of them negative."""
        need_shapes(self, weights=weights)
        p = weights / (weights.sum() + self.eps)
        entropy = -torch.xlogy(p, p + self.eps).sum()
        if self.target_entropy is None:
            return {"loss": -self.weight * entropy}
        return {"loss": self.weight * (entropy - self.target_entropy).square()}


class SelectorDiversityRegularizer(LossNode):
    """Variance of the weights of a selector, ``weight mean((w - mean w)^2)``.

    The default ``spread`` lowers the variance, so that the weights spread over the channels, as
    the name says. The loss of cuvis-ai has the opposite sign: minimising it raises the variance,
    concentrates the weights on few channels and works against
    :class:`.SelectorEntropyRegularizer`. ``mode="concentrate"`` is that formula, for those who
    want it or repeat a training of cuvis-ai.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    mode : {"spread", "concentrate"}
        The sign: plus the variance, or minus.

    Examples
    --------
    >>> even, one = torch.ones(4) / 4, torch.eye(4)[0]
    >>> [SelectorDiversityRegularizer(1.0)(weights=w)["loss"].item() for w in (even, one)]
    [0.0, 0.1875]
    """

    INPUT_SPECS = {"weights": _WEIGHTS}

    def __init__(
        self,
        weight: float = 0.01,
        mode: Literal["spread", "concentrate"] = "spread",
        name: str | None = None,
    ) -> None:
        super().__init__(name, weight=weight, mode=mode)
        if mode not in ("spread", "concentrate"):
            raise PipelineError(f"mode {mode!r} is not 'spread' or 'concentrate'.")
        self.weight = float(weight)
        self.mode = mode

    def forward(self, weights: Tensor) -> dict[str, Tensor]:
        """Loss of ``weights`` (C,)."""
        need_shapes(self, weights=weights)
        sign = 1.0 if self.mode == "spread" else -1.0
        return {"loss": sign * self.weight * weights.var(correction=0)}
