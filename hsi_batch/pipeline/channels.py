"""Whether data have the channels that a pipeline was fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hsi_batch.errors import PlanError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline.axes import buffer_problems

if TYPE_CHECKING:
    from hsi_batch.pipeline.graph import Graph
    from hsi_batch.pipeline.pipeline import Pipeline

__all__ = [
    "TOLERANCE_NM",
    "apart",
    "check_channels",
    "check_width",
    "differ",
    "same_channel_nm",
    "tolerance_of",
]

#: Wavelengths that differ by no more than this are the same channel.
TOLERANCE_NM = 0.01


def differ(a: ChannelAxis, b: ChannelAxis, tolerance: float = TOLERANCE_NM) -> str | None:
    """How two channel axes differ, in words; None if they agree."""
    if a.size != b.size:
        return f"{a.size} channels against {b.size}"
    if a.wavelength is None or b.wavelength is None:
        return None
    far = apart(a, b)
    if a.columns is not None and b.columns is not None and len(a.columns) != len(b.columns):
        return f"wavelengths of {len(a.columns)} columns against {len(b.columns)}"
    if far > tolerance:
        return f"wavelengths differ by up to {far:.3g} nm, the tolerance is {tolerance:.3g} nm"
    return None


def apart(a: ChannelAxis, b: ChannelAxis) -> float:
    """Nanometres between the channels of two axes of one size, at most; 0 if one knows none."""
    if a.wavelength is None or b.wavelength is None:
        return 0.0
    far = float(np.max(np.abs(a.wavelength - b.wavelength)))
    if a.columns is None or b.columns is None or a.columns.shape != b.columns.shape:
        return far
    return max(far, float(np.max(np.abs(a.columns - b.columns))))


def same_channel_nm(axis: ChannelAxis) -> float:
    """How far channels of cameras of one kind may be apart: a quarter of the smallest spacing.

    Whatever picks channels by wavelength then picks the same ones of each.

    Examples
    --------
    >>> same_channel_nm(ChannelAxis.of([400.0, 404.0, 410.0]))
    1.0
    """
    if axis.wavelength is None or axis.size < 2:
        return TOLERANCE_NM
    return max(float(np.abs(np.diff(axis.wavelength)).min()) / 4, TOLERANCE_NM)


def tolerance_of(pipeline: Pipeline) -> float:
    """How far the channels of data may be from those of a fit, in nm.

    What the fit counted as equal; with several backgrounds, also what is the same channel of
    cameras of one kind.
    """
    values = pipeline.provenance.get("values") or {}
    held = max(float(values.get("tolerance_nm") or 0.0), TOLERANCE_NM)
    if pipeline.groups is None or pipeline.axis is None:
        return held
    return max(held, same_channel_nm(pipeline.axis))


def check_channels(
    graph: Graph, axis: ChannelAxis, what: str, tolerance: float = TOLERANCE_NM
) -> None:
    """Resolve a graph for an axis; refuse data of other channels than those of its fit.

    A graph without a fitted node has no such channels and is resolved anew.

    Raises
    ------
    hsi_batch.errors.PlanError
        The pipeline was fitted on another axis.
    """
    held = graph.axis
    why = None if held is None else differ(held, axis, tolerance)
    if held is not None and why is None:
        # The axis of the fit is kept: that of the data may lack or round its wavelengths.
        better = held if held.wavelength is not None or axis.wavelength is None else axis
        if not graph.settled or better is not held:
            graph.resolve(better)
        return
    if held is not None and any(n.requires_initial_fit and n.fitted for n in graph.nodes.values()):
        raise PlanError(
            f"{what} does not have the channels that the pipeline {graph.name!r} was fitted on"
            f" (fit against data: {why}).",
            hint="Fit the pipeline on recordings of this sensor, or select others.",
        )
    graph.resolve(axis)
    problems = buffer_problems(graph)
    if problems:
        graph.axis = held
        raise PlanError.collect(problems)


def check_width(pipeline: Pipeline, width: int, who: str, *, fitted: bool = True) -> None:
    """Refuse lines of another width than nodes know that treat columns one by one.

    Parameters
    ----------
    pipeline : Pipeline
    width : int
        Columns.
    who : str
        What has them.
    fitted : bool
        Nodes keep what they were fitted on.

    Raises
    ------
    hsi_batch.errors.PlanError
        The width is another.
    """
    for name, node in pipeline.nodes.items():
        # What will be fitted anew knows other columns then.
        known = node.fitted if fitted else not node.requires_initial_fit
        if node.by_column and known and node.width not in (0, width):
            knows = "was fitted on" if node.requires_initial_fit else "has wavelengths of"
            raise PlanError(
                f"{who} has lines of {width} columns; {name} ({type(node).__name__}) {knows}"
                f" {node.width}.",
                hint="Fit one background per sensor or session (--background sensor), or select"
                " recordings of one width.",
            )
