"""Deciders with one threshold for all frames, from the scores of the fit."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.node import Node, Request, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.tails import Counts
from hsi_batch.statistics.histogram import Histogram

__all__ = ["ArchiveQuantileDecider", "FittedThreshold"]


class FittedThreshold(Node):
    """Flags ``score >= threshold``, with a threshold from the histogram of the scores."""

    OUTPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged"),
        "threshold_value": PortSpec(torch.float32, (1,), "threshold", optional=True),
    }
    TRAINABLE_BUFFERS = ("threshold",)
    PARAMETER_PORTS = {"threshold_value": "threshold"}
    FITTED_ARGUMENTS = frozenset({"threshold"})
    threshold: Tensor

    def __init__(self, name: str | None, threshold: float | None, **hparams: Any) -> None:
        super().__init__(name, **hparams, threshold=threshold)
        if threshold is not None and not math.isfinite(threshold):
            raise PipelineError(f"threshold {threshold} must be a finite number.")
        start = math.nan if threshold is None else threshold
        self.register_buffer("threshold", torch.tensor([start], dtype=torch.float32))
        self._fitted = threshold is not None

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    @property
    def _port(self) -> str:
        return next(iter(self.INPUT_SPECS))

    def request(self) -> Request:
        """Histogram of the scores."""
        return Request(self._port, "histogram")

    @property
    def default_is_fitted(self) -> bool:
        """A threshold that was given is as good as a fitted one."""
        return self.hparams["threshold"] is not None

    def fit(self, statistic: Any) -> None:
        """Set the threshold, here and in the arguments, so that files show it."""
        assert isinstance(statistic, Histogram)
        values, counts = statistic.bins(0)
        scores = Counts(values, counts)
        if not scores.total:
            raise DataError(
                f"{self.name}: no valid score was counted.",
                hint="Select more frames, or check the quality flags (hsi-batch show).",
            )
        exact, facts = self._threshold(statistic, scores)
        rounded = self._round_up(exact)
        self._keep(
            exact,
            count=scores.total,
            above=scores.above(rounded),
            relative_error=statistic.relative_error,
            **facts,
        )

    def _round_up(self, exact: float) -> float:
        """The float32 that scores at or above ``exact`` are at or above: scores are float32."""
        if not math.isfinite(exact):
            raise DataError(
                f"{self.name}: the threshold is {exact}: scores of the fit are not finite.",
                hint="Look for values that are too large for float32 in front of the scores.",
            )
        rounded = np.float32(exact)
        if float(rounded) < exact:
            rounded = np.nextafter(rounded, np.float32(np.inf))
        return float(rounded)

    def _keep(self, exact: float, **facts: float) -> None:
        rounded = self._round_up(exact)
        state = {"threshold": np.array(exact)}
        state |= {name: np.array(value) for name, value in facts.items()}
        self.set_state(state, threshold=np.array([rounded], dtype=np.float32))
        self.hparams["threshold"] = rounded

    def in_words(self) -> str:
        """The threshold, where it comes from, and how many scores of the fit it flags."""
        if not self.fitted:
            return ""
        text = f"threshold {float(self.threshold.detach()):.6g}"
        state = self.exact_state()
        if state is None:
            return f"{text}, as given"
        text += f", {self._origin(state)}"
        if "above" in state:
            text += f"; {int(state['above'])} of {int(state['count'])} scores of the fit reach it"
        return text

    @abstractmethod
    def _origin(self, state: Mapping[str, NDArray[Any]]) -> str:
        """Where a fitted threshold comes from, in words."""

    @abstractmethod
    def _threshold(self, statistic: Histogram, scores: Counts) -> tuple[float, dict[str, float]]:
        """The threshold, and what else is worth keeping."""

    def _decide(self, scores: Tensor) -> dict[str, Tensor]:
        self._need_fit()
        limit = self.threshold.detach()
        return {"decisions": scores >= limit, "threshold_value": limit.clone()}


class ArchiveQuantileDecider(FittedThreshold):
    """Flag pixels at or above one quantile of all scores of the fit.

    Unlike :class:`.QuantileBinaryDecider`, which flags the same share of every frame, a frame
    without anomalies gets no flags. The quantile is that of ``numpy.quantile`` (linear), exact up
    to 2**20 different scores; beyond, to the relative error in the state. NaN is never flagged.

    Parameters
    ----------
    quantile : float
        Between 0 and 1.
    threshold : float, optional
        In units of the score; written by the fit. A pipeline with a threshold runs without a fit;
        a fit replaces it.

    Attributes
    ----------
    threshold : torch.Tensor of float32, shape (1,)
        Scores from here on are decided as anomalies.

    Examples
    --------
    >>> node = ArchiveQuantileDecider(0.5)
    >>> scores = np.array([[1.0], [2.0], [9.0]], dtype=np.float32)
    >>> node.fit(Histogram.empty(1, "float32").update(scores))
    >>> node.hparams["threshold"]
    2.0
    """

    INPUT_SPECS = {"logits": PortSpec(torch.float32, (-1, -1, -1, 1), "scores or logits")}

    def __init__(
        self, quantile: float = 0.995, threshold: float | None = None, name: str | None = None
    ) -> None:
        super().__init__(name, threshold, quantile=quantile)
        if not 0.0 <= quantile <= 1.0:
            raise PipelineError(f"quantile {quantile} is not between 0 and 1.")
        self.quantile = float(quantile)

    def _threshold(self, statistic: Histogram, scores: Counts) -> tuple[float, dict[str, float]]:  # noqa: ARG002
        return float(statistic.quantile([self.quantile])[0, 0]), {}

    def _origin(self, state: Mapping[str, NDArray[Any]]) -> str:  # noqa: ARG002
        return f"the quantile {self.quantile:g}"

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Decide ``logits`` (B, y, x, 1)."""
        return self._decide(logits)
