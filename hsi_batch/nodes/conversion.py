"""From scores to logits, and from decisions to masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataError
from hsi_batch.nodes.node import Node, Request, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.moments import Moments

__all__ = ["DecisionToMask", "ScoreToLogit"]


class ScoreToLogit(Node):
    """``logit = scale (score - bias)`` with ``bias = mean + 2 std`` of the scores of the fit.

    A :class:`.BinaryDecider` at 0.5 behind it then flags scores above two standard deviations.
    Scores in the hundreds, as RX gives for many channels, make logits beyond what a probability can
    tell apart (the largest double below 1 is that of 36.7); ``standardize`` keeps them small.

    Parameters
    ----------
    init_scale : float
        The scale; a fit leaves it alone.
    init_bias : float
        The bias until it is fitted, in units of the score.
    standardize : bool
        Let a fit divide the scale by the standard deviation of the scores.

    Examples
    --------
    >>> node = ScoreToLogit(init_scale=2.0)
    >>> node.fit(Moments.empty(1, "float64").update(np.array([[0.0], [1.0], [2.0]])))
    >>> node(scores=torch.tensor([[[[4.0]]]]))["logits"].item()  # 2 (4 - (1 + 2))
    2.0
    """

    INPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "scores")}
    OUTPUT_SPECS = {"logits": PortSpec(torch.float32, (-1, -1, -1, 1), "logits")}
    AFFINE = ("scores", "logits")
    TRAINABLE_BUFFERS = ("scale", "bias")
    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        init_scale: float = 1.0,
        init_bias: float = 0.0,
        name: str | None = None,
        *,
        standardize: bool = False,
    ) -> None:
        super().__init__(name, init_scale=init_scale, init_bias=init_bias, standardize=standardize)
        self.init_scale = float(init_scale)
        self.standardize = bool(standardize)
        self.register_buffer("scale", torch.tensor(float(init_scale)))
        self.register_buffer("bias", torch.tensor(float(init_bias)))

    def request(self) -> Request:
        """Moments of the scores."""
        return Request("scores", "moments")

    def fit(self, statistic: Moments) -> None:
        """Set the bias, and the scale if that is asked for."""
        deviation = float(np.sqrt(statistic.variance()[0]))
        bias = float(statistic.mean[0]) + 2.0 * deviation
        if self.standardize and deviation == 0.0:
            raise DataError(
                f"{self.name}: all scores of the fit are equal, so they cannot be standardized.",
                hint="Fit to frames that differ, or set standardize to false.",
            )
        scale = self.init_scale / deviation if self.standardize else float(self.scale.detach())
        state = {"bias": np.array(bias), "scale": np.array(scale)}
        self.set_state(state, bias=bias, **({"scale": scale} if self.standardize else {}))

    def affine(self) -> Affine:
        """``scale x - scale bias``."""
        self._need_fit()
        state = self.exact_state()
        if state is None:
            scale, bias = float(self.scale.detach()), float(self.bias.detach())
        else:
            scale, bias = float(state["scale"]), float(state["bias"])
        return Affine.scaling([scale], [-scale * bias])

    def forward(self, scores: Tensor) -> dict[str, Tensor]:
        """Map ``scores`` (B, y, x, 1)."""
        return {"logits": self.scale * (scores - self.bias)}


class DecisionToMask(Node):
    """Keep the class numbers of flagged pixels: ``identity_mask`` where flagged, else 0.

    Examples
    --------
    >>> flagged = torch.tensor([[[[True], [False]]]])
    >>> DecisionToMask()(decisions=flagged, identity_mask=torch.tensor([[[3, 4]]]))["mask"]
    tensor([[[3, 0]]], dtype=torch.int32)
    """

    INPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged"),
        "identity_mask": PortSpec(torch.int32, (-1, -1, -1), "class numbers"),
    }
    OUTPUT_SPECS = {"mask": PortSpec(torch.int32, (-1, -1, -1), "class numbers where flagged")}

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, decisions: Tensor, identity_mask: Tensor) -> dict[str, Tensor]:
        """Mask ``identity_mask`` (B, y, x) by ``decisions`` (B, y, x, 1)."""
        return {"mask": torch.where(decisions[..., 0], identity_mask, 0).to(torch.int32)}
