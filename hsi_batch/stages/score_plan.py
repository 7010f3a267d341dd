"""Planning a scoring run: which blocks are missing or stale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.layout import BlockKey, FrameBlocks
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, open_root, state_folder
from hsi_batch.errors import ConfigError, NotFittedError, PipelineError, PlanError
from hsi_batch.nodes import Scope
from hsi_batch.pipeline.channels import check_channels, check_width, tolerance_of
from hsi_batch.pipeline.frames import assembled_channels
from hsi_batch.pipeline.maps import MapSpec, map_spec
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.program import compile_program, frame_nodes
from hsi_batch.places import place
from hsi_batch.stages.agreement import axis_of
from hsi_batch.stages.bands import check_values
from hsi_batch.stages.memory import assembled_bytes
from hsi_batch.stages.run import Failure
from hsi_batch.stages.score_blocks import tails
from hsi_batch.stages.score_states import ScoreStates

__all__ = ["DEFAULT_OUTPUTS", "PlannedScores", "ScorePlan", "plan_score"]

#: What is stored unless something is asked for, as far as the graph has it.
DEFAULT_OUTPUTS = ("scores", "decisions")

Status = Literal["new", "resume", "redo", "done", "retry"]


@dataclass
class PlannedScores:
    """A session and what will be done with it.

    Attributes
    ----------
    name : str
    session : Session
    status : {"new", "resume", "redo", "done", "retry"}
        ``redo``: scored before with another pipeline, outputs or data.
    digest : str
        Of session, pipeline and outputs.
    todo : sequence of BlockKey
    earlier : tuple of Failure
        Blocks that failed in an earlier run and are left alone.
    group : str
        Background it is scored against; empty for that of everything.
    kept : dict
        Lines of the blocks of which only a part is selected; the rest is stored as invalid.
    """

    name: str
    session: Session
    status: Status
    digest: str
    todo: Sequence[BlockKey] = ()
    earlier: tuple[Failure, ...] = ()
    kept: dict[BlockKey, tuple[int, int]] = field(default_factory=dict)
    group: str = ""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of the pixels of each block to do."""
        geometry = self.session.geometry
        if isinstance(self.todo, FrameBlocks):
            lines = np.array([stop - start for start, stop in self.todo.ranges], dtype=np.int64)
            return np.tile(lines * geometry.line_bytes, len(self.todo.frames))
        return np.array([geometry.bytes_of(key) for key in self.todo], dtype=np.int64)

    def lines_of(self, key: BlockKey) -> tuple[int, int]:
        """Lines of a block that are scored."""
        return self.kept.get(key, (key.start, key.stop))


@dataclass
class ScorePlan:
    """What a scoring run will do.

    Attributes
    ----------
    store : str
        Folder of the scores.
    states : ScoreStates
        The pipeline, with the backgrounds that it holds.
    specs : tuple of MapSpec
    selection : Selection
    sessions : list of PlannedScores
    by_frame : tuple of str
        Frame-scope nodes, because of which frames are not shared among workers.
    assembled : int
        Channels per pixel that those nodes hold of a frame.
    tasks : int
        Batches of blocks that workers will get.
    """

    store: str
    states: ScoreStates
    specs: tuple[MapSpec, ...]
    selection: Selection
    sessions: list[PlannedScores]
    by_frame: tuple[str, ...]
    assembled: int = 0
    tasks: int = 0

    @property
    def todo(self) -> list[PlannedScores]:
        """Sessions with work."""
        return [s for s in self.sessions if s.status != "done"]

    @property
    def blocks(self) -> int:
        """Blocks to score."""
        return sum(len(s.todo) for s in self.sessions)

    @property
    def bytes(self) -> int:
        """Bytes of pixels to read."""
        return int(sum(s.sizes.sum() for s in self.sessions))

    @property
    def worker_bytes(self) -> int:
        """Memory that a worker needs above its base: 3 blocks, and maps of a frame if nodes ask."""
        blocks = max((3 * s.session.geometry.block_bytes for s in self.todo), default=0)
        if not self.by_frame:
            return blocks
        maps = assembled_bytes((s.session.geometry for s in self.todo), self.assembled)
        return blocks + maps

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "scores": self.store,
            "outputs": [spec.name for spec in self.specs],
            "blocks": self.blocks,
            "tasks": self.tasks,
            "bytes": self.bytes,
            "worker_bytes": self.worker_bytes,
            "frame_scope": list(self.by_frame),
            "sessions": [
                {"session": s.name, "status": s.status, "blocks": len(s.todo)}
                for s in self.sessions
            ],
        }


def choose_outputs(pipeline: Pipeline, outputs: Sequence[str] | None) -> tuple[MapSpec, ...]:
    """Describe the outputs, or those that a pipeline has by default.

    Raises
    ------
    hsi_batch.errors.PipelineError
        An output that does not exist, or none at all.
    """
    if outputs:
        specs = tuple(map_spec(pipeline, name) for name in outputs)
    else:
        present = {p for node in pipeline.nodes.values() for p in node.OUTPUT_SPECS}
        specs = tuple(map_spec(pipeline, name) for name in DEFAULT_OUTPUTS if name in present)
    if not specs:
        raise PipelineError(
            "the pipeline has no output `scores` or `decisions`.",
            hint="Name what to store, for example --output pca.projected.",
        )
    if len({spec.name for spec in specs}) != len(specs):
        raise ConfigError("an output is asked for twice.", hint="Name each once.")
    return specs


