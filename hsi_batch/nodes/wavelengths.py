"""The wavelengths of the channels that reach a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis

if TYPE_CHECKING:
    from hsi_batch.nodes.node import Node

__all__ = ["known_wavelengths", "monotonic_wavelengths", "reaching_axis"]


def known_wavelengths(axis: ChannelAxis, name: str) -> NDArray[np.float64]:
    """The wavelengths of an axis; an error that names the node ``name`` if it has none."""
    if axis.wavelength is None:
        raise PipelineError(
            f"{name} needs wavelengths, but the channels of its input have none: the"
            " recordings do not state them, or a node before it mixes channels.",
            hint="Add 'wavelength' with 'wavelength units' to the headers and convert again,"
            " or remove the node.",
        )
    return axis.wavelength


def monotonic_wavelengths(axis: ChannelAxis, name: str) -> NDArray[np.float64]:
    """As :func:`known_wavelengths`; an error too if they neither ascend nor descend all along."""
    wavelengths = known_wavelengths(axis, name)
    steps = np.diff(wavelengths)
    turns = np.flatnonzero(steps * np.sign(wavelengths[-1] - wavelengths[0]) <= 0)
    if turns.size:
        first, last = wavelengths[turns[0]], wavelengths[turns[0] + 1]
        raise PipelineError(
            f"{name} needs wavelengths that ascend or descend from channel to channel, but"
            f" channels {turns[0]} and {turns[0] + 1} have {first:g} and {last:g} nm.",
            hint="Exclude the channels where two detectors overlap (BandpassByWavelength).",
        )
    return wavelengths


def reaching_axis(node: Node, port: str, channels: int, given: Any = None) -> ChannelAxis:
    """The axis of the data that a ``forward`` was handed.

    Wavelengths come from ``given`` (the input ``wavelengths``), or from the axis of the graph where
    it agrees with them to whole nanometres, or where they are those of other channels: the input
    carries whole nanometres of all channels of the recording.

    Parameters
    ----------
    node : Node
    port : str
        The input with the data.
    channels : int
        Channels of the data.
    given : array_like, optional
        Wavelengths in nm.
    """
    axis = node.axes.get(port)
    known = axis.wavelength if axis is not None and axis.size == channels else None
    stated = None if given is None else np.asarray(given, dtype=np.float64).reshape(-1)
    if stated is not None and stated.size == channels:
        same = known is not None and np.array_equal(np.rint(known), np.rint(stated))
        return ChannelAxis(channels, known if same else stated)
    if stated is not None and known is None:
        raise PipelineError(
            f"{node.name}: {channels} channels came with {stated.size} wavelengths; one per"
            " channel is needed.",
            hint="Give `wavelengths` in the batch.",
        )
    return ChannelAxis(channels, known)
