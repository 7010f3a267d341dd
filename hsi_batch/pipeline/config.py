"""The pipeline YAML: its models, and the short form written out in full."""

from __future__ import annotations

import warnings
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hsi_batch.documents import Document, Location

__all__ = [
    "ConnectionConfig",
    "NodeConfig",
    "PipelineConfig",
    "PipelineMetadata",
    "is_short_form",
    "written_out",
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NodeConfig(_Model):
    """One node: its name in the graph, its class and the arguments of the class."""

    name: str = Field(min_length=1)
    class_name: str = Field(min_length=1)
    hparams: dict[str, Any] = Field(default_factory=dict)


class ConnectionConfig(_Model):
    """One connection: ``a.outputs.x`` to ``b.inputs.y``."""

    source: str
    target: str


class PipelineMetadata(_Model):
    """Who made a pipeline, when and what for; the keys of the cuvis-ai family."""

    name: str = "Pipeline"
    description: str = ""
    created: str = ""
    tags: list[str] = Field(default_factory=list)
    author: str = ""
    cuvis_ai_version: str = ""


class PipelineConfig(_Model):
    """A pipeline file in the released form of the cuvis-ai family."""

    plugins: list[str] | None = None
    nodes: list[NodeConfig] = Field(min_length=1)
    connections: list[ConnectionConfig] = Field(default_factory=list)
    metadata: PipelineMetadata | None = None


def is_short_form(data: Any) -> bool:
    """Whether nodes are a mapping of names to ``type`` and ``config``."""
    return isinstance(data, dict) and isinstance(data.get("nodes"), dict)


def written_out(document: Document) -> Document:
    """Turn the short form into the released form, keeping the lines.

    ::

        nodes:
          rx: {type: RXGlobal, config: {eps: 0}}
        connections:
          - [data.cube, rx.data]
    """
    if not is_short_form(document.data):
        return document
    data: dict[str, Any] = {k: v for k, v in document.data.items() if k != "trainer"}
    if "trainer" in document.data:
        warnings.warn(
            f"{document.path or 'pipeline'}:{document.line(('trainer',))}: `trainer` is ignored;"
            " it belongs to the run, not to the pipeline.",
            UserWarning,
            stacklevel=4,
        )
    lines: dict[Location, int] = {
        at: line
        for at, line in document.lines.items()
        if len(at) < 2 or at[0] not in ("nodes", "connections")
    }
    data["nodes"] = []
    for index, (name, body) in enumerate(document.data["nodes"].items()):
        old: Location = ("nodes", name)
        new: Location = ("nodes", index)
        renamed = {"type": "class_name", "config": "hparams"}
        entry: dict[str, Any] = {"name": name}
        for key, value in (body if isinstance(body, dict) else {"type": body}).items():
            entry[renamed.get(key, key)] = {} if key == "config" and value is None else value
        data["nodes"].append(entry)
        for at, line in document.lines.items():
            if at[:2] == old:
                rest = (renamed.get(str(at[2]), at[2]), *at[3:]) if len(at) > 2 else ()
                lines[*new, *rest] = line
    connections = document.data.get("connections") or []
    if not isinstance(connections, list):
        return Document(data, lines, document.path)
    data["connections"] = []
    for index, pair in enumerate(connections):
        whole = isinstance(pair, list) and len(pair) == 2
        data["connections"].append(
            {"source": _endpoint(pair[0], "outputs"), "target": _endpoint(pair[1], "inputs")}
            if whole
            else pair
        )
        found = document.line(("connections", index))
        if found is not None:
            lines["connections", index] = found
    return Document(data, lines, document.path)


def _endpoint(text: Any, side: str) -> Any:
    parts = str(text).split(".")
    return f"{parts[0]}.{side}.{parts[1]}" if len(parts) == 2 else text
