"""A decider that looks at a frame before it looks at its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.calibration import Cut, best_cut, labelled
from hsi_batch.nodes.deciders import threshold_of
from hsi_batch.nodes.metrics import Context
from hsi_batch.nodes.node import Node, Scope, Stage
from hsi_batch.nodes.ports import PortSpec

__all__ = ["TwoStageBinaryDecider", "top_mean"]

_ANY = (-1, -1, -1, -1)


def top_mean(values: NDArray[np.float64], fraction: float) -> float:
    """Mean of the largest ``max(1, ceil(fraction n))`` of the ``n`` valid values; else NaN."""
    valid = values[~np.isnan(values)]
    if not valid.size:
        return math.nan
    # The product is rounded as cuvis-ai rounds it: 0.001 of 1000 is one value, not two.
    k = max(1, math.ceil(float(np.float32(valid.size * fraction))))
    return float(np.partition(valid, valid.size - k)[valid.size - k :].mean())


class TwoStageBinaryDecider(Node):
    """Flag pixels of the frames that pass a gate.

    The score of a pixel is its largest channel, that of a frame the mean of its largest
    ``max(1, ceil(top_k_fraction n))`` pixel scores. Below ``image_threshold`` nothing of the frame
    is flagged; else pixels at or above ``pixel_threshold``, or, without one, at or above the
    frame's own ``quantile`` of all scores. Scores are raw, there is no sigmoid. NaN counts for
    nothing and is never flagged.

    While one of the thresholds is missing, nothing comes out in training, validation and test, so
    that no metric is taken of a provisional threshold.

    Parameters
    ----------
    image_threshold : float, optional
        Gate, in units of the score; none by default. The port of this name counts instead.
    top_k_fraction : float
        Share of the pixels, above 0 and at most 1.
    quantile : float
        Between 0 and 1.
    pixel_threshold : float, optional
        In units of the score. The port of this name counts instead.
    reduce_dims : sequence of int, optional
        Kept for pipelines that name it; it does nothing.
    threshold : float
        Kept for pipelines that name it; it does nothing.

    Examples
    --------
    >>> node = TwoStageBinaryDecider(image_threshold=5.0, top_k_fraction=0.5, pixel_threshold=4.0)
    >>> logits = torch.tensor([[[[1.0], [9.0]]], [[[1.0], [4.0]]]])
    >>> node(logits=logits)["decisions"].ravel()
    tensor([False,  True, False, False])
    """

    INPUT_SPECS = {
        "logits": PortSpec(torch.float32, _ANY, "scores or logits"),
        "image_threshold": PortSpec(torch.float32, (1,), "gate", optional=True),
        "pixel_threshold": PortSpec(torch.float32, (1,), "threshold of pixels", optional=True),
    }
    OUTPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged", optional=True),
        "pixel_threshold_range": PortSpec(
            torch.float32, (-1, 2), "smallest and largest pixel score", optional=True
        ),
        "pixel_threshold_value": PortSpec(
            torch.float32, (-1,), "threshold that was used", optional=True
        ),
        "image_threshold_range": PortSpec(
            torch.float32, (-1, 2), "0 and the largest pixel score", optional=True
        ),
        "image_threshold_value": PortSpec(
            torch.float32, (-1,), "gate that was used, NaN for none", optional=True
        ),
        "image_threshold_score": PortSpec(
            torch.float32, (-1,), "score of the frame", optional=True
        ),
    }

    def __init__(
        self,
        image_threshold: float | None = None,
        top_k_fraction: float = 0.001,
        quantile: float = 0.995,
        pixel_threshold: float | None = None,
        reduce_dims: Sequence[int] | None = None,
        threshold: float = 0.5,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            image_threshold=image_threshold,
            top_k_fraction=top_k_fraction,
            quantile=quantile,
            pixel_threshold=pixel_threshold,
            reduce_dims=reduce_dims,
            threshold=threshold,
        )
        if not 0.0 <= quantile <= 1.0:
            raise PipelineError(f"quantile {quantile} is not between 0 and 1.")
        if not 0.0 < top_k_fraction <= 1.0:
            raise PipelineError(f"top_k_fraction {top_k_fraction} must be above 0 and at most 1.")
        limits = {"image_threshold": image_threshold, "pixel_threshold": pixel_threshold}
        for argument, value in limits.items():
            if value is not None and not math.isfinite(value):
                raise PipelineError(f"{argument} {value} must be a finite number.")
        self.image_threshold = image_threshold
        self.top_k_fraction = float(top_k_fraction)
        self.quantile = float(quantile)
        self.pixel_threshold = pixel_threshold

    @property
    def scope(self) -> Scope:
        """A frame at once."""
        return Scope.FRAME

    @property
    def is_calibrated(self) -> bool:
        """Whether both thresholds are set."""
        return self.image_threshold is not None and self.pixel_threshold is not None

    def forward(
        self,
        logits: Tensor,
        image_threshold: Tensor | None = None,
        pixel_threshold: Tensor | None = None,
        context: Context | None = None,
    ) -> dict[str, Tensor]:
        """Decide each image of ``logits`` (B, y, x, C)."""
        at = context or Context()
        if at.stage is not Stage.INFERENCE and not self.is_calibrated:
            return {}
        gate = threshold_of(self, "image_threshold", image_threshold, self.image_threshold)
        fixed = threshold_of(self, "pixel_threshold", pixel_threshold, self.pixel_threshold)
        values = logits.detach().cpu().numpy().astype(np.float64)
        pixels = _largest(values)
        flagged = np.zeros((*values.shape[:3], 1), dtype=bool)
        facts = np.zeros((len(values), 7), dtype=np.float32)
        for index, (image, best) in enumerate(zip(values, pixels, strict=True)):
            score = top_mean(best.ravel(), self.top_k_fraction)
            valid = image[~np.isnan(image)]
            own = math.nan if not valid.size else float(np.quantile(valid, self.quantile))
            limit = own if fixed is None else float(fixed)
            if gate is None or score >= gate:
                flagged[index, ..., 0] = best >= limit
            known = best[np.isfinite(best)]
            low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
            facts[index] = (
                low, high, limit, min(0.0, high), max(0.0, high),
                math.nan if gate is None else gate, score,
            )  # fmt: skip
        found = torch.from_numpy(facts).to(logits.device)
        return {
            "decisions": torch.from_numpy(flagged).to(logits.device),
            "pixel_threshold_range": found[:, 0:2],
            "pixel_threshold_value": found[:, 2],
            "image_threshold_range": found[:, 3:5],
            "image_threshold_value": found[:, 5],
            "image_threshold_score": found[:, 6],
        }

    def calibrate(self, scores: Tensor, targets: Tensor) -> tuple[Cut, Cut]:
        """Set the gate, then the threshold of pixels, each to that of the largest F1 score.

        The gate tells frames with a labelled pixel from those without; the threshold counts
        pixels of all frames, of which those below the gate have none flagged.

        Parameters
        ----------
        scores : torch.Tensor, shape (B, y, x, C)
            Of pixels.
        targets : torch.Tensor, shape (B, y, x, 1)
            Above 0 where anomalous.

        Returns
        -------
        tuple of Cut
            Gate and threshold, each with its F1 score.
        """
        best = _largest(scores.detach().cpu().numpy().astype(np.float64))
        pixels, wanted = labelled(torch.from_numpy(best), targets[..., 0], self.name)
        frames = [top_mean(each.ravel(), self.top_k_fraction) for each in best]
        of_frames = np.asarray(frames, dtype=np.float32)
        gate = best_cut(of_frames, np.asarray(wanted.any(axis=(1, 2))), f"{self.name} (frames)")
        passed = np.asarray(frames) >= gate.threshold
        open_ = np.where(passed[:, None, None] | np.isnan(pixels), pixels, -np.inf)
        cut = best_cut(open_.astype(np.float32).ravel(), wanted.ravel(), self.name)
        self.hparams["image_threshold"] = self.image_threshold = gate.threshold
        self.hparams["pixel_threshold"] = self.pixel_threshold = cut.threshold
        return gate, cut


def _largest(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest channel that is a number, per pixel; NaN where none is."""
    filled = np.where(np.isnan(values), -np.inf, values).max(axis=-1)
    return np.where(np.isnan(values).all(axis=-1), np.nan, filled)
