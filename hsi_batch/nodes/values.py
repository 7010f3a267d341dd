"""Whether tensors are what the ports of a node take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hsi_batch.errors import PipelineError

if TYPE_CHECKING:
    from hsi_batch.nodes.node import Node

__all__ = ["need_shapes"]

_AXES = {
    1: ("channel",),
    2: ("row", "channel"),
    3: ("batch", "y", "x"),
    4: ("batch", "y", "x", "channel"),
}


def need_shapes(node: Node, **tensors: Tensor | None) -> None:
    """Raise if tensors do not fit the input ports of their names, or not each other.

    Numbers of axes, fixed sizes and the kind of numbers (bool, integer, floating point) must be
    those of the port; tensors of three or four axes must have the same batch, y and x. A tensor
    that is None is left out.

    Raises
    ------
    hsi_batch.errors.PipelineError
        What was found and what is expected.
    """
    known: tuple[str, tuple[int, ...]] | None = None
    for port, tensor in tensors.items():
        if tensor is None:
            continue
        shape, sizes = tuple(tensor.shape), node.inputs[port].sizes()
        if len(shape) != len(sizes) or any(
            size not in (-1, found) for found, size in zip(shape, sizes, strict=True)
        ):
            raise PipelineError(
                f"{node.name}.{port} has shape {shape}; expected {_in_words(sizes)}."
            )
        dtype = node.INPUT_SPECS[port].dtype
        if not _same_kind(tensor.dtype, dtype):
            raise PipelineError(f"{node.name}.{port} is {tensor.dtype}; expected {dtype}.")
        if len(shape) < 3:
            continue
        if known is not None and known[1][:3] != shape[:3]:
            raise PipelineError(
                f"{node.name}.{port} has shape {shape}, {node.name}.{known[0]} has {known[1]};"
                " both must have the same batch, y and x."
            )
        known = known or (port, shape)


def _in_words(sizes: tuple[int, ...]) -> str:
    names = [
        name if size == -1 else str(size)
        for name, size in zip(_AXES[len(sizes)], sizes, strict=True)
    ]
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def _same_kind(found: torch.dtype, expected: object) -> bool:
    if not isinstance(expected, torch.dtype):
        return True
    return (found.is_floating_point, found == torch.bool) == (
        expected.is_floating_point,
        expected == torch.bool,
    )
