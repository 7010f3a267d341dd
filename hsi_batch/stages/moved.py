"""Whether an archive has moved on since something was made of it; only metadata are compared."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.labels import label_stamp
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, groups_of, open_root
from hsi_batch.errors import DataWarning, HsiBatchError
from hsi_batch.files import digest_json
from hsi_batch.places import is_url
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.wording import some

__all__ = [
    "Moved",
    "archive_of",
    "fit_moved",
    "mark_of",
    "scores_moved",
    "warn_of_fit",
    "warn_of_scores",
]

#: Sessions that a message names.
_SHOWN = 3
#: Letters of digests that are kept: a fitted pipeline names up to a thousand sessions.
_SHORT = 16


@dataclass(frozen=True)
class Moved:
    """What changed since something was made.

    Attributes
    ----------
    fit, scores, metrics : dict of str
        What happened to each session since the pipeline was fitted on it, since it was scored, and
        since its scores were compared with its labels; in words.
    """

    fit: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fit or self.scores or self.metrics)

    @property
    def sessions(self) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(sorted({*self.fit, *self.scores, *self.metrics}, key=natural_key))

    def sentences(self) -> list[str]:
        """What happened, and what to run."""
        found = []
        if self.fit:
            found.append(
                f"since the pipeline was fitted: {_told(self.fit)}. Fit again (hsi-batch fit), then"
                " score again."
            )
        if self.scores:
            found.append(
                f"since these scores were made: {_told(self.scores)}. Score again (hsi-batch score)"
                " to have what belongs together."
            )
        if self.metrics:
            found.append(
                f"since the metrics were taken: {_told(self.metrics)}. Run hsi-batch score again:"
                " metrics are taken anew, and nothing is scored twice."
            )
        return [f"the archive has moved on {sentence}" for sentence in found]


def _told(what: Mapping[str, str]) -> str:
    by: dict[str, list[str]] = {}
    for name, words in what.items():
        by.setdefault(words, []).append(name)
    return "; ".join(f"{some(names, _SHOWN)} {words}" for words, names in by.items())


def mark_of(session: Session) -> dict[str, Any]:
    """What is remembered of a session that something is made of."""
    calibration: Any = session.attrs.get("calibration")
    digest = session.attrs.get("digest")
    mark = {
        "digest": None if digest is None else str(digest)[:_SHORT],
        "calibration": None if calibration is None else digest_json(calibration)[:_SHORT],
        "labels": label_stamp(session),
        "masks": {name: told.get("version") for name, told in session.masks.items()} or None,
    }
    return {key: value for key, value in mark.items() if value is not None}


def archive_of(attrs: Mapping[str, Any]) -> Archive | None:
    """The archive that scores or a pipeline name; None if it is not there."""
    named = str(attrs.get("archive") or "")
    if not named or is_url(named) or not Path(named).is_dir():
        return None
    try:
        return Archive(named)
    except HsiBatchError:
        return None


def fit_moved(provenance: Mapping[str, Any], archive: Archive | None = None) -> dict[str, str]:
    """What happened to the sessions that a pipeline was fitted on, in words.

    Parameters
    ----------
    provenance : mapping
        Of the pipeline.
    archive : Archive, optional
        Where to look; the one that it was fitted on by default. Nothing is said where it is gone.
    """
    then: Mapping[str, Any] = provenance.get("inputs") or {}
    held = archive_of(provenance)
    if archive is not None and held is not None and held.path == archive.path:
        held = archive
    if held is None:
        return {}
    mask = str(provenance.get("pixels", "")).partition("mask:")[2]
    by_label = bool(provenance.get("by_label") or "training" in provenance)
    present = held.sessions([name for name in then if name in held])
    return _changed(
        {
            name: _what(mark, present.get(name), labels=by_label, mask=mask)
            for name, mark in then.items()
        }
    )


def scores_moved(
    store: str | os.PathLike[str], archive: str | os.PathLike[str] | None = None
) -> Moved:
    """What happened to an archive since scores were made of it.

    Parameters
    ----------
    store : path
        Scores.
    archive : path, optional
        Where the archive is, if it moved. Nothing is said where it is gone.
    """
    root = open_root(str(store), SCORES)
    attrs: dict[str, Any] = dict(root.attrs)
    held = archive_of({"archive": str(archive)} if archive is not None else attrs)
    fit = fit_moved(attrs.get("pipeline_provenance") or {}, held)
    if held is None:
        return Moved(fit)
    marks: dict[str, dict[str, Any]] = {}
    for name, group in sorted(groups_of(root).items(), key=lambda pair: natural_key(pair[0])):
        digest: Any = group.attrs.get("session_digest")
        then: Any = group.attrs.get("session_mark") or {"digest": digest and digest[:_SHORT]}
        if then.get("digest") is not None:
            marks[name] = dict(then)
    sessions = held.sessions([name for name in marks if name in held])
    scored = _changed({name: _what(mark, sessions.get(name)) for name, mark in marks.items()})
    evaluation = load_evaluation(str(store))
    measured: dict[str, str | None] = {}
    for name in () if evaluation is None else evaluation.covers:
        if name in sessions and name not in scored:
            compared = {"labels": evaluation.labels.get(name)} if evaluation else {}
            measured[name] = _labels(compared, sessions[name])
    return Moved(fit, scored, _changed(measured))


def warn_of_fit(provenance: Mapping[str, Any], archive: Archive) -> None:
    """Say as a warning what happened to an archive since a pipeline was fitted on it."""
    for sentence in Moved(fit_moved(provenance, archive)).sentences():
        warnings.warn(sentence, DataWarning, stacklevel=3)


def warn_of_scores(
    store: str | os.PathLike[str], archive: str | os.PathLike[str] | None = None
) -> Moved:
    """Say as a warning what happened to an archive since scores were made of it."""
    moved = scores_moved(store, archive)
    for sentence in moved.sentences():
        warnings.warn(sentence, DataWarning, stacklevel=3)
    return moved


def _changed(what: Mapping[str, str | None]) -> dict[str, str]:
    return {name: words for name, words in what.items() if words is not None}


def _what(
    then: Mapping[str, Any], session: Session | None, *, labels: bool = False, mask: str = ""
) -> str | None:
    """What happened to a session; None if nothing did that matters."""
    if session is None:
        return "is gone"
    now = mark_of(session)
    if then.get("digest") != now.get("digest"):
        other = then.get("calibration") != now.get("calibration")
        return f"was converted again{' with another calibration' if other else ''}"
    if mask and (then.get("masks") or {}).get(mask) != (now.get("masks") or {}).get(mask):
        return f"has another mask {mask}"
    return _labels(then, session) if labels else None


def _labels(then: Mapping[str, Any], session: Session) -> str | None:
    now = label_stamp(session)
    if then.get("labels") == now:
        return None
    return f"has other labels (version {session.label_version})"
