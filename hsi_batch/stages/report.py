"""One self-contained page about a scoring run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from hsi_batch._version import __version__
from hsi_batch.archive.archive import Archive
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, archive_stamp, groups_of, open_root, state_folder
from hsi_batch.archive.writer import disk_errors
from hsi_batch.errors import ConfigError, StoreError
from hsi_batch.files import digest_json, write_atomically
from hsi_batch.places import Place, place, stamp
from hsi_batch.stages import pictures
from hsi_batch.stages.alarms import false_alarms
from hsi_batch.stages.evaluation import Evaluation, load_evaluation
from hsi_batch.stages.outputs import check_place
from hsi_batch.stages.training_report import training_section
from hsi_batch.statistics import roc_curve

__all__ = ["ReportResult", "report"]

#: Files beside the scores that a page is made of.
_SUMMARY = ("summary.parquet", "histograms.npz", "metrics.json")
#: Where a page says what it was made of, in its first bytes.
_INPUTS = re.compile(rb'<meta name="hsi-batch-inputs" content="([0-9a-f]{64})">')
_HEAD_BYTES = 4096
_SESSIONS = 24
_TOP = 20
#: Lines of a long frame that are shown, around its highest score.
_LINES = 640


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
    inputs = _inputs(where, cubes)
    if not force and _made_of(Path(out)) == inputs:
        return replace(result, up_to_date=True)
    shown = [_session_card(root, cubes, table, name) for name in _sessions(table)]
    curve = roc_curve(evaluation.background, evaluation.target)
    environment = Environment(
        loader=PackageLoader("hsi_batch.stages"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=where.name,
        facts=_facts(root, evaluation, cubes, where),
        metrics=evaluation.metrics,
        histogram=_markup(_histogram(evaluation)),
        roc=None if curve is None else _markup(pictures.roc_picture(curve)),
        training=_training(root),
        cards=shown,
        more=max(0, table["session"].nunique() - len(shown)) if len(table) else 0,
        top=_top(table),
        columns=_columns(table),
        failures=_failures(root),
        notes=[] if cubes is not None else ["The archive was not found, so cubes are not shown."],
        version=__version__,
        inputs=inputs,
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


def _sessions(table: Any) -> list[str]:
    """Sessions with the highest scores first."""
    if not len(table) or "score_max" not in table:
        return list(dict.fromkeys(table["session"]))[:_SESSIONS] if len(table) else []
    best = table.groupby("session")["score_max"].max().sort_values(ascending=False)
    return [str(name) for name in best.index[:_SESSIONS]]


def _histogram(evaluation: Evaluation) -> str | None:
    if not evaluation.scores.count:
        return None
    return pictures.histogram_picture(evaluation.scores, evaluation.background, evaluation.target)


def _session_card(
    root: zarr.Group, archive: Archive | None, table: Any, name: str
) -> dict[str, Any]:
    rows = table[table["session"] == name]
    ranked = rows.dropna(subset=["score_max"]) if "score_max" in rows else rows
    row = rows.iloc[0]
    if "score_max" in rows and len(ranked):
        row = ranked.loc[ranked["score_max"].astype(float).idxmax()]
    frame = int(row["frame"])
    group = root[name]
    assert isinstance(group, zarr.Group)
    scores, decisions = group.get("scores"), group.get("decisions")
    height = next(a.shape[1] for a in (scores, decisions) if isinstance(a, zarr.Array))
    peak = int(row["max_y"]) if "max_y" in row and len(ranked) else 0
    first = max(0, min(peak - _LINES // 2, height - _LINES))
    last = min(height, first + _LINES)
    session = archive.session(name) if archive is not None and name in archive else None
    images: list[tuple[str, str]] = []
    if session is not None:
        _, words = pictures.display_channels(session.wavelength, session.geometry.shape[2])
        image = pictures.false_colour(session, frame, first, last)
        images.append((f"false colour ({words})", pictures.png_uri(image)))
    if isinstance(scores, zarr.Array) and len(ranked):
        values = np.asarray(scores[frame, first:last])
        low, high = float(row["score_p50"]) / 4, float(row["score_max"])
        picture = pictures.score_picture(values, low, high)
        images.append(("scores, logarithmic", pictures.png_uri(picture)))
    if isinstance(decisions, zarr.Array):
        labels = _labels(session, frame, first, last)
        picture = pictures.decision_picture(np.asarray(decisions[frame, first:last]), labels)
        images.append(("decisions", pictures.png_uri(picture)))
    part = f", lines {first} to {last} of {height}" if last - first < height else ""
    part += "" if len(ranked) else ", without a valid pixel"
    return {
        "name": name,
        "caption": f"frame {frame}{part}; {len(rows)} frame{'s' if len(rows) > 1 else ''} scored",
        "images": images,
        "labelled": session is not None and session.labelled,
    }


def _labels(session: Session | None, frame: int, first: int, last: int) -> Any:
    return None if session is None else session.labels(frame, first, last)


def _facts(
    root: zarr.Group, evaluation: Evaluation, archive: Archive | None, where: Place
) -> list[tuple[str, str]]:
    attrs = dict(root.attrs)
    fitted: Any = attrs.get("pipeline_provenance") or {}
    pipeline: Any = attrs.get("pipeline") or {}
    pixels = sum(int(row["pixels"]) for row in evaluation.rows)
    valid = sum(int(row["valid"]) for row in evaluation.rows)
    sessions = len({row["session"] for row in evaluation.rows})
    nodes = " → ".join(node["class_name"] for node in pipeline.get("nodes", []))
    facts = [
        ("scores", str(where)),
        ("archive", str(archive.path) if archive is not None else str(attrs.get("archive"))),
        ("pipeline", f"{pipeline.get('metadata', {}).get('name', '')}: {nodes}"),
        ("scored", f"{len(evaluation.rows)} frames of {sessions} sessions, {pixels} pixels"),
        ("valid pixels", f"{valid} ({_percent(valid, pixels)})"),
    ]
    if fitted.get("groups"):
        facts.append(("backgrounds", f"{fitted['groups']}, one per {fitted['background']}"))
    if evaluation.stale:
        text = (
            f"{', '.join(evaluation.stale)} (scored with another pipeline, other outputs or data)"
        )
        facts.append(("left out", text))
    if fitted:
        text = (
            f"{fitted.get('pixel_count')} pixels ({fitted.get('pixels')}) of"
            f" {fitted.get('frames')} frames in {fitted.get('sessions')} sessions,"
            f" {_passes(fitted.get('passes'))}, {fitted.get('date')}"
        )
        facts.append(("fitted on", text))
    precision: Any = attrs.get("precision") or {}
    for node, chosen in precision.items():
        error = chosen.get("error")
        why = "" if error is None else f" (float32 would err by {error:.1e} on the sample)"
        facts.append((f"arithmetic of {node}", f"{chosen['dtype']}{why}"))
    settled: Any = attrs.get("settled") or {}
    facts += [(str(node), _sentence(str(text))) for node, text in settled.items()]
    flagged = [int(row["flagged"]) for row in evaluation.rows if row.get("flagged") is not None]
    if flagged:
        text = f"{sum(flagged)} pixels ({_percent(sum(flagged), valid)} of the valid)"
        facts.append(("flagged", text))
    said = false_alarms(attrs, evaluation)
    facts += [("false alarms", said)] if said else []
    machine: Any = attrs.get("environment") or {}
    made = (
        f"{attrs.get('software')} on {machine.get('host')} ({machine.get('cpu')};"
        f" {machine.get('blas')}), {attrs.get('scored')}"
    )
    return [*facts, ("made by", made)]


_SHOWN = {
    "session": "session",
    "frame": "frame",
    "score_max": "highest score",
    "max_y": "line",
    "max_x": "sample",
    "score_p999": "99.9 %",
    "score_mean": "mean",
    "flagged": "flagged",
    "anomalous": "labelled",
    "auc": "AUC",
}


def _percent(part: int, whole: int) -> str:
    """A share that says 100 % only of all, and 0 % only of nothing."""
    share = 100 * part / max(whole, 1)
    if part < whole and share > 99.99:
        return "over 99.99 %"
    if part > 0 and share < 0.01:
        return "under 0.01 %"
    return f"{share:.2f} %"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _columns(table: Any) -> list[str]:
    return [words for column, words in _SHOWN.items() if column in table]


def _top(table: Any) -> list[list[str]]:
    if not len(table) or "score_max" not in table:
        return []
    ordered = table.sort_values("score_max", ascending=False).head(_TOP)
    return [
        [_cell(row[column]) for column in _SHOWN if column in table]
        for _, row in ordered.iterrows()
    ]


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return str(int(value)) if isinstance(value, (float, np.integer)) else str(value)


def _failures(root: zarr.Group) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for name, group in sorted(groups_of(root).items()):
        failed: Any = group.attrs.get("failed_frames") or {}
        found.extend((name, frame, reason) for frame, reason in failed.items())
    return found[:200]


def _passes(count: object) -> str:
    return "1 pass over the pixels" if count == 1 else f"{count} passes over the pixels"
