"""Running a graph on a batch in memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import ChannelAxis, Node, PortRef, Stage
from hsi_batch.nodes.metrics import Context
from hsi_batch.pipeline.channels import check_channels

if TYPE_CHECKING:
    from hsi_batch.pipeline.graph import Graph

__all__ = ["forward", "resolve_batch"]

#: Batches state wavelengths in whole nanometres.
_WHOLE_NM = 0.5


def forward(
    graph: Graph,
    batch: Mapping[str, Any],
    at: Context,
    *,
    keep: Collection[str] | None = None,
    feed: Callable[[Node, dict[str, Any]], dict[str, Any] | None] | None = None,
) -> dict[PortRef, Any]:
    """Outputs of the nodes of a stage; see :meth:`.Graph.forward`."""
    graph.verify()
    resolve_batch(graph, batch)
    values: dict[PortRef, Any] = {}
    with torch.set_grad_enabled(at.stage is Stage.TRAIN and torch.is_grad_enabled()):
        names = [n for n in graph.order() if at.stage in graph.nodes[n].stages]
        for done, name in enumerate(names):
            node = graph.nodes[name]
            # A frozen node does in training what it does in inference.
            node.train(at.stage is Stage.TRAIN and not node.frozen)
            given: dict[str, Any] | None = _gather(graph, node, batch, values)
            given = given if feed is None else feed(node, given or {})
            if given is None:
                continue
            if "context" in inspect.signature(node.forward).parameters:
                given["context"] = at
            for port, value in node(**given).items():
                values[PortRef(name, port)] = value
            if keep is not None:
                ahead = set(names[done + 1 :])
                wanted = {e.source for e in graph.edges if e.target.node in ahead}
                values = {r: v for r, v in values.items() if r in wanted or r.port in keep}
    return values


def _gather(
    graph: Graph, node: Node, batch: Mapping[str, Any], values: Mapping[PortRef, Any]
) -> dict[str, Any]:
    if node.is_source:
        given = {port: batch[port] for port in node.INPUT_SPECS if port in batch}
    else:
        given = {}
        for port, refs in graph.sources_of(node.name).items():
            present = [values[ref] for ref in refs if ref in values]
            if present:
                given[port] = present if node.INPUT_SPECS[port].variadic else present[0]
    for port, spec in node.INPUT_SPECS.items():
        if port not in given and not spec.optional:
            raise PipelineError(
                f"{node.name}.{port} got nothing.",
                hint="Give it in the batch."
                if node.is_source
                else "What feeds it does not run in this stage.",
            )
    return given


def resolve_batch(graph: Graph, batch: Mapping[str, Any]) -> None:
    """Carry the channels of a batch through a graph.

    Raises
    ------
    hsi_batch.errors.PipelineError
        The batch has no pixels, or other channels than the graph was made for.
    """
    if "cube" not in batch:
        raise PipelineError(
            f"the batch has no 'cube'; it has {', '.join(batch) or 'nothing'}.",
            hint="Give the pixels under that key.",
        )
    size = int(batch["cube"].shape[-1])
    wavelength = batch.get("wavelengths")
    if wavelength is not None:
        wavelength = np.asarray(wavelength, dtype=np.float64)
        wavelength = wavelength[0] if wavelength.ndim == 2 else wavelength
    check_channels(graph, ChannelAxis(size, wavelength), "the batch", _WHOLE_NM)