def plan_score(
    pipeline: Pipeline,
    archive: Archive,
    store: str,
    *,
    frames: str | Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    force: bool = False,
    only_failed: bool = False,
) -> ScorePlan:
    """Compare what is asked for with what is stored.

    Raises
    ------
    hsi_batch.errors.NotFittedError
        The pipeline is not fitted.
    hsi_batch.errors.ConfigError
        Sessions whose background the pipeline does not hold.
    hsi_batch.errors.PlanError
        Sessions whose channels do not match the pipeline.
    hsi_batch.errors.StoreError
        Something else is in the place of the scores.
    """
    if not pipeline.fitted:
        missing = ", ".join(name for name, node in pipeline.nodes.items() if not node.fitted)
        raise NotFittedError(
            f"the pipeline {pipeline.name!r} is not fitted ({missing}).",
            hint="Fit it first (hsi-batch fit), and score the file that it writes.",
        )
    selection = archive.select(frames)
    sessions = archive.sessions(selection.sessions)
    check_values(pipeline, sessions)
    states = ScoreStates(pipeline)
    chosen = states.chosen(sessions)
    # All backgrounds have one graph.
    example = states.of(next(iter(chosen.values())))
    for name, session in sessions.items():
        check_channels(example, axis_of(session), f"session {name}", tolerance_of(pipeline))
        if any(node.by_column for node in example.nodes.values()):
            check_width(states.of(chosen[name]), session.geometry.shape[1], f"session {name}")
    if example.axis is not None and example.axis is not pipeline.axis:
        pipeline.resolve(example.axis)
    specs = choose_outputs(example, outputs)
    states.store(specs)
    refs = tuple(spec.ref for spec in specs)
    by_frame = tuple(frame_nodes(example, refs))
    _check_scopes(example, refs)
    if not by_frame:
        # Whatever cannot run is found before any work.
        compile_program(example, refs, precision=example.precision)
    assembled = assembled_channels(example, refs)
    plan = ScorePlan(store, states, specs, selection, [], by_frame, assembled)
    root = open_root(store, SCORES) if place(store).exists() else None
    records = Records(state_folder(store) / "records" / "score").load() if root else {}
    by_session: dict[str, list[BlockRecord]] = {}
    for record in records.values():
        by_session.setdefault(record.key.session, []).append(record)
    for name, session in sessions.items():
        held = root.get(name) if root is not None else None
        planned = _planned(
            session,
            states.digest(session, chosen[name]),
            held if isinstance(held, zarr.Group) else None,
            by_session.get(name, []),
            plan,
            force=force,
            only_failed=only_failed,
        )
        planned.group = chosen[name]
        plan.sessions.append(planned)
    return plan


def _check_scopes(pipeline: Pipeline, refs: Sequence[Any]) -> None:
    needed = {ref.node for ref in refs}
    needed |= {a for name in needed for a in pipeline.ancestors(name)}
    for name, scope in pipeline.scopes():
        if name in needed and scope is Scope.SEQUENCE:
            raise PlanError(
                f"{name} ({type(pipeline.nodes[name]).__name__}) keeps state from frame to frame"
                " (scope sequence), so its frames cannot be shared out among workers.",
                hint="Freeze it, or ask for outputs that do not depend on it.",
            )


def _wanted(
    session: Session, selection: Selection
) -> tuple[Sequence[BlockKey], dict[BlockKey, tuple[int, int]]]:
    """Selected blocks of a session, and the lines of those of which only a part is."""
    frames, ranges = selection.frames[session.name], tuple(session.geometry.ranges())
    if session.name in selection.whole:
        return FrameBlocks(session.name, tuple(frames), ranges), {}
    wanted: list[BlockKey] = []
    kept: dict[BlockKey, tuple[int, int]] = {}
    for frame, lines in frames.items():
        first, last = lines or (0, session.geometry.shape[0])
        for start, stop in ranges:
            if start < last and stop > first:
                key = BlockKey(session.name, frame, start, stop)
                wanted.append(key)
                if start < first or stop > last:
                    kept[key] = (max(start, first), min(stop, last))
    return wanted, kept


def _planned(
    session: Session,
    digest: str,
    held: zarr.Group | None,
    records: list[BlockRecord],
    plan: ScorePlan,
    *,
    force: bool,
    only_failed: bool,
) -> PlannedScores:
    geometry = session.geometry
    wanted, kept = _wanted(session, plan.selection)
    if held is None:
        return PlannedScores(session.name, session, "new", digest, wanted, kept=kept)
    if held.attrs.get("digest") != digest or force:
        return PlannedScores(session.name, session, "redo", digest, wanted, kept=kept)
    arrays = [held[spec.name] for spec in plan.specs]
    known = {r.key: r for r in records if r.digest == digest}
    failed = {k: r.reason for k, r in known.items() if r.outcome == "failed"}
    done = set()
    for key in wanted:
        record = known.get(key)
        if record is None or record.outcome != "done":
            continue
        if tails(arrays, key, geometry.lines) != record.tail:  # type: ignore[arg-type]
            continue
        first, last = kept.get(key, (key.start, key.stop))
        top, bottom = record.lines
        if top <= first and last <= bottom:
            done.add(key)
        else:
            # What was scored before stays.
            kept[key] = (min(top, first), max(bottom, last))
    todo = [key for key in wanted if key not in done and (only_failed or key not in failed)]
    left = set(wanted).difference(todo)
    earlier = tuple(Failure(key, reason) for key, reason in failed.items() if key in left)
    complete = bool(held.attrs.get("complete"))
    if not todo and complete:
        return PlannedScores(session.name, session, "done", digest, [], earlier, kept)
    status: Status = "retry" if complete and only_failed else "resume"
    return PlannedScores(session.name, session, status, digest, todo, earlier, kept)
