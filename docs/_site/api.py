"""The pages of the Python interface: what each package offers, read from its docstrings."""

from __future__ import annotations

import inspect
from importlib import import_module

from hsi_batch.nodes import node_classes

__all__ = ["pages"]

_PACKAGES = {
    "reference/hsi_batch.md": ("hsi_batch", "The top of the package"),
    "reference/pipeline.md": ("hsi_batch.pipeline", "Pipelines"),
    "reference/data.md": ("hsi_batch.data", "Data modules"),
    "reference/training.md": ("hsi_batch.training", "Training"),
    "reference/node_parts.md": ("hsi_batch.nodes", "Parts of nodes"),
    "reference/statistics.md": ("hsi_batch.statistics", "Statistics"),
    "reference/errors.md": ("hsi_batch.errors", "Errors"),
}


def pages() -> dict[str, str]:
    """Markdown that asks for each public name, by the name of its page."""
    seen: set[str] = set()
    return {page: _page(name, title, seen) for page, (name, title) in _PACKAGES.items()}


def _page(name: str, title: str, seen: set[str]) -> str:
    package = import_module(name)
    lines = [f"# {title}: `{name}`", "", (inspect.getdoc(package) or "").partition("\n\n")[0], ""]
    if name == "hsi_batch.nodes":
        lines += ["The nodes themselves are in [Nodes](nodes.md).", ""]
    nodes = set(node_classes().values()) if name == "hsi_batch.nodes" else set()
    for each in sorted(package.__all__, key=str.lower):
        found = getattr(package, each)
        if not (inspect.isclass(found) or inspect.isroutine(found)) or found in nodes:
            continue
        path = f"{found.__module__}.{found.__qualname__}"
        if path not in seen:
            lines += [f"::: {path}", ""]
            seen.add(path)
    return "\n".join(lines)
