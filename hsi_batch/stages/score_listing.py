"""What is in a store of scores: its sessions, how they were scored, how their scores lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import zarr

from hsi_batch.archive.store import SCORES, groups_of, open_root, plain_group
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.places import place
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.wording import counted

__all__ = ["ScoreListing", "ScoredSession", "list_scores"]


@dataclass(frozen=True)
class ScoredSession:
    """A session of a store of scores.

    Attributes
    ----------
    name : str
    frames, lines, samples : int
        Of its maps.
    scored : int
        Frames with scores of the pipeline that the store names; a frame without a valid pixel has
        none, nor has any of a session that was scored with something else.
    outputs : dict
        Shape, dtype and port of each map by name.
    failed : dict
        Reason by frame that could not be scored.
    complete : bool
    stale : bool
        Scored with something else than the other sessions.
    source : str, optional
        Path of the recording.
    rows : tuple of dict
        What the summary says of each frame: valid pixels, quantiles, counts of decisions.
    """

    name: str
    frames: int
    lines: int
    samples: int
    scored: int
    outputs: Mapping[str, Mapping[str, Any]]
    failed: Mapping[int, str]
    complete: bool
    stale: bool = False
    source: str | None = None
    rows: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For machines; frames under ``summary``."""
        content = asdict(self)
        return {"session": content.pop("name"), **content, "summary": content.pop("rows")}

    @property
    def highest(self) -> float | None:
        """The highest score, if there are any."""
        return max((row["score_max"] for row in self.rows if "score_max" in row), default=None)

    @property
    def flagged(self) -> int | None:
        """Pixels that were decided to be anomalous, if there are decisions."""
        found = [row["flagged"] for row in self.rows if row.get("flagged") is not None]
        return int(sum(found)) if found else None


@dataclass(frozen=True)
class ScoreListing:
    """A store of scores.

    Attributes
    ----------
    store, archive : str
    pipeline : str
        Its name.
    fitted : dict
        What it was fitted from: archive, selection, pixels, frames, sessions, date.
    outputs : tuple of str
    date, software : str, optional
        Of the latest run.
    metrics : dict
        Against labels, over all sessions; empty without labels.
    sessions : tuple of ScoredSession
    """

    store: str
    archive: str
    pipeline: str
    fitted: Mapping[str, Any]
    outputs: tuple[str, ...]
    date: str | None
    software: str | None
    metrics: Mapping[str, float]
    sessions: tuple[ScoredSession, ...]

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Sessions that were not scored to the end."""
        return tuple(s.name for s in self.sessions if not s.complete)

    def session(self, name: str) -> ScoredSession:
        """One session.

        Raises
        ------
        hsi_batch.errors.ConfigError
            There is none of this name.
        """
        for session in self.sessions:
            if session.name == name:
                return session
        raise ConfigError(
            f"there is no session {name!r}.{did_you_mean(name, [s.name for s in self.sessions])}",
            path=self.store,
            hint="See the sessions with hsi-batch ls.",
        )

    @property
    def facts(self) -> dict[str, Any]:
        """How the scores were made, in words."""
        fitted = self.fitted
        on = (
            f"{counted(int(fitted.get('pixel_count') or 0), 'pixel')} ({fitted.get('pixels')}) of"
            f" {counted(int(fitted.get('frames') or 0), 'frame')} of {fitted.get('archive')},"
            f" {fitted.get('date')}"
        )
        return {
            "archive": self.archive,
            "pipeline": self.pipeline,
            "fitted on": on if fitted else None,
            "outputs": ", ".join(self.outputs),
            "against labels": ", ".join(f"{k} {v:.6g}" for k, v in self.metrics.items()),
            "made by": " ".join(filter(None, (self.software, self.date))),
        }

    def to_dict(self) -> dict[str, Any]:
        """For machines; without the rows of the summary."""
        content = asdict(self)
        sessions = [session.to_dict() for session in self.sessions]
        for entry in sessions:
            del entry["summary"]
        return {**content, "sessions": sessions, "incomplete": list(self.incomplete)}

    def __str__(self) -> str:
        frames = sum(session.frames for session in self.sessions)
        text = f"{counted(len(self.sessions), 'session')}, {counted(frames, 'frame')}"
        if self.incomplete:
            text += f"; {len(self.incomplete)} not finished"
        return f"scores {self.store}: {text}"


def list_scores(store: str | os.PathLike[str]) -> ScoreListing:
    """Look into a store of scores; nothing is read but metadata and the summary.

    Raises
    ------
    hsi_batch.errors.StoreError
        There is none, or it is something else.
    """
    root = open_root(place(store), SCORES)
    attrs: dict[str, Any] = dict(root.attrs)
    evaluation = load_evaluation(place(store))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in evaluation.rows if evaluation is not None else ():
        rows.setdefault(str(row["session"]), []).append(row)
    stale = set(evaluation.stale) if evaluation is not None else set()
    metadata = (attrs.get("pipeline") or {}).get("metadata") or {}
    groups = groups_of(root)
    return ScoreListing(
        store=str(store),
        archive=str(attrs.get("archive", "")),
        pipeline=str(metadata.get("name", "")),
        fitted=attrs.get("pipeline_provenance") or {},
        outputs=tuple(attrs.get("outputs") or ()),
        date=attrs.get("scored"),
        software=attrs.get("software"),
        metrics=evaluation.metrics if evaluation is not None else {},
        sessions=tuple(
            _session(name, groups[name], rows.get(name, []), stale=name in stale)
            for name in sorted(groups, key=natural_key)
        ),
    )


def _session(
    name: str, group: zarr.Group, rows: list[dict[str, Any]], *, stale: bool
) -> ScoredSession:
    attrs: dict[str, Any] = dict(group.attrs)
    maps = {key: array for key, array in plain_group(group).arrays() if array.ndim >= 3}
    shape = next((array.shape for array in maps.values()), (0, 0, 0))
    return ScoredSession(
        name,
        frames=shape[0],
        lines=shape[1],
        samples=shape[2],
        scored=len(rows),
        outputs={
            key: {
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "port": array.attrs.get("port"),
            }
            for key, array in sorted(maps.items())
        },
        failed={int(k): str(v) for k, v in (attrs.get("failed_frames") or {}).items()},
        complete=bool(attrs.get("complete")),
        stale=stale,
        source=(attrs.get("source") or {}).get("path"),
        rows=tuple(sorted(rows, key=lambda row: int(row["frame"]))),
    )
