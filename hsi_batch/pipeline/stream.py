"""The frames that a node is fitted from one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.errors import DataError
from hsi_batch.nodes import Node, PortRef
from hsi_batch.nodes.plugin import PluginNode
from hsi_batch.pipeline.cache import Packed, evaluator, unpack
from hsi_batch.pipeline.frames import FrameSource
from hsi_batch.pipeline.passes import marks_of
from hsi_batch.pipeline.program import NodeStep, inputs_of

__all__ = ["FrameStream", "fit_by_stream", "is_streamed", "stream_inputs"]


def is_streamed(node: Node) -> bool:
    """Whether a node is fitted by a stream of frames instead of statistics."""
    return isinstance(node, PluginNode) and node.streams


def stream_inputs(
    packed: Packed,
    name: str,
    source: FrameSource,
    ranges: Iterable[tuple[int, int]],
) -> tuple[dict[str, Any], bool]:
    """What the inputs of a node hold on lines of a frame, and whether pixels are left out.

    The nodes before it run as they will in scoring. Values of pixels that do not count are NaN, as
    frame-scope nodes see them; those of integers stay.

    Parameters
    ----------
    packed : Packed
        The pipeline; all nodes before this one are fitted.
    name : str
        The node.
    source : FrameSource
    ranges : iterable of (int, int)
        Lines, in order, next to each other.
    """
    graph = unpack(packed)
    ports, constants = inputs_of(graph, name)
    refs = tuple(dict.fromkeys(ref for found in ports.values() for ref in found))
    marks = marks_of(graph)
    running = evaluator(packed, refs, source)
    marking = evaluator(packed, marks, source) if marks else None
    parts: dict[PortRef, list[NDArray[Any]]] = {ref: [] for ref in refs}
    masked = False
    for start, stop in ranges:
        valid = source.valid(start, stop)
        if marking is not None:
            for flags in marking.block(start, stop).values():
                valid = flags[..., 0] if valid is None else valid & flags[..., 0]
        for ref, value in running.block(start, stop).items():
            if valid is not None and value.dtype.kind == "f" and not valid.all():
                masked = True
                value = np.where(valid[..., None], value, value.dtype.type(np.nan))  # noqa: PLW2901
            parts[ref].append(value)
    values = {ref: np.concatenate(found) for ref, found in parts.items()}
    step = NodeStep(
        inputs=refs, outputs=(), node=graph.nodes[name], ports=ports, constants=constants
    )
    return step.tensors(values), masked


class FrameStream:
    """Hands out frames and counts them; keeps none.

    Parameters
    ----------
    frames : iterator of (dict, bool)
        As :func:`stream_inputs` gives them.
    """

    def __init__(self, frames: Iterator[tuple[dict[str, Any], bool]]) -> None:
        self._frames = frames
        self.count = 0
        self.masked = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        given, masked = next(self._frames)
        self.count += 1
        self.masked += masked
        return given


def fit_by_stream(
    node: Node, frames: Iterator[tuple[dict[str, Any], bool]], why: str = ""
) -> Mapping[str, torch.Tensor]:
    """The ``state_dict`` of a node after it was given frames; the node stays as it is.

    Raises
    ------
    hsi_batch.errors.DataError
        There was no frame, the node raised an error, or what it holds is not a number.
    """
    assert isinstance(node, PluginNode)
    stream = FrameStream(frames)
    failed: DataError | None = None
    try:
        found = node.stream_fit(stream)
    except DataError as error:
        failed = error
    if not stream.count and next(stream, None) is None:
        raise DataError(
            f"{node.name} ({type(node).__name__}) is fitted by a stream of frames, but there is no"
            f" frame to give.{why}",
            hint="Select other frames.",
        )
    if failed is not None:
        raise failed
    lost = [n for n, v in found.items() if v.is_floating_point() and bool(torch.isnan(v).any())]
    if lost and stream.masked:
        raise DataError(
            f"{node.name} ({type(node).__name__}) holds NaN in {', '.join(lost)} after its fit:"
            f" pixels that do not count were given to it as NaN, in {stream.masked} of"
            f" {stream.count} frames.",
            hint="It must leave them out, for example with torch.nanmean; or select other frames.",
        )
    return found
