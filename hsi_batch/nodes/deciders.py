"""From scores to decisions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec

__all__ = ["BinaryDecider", "QuantileBinaryDecider"]

_DECISIONS = {"decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged")}


class BinaryDecider(Node):
    """Flag pixels with ``sigmoid(logit) >= threshold``.

    Parameters
    ----------
    threshold : float
        Between 0 and 1.

    Examples
    --------
    >>> BinaryDecider(0.5)(logits=torch.tensor([[[[-1.0], [0.0]]]]))["decisions"].flatten()
    tensor([False,  True])
    """

    INPUT_SPECS = {"logits": PortSpec(torch.float32, (-1, -1, -1, 1), "logits")}
    OUTPUT_SPECS = _DECISIONS

    def __init__(self, threshold: float = 0.5, name: str | None = None) -> None:
        super().__init__(name, threshold=threshold)
        if not 0.0 <= threshold <= 1.0:
            raise PipelineError(f"threshold {threshold} is not a probability; give 0..1.")
        self.threshold = float(threshold)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Decide ``logits`` (B, y, x, 1)."""
        return {"decisions": torch.sigmoid(logits) >= self.threshold}


class QuantileBinaryDecider(Node):
    """Flag the pixels of each frame at or above a quantile of that frame's own scores.

    A fixed share of every frame is flagged, also of a clean one. The quantile is that of the valid
    (not NaN) values, linearly interpolated; NaN is never flagged.

    Parameters
    ----------
    quantile : float
        Between 0 and 1.

    Examples
    --------
    >>> scores = torch.arange(5.0).reshape(1, 5, 1, 1)
    >>> QuantileBinaryDecider(0.75)(logits=scores)["decisions"].flatten()
    tensor([False, False, False,  True,  True])
    """

    INPUT_SPECS = {"logits": PortSpec(torch.float32, (-1, -1, -1, 1), "scores or logits")}
    OUTPUT_SPECS = _DECISIONS

    def __init__(self, quantile: float = 0.995, name: str | None = None) -> None:
        super().__init__(name, quantile=quantile)
        if not 0.0 <= quantile <= 1.0:
            raise PipelineError(f"quantile {quantile} is not between 0 and 1.")
        self.quantile = float(quantile)

    @property
    def scope(self) -> Scope:
        """A frame at once."""
        return Scope.FRAME

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Decide each image of ``logits`` (B, y, x, 1)."""
        values = logits.detach().cpu().numpy()
        flagged = np.zeros(values.shape, dtype=bool)
        for image, out in zip(values, flagged, strict=True):
            valid = image[~np.isnan(image)].astype(np.float64)
            if valid.size:
                out[...] = image >= np.quantile(valid, self.quantile, overwrite_input=True)
        return {"decisions": torch.from_numpy(flagged).to(logits.device)}
