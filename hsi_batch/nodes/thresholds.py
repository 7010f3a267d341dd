"""Deciders with one threshold for all frames, from the scores of the fit."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataError, DataWarning, PipelineError
from hsi_batch.nodes.node import Node, Request, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.tails import (
    Counts,
    chi2_threshold,
    hotelling_threshold,
    pareto_tail,
    pareto_threshold,
)
from hsi_batch.statistics.histogram import Histogram

__all__ = ["ArchiveQuantileDecider", "CFARThreshold"]

#: Fewest scores in the tail that a threshold is read from: it then errs by about a tenth.
_FEWEST = 100


class _FittedThreshold(Node):
    """Flags ``score >= threshold``, with a threshold from the histogram of the scores."""

    OUTPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged"),
        "threshold_value": PortSpec(torch.float32, (1,), "threshold", optional=True),
    }
    TRAINABLE_BUFFERS = ("threshold",)
    PARAMETER_PORTS = {"threshold_value": "threshold"}
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

    def fit(self, statistic: Histogram) -> None:
        """Set the threshold, here and in the arguments, so that files show it."""
        values, counts = statistic.bins(0)
        scores = Counts(values, counts)
        if not scores.total:
            raise DataError(
                f"{self.name}: no valid score was counted.",
                hint="Select more frames, or check the quality flags (hsi-batch show).",
            )
        exact, facts = self._threshold(statistic, scores)
        if not math.isfinite(exact):
            raise DataError(
                f"{self.name}: the threshold is {exact}: scores of the fit are not finite.",
                hint="Look for values that are too large for float32 in front of the scores.",
            )
        # Scores are float32: at or above `exact` is at or above the next float32 from there on.
        rounded = np.float32(exact)
        if float(rounded) < exact:
            rounded = np.nextafter(rounded, np.float32(np.inf))
        self.set_state(
            {
                "count": np.array(scores.total),
                "above": np.array(scores.above(float(rounded))),
                "threshold": np.array(exact),
                "relative_error": np.array(statistic.relative_error),
                **{name: np.array(value) for name, value in facts.items()},
            },
            threshold=np.array([rounded]),
        )
        self.hparams["threshold"] = float(rounded)

    @abstractmethod
    def _threshold(self, statistic: Histogram, scores: Counts) -> tuple[float, dict[str, float]]:
        """The threshold, and what else is worth keeping."""

    def _decide(self, scores: Tensor) -> dict[str, Tensor]:
        self._need_fit()
        limit = self.threshold.detach()
        return {"decisions": scores >= limit, "threshold_value": limit.clone()}


class ArchiveQuantileDecider(_FittedThreshold):
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

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Decide ``logits`` (B, y, x, 1)."""
        return self._decide(logits)


