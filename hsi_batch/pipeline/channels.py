"""Whether data have the channels that a pipeline was fitted on."""

from __future__ import annotations

import numpy as np

from hsi_batch.errors import PlanError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline.graph import Graph

__all__ = ["TOLERANCE_NM", "check_channels", "differ"]

#: Wavelengths that differ by no more than this are the same channel.
TOLERANCE_NM = 0.01


def differ(a: ChannelAxis, b: ChannelAxis) -> str | None:
    """How two channel axes differ, in words; None if they agree."""
    if a.size != b.size:
        return f"{a.size} channels against {b.size}"
    if a.wavelength is None or b.wavelength is None:
        return None
    apart = float(np.max(np.abs(a.wavelength - b.wavelength)))
    if apart > TOLERANCE_NM:
        return f"wavelengths differ by up to {apart:.3g} nm"
    return None


def check_channels(graph: Graph, axis: ChannelAxis, what: str) -> None:
    """Resolve a graph for an axis, or refuse data of other channels than those of the fit.

    Raises
    ------
    hsi_batch.errors.PlanError
        The pipeline was fitted on another axis.
    """
    if graph.axis is None:
        graph.resolve(axis)
        return
    why = differ(graph.axis, axis)
    if why is not None:
        raise PlanError(
            f"{what} does not have the channels that the pipeline {graph.name!r} was fitted on"
            f" (fit against data: {why}).",
            hint="Fit the pipeline on recordings of this sensor, or select others.",
        )
