"""Nodes that choose what part of a spectrum is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.wavelengths import known_wavelengths
from hsi_batch.statistics.affine import Affine

__all__ = ["BandpassByWavelength"]


class BandpassByWavelength(Node):
    """Keep the channels with ``min_wavelength_nm <= wavelength <= max_wavelength_nm``.

    The wavelengths come with the data; the port ``wavelengths`` is needed only where the node runs
    on its own. The output carries the wavelengths that are left.

    Parameters
    ----------
    min_wavelength_nm : float
        Lower end, inclusive, nm.
    max_wavelength_nm : float, optional
        Upper end, inclusive, nm; no limit by default.
    missing : {"error", "keep_all"}
        What to do with recordings that state no wavelengths, or have none in the range: refuse
        them, or keep all their channels.

    Examples
    --------
    >>> node = BandpassByWavelength(500, 700)
    >>> cube = torch.arange(3.0).reshape(1, 1, 1, 3)
    >>> node(data=cube, wavelengths=np.array([450, 550, 650]))["filtered"]
    tensor([[[[1., 2.]]]])
    """

    INPUT_SPECS = {
        "data": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
        "wavelengths": PortSpec(np.int32, (-1,), "nm per channel", optional=True),
    }
    OUTPUT_SPECS = {"filtered": PortSpec(torch.float32, (-1, -1, -1, -1), "kept channels")}
    AFFINE = ("data", "filtered")

    def __init__(
        self,
        min_wavelength_nm: float,
        max_wavelength_nm: float | None = None,
        missing: Literal["error", "keep_all"] = "error",
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            min_wavelength_nm=min_wavelength_nm,
            max_wavelength_nm=max_wavelength_nm,
            missing=missing,
        )
        if missing not in ("error", "keep_all"):
            raise PipelineError(f"missing {missing!r} is not 'error' or 'keep_all'.")
        if max_wavelength_nm is not None and max_wavelength_nm < min_wavelength_nm:
            raise PipelineError(
                f"max_wavelength_nm {max_wavelength_nm} is below min_wavelength_nm"
                f" {min_wavelength_nm}.",
                hint="Exchange them.",
            )
        self.missing = missing
        self.low = float(min_wavelength_nm)
        self.high = np.inf if max_wavelength_nm is None else float(max_wavelength_nm)

    def _kept(self, wavelengths: NDArray[Any]) -> NDArray[np.intp]:
        kept = np.flatnonzero((wavelengths >= self.low) & (wavelengths <= self.high))
        if not kept.size and self.missing == "keep_all":
            return np.arange(wavelengths.size, dtype=np.intp)
        if not kept.size:
            raise PipelineError(
                f"{self.name}: no channel lies in {self.low:g}..{self.high:g} nm; the data have"
                f" {wavelengths.min():g}..{wavelengths.max():g} nm.",
                hint="Change min_wavelength_nm and max_wavelength_nm.",
            )
        return kept

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The kept channels with their wavelengths."""
        axis = axes["data"]
        if axis.wavelength is None and self.missing == "keep_all":
            return {"filtered": axis}
        return {"filtered": axis.select(self._kept(known_wavelengths(axis, self.name)))}

    def affine(self) -> Affine:
        """Selection of the kept channels."""
        axis = self.axes["data"]
        if axis.wavelength is None:
            return Affine.identity(axis.size)
        return Affine.selection(self._kept(axis.wavelength), axis.size)

    def forward(self, data: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Select channels of ``data`` (B, y, x, C)."""
        axis = self.axes.get("data")
        known = None if axis is None else axis.wavelength
        given = known if wavelengths is None else np.asarray(wavelengths)
        if given is None and self.missing == "keep_all":
            return {"filtered": data}
        if given is None or given.shape != (data.shape[-1],):
            raise PipelineError(
                f"{self.name}: {data.shape[-1]} channels came with"
                f" {'no' if given is None else given.size} wavelengths; one per channel is needed.",
                hint="Give `wavelengths` in the batch.",
            )
        # The port carries whole nanometres; where they are those of the axis, the axis is exact.
        if known is not None and np.array_equal(np.rint(known), given):
            given = known
        kept = self._kept(given)
        return {"filtered": data[..., torch.from_numpy(kept)]}
