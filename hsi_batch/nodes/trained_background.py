"""A Gaussian background that is trained, in coordinates in which every step keeps it valid."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsi_batch.nodes.gaussian import single_thread

__all__ = ["TrainedBackground", "TrainedValues"]


class TrainedValues(NamedTuple):
    """What a background has become.

    Attributes
    ----------
    mean : numpy.ndarray of float64, shape (C,)
    factor : numpy.ndarray of float64, shape (C, C)
        ``|factor (x - mean)|^2`` is the score.
    covariance, inverse : numpy.ndarray of float64, shape (C, C)
    condition : float
        Of the covariance.
    """

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]
    covariance: NDArray[np.float64]
    inverse: NDArray[np.float64]
    condition: float


class TrainedBackground(nn.Module):
    """Score ``|T z - m|^2`` of whitened pixels ``z = F (x - mu)``, with ``T`` and ``m`` trained.

    ``F`` and ``mu`` are those of the fit. ``T`` is lower triangular with the exponentials of
    parameters on its diagonal, so that the inverse covariance ``(T F)^T (T F)`` is symmetric and
    positive definite whatever the parameters are, and no score is negative. All parameters start
    at 0, where the score is that of the fit; a step of the optimiser means the same along
    directions of large and of small variance, and weight decay leads back to the fit.

    Parameters
    ----------
    factor : numpy.ndarray of float64, shape (C, C)
    mean : numpy.ndarray of float64, shape (C,)

    Attributes
    ----------
    shift : torch.nn.Parameter, shape (C,)
        ``m``.
    packed : torch.nn.Parameter, shape (C (C + 1) / 2,)
        Lower triangle of ``T`` by rows, with the logarithms of its diagonal.
    """

    start_factor: Tensor
    start_mean: Tensor

    def __init__(self, factor: NDArray[np.float64], mean: NDArray[np.float64]) -> None:
        super().__init__()
        size = len(mean)
        self.register_buffer("start_factor", torch.from_numpy(np.array(factor, dtype=np.float64)))
        self.register_buffer("start_mean", torch.from_numpy(np.array(mean, dtype=np.float64)))
        self.shift = nn.Parameter(torch.zeros(size))
        self.packed = nn.Parameter(torch.zeros(size * (size + 1) // 2))

    def _save_to_state_dict(self, *_: Any, **__: Any) -> None:
        """Nothing: what it stands for is in the buffers of the node."""

    def _load_from_state_dict(self, *_: Any, **__: Any) -> None:
        """Nothing, likewise."""

    def triangle(self) -> Tensor:
        """``T`` in float64."""
        size = len(self.shift)
        rows, columns = torch.tril_indices(size, size, device=self.packed.device)
        empty = self.packed.new_zeros((size, size), dtype=torch.float64)
        full = empty.index_put((rows, columns), self.packed.double())
        return full.tril(-1) + torch.diag(full.diagonal().exp())

    def forward(self, pixels: Tensor) -> Tensor:
        """Score pixels ``(n, C)``; float64 ``(n,)``."""
        whitened = (pixels.double() - self.start_mean) @ self.start_factor.T
        return (whitened @ self.triangle().T - self.shift.double()).square().sum(dim=-1)

    def digest(self) -> str:
        """SHA-256 of the parameters."""
        content = [p.detach().cpu().numpy().tobytes() for p in (self.shift, self.packed)]
        return hashlib.sha256(b"".join(content)).hexdigest()

    def values(self) -> TrainedValues:
        """The background in the coordinates of the data."""
        with torch.no_grad(), single_thread():
            start = self.start_factor.cpu()
            triangle = self.triangle().cpu()
            factor = triangle @ start
            # A pseudo-inverse with a cut-off, which `inverse: pinv32` asks for, has no inverse.
            back = torch.linalg.pinv(start) @ torch.linalg.solve_triangular(
                triangle, torch.eye(len(start), dtype=torch.float64), upper=False
            )
            mean = self.start_mean.cpu() + back @ self.shift.detach().double().cpu()
            spread = torch.linalg.svdvals(factor)
            return TrainedValues(
                mean.numpy(),
                factor.numpy(),
                (back @ back.T).numpy(),
                (factor.T @ factor).numpy(),
                float((spread[0] / spread[-1]).square()) if spread[-1] > 0 else float("inf"),
            )
