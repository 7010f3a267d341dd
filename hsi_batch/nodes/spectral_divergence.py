"""Spectral information divergence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.targets import TargetNode, Targets

__all__ = ["SID"]


class SID(TargetNode):
    """How much pixel and target differ as distributions over the channels.

    ``score_k(x) = sum_c (p_c - q_c) log(p_c / q_c)`` with ``p = x / sum x`` and ``q`` the same of
    the target: the symmetric Kullback-Leibler divergence in nats, 0 where they are proportional.
    Values below ``eps`` count as ``eps``: reflectance and counts are positive. Chang, IEEE Trans.
    Information Theory 46 (2000) 1927-1932.

    Parameters
    ----------
    targets, library, names, wavelengths
        As in :class:`.MatchedFilter`.
    eps : float
        Smallest value.

    Attributes
    ----------
    targets : torch.Tensor of float32, shape (K, C)
        Spectra that are looked for.

    Examples
    --------
    >>> SID([[1.0, 3.0]])(data=torch.tensor([[[[2.0, 6.0], [3.0, 1.0]]]]))["scores"].ravel()
    tensor([0.0000, 1.0986])
    """

    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, "n_targets"), "divergence from each, nats"),
        "best_scores": PortSpec(torch.float32, (-1, -1, -1, 1), "the least of them"),
    }

    def __init__(
        self,
        targets: Targets | None = None,
        library: str | None = None,
        names: list[str] | None = None,
        wavelengths: list[float] | None = None,
        eps: float = 1e-12,
        name: str | None = None,
    ) -> None:
        super().__init__(targets, library, names, wavelengths, name, eps=eps)
        if not eps > 0:
            raise PipelineError(f"eps {eps} must be above 0.")
        self.eps = float(eps)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel per target, and one."""
        return {**super().channel_axis(axes), "best_scores": ChannelAxis(1)}

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Score ``data`` (B, y, x, C) in float64, rounded to float32 (B, y, x, K)."""
        spectra = np.maximum(self.spectra(), self.eps)
        targets = torch.from_numpy(spectra / spectra.sum(axis=1, keepdims=True)).to(data.device)
        pixels = torch.clamp(data.double(), min=self.eps)
        pixels = pixels / pixels.sum(dim=-1, keepdim=True)
        logs = torch.log(pixels)
        scores = torch.cat(
            [
                ((pixels - target) * (logs - torch.log(target))).sum(dim=-1, keepdim=True)
                for target in targets
            ],
            dim=-1,
        ).to(torch.float32)
        return {"scores": scores, "best_scores": scores.amin(dim=-1, keepdim=True)}
