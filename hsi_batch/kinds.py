"""Which kind of file a YAML is, for those who give one where another is expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["mistaken"]

#: A key that only this kind has, and some of which one more is there.
_SIGNS: Mapping[str, tuple[str, frozenset[str]]] = {
    "pipeline": ("nodes", frozenset({"nodes"})),
    "trainrun": ("data", frozenset({"training", "pipeline", "metric_nodes", "loss_nodes"})),
    "workflow": ("archive", frozenset({"sources", "pipeline", "fit", "score", "report"})),
}
_ADVICE = {
    "pipeline": "hsi-batch fit fits a pipeline; a workflow names it under `pipeline`.",
    "trainrun": "hsi-batch restore-trainrun runs a trainrun.",
    "workflow": "hsi-batch run runs a workflow.",
}


def mistaken(data: Mapping[Any, Any], fields: Iterable[str]) -> tuple[str, str] | None:
    """What is to be said of a file of another kind than the one with these fields, and advice.

    Examples
    --------
    >>> mistaken({"archive": "a.zarr", "pipeline": "p.yaml"}, ["nodes", "connections"])[0]
    'this is a workflow; a pipeline was expected.'
    >>> mistaken({"nodes": []}, ["nodes", "connections"]) is None
    True
    """
    known = set(fields)
    found = next((k for k, (own, more) in _SIGNS.items() if own in data and more & set(data)), None)
    if found is None or _SIGNS[found][0] in known:
        return None
    wanted = next((kind for kind, (own, _) in _SIGNS.items() if own in known), "file")
    expected = "another kind of file" if wanted == "file" else f"a {wanted}"
    advice = _ADVICE[found]
    inner = data.get("pipeline")
    if wanted == "pipeline" and isinstance(inner, str):
        advice += f" Its pipeline is {inner}."
    return f"this is a {found}; {expected} was expected.", advice
