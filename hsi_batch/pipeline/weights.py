"""Fitted weights on disk: ``.pt`` files that cuvis-ai reads, with our float64 state beside."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hsi_batch.errors import ConfigError
from hsi_batch.nodes import ChannelAxis, Node
from hsi_batch.pipeline.precision import Precision

if TYPE_CHECKING:
    from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["dump_weights", "load_weights"]

#: Key of our own part of the file; cuvis-ai reads ``state_dict`` and ``metadata`` only.
KEY = "hsi_batch"
_FORMAT = 1


def dump_weights(pipeline: Pipeline, metadata: Mapping[str, Any]) -> bytes:
    """Contents of a ``.pt`` file: buffers per node, metadata, and what was fitted in float64."""
    ours: dict[str, Any] = {
        "format": _FORMAT,
        "fitted": [n for n, node in pipeline.nodes.items() if node.fitted],
        "state": {},
        "digest": {},
        "precision": {name: p.to_dict() for name, p in pipeline.precision.items()},
        "provenance": pipeline.provenance,
    }
    for name, node in pipeline.nodes.items():
        state = node.exact_state()
        if state is not None:
            ours["state"][name] = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
            ours["digest"][name] = node.buffer_digest()
    if pipeline.axis is not None:
        wavelength = pipeline.axis.wavelength
        ours["axis"] = {
            "size": pipeline.axis.size,
            "wavelength": None if wavelength is None else torch.from_numpy(wavelength.copy()),
        }
    content = {
        "state_dict": {n: dict(node.state_dict()) for n, node in pipeline.nodes.items()},
        "metadata": dict(metadata),
        KEY: ours,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load_weights(pipeline: Pipeline, source: bytes | str | os.PathLike[str]) -> None:
    """Set buffers and fitted state from a ``.pt`` file, ours or cuvis-ai's.

    Only tensors and plain values are unpickled. A node counts as fitted if the file says so, or,
    in files of cuvis-ai, if its buffers differ from those of a new node.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Not a weights file, or one of another pipeline.
    """
    path = None if isinstance(source, bytes) else os.fspath(source)
    try:
        raw = source if isinstance(source, bytes) else Path(source).read_bytes()
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(
            "there is no such weights file.", path=path, hint="Name it, or fit the pipeline."
        ) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"this is not a weights file that can be read safely: {str(error).splitlines()[0]}",
            path=path,
            hint="A file of weights is written beside the YAML by hsi-batch fit.",
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ConfigError("the file holds no `state_dict` per node.", path=path)
    ours = content.get(KEY) or {}
    stored = content["state_dict"]
    unknown = sorted(set(stored) - set(pipeline.nodes))
    if unknown:
        raise ConfigError(
            f"the weights are of another pipeline: nodes {unknown} are not in"
            f" {pipeline.name!r} ({', '.join(pipeline.nodes)}).",
            path=path,
        )
    for name, node in pipeline.nodes.items():
        if name in stored:
            _set_buffers(node, stored[name], path)
        state = {k: v.numpy() for k, v in (ours.get("state", {}).get(name) or {}).items()}
        if state and ours.get("digest", {}).get(name) == node.buffer_digest():
            node.restore_state(state)
        fitted = name in ours["fitted"] if ours else name in stored and _looks_fitted(node)
        node.mark_fitted(fitted)
    pipeline.precision = {n: Precision(**p) for n, p in ours.get("precision", {}).items()}
    pipeline.provenance = dict(ours.get("provenance") or {})
    axis = ours.get("axis")
    if axis is not None:
        wavelength = axis["wavelength"]
        pipeline.resolve(
            ChannelAxis(
                int(axis["size"]), None if wavelength is None else np.asarray(wavelength.numpy())
            )
        )


def _set_buffers(node: Node, stored: Mapping[str, Any], path: str | None) -> None:
    own = node.state_dict()
    if set(stored) != set(own):
        raise ConfigError(
            f"the weights of {node.name} ({type(node).__name__}) are {sorted(stored)};"
            f" expected {sorted(own)}.",
            path=path,
            hint="The file belongs to another class or version of the node.",
        )
    for name, tensor in stored.items():
        owner: torch.nn.Module = node
        *parents, leaf = name.split(".")
        for parent in parents:
            owner = owner.get_submodule(parent)
        if tensor.ndim != own[name].ndim:
            raise ConfigError(
                f"{node.name}.{name} has shape {tuple(tensor.shape)}; expected"
                f" {own[name].ndim} axes.",
                path=path,
            )
        if leaf in owner._parameters:  # noqa: SLF001
            tensor = torch.nn.Parameter(tensor)  # noqa: PLW2901
        # Sizes are those of the data of the fit, which a new node does not know.
        setattr(owner, leaf, tensor)


def _looks_fitted(node: Node) -> bool:
    fresh = type(node)(**node.hparams).state_dict()
    stored = node.state_dict()
    return node.default_is_fitted or any(
        stored[k].shape != fresh[k].shape
        or not torch.equal(torch.nan_to_num(stored[k]), torch.nan_to_num(fresh[k]))
        for k in fresh
    )
