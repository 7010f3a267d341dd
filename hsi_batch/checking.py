"""Checking files before anything runs, with the code that runs them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hsi_batch.documents import Document, read_yaml
from hsi_batch.errors import ConfigError, Problem
from hsi_batch.wording import counted

__all__ = ["KINDS", "Checked", "Kind", "check_file", "kind_of", "schema"]

Kind = Literal["pipeline", "workflow", "cluster", "trainrun"]
KINDS: tuple[Kind, ...] = ("pipeline", "workflow", "cluster", "trainrun")


@dataclass(frozen=True)
class Checked:
    """What is to be said about a file.

    Attributes
    ----------
    path : str
    kind : {"pipeline", "workflow", "cluster", "trainrun", "file"}
        What the file was taken for; "file" if it cannot be read, or holds nothing.
    problems : tuple of Problem
        Everything that is wrong, by line.
    warnings : tuple of str
        What is read otherwise than it is written.
    summary : str
        What it holds, if nothing is wrong.
    """

    path: str
    kind: Kind | Literal["file"]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    summary: str = ""

    @property
    def good(self) -> bool:
        """Whether it would be accepted."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": self.path,
            "kind": self.kind,
            "good": self.good,
            "summary": self.summary,
            "problems": [
                {"path": p.path or self.path, "line": p.line, "message": p.message, "hint": p.hint}
                for p in self.problems
            ],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        lines = [f"warning: {text}" for text in self.warnings]
        if self.good:
            return "\n".join([*lines, f"{self.path}: {self.kind}, {self.summary}: good"])
        lines += [str(p) for p in self.problems]
        return "\n".join([*lines, f"{self.path}: {self.kind}, {_count(self.problems)}"])


def _count(problems: tuple[Problem, ...]) -> str:
    return counted(len(problems), "problem")


def kind_of(data: Any) -> Kind:
    """What a file is, from its keys.

    Examples
    --------
    >>> kind_of({"nodes": []}), kind_of({"type": "local"}), kind_of({"archive": "a.zarr"})
    ('pipeline', 'cluster', 'workflow')
    """
    keys = set(data) if isinstance(data, dict) else set()
    if "nodes" in keys or "connections" in keys:
        return "pipeline"
    if keys & {"loss_nodes", "unfreeze_nodes", "training", "data", "defaults"}:
        return "trainrun"
    counts = {kind: len(keys & set(_keys(schema(kind)))) for kind in ("workflow", "cluster")}
    return "cluster" if counts["cluster"] > counts["workflow"] else "workflow"


def _keys(found: Mapping[str, Any]) -> list[str]:
    """All keys at the top of a schema, or of the schemas it chooses from."""
    keys = list(found.get("properties", {}))
    for part in found.get("anyOf", ()):
        name = str(part.get("$ref", "")).rpartition("/")[2]
        keys += _keys(found["$defs"][name]) if name else _keys(part)
    return keys


def check_file(path: str | os.PathLike[str], kind: Kind | None = None) -> Checked:
    """Read a file as a run would, and tell everything wrong with it.

    Parameters
    ----------
    path : path
    kind : {"pipeline", "workflow", "cluster", "trainrun"}, optional
        What the file is; found out from its keys by default.
    """
    name = os.fspath(path)
    found: Kind | Literal["file"] = kind or "file"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problems: tuple[Problem, ...] = ()
        summary = ""
        try:
            document = read_yaml(path, collect=True)
            if kind is None and not isinstance(document.data, dict):
                raise _nothing_to_check(document)
            known = found = kind or kind_of(document.data)
            summary = _read(known, Path(path), document)
        except ConfigError as error:
            only = Problem(error.message, path=error.path, line=error.line, hint=error.hint)
            problems = error.problems or (only,)
    said = tuple(dict.fromkeys(str(w.message) for w in caught))
    return Checked(name, found, problems, said, summary)


def _nothing_to_check(document: Document) -> ConfigError:
    data = document.data
    held = "nothing" if data is None else "a list" if isinstance(data, list) else "a single value"
    return ConfigError(
        f"the file holds {held}; a mapping of keys was expected.", path=document.path
    )


def _read(kind: Kind, path: Path, document: Document) -> str:
    if kind == "workflow":
        from hsi_batch.workflow import read_workflow

        config, _ = read_workflow(path)
        stages = {
            "convert": config.sources,
            "fit": config.fit,
            "train": config.train,
            "score": config.score,
            "report": config.report,
        }
        return ", ".join(stage for stage, part in stages.items() if part is not None) or "no stage"
    if kind == "trainrun":
        return _read_trainrun(path)
    if kind == "cluster":
        from hsi_batch.cluster import read_cluster

        return f"type {read_cluster(path).type}"
    from hsi_batch.stages.fit_file import pipeline_from

    pipeline = pipeline_from(document)
    nodes, edges = len(pipeline.nodes), len(pipeline.edges)
    return f"{counted(nodes, 'node')}, {counted(edges, 'connection')}"


def _read_trainrun(path: Path) -> str:
    from hsi_batch.training.assembly import check_trainable
    from hsi_batch.training.trainrun import build_pipeline, read_trainrun

    config, _ = read_trainrun(path)
    pipeline = build_pipeline(config, path)
    if config.training is None:
        return f"statistical fit of {pipeline.name}"
    check_trainable(config, pipeline, path)
    return f"training of {', '.join(config.unfreeze_nodes)} by {', '.join(config.loss_nodes)}"


def schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a kind of file, for editors."""
    found: dict[str, Any]
    if kind == "workflow":
        from hsi_batch.workflow_config import WorkflowConfig

        found = WorkflowConfig.model_json_schema()
    elif kind == "trainrun":
        from hsi_batch.training.trainrun import TrainRunConfig

        found = TrainRunConfig.model_json_schema()
    elif kind == "cluster":
        from hsi_batch.cluster import cluster_schema

        found = cluster_schema()
    else:
        from hsi_batch.pipeline.config import pipeline_schema

        found = pipeline_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": f"hsi_batch {kind}",
    }
