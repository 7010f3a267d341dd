"""The Reed-Xiaoli detector with a background that outliers do not pull."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import special

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.gaussian import Background, background
from hsi_batch.nodes.node import Request, need_non_negative
from hsi_batch.nodes.rx import RXGlobal
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.trimmed import TrimmedMoments

__all__ = ["RobustRX"]


class RobustRX(RXGlobal):
    """Score pixels as :class:`RXGlobal`, against a background without the pixels far from it.

    Mean and covariance of all pixels are the start. In each round the pixels with a squared
    Mahalanobis distance up to the ``keep`` quantile ``q`` of chi-square with ``C`` degrees of
    freedom give a new mean and a new covariance, times the factor ``keep / P(chi2_(C+2) <= q)``
    that makes it consistent for Gaussian pixels. Rounds end when no direction's variance changes by
    more than ``tolerance``, or after ``rounds``. Every round is a pass over the pixels; distances
    are float64, so the pixels that are kept do not depend on how the work is cut up.

    The trimming and its factor are those of the reweighted estimates in Rousseeuw and Van Driessen,
    Technometrics 41 (1999) 212-223, and Croux and Haesbroeck, J. Multivariate Analysis 71 (1999)
    161-190, repeated as in the BACON of Billor, Hadi and Velleman, Computational Statistics & Data
    Analysis 34 (2000) 279-298.

    Parameters
    ----------
    num_channels : int, optional
        Channels of the input; taken from the data if not given.
    keep : float
        Share of a Gaussian background that is kept, between 0 and 1.
    rounds : int
        Passes over the pixels at most. Scenes of several materials are not Gaussian: there every
        round takes more of the rarer materials away, so few rounds do best.
    tolerance : float
        Largest relative change of a variance that counts as none.
    eps : float
        Absolute ridge.
    loading : float
        Ridge relative to the mean variance of the channels.

    Attributes
    ----------
    mu, cov, cov_inv : torch.Tensor of float32, shapes (C,), (C, C), (C, C)
        As in :class:`RXGlobal`.

    Examples
    --------
    >>> node = RobustRX(keep=0.99, rounds=3)
    >>> node.most_passes, [request.kind for request in node.requests()]
    (4, ['moments'])
    """

    def __init__(
        self,
        num_channels: int | None = None,
        keep: float = 0.999,
        rounds: int = 2,
        tolerance: float = 0.01,
        eps: float = 0.0,
        loading: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(num_channels, eps=eps, loading=loading, name=name)
        self.hparams = {
            "num_channels": num_channels,
            "keep": keep,
            "rounds": rounds,
            "tolerance": tolerance,
            "eps": eps,
            "loading": loading,
        }
        need_non_negative(tolerance=tolerance)
        if not 0 < keep < 1:
            raise PipelineError(f"keep {keep} is not between 0 and 1.")
        if rounds < 1:
            raise PipelineError(f"rounds {rounds} must be at least 1.")
        self.keep = float(keep)
        self.rounds = int(rounds)
        self.tolerance = float(tolerance)
        self._round = 0
        self._all = 0
        self._next: TrimmedMoments | None = None

    @property
    def most_passes(self) -> int:
        """One for all pixels, one per round."""
        return 1 + self.rounds

    @property
    def unsettled(self) -> bool:
        """Whether another round is wanted."""
        return self._next is not None

    def begin_fit(self) -> None:
        """Start from all pixels."""
        self._next = None

    def requests(self) -> tuple[Request, ...]:
        """Moments of all pixels, then of those that are kept."""
        return (Request("data", self._next or "moments"),)

    def fit(self, *statistics: Any) -> None:
        """Take the background of this round."""
        (statistic,) = statistics
        if self._next is None:
            self._round, self._all, before = 0, statistic.count, None
        else:
            self._round, before = self._round + 1, self._next
        channels = statistic.channels
        cut = 2 * float(special.gammaincinv(channels / 2, self.keep))
        consistent = 1.0 if before is None else self.keep / float(special.chdtr(channels + 2, cut))
        self._next = None
        with warnings.catch_warnings():
            if before is None:
                # What is wrong with the start matters only if it stays so.
                warnings.simplefilter("ignore", DataWarning)
            fitted = background(
                _scaled(statistic, consistent),
                eps=self.eps,
                loading=self.loading,
                axis=self.axes.get("data"),
                name=self.name,
            )
        change = np.inf if before is None else _change(before, fitted)
        settled = change <= self.tolerance
        self._set(
            fitted,
            rounds=np.array(self._round),
            kept=np.array(fitted.count / self._all),
            settled=np.array(settled),
        )
        if settled or self._round == self.rounds:
            self._judge_kept(fitted.count)
        else:
            self._next = TrimmedMoments(fitted.mean, fitted.factor, cut)

    def _judge_kept(self, count: int) -> None:
        if count < self._all / 2:
            warnings.warn(
                f"{self.name}: only {count} of {self._all} pixels are kept as background; more than"
                " half of the scene does not look like the rest. Set `keep` higher or `rounds`"
                " lower, or select frames that are more alike.",
                DataWarning,
                stacklevel=3,
            )


def _scaled(moments: Moments, factor: float) -> Moments:
    if factor == 1.0:
        return moments
    return FloatMoments(moments.count, moments.mean, moments.packed_scatter * factor)


def _change(before: TrimmedMoments, now: Background) -> float:
    """Largest relative change of the variance in any direction, and of the mean, in deviations."""
    whitened = before.factor @ now.covariance @ before.factor.T
    moved = before.factor @ (now.mean - before.mean)
    variances = np.linalg.eigvalsh(whitened)
    return float(max(np.abs(variances - 1.0).max(), moved @ moved))
