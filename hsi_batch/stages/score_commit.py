"""Beginning and finishing a scoring: what only one process may write."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import zarr

from hsi_batch._version import __version__
from hsi_batch.archive.archive import Archive
from hsi_batch.archive.chunk_writer import remove_partial
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.storage import preset_of
from hsi_batch.archive.store import create_array, create_group, member, plain_group
from hsi_batch.archive.writer import copy_frame_arrays
from hsi_batch.engine.worker import environment
from hsi_batch.errors import IncompleteError
from hsi_batch.pipeline.maps import INVALID_DECISION, map_wavelengths
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.evaluation import forget_evaluation
from hsi_batch.stages.fit_result import frames_in_words
from hsi_batch.stages.moved import mark_of
from hsi_batch.stages.referring import remember_scores
from hsi_batch.stages.score_plan import PlannedScores, ScorePlan
from hsi_batch.stages.workflow_text import workflow_told

__all__ = ["begin", "finish"]

#: As many as gather metadata, for the same reason.
_THREADS = 16


def begin(
    root: zarr.Group, pipeline: Pipeline, archive: Archive, plan: ScorePlan, file: str | None
) -> None:
    """Make the groups of sessions that are new or stale."""
    forget_evaluation(plan.store)
    remember_scores(archive, plan.store)
    # One write; ``attrs.update`` is one for each.
    root.update_attributes(
        {
            "archive": str(archive.path.absolute()),
            "pipeline": pipeline.serialize(),
            # For a repair; None of a pipeline that was made in Python.
            "pipeline_file": file,
            "pipeline_provenance": pipeline.provenance,
            "precision": {name: p.to_dict() for name, p in pipeline.precision.items()},
            "settled": pipeline.in_words(),
            "outputs": [spec.name for spec in plan.specs],
            "wavelengths": map_wavelengths(pipeline.nodes, plan.specs),
            "software": f"hsi_batch {__version__}",
            "environment": environment(),
            "workflow": workflow_told().get("workflow"),
            "scored": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )

    def opened(planned: PlannedScores) -> None:
        if planned.status in ("new", "redo"):
            _create_session(root, planned, plan)
        else:
            plain_group(member(root, planned.name)).attrs["complete"] = False

    _for_each(opened, plan.todo)


def _create_session(root: zarr.Group, planned: PlannedScores, plan: ScorePlan) -> None:
    session = planned.session
    geometry = session.geometry
    height, width, _ = geometry.shape
    group = create_group(
        root,
        planned.name,
        {
            "source": session.attrs.get("source"),
            "session_digest": session.attrs.get("digest"),
            "session_mark": mark_of(session),
            **plan.states.told(session, planned.group),
            "complete": False,
        },
    )
    made = copy_frame_arrays(session, group)
    preset = preset_of(session.attrs.get("preset"))
    together = session.shard
    for spec in plan.specs:
        wide = spec.channels > 1
        create_array(
            group,
            spec.name,
            shape=(geometry.frames, height, width, *((spec.channels,) if wide else ())),
            chunks=(1, geometry.lines, width, *((spec.channels,) if wide else ())),
            preset=preset,
            shards=together and (*together, 1, *((1,) if wide else ())),
            dtype=spec.dtype,
            dims=("frame", "y", "x", *((f"{spec.name}_channel",) if wide else ())),
            fill=spec.fill,
            attrs={
                "port": str(spec.ref),
                "coordinates": " ".join(made),
                **({"invalid": INVALID_DECISION} if spec.dtype == "uint8" else {}),
            },
        )
    # Last: without it a session was never wholly made, and is made again.
    group.attrs["digest"] = planned.digest


def finish(
    root: zarr.Group, plan: ScorePlan, latest: Mapping[BlockKey, BlockRecord], *, torn: bool
) -> None:
    """Check that every block was done or failed with a reason; mark sessions complete.

    Chunks that were half written are removed where workers died (``torn``), or an earlier run.
    """
    by_session: dict[str, dict[BlockKey, BlockRecord]] = {planned.name: {} for planned in plan.todo}
    for key, record in latest.items():
        if key.session in by_session:
            by_session[key.session][key] = record

    def closed(planned: PlannedScores) -> None:
        known = by_session[planned.name]
        missing = [k for k in planned.todo if k not in known or known[k].digest != planned.digest]
        if missing:
            raise IncompleteError(
                f"{len(missing)} of {len(planned.todo)} blocks were not scored, the first is"
                f" {missing[0]}.",
                path=plan.store,
                session=planned.name,
                hint="Run the same command again.",
            )
        group = plain_group(member(root, planned.name))
        if torn or planned.status in ("resume", "retry"):
            remove_partial(group)
        failed: dict[str, str] = {}
        frames: dict[int, None] = {}
        for key, record in known.items():
            if record.digest != planned.digest:
                continue
            if record.outcome == "failed":
                failed.setdefault(str(key.frame), record.reason)
            else:
                frames[key.frame] = None
        listed = frames_in_words(frames)
        group.update_attributes({"failed_frames": failed, "frames": listed, "complete": True})

    _for_each(closed, plan.todo)


def _for_each(do: Callable[[PlannedScores], None], sessions: Iterable[PlannedScores]) -> None:
    # Writing small files is mostly waiting.
    with ThreadPoolExecutor(_THREADS) as pool:
        deque(pool.map(do, sessions), maxlen=0)
