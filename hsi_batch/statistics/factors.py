"""Non-negative factors of weighted spectra."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_factors", "non_negative_factors"]

Values = NDArray[np.float64]
#: Entries of initial factors up to this are none.
_NONE = 1e-6


def non_negative_factors(
    spectra: Values, weights: Values, start: tuple[Values, Values], steps: int, tol: float
) -> tuple[Values, bool]:
    """Minimise ``sum_i w_i |x_i - a_i E|^2`` over non-negative ``a`` and ``E``.

    Cyclic coordinate descent, all abundances and then all endmembers: A. Cichocki, A.-H. Phan, Fast
    local algorithms for large scale nonnegative matrix and tensor factorizations, IEICE Trans.
    Fundamentals E92-A (2009) 708-721.

    Parameters
    ----------
    spectra : numpy.ndarray of float64, shape (n, C)
    weights : numpy.ndarray of float64, shape (n,)
    start : tuple of numpy.ndarray of float64, shapes (n, K) and (K, C)
    steps : int
        At most.
    tol : float
        Steps end when the projected gradient is this small against that of the first step.

    Returns
    -------
    endmembers : numpy.ndarray of float64, shape (K, C)
    settled : bool
        Whether they rest.
    """
    abundances, endmembers = start[0].copy(), start[1].T.copy()
    ones = np.ones(len(endmembers))
    first = 0.0
    for step in range(steps):
        left = _sweep(abundances, endmembers.T @ endmembers, spectra @ endmembers, weights)
        heavy = abundances * weights[:, None]
        left += _sweep(endmembers, abundances.T @ heavy, spectra.T @ heavy, ones)
        first = first if step else left
        if left <= tol * first:
            return endmembers.T, True
    return endmembers.T, False


def _sweep(factor: Values, gram: Values, along: Values, weights: Values) -> float:
    """One step per column of a factor, in place; the sum of the projected gradient before it."""
    total = 0.0
    for k, curvature in enumerate(np.diagonal(gram)):
        gradient = factor @ gram[k] - along[:, k]
        column = factor[:, k]
        total += float(weights @ np.abs(np.where(column == 0, np.minimum(gradient, 0), gradient)))
        if curvature > 0:
            factor[:, k] = np.maximum(column - gradient / curvature, 0.0)
    return total


def first_factors(
    spectra: Values, weights: Values, count: int, init: str, random: np.random.Generator
) -> tuple[Values, Values]:
    """Factors to start from, ``(n, K)`` and ``(K, C)``.

    ``nndsvd`` takes the larger of the positive and the negative part of each singular pair;
    ``nndsvda`` puts the mean of the spectra where that is zero, ``nndsvdar`` small random numbers;
    ``random`` is nothing but random. C. Boutsidis, E. Gallopoulos, SVD based initialization: a head
    start for nonnegative matrix factorization, Pattern Recognition 41 (2008) 1350-1362.
    """
    mean = max(float(np.average(spectra, axis=0, weights=weights).mean()), 0.0)
    if init == "random":
        size = np.sqrt(mean / count)
        endmembers = size * np.abs(random.standard_normal((count, spectra.shape[1])))
        return size * np.abs(random.standard_normal((len(spectra), count))), endmembers
    # A spectrum that occurs w times weighs sqrt(w) in a singular vector.
    root = np.sqrt(weights)[:, None]
    left, values, right = np.linalg.svd(spectra * root, full_matrices=False)
    pairs = [_positive(left[:, k], right[k], values[k], whole=k == 0) for k in range(count)]
    abundances = np.stack([pair[0] for pair in pairs], axis=1) / root
    endmembers = np.stack([pair[1] for pair in pairs])
    for factor in (abundances, endmembers):
        empty = factor < _NONE
        factor[empty] = 0.0
        if init == "nndsvda":
            factor[empty] = mean
        elif init == "nndsvdar":
            factor[empty] = mean / 100 * np.abs(random.standard_normal(int(empty.sum())))
    return abundances, endmembers


def _positive(left: Values, right: Values, value: float, *, whole: bool) -> tuple[Values, Values]:
    """The non-negative part of a singular pair; the first pair has one sign throughout."""
    if whole:
        return np.sqrt(value) * np.abs(left), np.sqrt(value) * np.abs(right)
    parts = [(np.maximum(s * left, 0), np.maximum(s * right, 0)) for s in (1.0, -1.0)]
    sizes = [float(np.linalg.norm(u) * np.linalg.norm(v)) for u, v in parts]
    (u, v), size = (parts[0], sizes[0]) if sizes[0] > sizes[1] else (parts[1], sizes[1])
    if size == 0:
        return u, v
    scale = np.sqrt(value * size)
    return scale * u / np.linalg.norm(u), scale * v / np.linalg.norm(v)
