"""The pipeline YAML: its models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

__all__ = [
    "ConnectionConfig",
    "NodeConfig",
    "PipelineConfig",
    "PipelineMetadata",
    "ShortNodeConfig",
    "ShortPipelineConfig",
    "pipeline_schema",
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
    """Who made a pipeline, when and what for; the keys of the cuvis-ai family.

    Parameters
    ----------
    name : str
        What it is called in lists and reports.
    description : str
        What it is for.
    created : str
        When, in any form.
    author : str
        Who made it.
    cuvis_ai_version : str
        Version of cuvis-ai that it was written for.
    tags : list of str
        Words to find it by.

    Examples
    --------
    >>> PipelineMetadata(name="RX", tags=["statistical"]).name
    'RX'
    """

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


class ShortNodeConfig(_Model):
    """One node of the short form."""

    type: str = Field(min_length=1)
    config: dict[str, Any] | None = None


class ShortPipelineConfig(_Model):
    """A pipeline file in the short form of the seed pages.

    Files in this form are turned into :class:`PipelineConfig` and checked there; the model is for
    the schema.
    """

    plugins: list[str] | None = None
    nodes: dict[str, ShortNodeConfig | str] = Field(min_length=1)
    connections: list[tuple[str, str]] = Field(default_factory=list)
    metadata: PipelineMetadata | None = None
    trainer: dict[str, Any] | None = None


def pipeline_schema() -> dict[str, Any]:
    """JSON Schema of a pipeline file, in either form."""
    both: TypeAdapter[Any] = TypeAdapter(PipelineConfig | ShortPipelineConfig)
    return both.json_schema()
