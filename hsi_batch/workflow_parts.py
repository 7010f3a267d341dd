"""What a workflow refers to, found and checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsi_batch.documents import Document, set_value
from hsi_batch.errors import ConfigError, Problem
from hsi_batch.files import expand_home
from hsi_batch.places import is_url, normal_url

if TYPE_CHECKING:
    from hsi_batch.pipeline.pipeline import Pipeline
    from hsi_batch.workflow_config import SourcesConfig, WorkflowConfig

__all__ = [
    "below",
    "convert_arguments",
    "made_again",
    "output_problems",
    "part",
    "problems_in",
    "problems_of_parts",
    "set_part",
]

#: Stages that need one of other entries.
_NEEDS = (
    ("fit", ("pipeline",), "`fit` needs a `pipeline`."),
    ("score", ("pipeline", "train"), "`score` needs a `pipeline`, or `train`."),
    ("report", ("score",), "`report` needs `score`."),
)


def below(document: Document, path: str) -> str:
    """A path of the workflow file, relative to the file."""
    if is_url(path):
        return normal_url(path)
    folder = Path(document.path).parent if document.path else Path()
    return str(folder / expand_home(path))


def made_again(config: WorkflowConfig, document: Document) -> str | None:
    """Scores that a workflow makes anew wherever the archive changed; None if only of a part."""
    if config.score is None or config.score.frames is not None:
        return None
    return below(document, config.score.out)


def part(key: str, value: Any, document: Document) -> str | Document:
    """What stands under a key: the path of a file, or a document of its own."""
    if isinstance(value, str):
        return below(document, value)
    lines = {at[1:]: line for at, line in document.lines.items() if at[:1] == (key,)}
    return Document(value, lines, document.path)


def set_part(document: Document, assignment: str) -> Document:
    """Apply one ``a.b=c`` of the command line, whatever form an entry has in the file.

    Examples
    --------
    >>> from hsi_batch.documents import read_yaml
    >>> short = read_yaml("w.yaml", text="sources: [in]")
    >>> set_part(short, "sources.replace=true").data
    {'sources': {'paths': ['in'], 'replace': True}}
    """
    data = document.data
    key, _, rest = assignment.partition(".")
    value = data.get(key) if isinstance(data, dict) else None
    name = rest.partition("=")[0].partition(".")[0]
    if key == "sources" and isinstance(value, (str, list)) and name and not name.isdecimal():
        value = [value] if isinstance(value, str) else value
        document = replace(document, data={**data, key: {"paths": value}})
    elif key == "pipeline" and isinstance(value, dict) and rest:
        from hsi_batch.pipeline.dialects import set_entry

        changed = set_entry(Document(value, {}, document.path), rest)
        return replace(document, data={**data, key: changed.data})
    elif key == "pipeline" and isinstance(value, str) and name:
        raise ConfigError(
            f"--set {assignment!r}: the pipeline is in a file of its own, {value}.",
            hint="Change it there, or write the pipeline into the workflow.",
        )
    return set_value(document, assignment)


def convert_arguments(
    config: SourcesConfig, document: Document
) -> tuple[list[str], dict[str, Any]]:
    """Sources of a workflow, and options of their conversion."""
    options = config.model_dump(exclude={"paths", "root", "annotations"})
    labels = config.annotations
    options["root"] = None if config.root is None else below(document, config.root)
    options["annotations"] = labels if labels in ("sibling", "none") else below(document, labels)
    for name in ("white", "dark", "panel", "igm", "gps", "wavelength_map"):
        if options[name] not in ("sibling", "none", None) and not _is_number(options[name]):
            options[name] = below(document, options[name])
    return [below(document, source) for source in config.paths], options


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def problems_of_parts(document: Document) -> list[Problem]:
    """All that is wrong with what a workflow refers to, and with how its entries fit together.

    Checked as a run would: the pipeline, the cluster, the names of outputs, the fitted file.
    """
    given = document.data or {}
    found = [
        document.problem(text, (stage,))
        for stage, needed, text in _NEEDS
        if given.get(stage) is not None and all(given.get(key) is None for key in needed)
    ]
    checks: tuple[tuple[str, Callable[[Any, Document], Iterator[Problem]]], ...] = (
        ("pipeline", _pipeline_problems),
        ("fit", _fit_problems),
        ("cluster", _cluster_problems),
    )
    for key, check in checks:
        value = given.get(key)
        if not isinstance(value, (str, dict)):
            continue
        try:
            found.extend(check(value, document))
        except ConfigError as error:
            found.extend(problems_in(error))
    return found


def problems_in(error: ConfigError) -> Sequence[Problem]:
    """The problems of an error, or the error as one."""
    only = Problem(error.message, path=error.path, line=error.line, hint=error.hint)
    return error.problems or (only,)


def _pipeline_problems(value: Any, document: Document) -> Iterator[Problem]:
    from hsi_batch.stages.fit_file import pipeline_from

    pipeline = pipeline_from(part("pipeline", value, document))
    score = document.data.get("score")
    if isinstance(score, dict):
        yield from output_problems(pipeline, score.get("outputs"), document)


def output_problems(pipeline: Pipeline, outputs: Any, document: Document) -> Iterator[Problem]:
    """Outputs that cannot be stored: their names are known before anything is fitted."""
    from hsi_batch.pipeline.maps import stored_port
    from hsi_batch.stages.score_plan import DEFAULT_OUTPUTS

    if not outputs and not any(
        port in node.OUTPUT_SPECS for node in pipeline.nodes.values() for port in DEFAULT_OUTPUTS
    ):
        text = (
            "the pipeline has no output `scores` or `decisions`; name what to store in `outputs`."
        )
        yield document.problem(text, ("score",))
    for index, name in enumerate(outputs if isinstance(outputs, list) else ()):
        try:
            stored_port(pipeline, str(name))
        except ConfigError as error:
            yield document.problem(str(error), ("score", "outputs", index))


def _fit_problems(value: Any, document: Document) -> Iterator[Problem]:
    from hsi_batch.stages.fit_file import check_name

    out = value.get("out") if isinstance(value, dict) else None
    if not isinstance(out, str):
        return
    pipeline = document.data.get("pipeline")
    source = below(document, pipeline) if isinstance(pipeline, str) else None
    try:
        check_name(Path(below(document, out)), source)
    except ConfigError as error:
        yield document.problem(f"fit.out: {error.message}", ("fit", "out"))


def _cluster_problems(value: Any, document: Document) -> Iterator[Problem]:
    from hsi_batch.cluster import read_cluster

    read_cluster(part("cluster", value, document))
    yield from ()
