"""Factorising covariances: checks, rank, condition and the whitening factor, in float64."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from hsi_batch.errors import DataError, DataWarning
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.statistics.moments import Moments

__all__ = [
    "WORST_CONDITION",
    "Background",
    "background",
    "covariance_rank",
    "eigh",
    "least_squares",
    "qr_triangle",
    "single_thread",
    "square_root",
    "whitening",
]

#: Real scenes reach 1e9; where float32 rounding is all that a direction holds, it is above 1e11.
WORST_CONDITION = 1e10


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch and BLAS on one thread, so that bits do not depend on the number of cores.

    Threads of a process may be inside at the same time; the last to leave lifts the limit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _blas.enter()
    try:
        yield
    finally:
        _blas.leave()
        torch.set_num_threads(threads)


class _BlasLimit:
    # The number of BLAS threads is one for the process; torch counts its own per thread.
    # Threadpoolctl lets a limit be lifted by the living thread that set it, or by any when that
    # one is gone: so threads of their own set and lift it.

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                _apart(self._set)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _apart(self._limit.restore_original_limits)

    def _set(self) -> None:
        self._limit = _thread_pools().limit(limits=1, user_api="blas")


def _apart(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


_blas = _BlasLimit()


@cache
def _thread_pools() -> ThreadpoolController:
    # Looking for loaded libraries takes milliseconds; the BLAS libraries are loaded by now.
    return ThreadpoolController()


def eigh(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues (descending) and eigenvectors (rows) of a symmetric matrix.

    The sign of each vector is fixed: its entry of largest magnitude is positive.
    """
    with single_thread():
        values, vectors = torch.linalg.eigh(torch.from_numpy(np.array(matrix)))
    ordered = vectors.numpy().T[::-1].copy()
    largest = np.argmax(np.abs(ordered), axis=1)
    ordered *= np.sign(ordered[np.arange(len(ordered)), largest])[:, None]
    return values.numpy()[::-1].copy(), ordered


def covariance_rank(eigenvalues: NDArray[np.float64]) -> int:
    """How many eigenvalues (descending) are more than rounding: above ``C eps64`` the largest."""
    least = max(eigenvalues[0], 0.0) * len(eigenvalues) * np.finfo(np.float64).eps
    return int(np.count_nonzero(eigenvalues > least))


