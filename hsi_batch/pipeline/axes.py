"""Channel axes on their way through a graph, and whether declared counts agree with them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from hsi_batch.errors import HsiBatchWarning, PipelineError, Problem
from hsi_batch.nodes import ChannelAxis, Node, PortRef

if TYPE_CHECKING:
    from hsi_batch.pipeline.graph import Graph

__all__ = ["buffer_problems", "resolve_axes"]


def resolve_axes(graph: Graph, axis: ChannelAxis) -> None:
    """Carry the channel axis of the data through a verified graph; see :meth:`.Graph.resolve`."""
    found: list[Problem] = []
    axes: dict[PortRef, ChannelAxis] = {}
    unknown: set[str] = set()
    for name in graph.order():
        node = graph.nodes[name]
        fed = {port: refs[0] for port, refs in graph.sources_of(name).items()}
        node.connected = frozenset(fed)
        if unknown.intersection(ref.node for ref in fed.values()):
            # What is wrong before this node is reported there.
            unknown.add(name)
            continue
        node.axes = {port: axes[ref] for port, ref in fed.items() if ref in axes}
        if node.is_source:
            node.axes = {"cube": axis}
        try:
            _check_sizes(node, fed)
            _settle_channels(graph, node, fed)
            outputs = node.channel_axis(node.axes)
        except PipelineError as error:
            found.append(Problem(str(error)))
            unknown.add(name)
            continue
        except KeyError as error:
            found.append(
                Problem(
                    f"{_unknown(name, error.args[0], fed)}.",
                    hint="Connect a node that says its channels.",
                )
            )
            unknown.add(name)
            continue
        for port, spec in node.OUTPUT_SPECS.items():
            if port in outputs:
                axes[PortRef(name, port)] = outputs[port]
            elif len(spec.shape) == 4 and isinstance(spec.shape[3], int) and spec.shape[3] > 0:
                axes[PortRef(name, port)] = ChannelAxis(spec.shape[3])
    if found:
        raise PipelineError.collect(found)


def _unknown(name: str, port: str, fed: dict[str, PortRef]) -> str:
    giver = f": {fed[port].node} does not say them (channel_axis)" if port in fed else ""
    return f"the channels that reach {name}.{port} are not known{giver}"


def _check_sizes(node: Node, fed: dict[str, PortRef]) -> None:
    for port, axis in node.axes.items():
        spec = node.INPUT_SPECS[port]
        size = spec.shape[3] if len(spec.shape) == 4 else -1
        if isinstance(size, int) and size not in (-1, axis.size):
            origin = f" from {fed[port]}" if port in fed else ""
            raise PipelineError(
                f"{node.name}.{port} takes {size} channel{'' if size == 1 else 's'}, but"
                f" {axis.size} reach it{origin}.",
                hint="Connect a port of that many, or change the node before it.",
            )


def _settle_channels(graph: Graph, node: Node, fed: dict[str, PortRef]) -> None:
    argument = node.CHANNEL_ARGUMENT
    if argument is None:
        return
    port = next(port for port, spec in node.INPUT_SPECS.items() if argument in spec.shape)
    actual = node.axes[port].size
    declared = node.hparams.get(argument)
    if declared is not None and declared != actual:
        text = (
            f"{node.name} declares {argument} {declared}, but {actual} channels reach it"
            f" ({fed[port]})"
        )
        if not graph.lenient:
            raise PipelineError(f"{text}.", hint=f"Set {argument} to {actual}, or leave it out.")
        warnings.warn(f"{text}; {actual} is used.", HsiBatchWarning, stacklevel=5)
        node.hparams[argument] = actual
    node.settle_channels(actual)


def buffer_problems(graph: Graph) -> list[Problem]:
    """Fitted nodes of a resolved graph whose buffers are for another number of channels."""
    found = []
    for name, node in graph.nodes.items():
        argument = node.CHANNEL_ARGUMENT
        if argument is None or not node.fitted:
            continue
        actual = getattr(node, argument)
        # A new node may draw weights; the generator is to stay as it was.
        with torch.random.fork_rng(devices=[]):
            expected = type(node)(**{**node.hparams, argument: actual}).state_dict()
        found += [
            Problem(
                f"{name}.{buffer} has shape {tuple(tensor.shape)}, but {actual} channels reach the"
                f" node, so {tuple(expected[buffer].shape)} is needed."
            )
            for buffer, tensor in node.state_dict().items()
            # A buffer may be empty: cuvis-ai does not keep an inverse that it does not use.
            if tensor.numel() and tensor.shape != expected[buffer].shape
        ]
    return found
