"""One self-contained page about a scoring run."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zarr
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from hsi_batch._version import __version__
from hsi_batch.archive.archive import Archive
from hsi_batch.archive.store import SCORES, archive_stamp, open_root, state_folder
from hsi_batch.archive.writer import disk_errors
from hsi_batch.errors import ConfigError, StoreError
from hsi_batch.files import digest_json, write_atomically
from hsi_batch.places import Place, place, stamp
from hsi_batch.stages import pictures
from hsi_batch.stages.evaluation import Evaluation, load_evaluation
from hsi_batch.stages.moved import warn_of_scores
from hsi_batch.stages.outputs import check_place
from hsi_batch.stages.provenance import provenance
from hsi_batch.stages.report_cards import card_of, chosen_frames
from hsi_batch.stages.report_facts import facts_of, failures_of, thresholds_of, tiles_of
from hsi_batch.stages.report_pictures import frames_picture, mark_thresholds
from hsi_batch.stages.report_tables import report_tables, tables_json
from hsi_batch.stages.training_report import training_section
from hsi_batch.statistics import roc_curve

__all__ = ["ReportResult", "report"]

#: Files beside the scores that a page is made of.
_SUMMARY = ("summary.parquet", "histograms.npz", "metrics.json")
#: Where a page says what it was made of, in its first bytes.
_INPUTS = re.compile(rb'<meta name="hsi-batch-inputs" content="([0-9a-f]{64})">')
_HEAD_BYTES = 4096
#: Rows that are there without scripts.
_ROWS = 25


@dataclass(frozen=True)
class ReportResult:
    """Where the report is.

    Attributes
    ----------
    path : str
    sessions, frames : int
        Sessions in the scores, frames in the table.
    auc : float, optional
        Over all labelled pixels.
    up_to_date : bool
        The page was there already, made of the same.
    """

    path: str
    sessions: int
    frames: int
    auc: float | None = None
    up_to_date: bool = False

    def __str__(self) -> str:
        return f"up to date: {self.path}" if self.up_to_date else self.path


def report(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    archive: Archive | str | os.PathLike[str] | None = None,
    force: bool = False,
) -> ReportResult:
    """Write one HTML page about scores: facts, pictures, histogram, top frames, ROC, failures.

    Of a trained pipeline it shows what the training changed. A page that was made of the same
    scores by the same software is left alone.

    Parameters
    ----------
    store : path
        Folder of the scores.
    out : path
        The page.
    archive : Archive or path, optional
        Where the cubes are; the place that the scores name by default.
    force : bool
        Write the page in any case.

    Raises
    ------
    hsi_batch.errors.StoreError
        No scores there, or scoring was not finished.
    """
    check_place(out)
    _refuse_other_files(Path(out))
    where = place(store)
    root = open_root(where, SCORES)
    evaluation = load_evaluation(where)
    if evaluation is None:
        raise StoreError(
            "the summary of the scores is missing.",
            path=str(where),
            hint="Finish scoring first: run hsi-batch score again.",
        )
    cubes = _archive(archive, str(root.attrs.get("archive", "")))
    table = evaluation.table()
    result = ReportResult(
        str(Path(out)),
        sessions=table["session"].nunique() if len(table) else 0,
        frames=len(table),
        auc=evaluation.metrics.get("auc"),
    )
    moved = warn_of_scores(store, None if cubes is None else str(cubes.path)).sentences()
    inputs = _inputs(where, cubes)
    if not force and _made_of(Path(out)) == inputs:
        return replace(result, up_to_date=True)
    parts = [[card_of(root, cubes, row) for _, row in p.iterrows()] for p in chosen_frames(table)]
    failures = failures_of(root)
    environment = Environment(
        loader=PackageLoader("hsi_batch.stages"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("report.js").render()
    page = environment.get_template("report.html.j2").render(
        title=where.name,
        tiles=tiles_of(evaluation, len(failures)),
        facts=facts_of(root, evaluation, cubes, where),
        paragraph=provenance(store).paragraph,
        plots=_plots(evaluation, table, thresholds_of(root, list(evaluation.covers))),
        training=_training(root),
        parts=list(zip(("top", "random"), parts, strict=True)),
        notes=moved
        if cubes is not None
        else ["The archive was not found, so cubes are not shown."],
        script=Markup(script),  # noqa: S704 - our own file
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=__version__,
        inputs=inputs,
        **_tables(table, failures, [card for cards in parts for card in cards]),
    )
    with disk_errors(str(out)):
        write_atomically(Path(out), page)
    return result


def _inputs(scores: Place, archive: Archive | None) -> str:
    """Digest of all that decides what a page holds."""
    state = state_folder(scores)
    files = [scores / "zarr.json", *(state / name for name in _SUMMARY)]
    marks = [stamp(file) for file in files]
    cubes = archive and [str(archive.path.resolve()), archive_stamp(archive.path)]
    return digest_json([__version__, str(scores.resolve()), marks, cubes])


def _refuse_other_files(page: Path) -> None:
    """Never write over what is no page: the name may come from somebody's workflow.

    Raises
    ------
    hsi_batch.errors.ConfigError
    """
    try:
        with page.open("rb") as file:
            start = file.read(_HEAD_BYTES).lstrip().lower()
    except OSError:
        return
    if start and not start.startswith((b"<!doctype html", b"<html")):
        raise ConfigError(
            "this file is no HTML page, and is not written over.",
            path=str(page),
            hint="Choose another name for the report, or remove the file.",
        )


def _made_of(page: Path) -> str | None:
    """The digest that a page says it was made of."""
    try:
        with page.open("rb") as file:
            found = _INPUTS.search(file.read(_HEAD_BYTES))
    except OSError:
        return None
    return None if found is None else found[1].decode()


def _markup(svg: str | None) -> Markup | None:
    # Made by matplotlib from numbers alone.
    return None if svg is None else Markup(svg)  # noqa: S704


def _training(root: zarr.Group) -> dict[str, Any] | None:
    found = training_section(dict(root.attrs).get("pipeline_provenance") or {})  # type: ignore[arg-type]
    for part in [] if found is None else [*found["splits"], *found["selectors"]]:
        part |= {key: _markup(part[key]) for key in ("roc", "picture") if key in part}
    return found


def _archive(given: Any, named: str) -> Archive | None:
    if isinstance(given, Archive):
        return given
    try:
        return Archive(given or named)
    except (StoreError, ConfigError):
        if given is not None:
            raise
        return None


def _plots(
    evaluation: Evaluation, table: Any, thresholds: Sequence[tuple[str, float, float]]
) -> list[tuple[str, Markup]]:
    """Title and picture of each distribution."""
    found: list[tuple[str, str | None]] = []
    if evaluation.scores.count:
        histogram = pictures.histogram_picture(
            evaluation.scores,
            evaluation.background,
            evaluation.target,
            lambda axes: mark_thresholds(axes, thresholds),
        )
        found.append(("Scores", histogram))
    curve = roc_curve(evaluation.background, evaluation.target)
    found.append(("ROC", None if curve is None else pictures.roc_picture(curve)))
    found.append(("Scores over frames", frames_picture(table, thresholds) if len(table) else None))
    return [(title, svg) for title, text in found if (svg := _markup(text)) is not None]


def _tables(
    table: Any, failures: Sequence[tuple[str, int, str]], cards: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What the template needs of the tables, and their JSON."""
    links = {card["place"]: card["anchor"] for card in cards}
    words, listings = report_tables(table, failures, links)
    text, kept = tables_json(words, listings)
    shown = {
        one.key: {
            "columns": [column.name for column in one.columns],
            "words": [column.words is not None for column in one.columns],
            "rows": one.head(words, _ROWS),
            "sort": one.sort,
            "total": one.total,
            "kept": len(one),
        }
        for one in kept
    }
    # Nothing in it can end the element that it stands in.
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return {"tables": shown, "data": Markup(safe)}  # noqa: S704
