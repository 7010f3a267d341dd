"""The states of many groups on disk: one array per quantity, with the groups as its first axis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.pipeline.groups import Groups, GroupState
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.reference import Reference
from hsi_batch.pipeline.written import plain

__all__ = ["groups_from_plain", "groups_to_plain"]

#: Kind, node and name of a quantity; the reference has no node.
_At = tuple[str, str, str]


def groups_to_plain(groups: Groups) -> dict[str, Any]:
    """Tensors and plain values, as a file of weights holds them.

    Quantities that have one shape in all groups are one tensor. Of matrices that are symmetric or
    triangular to the last bit, half is kept.
    """
    names = list(groups.states)
    states = [groups.states[name] for name in names]
    found: dict[_At, list[NDArray[Any] | None]] = {}
    for index, state in enumerate(states):
        for at, value in _arrays(state):
            found.setdefault(at, [None] * len(states))[index] = value
    facts = [
        {
            "digest": dict(state.digest),
            "hparams": plain(dict(state.hparams)),
            "precision": {k: v.to_dict() for k, v in state.precision.items()},
            "provenance": dict(state.provenance),
        }
        for state in states
    ]
    return {
        "by": groups.by,
        "fallback": groups.fallback,
        "names": names,
        "facts": json.dumps(facts),
        "arrays": [{"at": list(at), **_column(values)} for at, values in found.items()],
    }


def groups_from_plain(raw: Mapping[str, Any]) -> Groups:
    """Inverse of :func:`groups_to_plain`."""
    names, facts = [str(name) for name in raw["names"]], json.loads(raw["facts"])
    if len(facts) != len(names):
        raise ValueError(f"{len(facts)} facts of {len(names)} groups")
    columns = {_place(entry["at"]): _Column.of(entry) for entry in raw["arrays"]}
    for at, column in columns.items():
        if len(column) != len(names):
            raise ValueError(f"{at} is there for {len(column)} of {len(names)} groups")
    fallback = raw["fallback"]
    states = _Stacked({name: i for i, name in enumerate(names)}, columns, facts)
    return Groups(str(raw["by"]), states, None if fallback is None else str(fallback))


def _place(at: list[Any]) -> _At:
    kind, node, name = map(str, at)
    return kind, node, name


def _arrays(state: GroupState) -> Iterator[tuple[_At, NDArray[Any]]]:
    for kind, nodes in (("buffers", state.buffers), ("state", state.state)):
        for node, values in nodes.items():
            # A node without buffers is known by this alone.
            yield (kind, node, ""), np.zeros(0)
            for name, value in values.items():
                yield (kind, node, name), np.asarray(value)
    if state.reference is not None:
        for name, value in state.reference.to_arrays().items():
            yield ("reference", "", name), value


def _column(values: list[NDArray[Any] | None]) -> dict[str, Any]:
    present = [value for value in values if value is not None]
    first = present[0]
    alike = all(v.shape == first.shape and v.dtype == first.dtype for v in present)
    if not alike or len(present) < len(values):
        each = [None if v is None else torch.from_numpy(np.array(v)) for v in values]
        return {"form": "each", "values": each}
    stack = np.stack(present)
    form = _form(stack)
    if form != "whole":
        rows, columns = _half(form, stack.shape[-1])
        stack = np.ascontiguousarray(stack[:, rows, columns])
    size = first.shape[-1] if form != "whole" else 0
    return {"form": form, "size": size, "values": torch.from_numpy(stack)}


def _form(stack: NDArray[Any]) -> str:
    """How much of matrices ``(G, n, n)`` must be kept."""
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or stack.dtype.kind != "f":
        return "whole"
    # Bits, not values: NaN and the sign of zero come back too.
    bits = stack.view(f"u{stack.dtype.itemsize}")
    if np.array_equal(bits, bits.transpose(0, 2, 1)):
        return "symmetric"
    rows, columns = np.triu_indices(stack.shape[1], 1)
    return "whole" if bits[:, rows, columns].any() else "lower"


def _half(form: str, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(size) if form == "symmetric" else np.tril_indices(size)


@dataclass(frozen=True)
class _Column:
    """One quantity of all groups."""

    form: str
    values: list[NDArray[Any] | None] | NDArray[Any]
    size: int = 0

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> _Column:
        values, form = entry["values"], str(entry["form"])
        if form == "each":
            return cls(form, [None if v is None else v.numpy() for v in values])
        if form not in ("whole", "symmetric", "lower"):
            raise ValueError(f"the form {form!r} is not known")
        return cls(form, values.numpy(), int(entry["size"]))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> NDArray[Any] | None:
        value = self.values[index]
        if self.form in ("each", "whole") or value is None:
            return None if value is None else np.asarray(value)
        matrix = np.zeros((self.size, self.size), dtype=value.dtype)
        rows, columns = _half(self.form, self.size)
        matrix[rows, columns] = value
        if self.form == "symmetric":
            matrix[columns, rows] = value
        return matrix


class _Stacked(Mapping[str, GroupState]):
    """States that are taken out of their columns as they are asked for."""

    def __init__(
        self, index: Mapping[str, int], columns: Mapping[_At, _Column], facts: list[dict[str, Any]]
    ) -> None:
        self._index = index
        self._columns = columns
        self._facts = facts

    def __getitem__(self, group: str) -> GroupState:
        at = self._index[group]
        found: dict[str, dict[str, dict[str, NDArray[Any]]]] = {"buffers": {}, "state": {}}
        reference: dict[str, NDArray[Any]] = {}
        for (kind, node, name), column in self._columns.items():
            value = column[at]
            if value is None:
                continue
            if kind == "reference":
                reference[name] = value
            elif not name:
                found[kind].setdefault(node, {})
            else:
                found[kind].setdefault(node, {})[name] = value
        facts = self._facts[at]
        return GroupState(
            found["buffers"],
            found["state"],
            facts["digest"],
            facts["hparams"],
            {k: Precision(**v) for k, v in facts["precision"].items()},
            Reference.from_arrays(reference) if reference else None,
            facts["provenance"],
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, group: object) -> bool:
        return group in self._index
