"""What a fit did, in numbers and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any

from hsi_batch._version import __version__
from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.engine.worker import environment
from hsi_batch.files import digest_json
from hsi_batch.markup import Raw, Shown, fold, table
from hsi_batch.pipeline.fitting import FitPlan
from hsi_batch.pipeline.groups import ARCHIVE
from hsi_batch.stages.fit_members import Member, summed_up
from hsi_batch.stages.moved import mark_of
from hsi_batch.stages.run import Failure, Memory, failed_frames, failure_rows
from hsi_batch.stages.workflow_text import workflow_told
from hsi_batch.wording import counted, sized

__all__ = ["FitResult", "frames_in_words", "provenance_of", "told_of"]

#: Most failures, and most sources, that are written into a fitted pipeline.
_REMEMBERED = 1000


@dataclass(frozen=True, repr=False)
class FitResult(Shown):
    """What a fit did.

    Attributes
    ----------
    passes : int
        Readings of the pixels; 0 if stored statistics sufficed.
    pixels : int
        Pixels that counted.
    sessions, frames : int
        Selected.
    rank, condition : dict
        Effective rank and condition number by node with a covariance; of several backgrounds the
        lowest rank and the largest condition.
    precision : dict
        Arithmetic chosen for each score, in words.
    settled : dict
        What else the fit found, in words, by node: thresholds.
    warnings : tuple of str
    failures : tuple of Failure
        Blocks that could not be read and were left out.
    earlier : tuple of Failure
        The same of the earlier fit that is up to date.
    seconds : float
    plan : FitPlan
    blocks, bytes, tasks : int
        What all passes read, or would read.
    kept : int
        Blocks that were not read, because an interrupted run had kept their statistics.
    redone : int
        Of a plan: blocks among those to read of which other statistics are kept, which no longer
        agree with the data or the pipeline.
    apart_nm : float
        Nanometres by which channels of sessions that were counted as equal differ, at most.
    worker_bytes : int
        Of a plan: memory of a worker above its base.
    memory : Memory, optional
    background : str
        What there is one state of: ``archive``, ``session``, ``sensor`` or ``attr:NAME``.
    groups : int
        Backgrounds that were fitted, if there is one per session, sensor or attribute.
    up_to_date : bool
        Nothing had to be done.
    out : str, optional
        File that was written.
    """

    passes: int
    pixels: int = 0
    sessions: int = 0
    frames: int = 0
    rank: Mapping[str, int] = field(default_factory=dict)
    condition: Mapping[str, float] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    earlier: tuple[Failure, ...] = ()
    seconds: float = 0.0
    plan: FitPlan | None = None
    blocks: int = 0
    bytes: int = 0
    tasks: int = 0
    kept: int = 0
    redone: int = 0
    apart_nm: float = 0.0
    worker_bytes: int = 0
    memory: Memory | None = None
    background: str = ARCHIVE
    groups: int = 0
    up_to_date: bool = False
    out: str | None = None

    @property
    def failed(self) -> int:
        """Frames with a block that could not be read."""
        return failed_frames(*self.failures, *self.earlier)

    def __str__(self) -> str:
        if self.up_to_date:
            return (
                f"up to date: fitted from {counted(self.pixels, 'pixel')} of"
                f" {counted(self.frames, 'frame')} before"
            )
        text = (
            f"fitted from {counted(self.pixels, 'pixel')} of {counted(self.frames, 'frame')} in"
            f" {counted(self.sessions, 'session')}, {counted(self.passes, 'pass')} over the pixels,"
            f" {self.seconds:.1f} s"
        )
        if self.groups:
            text += f"\n  {counted(self.groups, 'background')}, one per {self.background}"
        if self.apart_nm:
            text += f"\n  wavelengths of sessions up to {self.apart_nm:.3g} nm apart count as equal"
        if self.kept:
            text += f"\n  {counted(self.kept, 'block')} not read again after an interrupted run"
        for node, rank in self.rank.items():
            up_to = "up to " * (self.groups > 1)
            text += f"\n  {node}: rank {rank}, condition {up_to}{self.condition[node]:.3g}"
            if node in self.precision:
                text += f", scores in {self.precision[node]}"
        for node, words in self.settled.items():
            text += f"\n  {node}: {words}"
        for warning in self.warnings:
            text += f"\n  warning: {warning}"
        if self.failures:
            text += f"\n  of {counted(self.failed, 'frame')} a part could not be read"
        if self.memory:
            text += f"\n  {self.memory}"
        return text

    def _parts(self) -> Iterator[Raw | None]:
        facts: list[tuple[str, object]] = [
            ("passes over the pixels", self.passes),
            ("pixels", self.pixels),
            ("frames, sessions", f"{self.frames}, {self.sessions}"),
        ]
        if self.groups:
            facts.append(("backgrounds", f"{self.groups}, one per {self.background}"))
        if self.blocks:
            read = f"{sized(self.bytes)} in {counted(self.blocks, 'block')}"
            facts.append(("read", f"{read}, {counted(self.tasks, 'task')}"))
        facts.append(("seconds", round(self.seconds, 2)))
        if self.memory:
            facts.append(("memory", str(self.memory)))
        if self.out:
            facts.append(("file", self.out))
        yield table(facts)
        names = dict.fromkeys([*self.rank, *self.precision, *self.settled])
        columns: dict[str, Mapping[str, object]] = {
            "rank": self.rank,
            "condition": self.condition,
            "scores in": self.precision,
            "settled": self.settled,
        }
        held = {head: values for head, values in columns.items() if values}
        rows = [(name, *(values.get(name) for values in held.values())) for name in names]
        yield table(rows, ("node", *held))
        yield table([("warning", text) for text in self.warnings])
        yield table(failure_rows(self.failures, self.earlier), ("left out", "why"))
        yield fold("what was planned", None if self.plan is None else str(self.plan))


def told_of(members: Sequence[Member], by: str) -> dict[str, Any]:
    """What a result says of what was fitted."""
    grouped = [member for member in members if member.group]
    rank: dict[str, int] = {}
    condition: dict[str, float] = {}
    words: dict[str, Counter[str]] = {}
    for state in (member.state for member in grouped or members):
        assert state is not None
        for name, exact in state.state.items():
            if "rank" in exact:
                rank[name] = min(rank.get(name, int(exact["rank"])), int(exact["rank"]))
            if "condition" in exact:
                now = float(exact["condition"])
                condition[name] = max(condition.get(name, now), now)
        for name, chosen in state.precision.items():
            words.setdefault(name, Counter())[chosen.dtype if grouped else str(chosen)] += 1
    return {
        "pixels": sum(member.pixels for member in grouped or members),
        "rank": rank,
        "condition": condition,
        "precision": {
            name: " and ".join(
                f"{word} of {counted(count, 'background')}" if grouped else word
                for word, count in found.items()
            )
            for name, found in words.items()
        },
        "warnings": summed_up(members, by),
        "background": by,
        "groups": len(grouped),
    }


def provenance_of(
    result: FitResult,
    archive: Archive,
    selection: Selection,
    sessions: Mapping[str, Session],
    pixels: PixelChoice,
    background: tuple[str, str | None],
    values: Mapping[str, Any],
    *,
    by_label: bool = False,
) -> dict[str, Any]:
    """What is written into a pipeline about its fit."""
    digests = {name: str(s.attrs.get("digest", "")) for name, s in sessions.items()}
    by, fallback = background
    return {
        "values": values,
        "archive": str(archive.path),
        "sources": [
            str(s.attrs.get("source", {}).get("path", ""))
            for s in list(sessions.values())[:_REMEMBERED]
        ],
        "inputs": {
            name: mark_of(session) | _part(selection, name)
            for name, session in list(sessions.items())[:_REMEMBERED]
        },
        "selection": selection.text,
        "pixels": pixels,
        "by_label": by_label,
        **_masks(sessions, pixels),
        "pixel_count": result.pixels,
        "sessions": result.sessions,
        "frames": result.frames,
        "data_digest": digest_json([digests, [list(item) for item in selection]]),
        "left_out": [[*astuple(f.key), f.reason] for f in result.failures[:_REMEMBERED]],
        "passes": result.passes,
        **(
            {"background": by, "fallback": fallback, "groups": result.groups}
            if by != ARCHIVE
            else {}
        ),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": f"hsi_batch {__version__}",
        "environment": environment(),
        **workflow_told(),
    }


def _part(selection: Selection, name: str) -> dict[str, str]:
    """Which frames of a session, unless all."""
    if name in selection.whole:
        return {}
    return {"frames": frames_in_words(selection.frames[name])}


def frames_in_words(frames: Mapping[int, tuple[int, int] | None]) -> str:
    """Numbers of frames, runs of them as a range; with lines where only some are meant.

    Examples
    --------
    >>> frames_in_words({0: None, 1: None, 2: None, 5: None, 7: (0, 40)})
    '0-2,5,7[y=0:40]'
    """
    runs: list[list[int]] = []
    parts = []
    for frame, lines in sorted(frames.items()):
        if lines is not None:
            parts.append((frame, f"{frame}[y={lines[0]}:{lines[1]}]"))
        elif runs and runs[-1][1] == frame - 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    parts += [(a, f"{a}-{b}" if b > a else f"{a}") for a, b in runs]
    return ",".join(text for _, text in sorted(parts))


def _masks(sessions: Mapping[str, Session], pixels: PixelChoice) -> dict[str, Any]:
    """Versions of the mask that the pixels of a fit are within."""
    if not pixels.startswith("mask:"):
        return {}
    name = pixels.removeprefix("mask:")
    return {"masks": {n: s.masks.get(name) for n, s in list(sessions.items())[:_REMEMBERED]}}
