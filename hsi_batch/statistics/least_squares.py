"""Non-negative least squares of many pixels at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Unmixed", "non_negative", "smallest_direction"]

Values = NDArray[np.float64]
#: Pixels that are solved at once.
_GROUP = 4096
#: Gradients up to this, for spectra of length 1, are rounding.
_ROUNDING = 1e-14


class Unmixed(NamedTuple):
    """Abundances and what they leave over.

    Attributes
    ----------
    abundances : numpy.ndarray of float64, shape (n, K)
    residuals : numpy.ndarray of float64, shape (n,)
        ``|A x - b|``.
    settled : bool
        Whether all pixels are done.
    """

    abundances: Values
    residuals: Values
    settled: bool


def smallest_direction(endmembers: Values) -> float:
    """Smallest singular value of the endmembers ``(K, C)``, scaled to length 1; 0 if K > C."""
    if len(endmembers) > endmembers.shape[1]:
        return 0.0
    units = endmembers / np.linalg.norm(endmembers, axis=1)[:, None]
    return float(np.linalg.svd(units, compute_uv=False)[-1])


def non_negative(pixels: Values, endmembers: Values, steps: int, tol: float) -> Unmixed:
    """Minimise ``|x E - b|`` over ``x >= 0`` for each pixel ``b``.

    The active-set method of C. L. Lawson, R. J. Hanson, Solving Least Squares Problems (1974),
    chapter 23, all pixels of a group a step at a time. Pixels whose free solution is not negative
    need no step. By strong convexity the abundances, in units of pixel length by endmember length,
    are within ``sqrt(K) tol`` of the exact ones.

    Parameters
    ----------
    pixels : numpy.ndarray of float64, shape (n, C)
        Finite values.
    endmembers : numpy.ndarray of float64, shape (K, C)
        Linearly independent.
    steps : int
        Changes of the active set at most.
    tol : float
        Error that is allowed.
    """
    lengths = np.linalg.norm(endmembers, axis=1)
    units = endmembers / lengths[:, None]
    gram = units @ units.T
    least = max(tol * smallest_direction(endmembers) ** 2, _ROUNDING)
    parts, left, settled = [np.zeros((0, len(units)))], [np.zeros(0)], True
    for start in range(0, len(pixels), _GROUP):
        group = pixels[start : start + _GROUP]
        # Pixels of length 1 make tolerances relative.
        size = np.linalg.norm(group, axis=1)
        scaled = group / np.where(size > 0, size, 1.0)[:, None]
        found, done = _group(scaled, units, gram, steps, least)
        settled &= done
        left.append(np.linalg.norm(found @ units - scaled, axis=1) * size)
        parts.append(found * size[:, None] / lengths)
    return Unmixed(np.concatenate(parts), np.concatenate(left), settled)


def _group(
    pixels: Values, units: Values, gram: Values, steps: int, least: float
) -> tuple[Values, bool]:
    along = pixels @ units.T
    passive = np.ones(along.shape, dtype=bool)
    free = _solve(gram, pixels, units, along, passive)
    whole: NDArray[np.bool_] = np.min(free, axis=1, keepdims=True) >= 0
    x = np.where(whole, free, 0.0)
    passive &= whole
    barred = np.zeros_like(passive)
    rest = np.flatnonzero(~whole)
    for _ in range(steps):
        gradient = np.where(passive[rest] | barred[rest], -np.inf, along[rest] - x[rest] @ gram)
        rest = rest[gradient.max(axis=1) > least]
        if not rest.size:
            return x, True
        gradient = np.where(passive[rest] | barred[rest], -np.inf, along[rest] - x[rest] @ gram)
        entering = gradient.argmax(axis=1)
        passive[rest, entering] = True
        _step(rest, entering, x, passive, barred, (gram, pixels, units, along))
    return x, not rest.size


def _step(
    rest: NDArray[np.intp],
    entering: NDArray[np.intp],
    x: Values,
    passive: NDArray[np.bool_],
    barred: NDArray[np.bool_],
    problem: tuple[Values, Values, Values, Values],
) -> None:
    """Bring pixels to the solution on their passive sets, dropping what is negative."""
    gram, pixels, units, along = problem
    first = True
    while rest.size:
        s = _solve(gram, pixels[rest], units, along[rest], passive[rest])
        if first:
            # An endmember that would leave at once came in by rounding; another may come first.
            wrong = s[np.arange(len(rest)), entering] <= 0
            passive[rest[wrong], entering[wrong]] = False
            barred[rest[~wrong]] = False
            barred[rest[wrong], entering[wrong]] = True
            rest, s, first = rest[~wrong], s[~wrong], False
        negative = passive[rest] & (s <= 0)
        bad = negative.any(axis=1)
        x[rest[~bad]] = s[~bad]
        rest, s, negative = rest[bad], s[bad], negative[bad]
        if not rest.size:
            return
        now = x[rest]
        share = np.where(negative, now / np.where(negative, now - s, 1.0), np.inf)
        leaving = share <= share.min(axis=1)[:, None]
        now = np.maximum(now + share.min(axis=1)[:, None] * (s - now), 0.0)
        passive[rest] &= ~leaving
        x[rest] = np.where(passive[rest], now, 0.0)


def _solve(
    gram: Values, pixels: Values, units: Values, along: Values, passive: NDArray[np.bool_]
) -> Values:
    """Least squares on each passive set, zero elsewhere; refined once by the residual."""
    both = passive[:, :, None] & passive[:, None, :]
    matrix = np.where(both, gram, np.eye(len(gram)))
    s = np.linalg.solve(matrix, np.where(passive, along, 0.0)[..., None])[..., 0]
    again = (pixels - s @ units) @ units.T
    more = np.linalg.solve(matrix, np.where(passive, again, 0.0)[..., None])[..., 0]
    return np.asarray(np.where(passive, s + more, 0.0))
