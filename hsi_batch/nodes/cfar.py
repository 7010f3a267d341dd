"""A decider for a false-alarm rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Request
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.tails import (
    Counts,
    chi2_threshold,
    hotelling_threshold,
    pareto_tail,
    pareto_threshold,
)
from hsi_batch.nodes.thresholds import FittedThreshold
from hsi_batch.statistics.histogram import Histogram
from hsi_batch.statistics.moments import Moments

__all__ = ["CFARThreshold"]

#: Fewest scores in the tail that a threshold is read from: it then errs by about a tenth.
_FEWEST = 100
#: Most times that scores may be above more, or less, often than expected.
_FACTOR = 2.0
_LAWS = {"chi2": "a chi-square law", "f": "Hotelling's law", "gpd": "a generalised Pareto tail"}


class CFARThreshold(FittedThreshold):
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
    ``auto``      ``empirical`` where there are scores enough for it, else ``gpd``
    ============= ===========================================================================

    Scores take a pass over the pixels. Where the input ``background`` is connected to what the
    detector in front was fitted to, ``chi2`` and ``f`` take channels and pixels from its moments
    instead, which needs none. Real background is seldom Gaussian: then these two flag far more
    than ``pfa``, and nothing shows it.

    How many scores of the fit were above, and how many were expected to be (``n pfa``), is in the
    state as ``above`` and ``expected``; a warning says where they differ by more than a factor of
    two.

    Parameters
    ----------
    pfa : float
        Probability of a false alarm per pixel, between 0 and 1.
    method : {"empirical", "chi2", "f", "gpd", "auto"}
        How the threshold is found, as above.
    dof : float, optional
        Degrees of freedom: the channels behind the score. ``f`` needs it, or the input
        ``background``.
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
        Scores from here on are decided as anomalies.

    Examples
    --------
    >>> node = CFARThreshold(pfa=0.25)
    >>> node.fit(Histogram.empty(1, "float32").update(np.arange(400, dtype="f4")[:, None]))
    >>> node.hparams["threshold"]
    300.0
    >>> int(node.state["above"]), float(node.state["expected"])
    (100, 100.0)
    """

    INPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "scores"),
        "background": PortSpec(
            torch.float32, (-1, -1, -1, -1), "what the detector was fitted to", optional=True
        ),
    }
    FIT_INPUTS = frozenset({"background"})

    def __init__(
        self,
        pfa: float = 1e-3,
        method: Literal["empirical", "chi2", "f", "gpd", "auto"] = "empirical",
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
        if method not in ("empirical", "chi2", "f", "gpd", "auto"):
            raise PipelineError(f"method {method!r} is not one of empirical, chi2, f, gpd, auto.")
        if dof is not None and not dof > 0:
            raise PipelineError(f"dof {dof} must be above 0.")
        if background_pixels is not None and background_pixels < 1:
            raise PipelineError(f"background_pixels {background_pixels} must be at least 1.")
        if method in ("gpd", "auto") and not pfa < tail < 1:
            raise PipelineError(f"tail {tail} must be above pfa {pfa} and below 1.")
        self.pfa = float(pfa)
        self.method = method
        self.dof = dof
        self.background_pixels = background_pixels
        self.tail = float(tail)

    @property
    def _from_background(self) -> bool:
        return self.method in ("chi2", "f") and "background" in self.connected

    def request(self) -> Request:
        """Moments of the background for a law that is known, else the histogram of the scores."""
        return Request("background", "moments") if self._from_background else super().request()

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """Decisions; what a law needs must be there."""
        self._check_dof()
        return super().channel_axis(axes)

    def _check_dof(self) -> None:
        if self.method == "f" and self.dof is None and not self._from_background:
            raise PipelineError(
                f"{self.name}: the method 'f' needs the channels behind the score.",
                hint="Connect the input `background` to what the detector is fitted to, or set"
                " dof.",
            )

    def fit(self, statistic: Moments | Histogram) -> None:
        """Set the threshold, here and in the arguments, so that files show it."""
        self._check_dof()
        if isinstance(statistic, Histogram):
            super().fit(statistic)
            self._judge()
            return
        dof = float(statistic.channels) if self.dof is None else self.dof
        if self.method == "chi2":
            self._keep(chi2_threshold(self.pfa, dof), count=statistic.count, dof=dof)
        else:
            pixels = self.background_pixels or statistic.count
            self._keep(self._hotelling(dof, pixels), count=statistic.count, dof=dof, pixels=pixels)

    def _judge(self) -> None:
        above, expected = int(self.state["above"]), float(self.state["expected"])
        method = self._used(self.state)
        if method == "empirical" or max(above, expected) < _FEWEST:
            return
        if not expected / _FACTOR <= above <= expected * _FACTOR:
            warnings.warn(
                f"{self.name}: {above} of {int(self.state['count'])} scores of the fit are above"
                f" the threshold, where pfa {self.pfa:g} expects {expected:.4g}:"
                f" {_LAWS[method]} does not hold for them. Use method: empirical, which reads"
                " the threshold from them, or leave known anomalies out of the fit.",
                DataWarning,
                stacklevel=3,
            )

    def _used(self, state: Mapping[str, NDArray[Any]]) -> str:
        """The method behind a fitted threshold; a tail that was fitted is in the state."""
        if self.method != "auto":
            return self.method
        return "gpd" if "tail" in state else "empirical"

    def _origin(self, state: Mapping[str, NDArray[Any]]) -> str:
        text = f"pfa {self.pfa:g}"
        method = self._used(state)
        if method == "empirical":
            text += " by counting"
        elif method == "gpd":
            text += f" by {_LAWS['gpd']} of {int(state['tail'])} scores"
        else:
            text += f" by {_LAWS[method]} of {float(state['dof']):.4g} degrees of freedom"
        if "expected" not in state:
            return f"{text}, not compared with scores"
        return f"{text} ({float(state['expected']):.4g} scores expected)"

    def _threshold(self, statistic: Histogram, scores: Counts) -> tuple[float, dict[str, float]]:  # noqa: ARG002
        expected = scores.total * self.pfa
        facts: dict[str, float] = {}
        if self.method == "empirical" or (self.method == "auto" and expected >= _FEWEST):
            threshold = self._empirical(scores, expected)
        elif self.method == "chi2":
            threshold, facts = self._chi2(scores)
        elif self.method == "f":
            assert self.dof is not None
            pixels = self.background_pixels or scores.total
            threshold = self._hotelling(self.dof, pixels)
            facts = {"dof": self.dof, "background_pixels": pixels}
        else:
            threshold, facts = self._pareto(scores)
        return threshold, {"expected": expected, **facts}

    def _empirical(self, scores: Counts, expected: float) -> float:
        if expected < _FEWEST:
            least = _FEWEST / scores.total
            raise DataError(
                f"{self.name}: {scores.total} scores with pfa {self.pfa:g} leave"
                f" {expected:.3g} in the tail, too few to read a threshold from"
                f" ({_FEWEST} are needed).",
                hint=f"Use at least {math.ceil(_FEWEST / self.pfa)} pixels,"
                + (f" pfa {_ceil(least)} or more," if least < 1 else "")
                + " or method: gpd, which extrapolates.",
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

    def _hotelling(self, dof: float, pixels: int) -> float:
        if pixels <= dof:
            raise DataError(
                f"{self.name}: {pixels} background pixels for {dof:g} channels; more pixels"
                " than channels are needed.",
                hint="Set background_pixels to the pixels that the score was fitted from.",
            )
        return hotelling_threshold(self.pfa, dof, pixels)

    def _pareto(self, scores: Counts) -> tuple[float, dict[str, float]]:
        start = scores.largest_with(self.tail)
        excess = scores.beyond(start)
        if excess.total < _FEWEST or len(excess.values) < 2:
            # One score in the tail is its start, and no excess.
            least = (_FEWEST + 1) / scores.total
            raise DataError(
                f"{self.name}: {excess.total} scores ({len(excess.values)} different) lie above the"
                f" upper {self.tail:g} of {scores.total}, too few to fit a tail to"
                f" ({_FEWEST} are needed).",
                hint=f"Use at least {math.ceil((_FEWEST + 1) / self.tail)} pixels"
                + (f", or tail {_ceil(least)} or more." if self.tail < least <= 0.25 else "."),
            )
        shape, scale = pareto_tail(excess)
        # Where there are scores enough to compare with, that comparison decides.
        if shape >= 0.5 and scores.total * self.pfa < _FEWEST:
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

    def forward(self, scores: Tensor, background: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        """Decide ``scores`` (B, y, x, 1); ``background`` is looked at by the fit alone."""
        return self._decide(scores)


def _ceil(share: float) -> str:
    """Two digits, rounded up."""
    step = 10.0 ** (math.floor(math.log10(share)) - 1)
    return f"{np.ceil(share / step - 1e-9) * step:.2g}"
