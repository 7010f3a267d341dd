"""Blanking frames without alarm."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.two_stage import top_mean

__all__ = ["FrameScoreGate"]

_LOG = logging.getLogger(__name__)
_ANY = (-1, -1, -1, -1)


class FrameScoreGate(Node):
    """Blank the scores of frames whose own score does not exceed a threshold.

    The score of a frame is the mean of the largest ``max(1, ceil(topk_frac n))`` values of
    ``alarm_scores``, or of ``scores`` where that port is not fed. NaN counts for nothing.

    Parameters
    ----------
    threshold : float
        A frame passes if its score is above.
    topk_frac : float
        Share of the pixels, above 0 and at most 1.
    mode : {"heatmap", "mask"}
        Let the scores of a frame pass, or 1 where they are above ``mask_threshold``, else 0.
    mask_threshold : float, optional
        Of ``decisions``; ``threshold`` by default.
    log_scores : bool
        Log the score of every frame.
    smooth_k : int
        Decide on the median of the last so many frame scores. Above 1 the frames must come in
        order, one at a time, so archives cannot be scored.
    core_ratio : float
        ``core`` flags what is above this multiple of ``mask_threshold``; at least 1.

    Examples
    --------
    >>> node = FrameScoreGate(threshold=5.0, topk_frac=0.5)
    >>> scores = torch.tensor([[[[1.0], [9.0]]], [[[1.0], [2.0]]]])
    >>> node(scores=scores)["passed"], node(scores=scores)["scores"].ravel()
    (tensor([1, 0], dtype=torch.int32), tensor([1., 9., 0., 0.]))
    """

    INPUT_SPECS = {
        "scores": PortSpec(torch.float32, _ANY, "scores"),
        "alarm_scores": PortSpec(torch.float32, _ANY, "scores that decide", optional=True),
    }
    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, _ANY, "scores of frames that pass, else 0"),
        "frame_score": PortSpec(torch.float32, (-1,), "score of the frame"),
        "passed": PortSpec(torch.int32, (-1,), "1 if the frame passes"),
        "decisions": PortSpec(torch.bool, _ANY, "above mask_threshold in frames that pass"),
        "core": PortSpec(torch.bool, _ANY, "far above mask_threshold in frames that pass"),
    }

    def __init__(
        self,
        threshold: float,
        topk_frac: float = 0.001,
        mode: Literal["heatmap", "mask"] = "heatmap",
        mask_threshold: float | None = None,
        log_scores: bool = False,
        smooth_k: int = 1,
        core_ratio: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            threshold=threshold,
            topk_frac=topk_frac,
            mode=mode,
            mask_threshold=mask_threshold,
            log_scores=log_scores,
            smooth_k=smooth_k,
            core_ratio=core_ratio,
        )
        if mode not in ("heatmap", "mask"):
            raise PipelineError(f"mode {mode!r} is not 'heatmap' or 'mask'.")
        if not 0.0 < topk_frac <= 1.0:
            raise PipelineError(f"topk_frac {topk_frac} must be above 0 and at most 1.")
        if smooth_k < 1:
            raise PipelineError(f"smooth_k {smooth_k} must be at least 1.")
        self.threshold = float(threshold)
        self.mask_threshold = self.threshold if mask_threshold is None else float(mask_threshold)
        if core_ratio < 1 or (core_ratio > 1 and self.mask_threshold < 0):
            raise PipelineError(
                f"core_ratio {core_ratio} must be at least 1, and 1 below a threshold of 0"
                f" (found {self.mask_threshold:g})."
            )
        self.topk_frac = float(topk_frac)
        self.mode = mode
        self.log_scores = bool(log_scores)
        self.smooth_k = int(smooth_k)
        self.core_ratio = float(core_ratio)
        self._recent: list[float] = []

    @property
    def scope(self) -> Scope:
        """A frame at once; with ``smooth_k`` above 1, the frames in order."""
        return Scope.FRAME if self.smooth_k == 1 else Scope.SEQUENCE

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the scores."""
        return dict.fromkeys(("scores", "decisions", "core"), axes["scores"])

    def reset(self) -> None:
        """Forget the frames that went before."""
        self._recent.clear()

    def forward(self, scores: Tensor, alarm_scores: Tensor | None = None) -> dict[str, Tensor]:
        """Gate each image of ``scores`` (B, y, x, C)."""
        deciding = scores if alarm_scores is None else alarm_scores
        if len(deciding) != len(scores):
            raise PipelineError(
                f"{self.name}: {len(deciding)} alarm maps came with {len(scores)} score maps.",
                hint="Connect one alarm map for each, or none.",
            )
        images = deciding.detach().cpu().numpy().astype(np.float64)
        own = [top_mean(image.ravel(), self.topk_frac) for image in images]
        passed = [score > self.threshold for score in self._smoothed(own)]
        if self.log_scores:
            for score, open_ in zip(own, passed, strict=True):
                _LOG.info("%s: frame score %.4g, passed: %s", self.name, score, open_)
        gate = torch.tensor(passed, device=scores.device)[:, None, None, None]
        exact = scores.double()
        hot = exact > self.mask_threshold
        shown = hot.to(scores.dtype) if self.mode == "mask" else scores
        return {
            "scores": torch.where(gate, shown, torch.zeros_like(shown)),
            "frame_score": torch.tensor(own, dtype=torch.float32, device=scores.device),
            "passed": gate.flatten().to(torch.int32),
            "decisions": hot & gate,
            "core": (exact > self.core_ratio * self.mask_threshold) & gate,
        }

    def _smoothed(self, own: list[float]) -> list[float]:
        if self.smooth_k == 1:
            return own
        if len(own) != 1:
            raise PipelineError(
                f"{self.name}: smooth_k {self.smooth_k} takes one frame at a time, got {len(own)}.",
                hint="Set batch_size to 1, or smooth_k to 1.",
            )
        self._recent = [*self._recent, own[0]][-self.smooth_k :]
        return [sorted(self._recent)[len(self._recent) // 2]]
