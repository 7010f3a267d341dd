"""Fourth powers of distances from the mean: what optimal shrinkage of a covariance needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.leaves import LEAF_PIXELS
from hsi_batch.statistics.measure import Measure, chosen_pixels

__all__ = ["FourthPowers", "SquaredNorms", "ledoit_wolf", "oracle_approximating"]


@dataclass(frozen=True, eq=False)
class SquaredNorms:
    """``q = sum |x - m|^4`` about the mean ``m``, with what it takes to merge it.

    With ``y = x - m``, scatter ``M = sum y y^T`` and ``t = sum |y|^2 y``, moving the mean by ``-d``
    gives, since ``sum y = 0``::

        t' = t + tr(M) d + 2 M d + n |d|^2 d
        q' = q + 4 d.t + 2 |d|^2 tr(M) + 4 d^T M d + n |d|^4

    so two sets merge by moving both to their common mean.

    Attributes
    ----------
    moments : FloatMoments
        ``n``, ``m`` and ``M``.
    third : numpy.ndarray of float64, shape (C,)
        ``t``.
    fourth : float
        ``q``.

    Examples
    --------
    >>> parts = [SquaredNorms.of(np.array([[x]])) for x in (1.0, 2.0, 6.0)]
    >>> parts[0].merge(parts[1]).merge(parts[2]).fourth
    98.0
    """

    moments: FloatMoments
    third: NDArray[np.float64]
    fourth: float

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> SquaredNorms:
        """Of ``(n, C)`` pixels; 4096 at once are centred on their own mean."""
        channels = pixels.shape[1]
        whole = cls(FloatMoments.zero(channels), np.zeros(channels), 0.0)
        for start in range(0, len(pixels), LEAF_PIXELS):
            group = np.array(pixels[start : start + LEAF_PIXELS], dtype=np.float64, order="C")
            moments = FloatMoments.zero(channels).update(group)
            group -= moments.mean
            squares = np.einsum("ij,ij->i", group, group)
            whole = whole.merge(cls(moments, squares @ group, float(squares @ squares)))
        return whole

    def merge(self, other: SquaredNorms) -> SquaredNorms:
        """Union of both."""
        if other.moments.count == 0:
            return self
        if self.moments.count == 0:
            return other
        moments = self.moments.merge(other.moments)
        mine, theirs = self._about(moments.mean), other._about(moments.mean)
        return SquaredNorms(moments, mine[0] + theirs[0], mine[1] + theirs[1])

    def _about(self, centre: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        scatter, count = self.moments.scatter, self.moments.count
        shift = self.moments.mean - centre
        length = float(shift @ shift)
        spread = float(np.trace(scatter))
        turned = scatter @ shift
        third = self.third + spread * shift + 2.0 * turned + count * length * shift
        fourth = (
            self.fourth
            + 4.0 * float(shift @ self.third)
            + 2.0 * length * spread
            + 4.0 * float(shift @ turned)
            + count * length**2
        )
        return third, fourth


class FourthPowers(Measure):
    """Takes :class:`SquaredNorms` of the valid pixels."""

    @property
    def name(self) -> str:
        """``fourth powers``."""
        return "fourth powers"

    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,  # noqa: ARG002
    ) -> SquaredNorms:
        """Of a leaf."""
        return SquaredNorms.of(chosen_pixels(lines, valid))


def ledoit_wolf(covariance: NDArray[np.float64], count: int, fourth: float) -> float:
    """Share of the identity that minimises the expected squared error of a shrunk covariance.

    The estimate is ``(1 - s) S + s tr(S) / C I`` with ``s = min(b, d) / d``,
    ``d = |S - tr(S) / C I|^2`` and ``b = (sum |x - m|^4 / n - |S|^2) / n`` (Frobenius norms).
    Ledoit and Wolf, J. Multivariate Analysis 88 (2004) 365-411, lemma 3.2 to theorem 3.2.

    Parameters
    ----------
    covariance : numpy.ndarray of float64, shape (C, C)
        ``S``, divided by ``n``.
    count : int
        ``n``.
    fourth : float
        ``sum |x - m|^4``.
    """
    square = float(np.sum(covariance**2))
    distance = square - float(np.trace(covariance)) ** 2 / len(covariance)
    error = (fourth / count - square) / count
    if error <= 0 or distance <= 0:
        return 0.0 if error <= 0 else 1.0
    return min(error, distance) / distance


def oracle_approximating(covariance: NDArray[np.float64], count: int) -> float:
    """Share of the identity for Gaussian pixels; it needs no fourth powers.

    ``s = (a + m^2) / ((n + 1) (a - m^2 / C))``, at most 1, with ``a`` the mean of the squared
    entries of ``S`` and ``m = tr(S) / C``; in the form of scikit-learn's ``OAS``. Chen, Wiesel,
    Eldar and Hero, IEEE Trans. Signal Processing 58 (2010) 5016-5029.
    """
    channels = len(covariance)
    square = float(np.mean(covariance**2))
    level = (float(np.trace(covariance)) / channels) ** 2
    divisor = (count + 1.0) * (square - level / channels)
    return 1.0 if divisor <= 0 else min((square + level) / divisor, 1.0)
