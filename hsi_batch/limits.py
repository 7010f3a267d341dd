"""How large and how deep a YAML file may be, found out before anything is made of it."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_ENTRIES", "Bounded", "expanded"]

#: No file of ours comes near this; a larger one is a mistake or an attack.
MAX_BYTES = 16 * 2**20
MAX_DEPTH = 50
MAX_ENTRIES = 200_000


class Bounded(yaml.SafeLoader):
    """Safe loading that stops at nesting that no file of ours has."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node with all below it.

        Raises
        ------
        RecursionError
            Too deep, long before Python itself says so.
        """
        if self._depth > MAX_DEPTH + 1:
            raise RecursionError
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def expanded(node: yaml.Node | None, known: dict[int, float] | None = None) -> float:
    """Entries that a node stands for once its aliases are written out; infinite within itself."""
    known = {} if known is None else known
    if node is None or id(node) in known:
        return 0.0 if node is None else known[id(node)]
    known[id(node)] = float("inf")
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        # Of a key that stands twice the first counts.
        first: dict[Any, yaml.Node] = {}
        for key, value in node.value:
            first.setdefault(str(key.value), value)
        below = list(first.values())
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    known[id(node)] = 1 + sum(expanded(child, known) for child in below)
    return known[id(node)]
