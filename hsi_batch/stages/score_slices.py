"""Scoring in slices: what ``init`` leaves, and doing a share of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.store import archive_stamp
from hsi_batch.engine.events import Observer
from hsi_batch.errors import IncompleteError
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.places import Place, absolute
from hsi_batch.stages.score_blocks import (
    ScoreItem,
    ScoreJob,
    ScoreShard,
    score_items,
    score_keys,
    score_shards,
)
from hsi_batch.stages.score_plan import ScorePlan, plan_score
from hsi_batch.stages.slices import (
    Slice,
    SliceResult,
    batched,
    leased,
    read_slices,
    run_slice,
    write_slices,
)

__all__ = ["prepare_slices", "slice_score", "work_of"]

_Item = ScoreItem | ScoreShard
_ITEM: TypeAdapter[ScoreItem] = TypeAdapter(ScoreItem)


def work_of(plan: ScorePlan) -> tuple[list[ScoreItem | ScoreShard], dict[int, int]]:
    """What is scored together, in order, and the bytes of each by its ``id``."""
    items: list[ScoreItem | ScoreShard] = []
    sizes: dict[int, int] = {}
    for planned in plan.todo:
        geometry = planned.session.geometry
        own: list[ScoreItem] = []
        by_frame: dict[int, list[BlockKey]] = {}
        for key in planned.todo:
            by_frame.setdefault(key.frame, []).append(key)
        for frame, keys in by_frame.items():
            for group in [keys] if plan.by_frame else [[key] for key in keys]:
                ranges = tuple((key.start, key.stop) for key in group)
                kept = tuple(planned.lines_of(key) for key in group)
                own.append(
                    ScoreItem(planned.name, frame, ranges, kept, planned.digest, planned.group)
                )
        shard = planned.session.shard
        for item in own if shard is None else score_shards(own, geometry, shard):
            sizes[id(item)] = sum(geometry.bytes_of(key) for key in score_keys(item))
            items.append(item)
    return items, sizes


def prepare_slices(
    plan: ScorePlan, items: Sequence[_Item], records: Place, slices: int, token: str
) -> None:
    """Write down what slices shall score.

    Parameters
    ----------
    plan : ScorePlan
    items : sequence of ScoreItem or ScoreShard
    records : path or URL
        Folder of the run's records.
    slices : int
    token : str
        Names the run.
    """
    lines = [
        {
            "shard": isinstance(item, ScoreShard),
            "items": [
                _ITEM.dump_python(member, mode="json")
                for member in (item.items if isinstance(item, ScoreShard) else (item,))
            ],
        }
        for item in items
    ]
    header = {"slices": slices, "records": str(records), "run": token}
    write_slices(plan.store, "score", header, lines)


def slice_score(
    pipeline: str | os.PathLike[str],
    archive: str | os.PathLike[str],
    store: str | os.PathLike[str],
    part: Slice,
    *,
    frames: str | Sequence[str] | None = None,
    outputs: str | Sequence[str] | None = None,
    observer: Observer | None = None,
) -> SliceResult:
    """Score the blocks of a slice, in this process; no metadata is written.

    Raises
    ------
    hsi_batch.errors.StoreError
        Nothing was prepared, it was for another pipeline, or somebody else does it.
    """
    target = absolute(store)
    names = (outputs,) if isinstance(outputs, str) else outputs
    with leased(target, "score", part):
        header, lines = read_slices(target, "score", part)
        source = Archive(archive)
        plan = plan_score(
            Pipeline.from_yaml(pipeline), source, target, frames=frames, outputs=names
        )
        sessions = {planned.name: planned for planned in plan.sessions}
        items = [_item(line) for line in lines]
        for item in items:
            first = item.items[0] if isinstance(item, ScoreShard) else item
            known = sessions.get(first.session)
            if known is None or known.digest != first.digest:
                raise IncompleteError(
                    "the slices were prepared for another pipeline, or other data.",
                    path=target,
                    session=first.session,
                    hint="Give `hsi-batch init` again.",
                )

        def size(item: _Item) -> int:
            keys = score_keys(item)
            geometry = sessions[keys[0].session].session.geometry
            return sum(geometry.bytes_of(key) for key in keys)

        own = part.of_items(items, size)
        places = (str(source.path.absolute()), archive_stamp(source.path), target)
        jobs = [
            ScoreJob(
                *places,
                header["run"],
                header["records"],
                plan.states.packed(group),
                plan.specs,
                group,
            )
            for group in dict.fromkeys(item.group for item in own)
        ]
        return run_slice(
            target,
            "score",
            part,
            batched(own, size),
            lambda batch, key: score_items(batch, key, *jobs),
            total=(sum(len(score_keys(item)) for item in own), sum(map(size, own))),
            warm="hsi_batch.stages.warm:scoring",
            observer=observer,
        )


def _item(line: dict[str, Any]) -> _Item:
    members = tuple(_ITEM.validate_python(value) for value in line["items"])
    return ScoreShard(members) if line["shard"] else members[0]
