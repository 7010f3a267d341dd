"""Several maps into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec

__all__ = ["DecisionFusion", "ScoreMapFusion"]

_ANY = (-1, -1, -1, -1)
_WEIGHTED = ("wmean", "softmin")
_SCORE_MODES = ("mean", "min", "max", "wmean", "gmean", "first", "softmin")


class ScoreMapFusion(Node):
    """Fuse score maps pixel by pixel.

    ============ =========================================================================
    ``mean``     arithmetic mean
    ``min``      smallest, ``max`` largest
    ``wmean``    mean with ``weights``
    ``gmean``    geometric mean; what is negative counts as 0
    ``softmin``  ``-log(sum_i w_i exp(-beta x_i)) / beta``
    ``first``    per frame the first map that is not all zero; the first if all are
    ============ =========================================================================

    A pixel that is NaN in one map is NaN in the result (not with ``first``).

    Parameters
    ----------
    mode : str
        How, as above.
    weights : sequence of float, optional
        One per map, in the order of the connections; scaled to sum to 1. For ``wmean``, which
        needs them, and ``softmin``.
    beta : float, optional
        Sharpness of ``softmin``, above 0, per unit of the score.

    Examples
    --------
    >>> maps = [torch.full((1, 1, 1, 1), v) for v in (1.0, 4.0)]
    >>> [float(ScoreMapFusion(mode)(scores=maps)["scores"]) for mode in ("mean", "gmean")]
    [2.5, 2.0]
    """

    INPUT_SPECS = {"scores": PortSpec(torch.float32, _ANY, "score maps", variadic=True)}
    OUTPUT_SPECS = {"scores": PortSpec(torch.float32, _ANY, "fused map")}

    def __init__(
        self,
        mode: Literal["mean", "min", "max", "wmean", "gmean", "first", "softmin"] = "mean",
        weights: Sequence[float] | None = None,
        beta: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name, mode=mode, weights=weights, beta=beta)
        if mode not in _SCORE_MODES:
            raise PipelineError(f"mode {mode!r} is not one of {', '.join(_SCORE_MODES)}.")
        if (beta is not None) != (mode == "softmin"):
            raise PipelineError(f"beta {beta} belongs to the mode 'softmin', which needs it.")
        if beta is not None and not (beta > 0 and np.isfinite(beta)):
            raise PipelineError(f"beta {beta} must be above 0.")
        if mode == "wmean" and weights is None:
            raise PipelineError("weights are needed for the mode 'wmean', one per map.")
        if weights is not None:
            _check_weights(mode, weights)
        self.mode = mode
        self.weights = weights
        self.beta = beta

    @property
    def scope(self) -> Scope:
        """A pixel at a time; a frame for ``first``."""
        return Scope.FRAME if self.mode == "first" else Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the first map."""
        return {"scores": axes["scores"]}

    def forward(self, scores: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """Fuse maps (B, y, x, C) of one shape, in float64."""
        maps = _stacked(self, scores)
        if self.mode == "first":
            return {"scores": _first(maps, torch.nan_to_num(maps) != 0)}
        return {"scores": self._fused(maps.double()).to(maps.dtype)}

    def _fused(self, maps: Tensor) -> Tensor:
        if self.mode == "mean":
            return maps.mean(dim=0)
        if self.mode == "min":
            return maps.amin(dim=0)
        if self.mode == "max":
            return maps.amax(dim=0)
        if self.mode == "gmean":
            return torch.exp(torch.log(maps.clamp_min(0.0)).mean(dim=0))
        weights = self._shares(maps)
        if self.mode == "wmean":
            return (maps * weights).sum(dim=0)
        assert self.beta is not None
        return -torch.logsumexp(torch.log(weights) - self.beta * maps, dim=0) / self.beta

    def _shares(self, maps: Tensor) -> Tensor:
        given = [1.0] * len(maps) if self.weights is None else list(self.weights)
        if len(given) != len(maps):
            raise PipelineError(
                f"{self.name}: {len(maps)} maps came for {len(given)} weights; one each is needed."
            )
        shares = torch.tensor(given, dtype=torch.float64, device=maps.device)
        return (shares / shares.sum())[:, None, None, None, None]


def _check_weights(mode: str, weights: Sequence[float]) -> None:
    if mode not in _WEIGHTED:
        raise PipelineError(f"weights belong to the modes 'wmean' and 'softmin', not {mode!r}.")
    values = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
        raise PipelineError(f"weights {list(weights)} must be 0 or more, and not all 0.")


class DecisionFusion(Node):
    """Fuse decisions pixel by pixel: flagged in any map, in all, or in the first live one.

    Parameters
    ----------
    mode : {"any", "all", "first"}
        ``first`` takes, per frame, the first map with a flagged pixel; the first if none has one.

    Examples
    --------
    >>> one, two = torch.tensor([[[[True], [False]]]]), torch.tensor([[[[True], [True]]]])
    >>> DecisionFusion("all")(decisions=[one, two])["decisions"].ravel()
    tensor([ True, False])
    """

    INPUT_SPECS = {"decisions": PortSpec(torch.bool, _ANY, "decisions", variadic=True)}
    OUTPUT_SPECS = {"decisions": PortSpec(torch.bool, _ANY, "fused decisions")}

    def __init__(
        self, mode: Literal["any", "all", "first"] = "any", name: str | None = None
    ) -> None:
        super().__init__(name, mode=mode)
        if mode not in ("any", "all", "first"):
            raise PipelineError(f"mode {mode!r} is not one of any, all, first.")
        self.mode = mode

    @property
    def scope(self) -> Scope:
        """A pixel at a time; a frame for ``first``."""
        return Scope.FRAME if self.mode == "first" else Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the first map."""
        return {"decisions": axes["decisions"]}

    def forward(self, decisions: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """Fuse maps (B, y, x, C) of one shape."""
        maps = _stacked(self, decisions)
        if self.mode == "first":
            return {"decisions": _first(maps, maps)}
        return {"decisions": maps.any(dim=0) if self.mode == "any" else maps.all(dim=0)}


def _stacked(node: Node, maps: Sequence[Tensor] | Tensor) -> Tensor:
    several = [maps] if isinstance(maps, Tensor) else list(maps)
    shapes = {tuple(m.shape) for m in several}
    if len(shapes) != 1:
        raise PipelineError(
            f"{node.name} takes maps of one shape; it got {sorted(shapes) or 'none'}.",
            hint="Connect maps of the same frames.",
        )
    return torch.stack(several)


def _first(maps: Tensor, live: Tensor) -> Tensor:
    """Per frame the first of the maps with a live pixel, or the first of all."""
    alive = live.flatten(start_dim=2).any(dim=2)
    chosen = alive.to(torch.int8).argmax(dim=0)
    return maps[chosen, torch.arange(maps.shape[1], device=maps.device)]