class CFARThreshold(_FittedThreshold):
    """Flag pixels above a threshold that background exceeds with the probability ``pfa``.

    Constant false-alarm rate: the threshold comes from the scores of the fit, which should be
    those of background (select with ``pixels: labelled-normal`` where labels exist).

    ============= ===========================================================================
    ``empirical`` the smallest score that at most ``pfa`` of all lie at or above; needs
                  ``n pfa >= 100``
    ``chi2``      upper quantile of a chi-square with ``dof`` degrees of freedom, the law of
                  RX scores of Gaussian background; without ``dof`` that of ``s`` times a
                  chi-square with the mean and variance of the scores,
                  ``s = var / (2 mean)``, ``dof = 2 mean^2 / var`` (Satterthwaite,
                  Biometrics Bulletin 2, 1946)
    ``f``         the same for a covariance from ``background_pixels`` pixels, Hotelling's law:
                  ``C (n^2 - 1) / (n (n - C)) F(C, n - C)``
    ``gpd``       generalised Pareto law fitted to what exceeds the upper ``tail`` of the
                  scores, by probability-weighted moments (Hosking and Wallis,
                  Technometrics 29, 1987)
    ============= ===========================================================================

    How many scores of the fit were above, and how many were expected to be (``n pfa``), is in the
    state as ``above`` and ``expected``; a law that fits badly shows there.

    Parameters
    ----------
    pfa : float
        Probability of a false alarm per pixel, between 0 and 1.
    method : {"empirical", "chi2", "f", "gpd"}
        How the threshold is found, as above.
    dof : float, optional
        Degrees of freedom: the channels behind the score. Needed for ``f``.
    background_pixels : int, optional
        Pixels behind the covariance, for ``f``; the pixels of the fit by default.
    tail : float
        Share of the scores that ``gpd`` is fitted to; it must hold at least 100 of them.
    threshold : float, optional
        In units of the score; written by the fit. A pipeline with a threshold runs without a fit;
        a fit replaces it.

    Attributes
    ----------
    threshold : torch.Tensor of float32, shape (1,)

    Examples
    --------
    >>> from hsi_batch.statistics import Histogram
    >>> node = CFARThreshold(pfa=0.1)
    >>> scores = np.arange(1000, dtype=np.float32)[:, None]
    >>> node.fit(Histogram.empty(1, "float32").update(scores))
    >>> node.hparams["threshold"], int(node.state["above"])
    (900.0, 100)
    """

    INPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "scores")}

    def __init__(
        self,
        pfa: float = 1e-3,
        method: Literal["empirical", "chi2", "f", "gpd"] = "empirical",
        dof: float | None = None,
        background_pixels: int | None = None,
        tail: float = 0.02,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            threshold,
            pfa=pfa,
            method=method,
            dof=dof,
            background_pixels=background_pixels,
            tail=tail,
        )
        if not 0 < pfa < 1:
            raise PipelineError(f"pfa {pfa} must be between 0 and 1.")
        if method not in ("empirical", "chi2", "f", "gpd"):
            raise PipelineError(f"method {method!r} is not one of empirical, chi2, f, gpd.")
        if dof is not None and not dof > 0:
            raise PipelineError(f"dof {dof} must be above 0.")
        if method == "f" and dof is None:
            raise PipelineError("dof is needed for the method 'f': the channels behind the score.")
        if method == "gpd" and not pfa < tail < 1:
            raise PipelineError(f"tail {tail} must be above pfa {pfa} and below 1.")
        self.pfa = float(pfa)
        self.method = method
        self.dof = dof
        self.background_pixels = background_pixels
        self.tail = float(tail)

    def _threshold(self, statistic: Histogram, scores: Counts) -> tuple[float, dict[str, float]]:  # noqa: ARG002
        expected = scores.total * self.pfa
        facts: dict[str, float] = {}
        if self.method == "empirical":
            threshold = self._empirical(scores, expected)
        elif self.method == "chi2":
            threshold, facts = self._chi2(scores)
        elif self.method == "f":
            threshold, facts = self._hotelling(scores)
        else:
            threshold, facts = self._pareto(scores)
        return threshold, {"expected": expected, **facts}

    def _empirical(self, scores: Counts, expected: float) -> float:
        if expected < _FEWEST:
            raise DataError(
                f"{self.name}: {scores.total} scores with pfa {self.pfa:g} leave"
                f" {expected:.3g} in the tail, too few to read a threshold from"
                f" ({_FEWEST} are needed).",
                hint=f"Use at least {math.ceil(_FEWEST / self.pfa)} pixels, pfa"
                f" {_FEWEST / scores.total:.2g} or more, or method: gpd, which extrapolates.",
            )
        return scores.largest_with(self.pfa)

    def _chi2(self, scores: Counts) -> tuple[float, dict[str, float]]:
        if self.dof is not None:
            return chi2_threshold(self.pfa, self.dof), {"dof": self.dof, "scale": 1.0}
        mean, variance = scores.moments()
        if not (mean > 0 and variance > 0):
            raise DataError(
                f"{self.name}: scores with mean {mean:g} and variance {variance:g} follow no"
                " chi-square.",
                hint="Use method: empirical or gpd.",
            )
        scale, dof = variance / (2 * mean), 2 * mean**2 / variance
        return chi2_threshold(self.pfa, dof, scale), {"dof": dof, "scale": scale}

    def _hotelling(self, scores: Counts) -> tuple[float, dict[str, float]]:
        assert self.dof is not None
        pixels = self.background_pixels or scores.total
        if pixels <= self.dof:
            raise DataError(
                f"{self.name}: {pixels} background pixels for {self.dof:g} channels; more pixels"
                " than channels are needed.",
                hint="Set background_pixels to the pixels that the score was fitted from.",
            )
        threshold = hotelling_threshold(self.pfa, self.dof, pixels)
        return threshold, {"dof": self.dof, "background_pixels": pixels}

    def _pareto(self, scores: Counts) -> tuple[float, dict[str, float]]:
        start = scores.largest_with(self.tail)
        excess = scores.beyond(start)
        if excess.total < _FEWEST or len(excess.values) < 2:
            raise DataError(
                f"{self.name}: {excess.total} scores ({len(excess.values)} different) lie above the"
                f" upper {self.tail:g} of {scores.total}, too few to fit a tail to"
                f" ({_FEWEST} are needed).",
                hint="Use more pixels, or a larger `tail`.",
            )
        shape, scale = pareto_tail(excess)
        if shape >= 0.5:
            warnings.warn(
                f"{self.name}: the tail of the scores is very heavy (shape {shape:.2f}): the fit"
                " holds anomalies, or frames of different kinds. Fit on labelled-normal pixels, or"
                " one background per session.",
                DataWarning,
                stacklevel=3,
            )
        share = excess.total / scores.total
        threshold = pareto_threshold(self.pfa, start, share, shape, scale)
        return threshold, {"start": start, "shape": shape, "scale": scale, "tail": excess.total}

    def forward(self, scores: Tensor) -> dict[str, Tensor]:
        """Decide ``scores`` (B, y, x, 1)."""
        return self._decide(scores)
