"""Mixtures of known spectra."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.spectral_angle import reference_spectra
from hsi_batch.statistics.least_squares import non_negative, smallest_direction

__all__ = ["SMALLEST_DIRECTION", "NNLSUnmixing", "unmixed"]

#: Smallest singular value of endmembers of length 1 that still tells them apart.
SMALLEST_DIRECTION = 1e-5


class NNLSUnmixing(Node):
    """How much of each known spectrum is in a pixel, none of it negative.

    ``x = argmin |x E - b|`` over ``x >= 0`` for the endmembers ``E`` (K, C) and the pixel ``b``,
    by the active-set method, in float64. The abundances need not sum to 1. C. L. Lawson and R. J.
    Hanson, Solving Least Squares Problems (1974), chapter 23.

    cuvis-ai takes steps along the gradient, which end early where endmembers are alike.

    Parameters
    ----------
    max_iter : int
        Changes of the active set of a pixel at most.
    tol : float
        Error that an abundance may have, times the length of its endmember, per length of the
        pixel.
    min_total : float
        Pixels whose abundances sum to less are of no class.
    references : sequence of sequence of float, optional
        Endmembers ``(K, C)`` in the units of the input. Without them the port ``endmembers`` must
        be fed, and frames are seen whole.

    Examples
    --------
    >>> node = NNLSUnmixing(references=[[1.0, 0.0], [1.0, 2.0]])
    >>> node(cube=torch.tensor([[[[2.0, 2.0]]]]))["abundances"].ravel().round(decimals=4)
    tensor([1., 1.])
    """

    INPUT_SPECS = {
        "cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
        "endmembers": PortSpec(torch.float32, (-1, -1), "spectra (K, C)", optional=True),
    }
    OUTPUT_SPECS = {
        "abundances": PortSpec(torch.float32, (-1, -1, -1, -1), "abundance of each endmember"),
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "length of what is left over"),
        "class_mask": PortSpec(
            torch.int32, (-1, -1, -1), "number of the most abundant endmember, from 1; 0 for none"
        ),
    }

    def __init__(
        self,
        max_iter: int = 500,
        tol: float = 1e-6,
        min_total: float = 0.0,
        references: Sequence[Sequence[float]] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name, max_iter=max_iter, tol=tol, min_total=min_total, references=references
        )
        need_non_negative(tol=tol)
        if max_iter < 1:
            raise PipelineError(f"max_iter {max_iter} must be at least 1.")
        self.max_iter, self.tol = int(max_iter), float(tol)
        self.min_total = float(min_total)
        self.references: NDArray[np.float64] | None = None
        if references is not None:
            self.references = reference_spectra(references).numpy()
            self._need_different(self.references)

    @property
    def scope(self) -> Scope:
        """A pixel at a time with references of its own, else a frame."""
        return Scope.FRAME if self.references is None else Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel per endmember."""
        if self.references is None:
            return {"scores": ChannelAxis(1)}
        self._need_channels(self.references, axes["cube"].size)
        return {"abundances": ChannelAxis(len(self.references)), "scores": ChannelAxis(1)}

    def _need_channels(self, endmembers: NDArray[np.float64], channels: int) -> None:
        if endmembers.shape[1] != channels:
            raise PipelineError(
                f"{self.name}: endmembers have {endmembers.shape[1]} channels, its input"
                f" {channels}.",
                hint="Resample the endmembers to the channels of the recordings.",
            )

    def _need_different(self, endmembers: NDArray[np.float64]) -> None:
        if not (np.isfinite(endmembers).all() and np.any(endmembers, axis=1).all()):
            raise PipelineError(
                f"{self.name}: endmembers must be finite, and none of them all zeros."
            )
        if smallest_direction(endmembers) < SMALLEST_DIRECTION:
            raise PipelineError(
                f"{self.name}: of {len(endmembers)} endmembers in {endmembers.shape[1]} channels"
                " one is a mixture of others, so abundances are not determined.",
                hint="Leave out endmembers that others make up.",
            )

    def forward(self, cube: Tensor, endmembers: Tensor | None = None) -> dict[str, Tensor]:
        """Unmix ``cube`` (B, y, x, C) into (B, y, x, K)."""
        if endmembers is not None:
            spectra = endmembers.detach().double().cpu().numpy()
            self._need_different(spectra)
        elif self.references is not None:
            spectra = self.references
        else:
            raise PipelineError(
                f"{self.name} has no endmembers.",
                hint="Set `references`, or feed the port `endmembers`.",
            )
        self._need_channels(spectra, cube.shape[-1])
        return unmixed(self, cube, spectra, self.max_iter, self.tol, self.min_total)


def unmixed(
    node: Node,
    cube: Tensor,
    endmembers: NDArray[np.float64],
    steps: int,
    tol: float,
    min_total: float,
) -> dict[str, Tensor]:
    """The outputs of an unmixing node for ``cube`` (B, y, x, C)."""
    pixels = cube.detach().double().cpu().numpy().reshape(-1, cube.shape[-1])
    finite = np.isfinite(pixels).all(axis=1)
    found = non_negative(pixels[finite], endmembers, steps, tol)
    if not found.settled:
        warnings.warn(
            f"{node.name}: some pixels were not done after {steps} steps; raise max_iter.",
            DataWarning,
            stacklevel=3,
        )
    abundances = np.full((len(pixels), len(endmembers)), np.nan)
    abundances[finite] = found.abundances
    scores = np.full(len(pixels), np.nan)
    scores[finite] = found.residuals
    labels = np.zeros(len(pixels), dtype=np.int32)
    total = found.abundances.sum(axis=1)
    named = (total >= min_total) & (total > 0)
    labels[finite] = np.where(named, found.abundances.argmax(axis=1) + 1, 0)
    shape = tuple(cube.shape[:-1])
    outputs = {
        "abundances": abundances.astype(np.float32).reshape(*shape, -1),
        "scores": scores.astype(np.float32).reshape(*shape, 1),
        "class_mask": labels.reshape(shape),
    }
    return {port: torch.from_numpy(value).to(cube.device) for port, value in outputs.items()}
