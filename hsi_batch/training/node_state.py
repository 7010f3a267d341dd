"""The state of nodes in the middle of a training, as tensors and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hsi_batch.errors import ConfigError
from hsi_batch.nodes import Node
from hsi_batch.nodes.annealed import Annealed
from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["pipeline_state", "restore_pipeline_state"]


def pipeline_state(pipeline: Pipeline) -> dict[str, Any]:
    """State of every node: parameters, buffers, what was fitted, and where a schedule stands."""
    return {name: _node_state(node) for name, node in pipeline.nodes.items()}


def _tensors(node: Node) -> dict[str, torch.Tensor]:
    # The weights of a file (state_dict) do not hold what a training keeps beside them.
    return {**dict(node.named_parameters()), **dict(node.named_buffers())}


def _node_state(node: Node) -> dict[str, Any]:
    exact = node.exact_state()
    return {
        "tensors": {k: v.detach().cpu().clone() for k, v in _tensors(node).items()},
        "exact": {k: torch.from_numpy(np.array(v)) for k, v in (exact or {}).items()},
        "fitted": node.fitted,
        "schedule": node.schedule() if isinstance(node, Annealed) else {},
    }


def restore_pipeline_state(pipeline: Pipeline, state: Mapping[str, Any]) -> None:
    """Inverse of :func:`pipeline_state`, for a pipeline in which the same nodes are frozen.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The state is of another pipeline, or of one in which other nodes are trained.
    """
    problems = [
        name
        for name, node in pipeline.nodes.items()
        if name not in state or set(state[name]["tensors"]) != set(_tensors(node))
    ]
    if problems or set(state) != set(pipeline.nodes):
        raise ConfigError(
            f"the checkpoint is of another training: it does not fit the nodes"
            f" {', '.join(problems or sorted(set(state) - set(pipeline.nodes)))}.",
            hint="Train again from the start, or name the checkpoint of this training.",
        )
    for name, node in pipeline.nodes.items():
        _restore(node, state[name])


def _restore(node: Node, held: Mapping[str, Any]) -> None:
    now = _tensors(node)
    with torch.no_grad():
        for key, value in held["tensors"].items():
            if now[key].shape != value.shape:
                raise ConfigError(
                    f"the checkpoint is of another training: {node.name}.{key} has shape"
                    f" {tuple(value.shape)} there, and {tuple(now[key].shape)} here.",
                    hint="Name a checkpoint of this pipeline.",
                )
            now[key].copy_(value)
    # Of the base: subclasses would begin a new training from it.
    Node.mark_fitted(node, held["fitted"])
    if held["exact"]:
        Node.restore_state(node, {k: v.numpy() for k, v in held["exact"].items()})
    if isinstance(node, Annealed) and held["schedule"]:
        node.restore_schedule(held["schedule"])
