"""What nodes have in common that multiply every spectrum by a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.wavelengths import reaching_axis
from hsi_batch.statistics.affine import Affine

__all__ = ["CUBE_IN", "CUBE_OUT", "WAVELENGTHS", "SpectralMap"]

CUBE_IN = PortSpec(torch.float32, (-1, -1, -1, -1), "cube")
CUBE_OUT = PortSpec(torch.float32, (-1, -1, -1, -1), "treated cube")
WAVELENGTHS = PortSpec(np.int32, (-1,), "nm per channel", optional=True)
#: Pixels mapped at once by ``forward``.
_GROUP = 65536


class SpectralMap(Node):
    """Base of nodes ``y = M x`` per pixel, with a matrix that follows from the channel axis.

    A subclass gives :meth:`matrix`, and :meth:`mapped_axis` where the channels of the output are
    others. The wavelengths come with the data; the input ``wavelengths`` is needed only where a
    node runs on its own.
    """

    INPUT_SPECS = {"cube": CUBE_IN, "wavelengths": WAVELENGTHS}
    OUTPUT_SPECS = {"cube": CUBE_OUT}
    AFFINE = ("cube", "cube")

    def matrix(self, axis: ChannelAxis) -> NDArray[np.float64]:
        """The matrix ``(m, C)`` for data on ``axis``."""
        raise TypeError(f"{type(self).__name__} has no matrix for {axis.size} channels")

    def mapped_axis(self, axis: ChannelAxis) -> ChannelAxis:
        """The axis of the output; that of the input by default."""
        return axis

    @property
    def mixes_channels(self) -> bool:
        """Every output channel depends on several input channels."""
        return True

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the output; what is wrong with that of the input is said here."""
        self.matrix(axes["cube"])
        return {"cube": self.mapped_axis(axes["cube"])}

    def affine(self) -> Affine:
        """The matrix for the axis of the graph, without an offset."""
        matrix = self.matrix(self.axes["cube"])
        return Affine(matrix, np.zeros(len(matrix)))

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Map ``cube`` (B, y, x, C) to (B, y, x, m), in float64, rounded once."""
        matrix = self.matrix(reaching_axis(self, "cube", cube.shape[-1], wavelengths))
        factor = torch.from_numpy(np.ascontiguousarray(matrix.T)).to(cube.device)
        flat = cube.reshape(-1, cube.shape[-1])
        parts = [(g.double() @ factor).to(torch.float32) for g in torch.split(flat, _GROUP)]
        return {"cube": torch.cat(parts).reshape(*cube.shape[:-1], len(matrix))}
