"""Metrics of scores, decisions and label maps, pooled over all frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsi_batch.nodes.metrics import Context, MetricNode, listed
from hsi_batch.nodes.node import ALWAYS, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes
from hsi_batch.statistics.float_histogram import FloatHistogram
from hsi_batch.statistics.moments import Moments

__all__ = ["AnomalyPixelStatisticsMetric", "DistinctLabelCount", "ScoreStatisticsMetric"]

_QUANTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}


class ScoreStatisticsMetric(MetricNode):
    """Mean, spread, range and quantiles of all scores since :meth:`reset`.

    ``scores/mean``, ``scores/std`` (of a sample, from two scores on), ``scores/min``,
    ``scores/max``, ``scores/q25``, ``scores/median``, ``scores/q75``, ``scores/q95``,
    ``scores/q99``. They are of all pixels of all batches, never means over batches, from moments
    and a histogram that merge: quantiles are exact (linear, as ``numpy.quantile``) up to a million
    different scores, beyond that within the histogram's relative error. Scores that are not finite
    are left out.

    Examples
    --------
    >>> metric = ScoreStatisticsMetric()
    >>> for score in (1.0, 3.0):
    ...     _ = metric(scores=torch.full((1, 2, 2, 1), score))
    >>> metric.compute()["scores/mean"], metric.compute()["scores/max"]
    (2.0, 3.0)
    """

    INPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "scores", flat=True)}

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def reset(self) -> None:
        """Forget all scores."""
        self._moments = Moments.empty(1, "float64")
        self._histogram = FloatHistogram.zero(1)
        self._low, self._high = np.inf, -np.inf

    def compute(self) -> dict[str, float]:
        """Statistics so far; none without scores."""
        if self._moments.count == 0:
            return {}
        values = {"scores/mean": float(self._moments.mean[0])}
        if self._moments.count > 1:
            values["scores/std"] = float(np.sqrt(self._moments.variance()[0]))
        values |= {"scores/min": self._low, "scores/max": self._high}
        found = self._histogram.quantile(list(_QUANTILES.values()))[:, 0]
        return values | {f"scores/{n}": float(v) for n, v in zip(_QUANTILES, found, strict=True)}

    def forward(self, scores: Tensor, context: Context | None = None) -> dict[str, Any]:
        """Add ``scores``, (B, y, x, 1) or (B, y, x), and give the values so far."""
        maps = scores[..., None] if scores.ndim == 3 else scores
        need_shapes(self, scores=maps)
        values = maps.detach().cpu().to(torch.float32).numpy().reshape(-1, 1)
        values = values[np.isfinite(values[:, 0])]
        if len(values):
            self._moments = self._moments.update(values)
            self._histogram = self._histogram.update(values)
            self._low = min(self._low, float(values.min()))
            self._high = max(self._high, float(values.max()))
        return self.so_far(context)


class AnomalyPixelStatisticsMetric(MetricNode):
    """How many pixels are flagged, of all since :meth:`reset`.

    ``anomaly/total_pixels``, ``anomaly/anomalous_pixels``, and ``anomaly/anomaly_percentage``,
    their ratio in percent. A batch without decisions adds nothing.

    Examples
    --------
    >>> metric = AnomalyPixelStatisticsMetric()
    >>> _ = metric(decisions=torch.tensor([[[[True], [False], [False], [False]]]]))
    >>> metric.compute()["anomaly/anomaly_percentage"]
    25.0
    """

    INPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged", optional=True)
    }

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def reset(self) -> None:
        """Forget all counts."""
        self._total = self._flagged = 0

    def compute(self) -> dict[str, float]:
        """Counts so far; none without pixels."""
        if not self._total:
            return {}
        return {
            "anomaly/total_pixels": float(self._total),
            "anomaly/anomalous_pixels": float(self._flagged),
            "anomaly/anomaly_percentage": 100.0 * self._flagged / self._total,
        }

    def forward(
        self, decisions: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Any]:
        """Add ``decisions`` (B, y, x, 1) and give the values so far."""
        need_shapes(self, decisions=decisions)
        if decisions is not None:
            self._total += decisions.numel()
            self._flagged += int(decisions.count_nonzero())
        return self.so_far(context)


class DistinctLabelCount(MetricNode):
    """How many different labels other than 0 each frame holds: segments, clusters, objects.

    The port ``count`` has them per frame of the batch, and so has ``metrics``
    (``num_distinct_labels``); :meth:`compute` gives their mean over all frames since
    :meth:`reset`. It runs in every stage.

    Examples
    --------
    >>> DistinctLabelCount()(mask=torch.tensor([[[0, 5, 5, 7]]], dtype=torch.int32))["count"]
    tensor([2])
    """

    INPUT_SPECS = {"mask": PortSpec(torch.int32, (-1, -1, -1), "labels; 0 is background")}
    OUTPUT_SPECS = {
        "count": PortSpec(torch.int64, (-1,), "different labels per frame"),
        **MetricNode.OUTPUT_SPECS,
    }
    stages = ALWAYS

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def reset(self) -> None:
        """Forget all frames."""
        self._frames = self._labels = 0

    def compute(self) -> dict[str, float]:
        """Mean over frames so far."""
        return {"num_distinct_labels": self._labels / self._frames} if self._frames else {}

    def forward(self, mask: Tensor, context: Context | None = None) -> dict[str, Any]:
        """Count the labels of each frame of ``mask`` (B, y, x)."""
        need_shapes(self, mask=mask)
        counts = [int(torch.unique(frame).count_nonzero()) for frame in mask]
        self._frames += len(counts)
        self._labels += sum(counts)
        return {
            "count": torch.tensor(counts, dtype=torch.int64, device=mask.device),
            "metrics": listed((("num_distinct_labels", float(n)) for n in counts), context),
        }
