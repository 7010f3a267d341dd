"""Angles between spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec

__all__ = ["SpectralAngleMapper", "reference_spectra"]

#: Pixels that are compared at once.
_GROUP = 4096


class SpectralAngleMapper(Node):
    """Angle, in radians, between each spectrum and each reference.

    ``angle = 2 atan2(|u - v|, |u + v|)`` with ``u`` and ``v`` scaled to length 1, in float64:
    unlike the arc cosine of ``u . v`` it keeps its digits near zero (Kahan, How futile are
    mindless assessments of roundoff, 2006). Kruse et al., The Spectral Image Processing System,
    Remote Sensing of Environment 44 (1993). A spectrum of length zero is at ``pi / 2`` from all.

    cuvis-ai divides spectra by their mean first, which turns the direction of those whose mean is
    negative; here angles are those of the spectra as they are.

    Parameters
    ----------
    num_channels : int, optional
        Channels of the input; taken from the data if not given.
    eps : float
        Smallest length that is divided by.
    references : sequence of sequence of float, optional
        Reference spectra ``(N, C)`` in the units of the input. Without them the port
        ``spectral_signature`` must be fed, ``(N, 1, 1, C)``, and frames are seen whole.

    Examples
    --------
    >>> node = SpectralAngleMapper(references=[[1.0, 0.0], [0.0, 1.0]])
    >>> out = node(cube=torch.tensor([[[[5.0, 0.0], [1.0, 1.0]]]]))
    >>> out["best_scores"].ravel(), out["identity_mask"]
    (tensor([0.0000, 0.7854]), tensor([[[1, 1]]], dtype=torch.int32))
    """

    INPUT_SPECS = {
        "cube": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "cube"),
        "spectral_signature": PortSpec(
            torch.float32, (-1, 1, 1, -1), "references (N, 1, 1, C)", optional=True
        ),
    }
    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, -1), "angle to each reference, rad"),
        "best_scores": PortSpec(torch.float32, (-1, -1, -1, 1), "smallest angle, rad"),
        "identity_mask": PortSpec(
            torch.int32, (-1, -1, -1), "number of the nearest reference, from 1"
        ),
    }
    CHANNEL_ARGUMENT = "num_channels"

    def __init__(
        self,
        num_channels: int | None = None,
        eps: float = 1e-12,
        references: Sequence[Sequence[float]] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name, num_channels=num_channels, eps=eps, references=references)
        need_non_negative(eps=eps)
        self.num_channels = num_channels
        self.eps = float(eps)
        self.references: Tensor | None = None
        if references is not None:
            self.references = reference_spectra(references)

    @property
    def scope(self) -> Scope:
        """A pixel at a time with references of its own, else a frame."""
        return Scope.FRAME if self.references is None else Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel per reference."""
        if self.references is None:
            return {}
        count, channels = self.references.shape
        if channels != axes["cube"].size:
            raise PipelineError(
                f"{self.name}: references have {channels} channels, its input {axes['cube'].size}.",
                hint="Resample the references to the channels of the recordings.",
            )
        return {"scores": ChannelAxis(count)}

    def forward(self, cube: Tensor, spectral_signature: Tensor | None = None) -> dict[str, Tensor]:
        """Angles of ``cube`` (B, y, x, C) as (B, y, x, N)."""
        if spectral_signature is not None:
            references = spectral_signature.reshape(-1, spectral_signature.shape[-1]).double()
        elif self.references is not None:
            references = self.references.to(cube.device)
        else:
            raise PipelineError(
                f"{self.name} has nothing to compare with.",
                hint="Set `references`, or feed the port `spectral_signature`.",
            )
        if references.shape[-1] != cube.shape[-1]:
            raise PipelineError(
                f"{self.name}: references have {references.shape[-1]} channels, its input"
                f" {cube.shape[-1]}.",
                hint="Give references of the same channels, or a library with wavelengths.",
            )
        units = self._unit(references)
        groups = torch.split(cube.reshape(-1, cube.shape[-1]), _GROUP)
        angles = torch.cat([self._angles(self._unit(g.double()), units) for g in groups])
        angles = angles.to(torch.float32).reshape(*cube.shape[:-1], len(units))
        best, nearest = angles.min(dim=-1)
        return {
            "scores": angles,
            "best_scores": best[..., None],
            "identity_mask": (nearest + 1).to(torch.int32),
        }

    def _unit(self, spectra: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(spectra, dim=-1, keepdim=True)
        smallest = max(self.eps, torch.finfo(torch.float64).tiny)
        return spectra / torch.clamp(length, min=smallest)

    @staticmethod
    def _angles(units: Tensor, references: Tensor) -> Tensor:
        columns = [
            2.0
            * torch.atan2(
                torch.linalg.vector_norm(units - reference, dim=-1),
                torch.linalg.vector_norm(units + reference, dim=-1),
            )
            for reference in references
        ]
        return torch.stack(columns, dim=-1)


def reference_spectra(references: Sequence[Sequence[float]]) -> Tensor:
    """Spectra ``(N, C)`` of a parameter, float64, checked."""
    try:
        values = np.asarray(references, dtype=np.float64)
    except ValueError:
        raise PipelineError(
            "references differ in their number of channels.",
            hint="Give all of them the same channels.",
        ) from None
    if values.ndim != 2 or not values.size:
        raise PipelineError(
            f"references have shape {values.shape}; expected one row of values per spectrum."
        )
    if not np.isfinite(values).all():
        raise PipelineError(
            "references hold values that are not finite.", hint="Remove these spectra."
        )
    if not np.any(values, axis=1).all():
        raise PipelineError(
            "references hold a spectrum of zeros, which has no direction.", hint="Remove it."
        )
    return torch.from_numpy(values.copy())