def qr_triangle(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reduced QR decomposition; the triangle's lower part is exactly zero."""
    with single_thread():
        orthogonal, triangle = torch.linalg.qr(torch.from_numpy(np.array(matrix)))
    return orthogonal.numpy(), np.triu(triangle.numpy())


def least_squares(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest ``x`` that minimises ``|matrix x - target|``."""
    with single_thread():
        solution = torch.linalg.lstsq(
            torch.from_numpy(np.array(matrix)), torch.from_numpy(target)[:, None], driver="gelsd"
        ).solution
    return np.asarray(solution[:, 0].numpy())


def whitening(covariance: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """``L^-1`` with ``L L^T = covariance`` (Cholesky), or None if it is not positive definite.

    Examples
    --------
    >>> whitening(np.array([[4.0, 0.0], [0.0, 9.0]]))
    array([[0.5       , 0.        ],
           [0.        , 0.33333333]])
    """
    with single_thread():
        lower, info = torch.linalg.cholesky_ex(torch.from_numpy(np.array(covariance)))
        if int(info) != 0:
            return None
        identity = torch.eye(len(covariance), dtype=torch.float64)
        inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    factor: NDArray[np.float64] = np.tril(inverse.numpy())
    return factor if np.isfinite(factor).all() else None


def square_root(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """``F`` with ``F^T F = matrix`` for a symmetric matrix; negative eigenvalues count as zero."""
    with single_thread():
        values, vectors = torch.linalg.eigh(torch.from_numpy((matrix + matrix.T) / 2))
    root = np.sqrt(np.clip(values.numpy(), 0.0, None))
    return np.asarray(root[:, None] * vectors.numpy().T)


@dataclass(frozen=True)
class Background:
    """A fitted Gaussian background.

    Attributes
    ----------
    count : int
        Pixels it was fitted from.
    mean : numpy.ndarray of float64, shape (C,)
    covariance : numpy.ndarray of float64, shape (C, C)
        With the ridge added.
    factor : numpy.ndarray of float64, shape (C, C)
        Lower triangular; ``|factor (x - mean)|^2`` is the squared Mahalanobis distance.
    rank : int
        Eigenvalues of the covariance without ridge above ``C eps64`` times the largest.
    condition : float
        Largest over smallest eigenvalue of the covariance with the ridge.
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    factor: NDArray[np.float64]
    rank: int
    condition: float


def background(
    moments: Moments,
    *,
    eps: float,
    loading: float,
    axis: ChannelAxis | None,
    name: str,
    shrinkage: float | None = None,
) -> Background:
    """Mean, covariance and whitening factor from moments.

    The ridge ``eps + loading * trace(covariance) / C`` is added to the diagonal once, in float64.
    With a ``shrinkage`` the covariance is ``(1 - shrinkage) S + shrinkage trace(S) / C I``, before
    that, and ``S`` is divided by ``n``, as in the literature on shrinkage, else by ``n - 1``.

    Raises
    ------
    hsi_batch.errors.DataError
        Too few pixels, a constant channel, or a covariance that cannot be inverted; the message
        says which and what to do.
    """
    channels = moments.channels
    covariance = moments.covariance(1 if shrinkage is None else 0)
    share = shrinkage or 0.0
    scale = float(np.trace(covariance)) / channels
    ridge = eps + (loading + share) * scale
    advice = (
        "Select more pixels, remove channels (BandpassByWavelength, TrainablePCA), or set"
        " `loading` (for example 1e-6, relative to the mean variance)."
    )
    if moments.count <= channels and share == 0:
        found = f"{name}: {moments.count} valid pixels for {channels} channels"
        _judge(
            f"{found}, so the covariance is singular; more pixels than channels are needed.",
            advice,
            fatal=ridge == 0,
        )
    constant = np.flatnonzero(np.diagonal(covariance) == 0)
    if constant.size:
        _judge(
            f"{name}: {_channels(constant, axis)} constant over all {moments.count} pixels,"
            " so the covariance is singular.",
            advice,
            fatal=ridge == 0,
        )
    values, _ = eigh(covariance)
    rank = covariance_rank(values)
    covariance *= 1.0 - share
    covariance[np.diag_indices(channels)] += ridge
    factor = whitening(covariance)
    if factor is None or (ridge == 0 and rank < channels):
        raise DataError(
            f"{name}: the covariance of {channels} channels has rank {rank} (from"
            f" {moments.count} pixels), so it cannot be inverted.",
            hint=advice,
        )
    largest, smallest = ((1.0 - share) * values[end] + ridge for end in (0, -1))
    condition = float(largest / smallest) if smallest > 0 else float("inf")
    if condition > WORST_CONDITION:
        warnings.warn(
            f"{name}: the covariance has condition {condition:.1e}: some directions vary so little"
            " that the scores along them follow the rounding of the values (a node such as"
            f" PerPixelUnitNorm takes one direction away). {advice}",
            DataWarning,
            stacklevel=3,
        )
    return Background(moments.count, moments.mean, covariance, factor, rank, condition)


def _judge(text: str, advice: str, *, fatal: bool) -> None:
    if fatal:
        raise DataError(text, hint=advice)
    warnings.warn(f"{text} The ridge makes it invertible all the same.", DataWarning, stacklevel=4)


def _channels(indices: NDArray[Any], axis: ChannelAxis | None) -> str:
    shown = []
    for index in indices[:6]:
        known = axis is not None and axis.wavelength is not None
        shown.append(f"{index} ({axis.wavelength[index]:g} nm)" if known else str(index))  # type: ignore[union-attr,index]
    more = f" and {indices.size - 6} more" if indices.size > 6 else ""
    verb = "channel {} is" if indices.size == 1 else "channels {} are"
    return verb.format(", ".join(shown) + more)
