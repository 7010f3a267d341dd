"""A workflow YAML runs its stages in order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsi_batch.documents import Document, read_yaml
from hsi_batch.errors import ConfigError, Problem
from hsi_batch.places import place
from hsi_batch.validation import validate
from hsi_batch.workflow_config import WorkflowConfig
from hsi_batch.workflow_parts import (
    below,
    convert_arguments,
    made_again,
    part,
    problems_of_parts,
    set_part,
)
from hsi_batch.workflow_training import plan_training, train_part, training_problems

if TYPE_CHECKING:
    from distributed import Client

    from hsi_batch.cluster import ClusterConfig
    from hsi_batch.engine.events import Observer
    from hsi_batch.stages.convert import ConvertResult
    from hsi_batch.stages.fit_result import FitResult
    from hsi_batch.stages.report import ReportResult
    from hsi_batch.stages.score_result import ScoreResult
    from hsi_batch.training.plan import TrainPlan, TrainSketch
    from hsi_batch.training.trained_run import TrainedRun

__all__ = ["WorkflowResult", "outputs_of", "read_workflow", "run_workflow", "shipped"]


@dataclass(frozen=True)
class WorkflowResult:
    """Results of the stages that were run; None for those that the workflow does not name.

    A dry run has plans, ``train_plan`` that of the training.
    """

    convert: ConvertResult | None = None
    fit: FitResult | None = None
    score: ScoreResult | None = None
    report: ReportResult | None = None
    train: TrainedRun | None = None
    train_plan: TrainPlan | TrainSketch | None = None

    @property
    def failed(self) -> int:
        """Frames and sources that failed in any stage."""
        parts = (self.convert, self.fit, self.train, self.score)
        return sum(part.failed for part in parts if part is not None)

    def __str__(self) -> str:
        named = {
            "convert": self.convert,
            "fit": self.fit,
            "train": self.train,
            "score": self.score,
            "report": self.report,
        }
        return "\n".join(f"{name}: {result}" for name, result in named.items() if result)


def shipped() -> Path:
    """Folder of the workflows that come with the package."""
    installed = Path(__file__).parent / "_workflows"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "workflows"


def read_workflow(
    path: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> tuple[WorkflowConfig, Document]:
    """Read a workflow and everything it refers to; all mistakes at once, before any work.

    Parameters
    ----------
    path : path
    overrides : sequence of str
        ``fit.pixels=labelled-normal`` and the like.

    Raises
    ------
    hsi_batch.errors.ConfigError
        With file and line of every mistake.
    """
    document = read_yaml(path, variables=True, collect=True)
    for assignment in overrides:
        document = set_part(document, assignment)
    problems: list[Problem] = []
    config: WorkflowConfig | None = None
    try:
        config = validate(WorkflowConfig, replace(document, problems=()))
    except ConfigError as error:
        if not error.problems:
            raise
        problems.extend(error.problems)
    # What is wrong with one part hides nothing of the others.
    problems.extend(problems_of_parts(document))
    problems.extend(training_problems(document))
    if problems or document.problems or config is None:
        raise ConfigError.collect(document.merged(problems), path=document.path)
    return config, document


def outputs_of(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> list[Path]:
    """Stores and fitted pipelines that a workflow writes."""
    config, document = read_workflow(path, overrides)
    places = [config.archive]
    places += [part.out for part in (config.fit, config.train, config.score) if part is not None]
    return [Path(below(document, place)) for place in places]


def run_workflow(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    client: Client | None = None,
    workers: int | None = None,
    cluster: str | os.PathLike[str] | None = None,
    force: bool = False,
    only_failed: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    performance: str | os.PathLike[str] | None = None,
    observer: Observer | None = None,
    confirm: Callable[[str], bool] | None = None,
) -> WorkflowResult:
    """Convert, fit, score and report, as a workflow YAML says; what is up to date is left alone.

    Parameters
    ----------
    path : path
        The workflow.
    overrides : sequence of str
        ``a.b=c`` settings that win over the file.
    client : distributed.Client, optional
        Workers to use for all stages.
    workers : int, optional
        Number of local workers, if they are started here.
    cluster : path, optional
        Cluster YAML; wins over the one of the workflow.
    force : bool
        Do everything again.
    only_failed : bool
        Try again what failed before.
    replace : bool
        Convert sources again that changed since.
    dry_run : bool
        Plan only.
    performance : path, optional
        Write Dask's performance report of the whole run there (HTML).
    observer : callable, optional
        Called with progress.
    confirm : callable, optional
        As for :func:`~hsi_batch.stages.convert.convert`; scores that the workflow itself makes
        again are not asked about.

    Returns
    -------
    WorkflowResult

    Raises
    ------
    hsi_batch.errors.ConfigError
        The workflow, its pipeline or its cluster is wrong; nothing was started.

    Examples
    --------
    >>> from pathlib import Path
    >>> there = [f"archive={Path('archive.zarr').absolute()}"]
    >>> there.append(f"sources=[{Path('recordings').absolute()}]")
    >>> run_workflow("workflows/quickstart.yaml", there, dry_run=True).convert.failed
    0
    """
    from hsi_batch.cluster import ExistingConfig, connect, current_client
    from hsi_batch.stages.run import workers_on_demand
    from hsi_batch.stages.workflow_text import running

    config, document = read_workflow(path, overrides)

    def stages(given: Mapping[str, Any]) -> WorkflowResult:
        with running(path, overrides):
            return _stages(config, document, given, force, only_failed, confirm)

    if config.train is not None and not dry_run:
        from hsi_batch.training.gradient import import_lightning

        import_lightning()
    if replace and config.sources is not None:
        config.sources.replace = True
    settings = _cluster(config, document, cluster)
    common: dict[str, Any] = {"observer": observer, "dry_run": dry_run}
    if performance is not None and not dry_run:
        with _reported(client, settings, workers, performance) as found:
            return stages({**common, "client": found})
    if client is not None or current_client() is not None:
        return stages({**common, "client": client})
    if isinstance(settings, ExistingConfig):
        with connect(settings) as found:
            return stages({**common, "client": found})
    # Plans need no workers, but depend on their number.
    common["workers"] = workers or (settings and settings.workers)
    with workers_on_demand(lambda: connect(settings, workers=workers)):
        return stages(common)


@contextlib.contextmanager
def _reported(
    client: Client | None,
    settings: ClusterConfig | None,
    workers: int | None,
    performance: str | os.PathLike[str],
) -> Iterator[Client]:
    """Workers at once, and a report of what they do."""
    from distributed import performance_report

    from hsi_batch.cluster import connect, current_client
    from hsi_batch.stages.outputs import check_place

    check_place(performance)
    if find_spec("bokeh") is None:
        raise ConfigError(
            "performance reports need the package bokeh.",
            hint="pip install 'hsi-batch[dashboard]'.",
        )
    given = client or current_client()
    with (
        contextlib.nullcontext(given) if given else connect(settings, workers=workers) as found,
        found.as_current(),
        performance_report(filename=os.fspath(performance)),
    ):
        yield found


def _cluster(
    config: WorkflowConfig, document: Document, given: str | os.PathLike[str] | None
) -> Any:
    from hsi_batch.cluster import read_cluster, refuse_strangers

    if given is not None:
        return read_cluster(given)
    if config.cluster is None:
        return None
    named = read_cluster(part("cluster", config.cluster, document))
    refuse_strangers(named, str(document.path))
    return named


def _stages(
    config: WorkflowConfig,
    document: Document,
    common: Mapping[str, Any],
    force: bool,
    only_failed: bool,
    confirm: Callable[[str], bool] | None,
) -> WorkflowResult:
    from hsi_batch.stages.convert import convert
    from hsi_batch.stages.fit_file import fit_file, pipeline_from
    from hsi_batch.stages.report import report
    from hsi_batch.stages.score import score

    archive = below(document, config.archive)
    planning = bool(common["dry_run"])
    converted = fitted = trained = scored = page = planned = None
    if config.sources is not None:
        sources, options = convert_arguments(config.sources, document)
        converted = convert(
            sources,
            archive,
            force=force,
            only_failed=only_failed,
            confirm=confirm,
            rescored=made_again(config, document),
            **options,
            **common,
        )
    if planning and config.train is not None:
        planned = plan_training(config.train, document, archive, converted, common, force)
    if planning and not place(archive).exists():
        return WorkflowResult(convert=converted, train_plan=planned)
    pipeline: Any = None
    if config.fit is not None:
        out = below(document, config.fit.out)
        fitted = fit_file(
            part("pipeline", config.pipeline, document),
            archive,
            out,
            frames=config.fit.frames,
            pixels=config.fit.pixels,
            background=config.fit.background,
            fallback=config.fit.fallback,
            bands=config.fit.bands,
            exclude_bands=config.fit.exclude_bands,
            raw_values=config.fit.raw_values,
            wavelength_tolerance=config.fit.wavelength_tolerance,
            force=force,
            only_failed=only_failed,
            **common,
        )
        pipeline = out
    if config.train is not None:
        pipeline = below(document, config.train.out)
        trained = None if planning else train_part(config.train, document, archive, common, force)
    elif config.score is not None and config.fit is None:
        pipeline = part("pipeline", config.pipeline, document)
        if isinstance(pipeline, Document):
            pipeline = pipeline_from(pipeline)
    if config.score is not None and not (planning and not Path(str(pipeline)).exists()):
        store = below(document, config.score.out)
        scored = score(
            pipeline,
            archive,
            store,
            frames=config.score.frames,
            outputs=config.score.outputs,
            force=force,
            only_failed=only_failed,
            **common,
        )
        if config.report is not None and not planning:
            out = below(document, config.report.out)
            page = report(store, out, archive=archive, force=force)
    return WorkflowResult(converted, fitted, scored, page, trained, planned)
