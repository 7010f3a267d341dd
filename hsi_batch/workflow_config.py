"""What a workflow YAML may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from hsi_batch.errors import ConfigError

__all__ = [
    "FitConfig",
    "ReportConfig",
    "ScoreConfig",
    "SourcesConfig",
    "TrainConfig",
    "WorkflowConfig",
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SourcesConfig(_Model):
    """Recordings to convert."""

    paths: list[str] = Field(min_length=1)
    root: str | None = None
    mode: str | None = None
    annotations: str = "sibling"
    nodata: float | None = None
    saturation: float | None = None
    block_lines: int | Literal["frame"] | None = None
    preset: Literal["fast", "balanced", "small", "sharded"] = "balanced"
    white: str = "sibling"
    dark: str = "sibling"
    panel: float | str | None = None
    crop: str | None = None
    quantity: Literal["dn", "reflectance", "radiance"] | None = None
    roi: str | None = None
    dead_columns: str | None = None
    igm: str = "sibling"
    gps: str = "sibling"
    wavelength_map: str | None = None
    replace: bool = False

    @field_validator("paths", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class FitConfig(_Model):
    """What the pipeline is fitted on, and where the fitted pipeline goes."""

    out: str
    frames: str | list[str] | None = None
    pixels: str = Field(
        default="valid", json_schema_extra={"pattern": "^(valid|labelled-normal|class:.+|mask:.+)$"}
    )
    background: str = Field(
        default="archive",
        json_schema_extra={"pattern": "^(archive|session|sensor|attr:.+)$"},
    )
    fallback: str | None = None
    bands: str | None = None
    exclude_bands: str | None = None
    raw_values: bool | None = None
    wavelength_tolerance: float | None = Field(default=None, ge=0)

    @field_validator("pixels")
    @classmethod
    def _pixels(cls, value: str) -> str:
        from hsi_batch.stages.pixels import check_pixels

        try:
            check_pixels(value)
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return value

    @field_validator("background", "fallback")
    @classmethod
    def _background(cls, value: str | None, info: ValidationInfo) -> str | None:
        from hsi_batch.pipeline.groups import check_background

        first = info.data.get("background") if info.field_name == "fallback" else value
        try:
            if first is not None:
                check_background(first, value if info.field_name == "fallback" else None)
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return value


class TrainConfig(_Model):
    """The trainrun of the gradient stage, and where the trained pipeline goes.

    Its data are those of the archive of the workflow.
    """

    trainrun: str
    out: str


class ScoreConfig(_Model):
    """What is scored, and where the scores go."""

    out: str
    frames: str | list[str] | None = None
    outputs: list[str] | None = None


class ReportConfig(_Model):
    """Where the report goes."""

    out: str


class WorkflowConfig(_Model):
    """A workflow: stages that are named are run, in this order.

    Paths are relative to the file. ``${NAME}`` and ``${NAME:-default}`` are environment variables.
    """

    archive: str
    sources: SourcesConfig | None = None
    pipeline: str | dict[str, Any] | None = None
    fit: FitConfig | None = None
    train: TrainConfig | None = None
    score: ScoreConfig | None = None
    report: ReportConfig | None = None
    cluster: str | dict[str, Any] | None = None

    @field_validator(
        "sources", mode="before", json_schema_input_type=str | list[str] | SourcesConfig | None
    )
    @classmethod
    def _paths(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"paths": [value]}
        return {"paths": value} if isinstance(value, list) else value

    @field_validator("report", mode="before", json_schema_input_type=str | ReportConfig | None)
    @classmethod
    def _page(cls, value: Any) -> Any:
        return {"out": value} if isinstance(value, str) else value
