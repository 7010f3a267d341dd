"""How the values of a port are kept as maps: what is stored, and what stands for invalid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import Node, PortRef
from hsi_batch.nodes.grid import WHOLE
from hsi_batch.pipeline.graph import Graph
from hsi_batch.pipeline.grids import node_grids

__all__ = ["INVALID_DECISION", "MapSpec", "as_stored", "map_spec", "map_wavelengths", "stored_port"]

#: Stands for an invalid pixel where values are decisions.
INVALID_DECISION = 255


class MapSpec(NamedTuple):
    """Name, dtype and channels of a map.

    Attributes
    ----------
    name : str
        ``scores`` and ``decisions`` for ports of that name that are unique, else ``node.port``.
    ref : PortRef
    dtype : str
        As stored: float32, int32 or uint8.
    channels : int
        1 for maps without a channel axis.
    """

    name: str
    ref: PortRef
    dtype: str
    channels: int

    @property
    def fill(self) -> float | int:
        """What invalid pixels hold."""
        return {"uint8": INVALID_DECISION, "int32": -1}.get(self.dtype, float("nan"))


def map_spec(graph: Graph, name: str) -> MapSpec:
    """Describe the map of an output given by ``node.port`` or by a unique port name.

    Raises
    ------
    hsi_batch.errors.PipelineError
        No such output, an ambiguous name, or an output without pixels.
    """
    ref = stored_port(graph, name)
    node = graph.nodes[ref.node]
    spec = node.OUTPUT_SPECS[ref.port]
    same = _holders(graph, ref.port)
    short = ref.port if ref.port in ("scores", "decisions") and len(same) == 1 else str(ref)
    size = node.outputs[ref.port].sizes()[3] if len(spec.shape) == 4 else 1
    if size < 0:
        axis = node.channel_axis(node.axes).get(ref.port)
        if axis is None:
            raise PipelineError(
                f"the channels of {ref} are not known: {type(node).__name__} does not say them"
                " (channel_axis).",
                hint="Say them in channel_axis of that class.",
            )
        size = axis.size
    integers = (torch.int32, torch.int64, torch.int16)
    dtype = (
        "uint8" if spec.dtype is torch.bool else "int32" if spec.dtype in integers else "float32"
    )
    return MapSpec(short, ref, dtype, size)


def map_wavelengths(nodes: Mapping[str, Node], specs: Iterable[MapSpec]) -> dict[str, list[float]]:
    """Wavelengths in nm, by name, of the maps whose channels still have some."""
    found = {}
    for spec in specs:
        node = nodes[spec.ref.node]
        axis = node.channel_axis(node.axes).get(spec.ref.port) if spec.channels > 1 else None
        if axis is not None and axis.wavelength is not None and axis.size == spec.channels:
            found[spec.name] = axis.wavelength.tolist()
    return found


def stored_port(graph: Graph, name: str) -> PortRef:
    """The output that a name stands for, if its values can be stored per pixel.

    Raises
    ------
    hsi_batch.errors.PipelineError
        No such output, an ambiguous name, or an output without pixels.
    """
    # Of outputs of one name, those that have not the size of the cube are not meant.
    full = _holders(graph, name)
    ref = PortRef(full[0], name) if len(full) == 1 else graph.port(name)
    spec = graph.nodes[ref.node].OUTPUT_SPECS[ref.port]
    if not spec.has_pixels:
        raise PipelineError(
            f"{ref} ({spec.description}) has no pixels, so it cannot be stored per pixel.",
            hint="Ask for an output that is a map; it may depend on this one.",
        )
    grid = node_grids(graph).get(ref.node, WHOLE)
    if grid != WHOLE:
        back = (
            f"Turn it back with SpatialRotateNode(rotation={-90 * grid.turns})"
            if grid.turns
            else "Bring it to the size of the cube with ScoreUpsample"
        )
        raise PipelineError(
            f"{ref} holds {grid}, so it cannot be stored beside the cube.",
            hint=f"{back}, and ask for that.",
        )
    return ref


def _holders(graph: Graph, port: str) -> list[str]:
    """Nodes that have an output of that name, of the size of the cube."""
    grids = node_grids(graph)
    return [
        name
        for name, node in graph.nodes.items()
        if port in node.OUTPUT_SPECS and grids.get(name, WHOLE) == WHOLE
    ]


def as_stored(value: NDArray[Any], valid: NDArray[np.bool_] | None, spec: MapSpec) -> NDArray[Any]:
    """Values ``(lines, x, k)`` as they are stored.

    Invalid pixels become NaN, 255 for decisions, -1 for class numbers; a channel axis of one is
    dropped.
    """
    stored = value.astype(spec.dtype)
    if valid is not None:
        stored[~valid] = spec.fill
    return stored[..., 0] if spec.channels == 1 else stored
