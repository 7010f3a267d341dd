"""What the report says in words and numbers about how scores were made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import zarr

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.store import groups_of
from hsi_batch.places import Place
from hsi_batch.stages.alarms import false_alarms
from hsi_batch.stages.evaluation import Evaluation
from hsi_batch.wording import flags_text

__all__ = ["facts_of", "failures_of", "thresholds_of", "tiles_of"]

#: Deciders that compare a map with one number.
_DECIDERS = ("CFARThreshold", "ArchiveQuantileDecider", "ScoreThreshold")

_METRICS = {"auc": "AUC", "auc_error": "error of AUC", "f1": "F1", "iou": "IoU"}


def facts_of(
    root: zarr.Group, evaluation: Evaluation, archive: Archive | None, where: Place
) -> list[tuple[str, str]]:
    """Name and value of what is worth knowing, in order."""
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
    facts += _flags(archive, {str(row["session"]) for row in evaluation.rows})
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
    flagged = _flagged(evaluation)
    if flagged is not None:
        text = f"{flagged} pixels ({_percent(flagged, valid)} of the valid)"
        facts.append(("flagged", text))
    said = false_alarms(attrs, evaluation)
    facts += [("false alarms", said)] if said else []
    machine: Any = attrs.get("environment") or {}
    made = (
        f"{attrs.get('software')} on {machine.get('host')} ({machine.get('cpu')};"
        f" {machine.get('blas')}), {attrs.get('scored')}"
    )
    return [*facts, ("made by", made)]


def tiles_of(evaluation: Evaluation, failed: int) -> list[tuple[str, str]]:
    """The few numbers that come first."""
    valid = sum(int(row["valid"]) for row in evaluation.rows)
    tiles = [
        ("sessions", f"{len({row['session'] for row in evaluation.rows})}"),
        ("frames scored", f"{len(evaluation.rows)}"),
        ("frames without scores", f"{failed}"),
    ]
    flagged = _flagged(evaluation)
    if flagged is not None:
        tiles.append(("pixels flagged", _percent(flagged, valid)))
    for name, value in evaluation.metrics.items():
        shown = f"{value:.4f}" if value >= 0.001 or value == 0 else f"{value:.2e}"
        tiles.append((_METRICS.get(name, name.replace("_", " ")), shown))
    return tiles


def thresholds_of(root: zarr.Group, names: Sequence[str]) -> list[tuple[str, float, float]]:
    """Deciders that compare the stored scores with a number: name, lowest and highest of them.

    They differ where each background has its own.
    """
    pipeline: Any = dict(root.attrs).get("pipeline") or {}
    groups = groups_of(root)
    ports = {
        str(array.attrs.get("port")).replace(".", ".outputs.", 1)
        for name in names[:1]
        if isinstance(array := groups[name].get("scores"), zarr.Array)
    }
    fed = {
        str(wire["target"]).partition(".")[0]
        for wire in pipeline.get("connections", ())
        if wire["source"] in ports
    }
    found = []
    for node in pipeline.get("nodes", ()):
        if node["name"] not in fed or node.get("class_name") not in _DECIDERS:
            continue
        shared = (node.get("hparams") or {}).get("threshold")
        own = {_own_threshold(groups[name].attrs, node["name"], shared) for name in names}
        finite = [v for v in own if v is not None and math.isfinite(v)]
        if finite:
            found.append((str(node["name"]), min(finite), max(finite)))
    return found


def _own_threshold(attrs: Mapping[str, Any], node: str, shared: object) -> float | None:
    told: Any = attrs.get("background") or {}
    value = (told.get("arguments") or {}).get(node, {}).get("threshold", shared)
    return float(value) if isinstance(value, (int, float)) else None


def failures_of(root: zarr.Group) -> list[tuple[str, int, str]]:
    """Session, frame and reason of what has no scores."""
    found: list[tuple[str, int, str]] = []
    for name, group in groups_of(root).items():
        failed: Any = group.attrs.get("failed_frames") or {}
        found.extend((name, int(frame), str(reason)) for frame, reason in failed.items())
    return found


def _flagged(evaluation: Evaluation) -> int | None:
    found = [row["flagged"] for row in evaluation.rows if row.get("flagged") is not None]
    return int(sum(found)) if found else None


def _flags(archive: Archive | None, names: set[str]) -> list[tuple[str, str]]:
    """Pixels by flag, in per cent of those of the sessions that were scored."""
    if archive is None:
        return []
    total: Counter[str] = Counter()
    pixels = 0
    for name in sorted(names & set(archive)):
        session = archive.session(name)
        total.update({str(k): int(v) for k, v in session.attrs.get("flags", {}).items()})
        geometry = session.geometry
        pixels += geometry.frames * geometry.shape[0] * geometry.shape[1]
    return [("flags", flags_text(total, pixels))] if total else []


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


def _passes(count: object) -> str:
    return "1 pass over the pixels" if count == 1 else f"{count} passes over the pixels"
