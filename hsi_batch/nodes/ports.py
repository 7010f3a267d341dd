"""Ports: what a node takes and gives, and whether two of them fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from hsi_batch.errors import PipelineError, did_you_mean

if TYPE_CHECKING:
    from hsi_batch.nodes.node import Node

__all__ = ["InputPort", "OutputPort", "PortRef", "PortSpec", "Ports", "mismatch", "seed_port"]


@dataclass(frozen=True)
class PortSpec:
    """Type of a port.

    Parameters
    ----------
    dtype : torch.dtype, type
        A torch dtype, ``torch.Tensor`` for any tensor, a numpy scalar type, ``list`` or ``dict``.
    shape : tuple of int or str
        One entry per axis: a size, -1 for any, or the name of an integer attribute of the node.
    description : str
        What it carries, with units.
    optional : bool
        The node works without it.
    variadic : bool
        An input that takes any number of connections.
    flat : bool
        An input of one channel that also takes maps without the channel axis.

    Examples
    --------
    >>> import torch
    >>> PortSpec(torch.float32, (-1, -1, -1, "n_components"), "scores of components").optional
    False
    """

    dtype: Any
    shape: tuple[int | str, ...] = ()
    description: str = ""
    optional: bool = False
    variadic: bool = False
    flat: bool = False

    @property
    def has_pixels(self) -> bool:
        """Whether it carries pixels: ``(B, y, x, C)``, or class numbers ``(B, y, x)``.

        Spectra ``(N, 1, 1, C)`` are none.
        """
        classes = self.dtype in (torch.int32, torch.int64)
        cube = len(self.shape) == 4 and self.shape[1:3] != (1, 1)
        return cube or (len(self.shape) == 3 and classes)


class PortRef(NamedTuple):
    """Name of a port in a graph.

    Attributes
    ----------
    node, port : str
        Names of a node and of one of its ports.

    Examples
    --------
    >>> str(PortRef("rx", "scores"))
    'rx.scores'
    """

    node: str
    port: str

    def __str__(self) -> str:
        return f"{self.node}.{self.port}"


@dataclass(frozen=True, eq=False)
class _Port:
    node: Node
    name: str
    spec: PortSpec

    @property
    def ref(self) -> PortRef:
        """Node name and port name."""
        return PortRef(self.node.name, self.name)

    def sizes(self, *, declared: bool = True) -> tuple[int, ...]:
        """Shape with attribute names replaced by their values (-1 while they are not known).

        Without ``declared``, the number of channels that the node was told counts as not known.
        """
        resolved = []
        for size in self.spec.shape:
            if not declared and size == self.node.CHANNEL_ARGUMENT:
                value = None
            else:
                value = getattr(self.node, size, None) if isinstance(size, str) else size
            resolved.append(-1 if value is None else int(value))
        return tuple(resolved)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ref}>"


class InputPort(_Port):
    """An input of a node.

    Parameters
    ----------
    node : Node
        The node that has it.
    name : str
        Name of the port.
    spec : PortSpec
        Type and shape that it takes.

    Examples
    --------
    >>> from hsi_batch.nodes import RXGlobal
    >>> RXGlobal().inputs.data.name
    'data'
    """


class OutputPort(_Port):
    """An output of a node.

    A port that stands for a parameter (``pca.components``) forwards array attributes such as
    ``shape`` and ``numpy()`` to the buffer it hands out.

    Parameters
    ----------
    node : Node
        The node that has it.
    name : str
        Name of the port.
    spec : PortSpec
        Type and shape that it gives.

    Examples
    --------
    >>> from hsi_batch.nodes import RXGlobal
    >>> RXGlobal().outputs.scores.name
    'scores'
    """

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        buffer = self.node.port_buffer(self.name)
        if buffer is None:
            raise AttributeError(
                f"{self!r} has no attribute {attribute!r}; it is a port, its values exist only"
                " while data flow through the pipeline"
            )
        return getattr(buffer, attribute)


class Ports(Mapping[str, Any]):
    """The inputs or the outputs of a node, by name or attribute."""

    def __init__(self, node: Node, kind: type[_Port], specs: Mapping[str, PortSpec]) -> None:
        self._kind = kind
        self._node = node
        self._specs = specs

    def __getitem__(self, name: str) -> Any:
        if name not in self._specs:
            side = "input" if self._kind is InputPort else "output"
            raise PipelineError(
                f"{type(self._node).__name__} {self._node.name!r} has no {side} {name!r};"
                f" it has {', '.join(self._specs) or 'none'}.{did_you_mean(name, self._specs)}",
                hint="Name one of these.",
            )
        return self._kind(self._node, name, self._specs[name])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


#: Ports that the seed pages, or early versions of cuvis-ai, name otherwise.
_OTHER_NAMES = {
    "outputs": {"weights": "selection_weights"},
    "inputs": {
        "scores": "logits",
        "weights": "selection_weights",
        "adaclip_scores": "anomaly_scores",
    },
}


def seed_port(node: Node, name: str, side: str) -> str | None:
    """The port that a name of the seed pages means, if the node has none of that name.

    ``normalizer.output`` and ``normalizer.input`` are those of an affine node, or the only one that
    is needed; ``decider.scores`` is its input ``logits``, ``loss.weights`` its input
    ``selection_weights``.
    """
    specs = node.OUTPUT_SPECS if side == "outputs" else node.INPUT_SPECS
    if name == side[:-1]:
        if node.AFFINE is not None:
            return node.AFFINE[0 if side == "inputs" else 1]
        needed = [port for port, spec in specs.items() if not spec.optional]
        return needed[0] if len(needed) == 1 else None
    meant = _OTHER_NAMES[side].get(name)
    return meant if meant in specs else None


def _is_tensor(dtype: Any) -> bool:
    return dtype is torch.Tensor or isinstance(dtype, torch.dtype)


def _name(dtype: Any) -> str:
    if _is_tensor(dtype):
        return "any tensor" if dtype is torch.Tensor else str(dtype)
    return str(getattr(dtype, "__name__", dtype))


def mismatch(source: OutputPort, target: InputPort, *, declared: bool = True) -> str | None:
    """Why two ports cannot be joined, in words, or None if they can.

    Dtypes must be equal or one of them ``torch.Tensor``; nothing is promoted. Shapes must have the
    same number of axes (but for a ``flat`` input, which a map without channels fits too), and each
    pair of sizes must be equal or one of them -1. Without
    ``declared``, numbers of channels that nodes were told are left to :meth:`.Graph.resolve`.
    """
    have, need = source.spec.dtype, target.spec.dtype
    if _is_tensor(have) and _is_tensor(need):
        fits = torch.Tensor in (have, need) or have == need
    else:
        fits = have is need or (
            isinstance(have, type)
            and isinstance(need, type)
            and issubclass(have, np.generic)
            and issubclass(need, np.generic)
            and np.dtype(have) == np.dtype(need)
        )
    if not fits:
        return f"{source.ref} gives {_name(have)}, {target.ref} takes {_name(need)}"
    given, taken = source.sizes(declared=declared), target.sizes(declared=declared)
    if target.spec.flat and len(given) == len(taken) - 1:
        taken = taken[:-1]
    if len(given) != len(taken):
        return (
            f"{source.ref} has {len(given)} axes {given}, {target.ref} takes {len(taken)} {taken}"
        )
    for axis, (a, b) in enumerate(zip(given, taken, strict=True)):
        if a != b and -1 not in (a, b):
            return f"axis {axis} of {source.ref} has size {a}, {target.ref} takes {b}"
    return None
