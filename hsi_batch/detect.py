"""From recordings to detections without a YAML; the workflow that it runs is written down."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hsi_batch.errors import ConfigError
from hsi_batch.files import expand_home, write_atomically
from hsi_batch.stages.outputs import check_place
from hsi_batch.wording import counted
from hsi_batch.workflow import WorkflowResult, run_workflow

if TYPE_CHECKING:
    from distributed import Client

    from hsi_batch.engine.events import Observer

__all__ = ["DetectResult", "detect"]

_HEAD = """\
# Written by `hsi-batch detect`. Edit it and run it with `hsi-batch run {name}`: only what changed
# is done again.
"""


@dataclass(frozen=True)
class DetectResult:
    """What was found.

    Attributes
    ----------
    workflow : str
        The file that says how.
    run : WorkflowResult
    detections : int, optional
        Regions in the table; None of a plan.
    table : str, optional
        ``detections.parquet``.
    """

    workflow: str
    run: WorkflowResult
    detections: int | None = None
    table: str | None = None

    @property
    def failed(self) -> int:
        """Frames and sources that failed."""
        return self.run.failed

    def __str__(self) -> str:
        text = str(self.run)
        if self.table is not None:
            text += f"\n{counted(self.detections or 0, 'detection')}: {self.table}"
        return f"{text}\nEdit {self.workflow} and run it again with: hsi-batch run {self.workflow}"


def detect(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    pfa: float = 1e-3,
    background: str = "session",
    min_area: int = 1,
    client: Client | None = None,
    workers: int | None = None,
    force: bool = False,
    only_failed: bool = False,
    dry_run: bool = False,
    observer: Observer | None = None,
) -> DetectResult:
    """Find what stands out of recordings: convert, fit one background each, score, report.

    References beside scans calibrate them; flagged pixels and bad or constant bands are left out.
    The detector is global RX with a threshold for a false-alarm rate, from one pass over the
    scores.

    Parameters
    ----------
    sources : sequence of path
        As for :func:`~hsi_batch.stages.convert.convert`.
    out : path
        Folder for archive, pipeline, scores, detections, report and the workflow.
    pfa : float
        Probability of a false alarm per pixel.
    background : {"session", "sensor", "archive", "attr:NAME"}
        What has a background of its own.
    min_area : int
        Pixels of a detection, at least.
    client, workers, force, only_failed, dry_run, observer
        As for :func:`~hsi_batch.workflow.run_workflow`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The workflow there was edited, or sources and settings do not fit.
    """
    folder = Path(out)
    check_place(folder, folder=True)
    if not 0 < pfa < 1:
        raise ConfigError(f"pfa {pfa} is not between 0 and 1.", hint="Write for example 0.001.")
    workflow = folder / "workflow.yaml"
    # A plan leaves nothing behind that was not there.
    made = None if folder.exists() else folder
    kept = workflow.exists()
    _write(workflow, _workflow(sources, background))
    _write(folder / "pipeline.yaml", _pipeline(pfa))
    arguments: dict[str, Any] = {"client": client, "workers": workers, "observer": observer}
    try:
        result = run_workflow(
            workflow, force=force, only_failed=only_failed, dry_run=dry_run, **arguments
        )
    finally:
        if dry_run and not kept:
            workflow.unlink()
            (folder / "pipeline.yaml").unlink()
            if made is not None:
                made.rmdir()
    if dry_run:
        return DetectResult(str(workflow), result)
    from hsi_batch.stages.export import export

    found = export(folder / "scores.zarr", "parquet", folder, min_area=min_area, **arguments)
    return DetectResult(str(workflow), result, found.detections, found.files[0])


def _workflow(sources: Sequence[str | os.PathLike[str]], background: str) -> dict[str, Any]:
    return {
        "archive": "archive.zarr",
        "sources": [str(expand_home(source).absolute()) for source in sources],
        "pipeline": "pipeline.yaml",
        "fit": {
            "out": "fitted.yaml",
            "background": background,
            "bands": "good",
            "exclude_bands": "constant",
        },
        "score": {"out": "scores.zarr"},
        "report": "report.html",
    }


def _pipeline(pfa: float) -> dict[str, Any]:
    return {
        "nodes": [
            {"name": "data", "class_name": "CU3SDataNode"},
            {"name": "rx", "class_name": "RXGlobal", "hparams": {"eps": 0.0}},
            {
                "name": "decider",
                "class_name": "CFARThreshold",
                "hparams": {"pfa": pfa, "method": "auto", "tail": max(0.1, min(5 * pfa, 0.5))},
            },
        ],
        "connections": [
            {"source": "data.outputs.cube", "target": "rx.inputs.data"},
            {"source": "rx.outputs.scores", "target": "decider.inputs.scores"},
        ],
        "metadata": {
            "name": "Detect",
            "description": f"Global RX, threshold for a false-alarm rate of {pfa:g}",
        },
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a YAML unless it is there; one that says something else is left alone, and refused."""
    text = _HEAD.format(name=path.name) + yaml.safe_dump(content, sort_keys=False, width=100)
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        raise ConfigError(
            "it is there already, and says something else than this command.",
            path=str(path),
            hint=f"Run it as it is (hsi-batch run {path.parent / 'workflow.yaml'}), or choose"
            " another --out.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
