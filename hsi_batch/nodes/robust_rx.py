"""The Reed-Xiaoli detector with a background that outliers do not pull."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from scipy import special

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.gaussian import Background, background
from hsi_batch.nodes.node import Request, need_non_negative
from hsi_batch.nodes.rx import RXGlobal
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.trimmed import TrimmedMoments
from hsi_batch.statistics.weighted import StudentMoments, WeightedMoments

__all__ = ["RobustRX"]


class RobustRX(RXGlobal):
    """Score pixels as :class:`RXGlobal`, against a background that pixels far from it do not pull.

    Mean and covariance of all pixels are the start; every round is a pass over the pixels that
    gives new ones. Rounds end when no direction's variance changes by more than ``tolerance``, or
    after ``rounds``. Distances are float64, so which pixels count, and how much, does not depend on
    how the work is cut up.

    With ``weights="trimmed"`` the pixels with a squared Mahalanobis distance up to the ``keep``
    quantile ``q`` of chi-square with ``C`` degrees of freedom give the new mean and covariance, the
    latter times ``keep / P(chi2_(C+2) <= q)``, which makes it consistent for Gaussian pixels: the
    reweighted estimates of Rousseeuw and Van Driessen, Technometrics 41 (1999) 212-223, and Croux
    and Haesbroeck, J. Multivariate Analysis 71 (1999) 161-190, repeated as in the BACON of Billor,
    Hadi and Velleman, Computational Statistics & Data Analysis 34 (2000) 279-298.

    With ``weights="student"`` no pixel is left out: each counts ``w = (nu + C) / (nu + d^2)`` with
    its squared distance ``d^2`` from mean and scatter, and ``mean = sum w x / sum w``, ``scatter =
    sum w (x - mean)(x - mean)^T / sum w`` are a step towards the most likely t distribution: Lange,
    Little and Taylor, J. American Statistical Association 84 (1989) 881-896, an M-estimator of
    Maronna, Annals of Statistics 4 (1976) 51-67, with the faster step of Kent, Tyler and Vardi,
    Communications in Statistics 23 (1994) 441-453. The covariance is the scatter over the number
    that it would be times the covariance after as many rounds, were the pixels Gaussian.

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
    weights : {"trimmed", "student"}
        Pixels count wholly or not at all, or the less the further away they are.
    nu : float
        Degrees of freedom for ``student``, above 0; the fewer, the less far pixels count.

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
        weights: Literal["trimmed", "student"] = "trimmed",
        nu: float = 4.0,
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
            "weights": weights,
            "nu": nu,
        }
        need_non_negative(tolerance=tolerance)
        if not 0 < keep < 1:
            raise PipelineError(f"keep {keep} is not between 0 and 1.")
        if rounds < 1:
            raise PipelineError(f"rounds {rounds} must be at least 1.")
        if weights not in ("trimmed", "student"):
            raise PipelineError(f"weights {weights!r} is not 'trimmed' or 'student'.")
        if not 0 < nu < np.inf:
            raise PipelineError(f"nu {nu} is not above 0 and finite.")
        self.weights, self.nu = weights, float(nu)
        self.keep = float(keep)
        self.rounds = int(rounds)
        self.tolerance = float(tolerance)
        self._round = 0
        self._all = 0
        #: What the scatter is of the covariance of Gaussian pixels, with Student's weights.
        self._scale = 1.0
        self._next: TrimmedMoments | StudentMoments | None = None

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
        """Moments of all pixels, then of those that are kept, or weighted."""
        return (Request("data", self._next or "moments"),)

    def fit(self, *statistics: Any) -> None:
        """Take the background of this round."""
        (statistic,) = statistics
        before = self._next
        if before is None:
            self._round, self._all, self._scale = 0, statistic.count, 1.0
        else:
            self._round += 1
        moments, kept = self._moments(statistic)
        self._next = None
        with warnings.catch_warnings():
            if before is None:
                # What is wrong with the start matters only if it stays so.
                warnings.simplefilter("ignore", DataWarning)
            fitted = background(
                moments,
                eps=self.eps,
                loading=self.loading,
                axis=self.axes.get("data"),
                name=self.name,
            )
        change = np.inf if before is None else _change(before, fitted)
        settled = change <= self.tolerance
        self._set(
            fitted, rounds=np.array(self._round), kept=np.array(kept), settled=np.array(settled)
        )
        if settled or self._round == self.rounds:
            self._judge_kept(fitted.count)
        elif self.weights == "student":
            # Distances are from the covariance; from the scatter they are this much shorter.
            self._next = StudentMoments(fitted.mean, fitted.factor, self.nu * self._scale)
        else:
            self._next = TrimmedMoments(fitted.mean, fitted.factor, self._cut(moments.channels))

    def _cut(self, channels: int) -> float:
        return 2 * float(special.gammaincinv(channels / 2, self.keep))

    def _moments(self, statistic: Moments | WeightedMoments) -> tuple[Moments, float]:
        """Moments that are consistent for Gaussian pixels, and the share of pixels that counts."""
        if isinstance(statistic, WeightedMoments):
            self._scale = _student_scale(len(statistic.mean), self.nu, self._scale)
            return statistic.moments(1.0 / self._scale), statistic.share
        share = statistic.count / max(self._all, 1)
        if self._round == 0:
            return statistic, share
        channels = statistic.channels
        consistent = self.keep / float(special.chdtr(channels + 2, self._cut(channels)))
        return (
            FloatMoments(statistic.count, statistic.mean, statistic.packed_scatter * consistent),
            share,
        )

    def _judge_kept(self, count: int) -> None:
        if count < self._all / 2:
            warnings.warn(
                f"{self.name}: only {count} of {self._all} pixels are kept as background; more than"
                " half of the scene does not look like the rest. Set `keep` higher or `rounds`"
                " lower, or select frames that are more alike.",
                DataWarning,
                stacklevel=3,
            )


def _student_scale(channels: int, nu: float, scale: float) -> float:
    """Scatter after a round for Gaussian pixels of covariance 1, from that of the round before.

    ``E[w q] / (C E[w])`` over ``q``, chi-square with ``C`` degrees of freedom, by the trapezoid
    rule in ``log q``, where the density is smooth and vanishes at both ends.
    """
    half = channels / 2
    t = np.linspace(-75 / half - 1, np.log1p(75 / half) + 1.5, 20_001)
    share = np.exp(half * (t + 1.0 - np.exp(t)))
    q = channels * np.exp(t)
    heavy = share / (nu + q / scale)
    return float((heavy @ q) / (channels * heavy.sum()))


def _change(before: TrimmedMoments | StudentMoments, now: Background) -> float:
    """Largest relative change of the variance in any direction, and of the mean, in deviations."""
    whitened = before.factor @ now.covariance @ before.factor.T
    moved = before.factor @ (now.mean - before.mean)
    variances = np.linalg.eigvalsh(whitened)
    return float(max(np.abs(variances - 1.0).max(), moved @ moved))
