"""Setting the parameters and buffers of a node from what a file or another pipeline holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hsi_batch.errors import ConfigError
from hsi_batch.nodes import Node

__all__ = ["set_buffers"]


def set_buffers(node: Node, stored: Mapping[str, Any], path: str | None = None) -> None:
    """Set all parameters and buffers of a node; sizes may differ from those that it has.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Other names than the node has, or another number of axes.
    """
    own = node.state_dict()
    if set(stored) != set(own):
        raise ConfigError(
            f"the weights of {node.name} ({type(node).__name__}) are {sorted(stored)};"
            f" expected {sorted(own)}.",
            path=path,
            hint="The file belongs to another class or version of the node.",
        )
    for name, tensor in stored.items():
        owner = node.holder
        *parents, leaf = name.split(".")
        for parent in parents:
            owner = owner.get_submodule(parent)
        if isinstance(tensor, torch.Tensor) and not tensor.numel() and not own[name].numel():
            continue  # Not fitted; how many axes an empty tensor has says nothing.
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != own[name].ndim:
            found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor)
            raise ConfigError(
                f"{node.name}.{name} has shape {found}; expected {own[name].ndim} axes.", path=path
            )
        tensor = tensor.to(own[name].dtype)  # noqa: PLW2901
        if leaf in owner._parameters:  # noqa: SLF001
            tensor = torch.nn.Parameter(tensor)  # noqa: PLW2901
        # Sizes are those of the data of the fit, which a new node does not know.
        setattr(owner, leaf, tensor)
