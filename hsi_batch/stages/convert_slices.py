"""Conversion in slices: what ``init`` leaves, and doing a share of it."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from hsi_batch.archive.layout import BlockKey
from hsi_batch.engine.events import Observer
from hsi_batch.places import Place, absolute
from hsi_batch.stages.convert_blocks import convert_items
from hsi_batch.stages.convert_plan import ConvertPlan, PlannedSession
from hsi_batch.stages.convert_work import (
    ConvertItem,
    HashItem,
    SessionJob,
    ShardItem,
    item_keys,
)
from hsi_batch.stages.slices import (
    Slice,
    SliceResult,
    batched,
    leased,
    read_slices,
    run_slice,
    write_slices,
)

__all__ = ["prepare_slices", "slice_convert"]

_JOB = TypeAdapter(SessionJob)
_Item = ConvertItem | ShardItem | HashItem


def prepare_slices(plan: ConvertPlan, records: Place, slices: int, token: str) -> None:
    """Write down what slices shall convert.

    Parameters
    ----------
    plan : ConvertPlan
    records : path or URL
        Folder of the run's records.
    slices : int
    token : str
        Names the run.
    """
    lines: list[dict[str, Any]] = []
    for planned in plan.todo:
        job = planned.job(plan.archive, plan.options)
        hashed = planned.signature if planned.status != "retry" else {}
        lines.append(
            {
                "job": {**_JOB.dump_python(job, mode="json"), "run": token},
                "todo": [[key.frame, key.start, key.stop] for key in sorted(planned.todo)],
                "shard": planned.shard,
                "files": {file: mark[0] if mark else 0 for file, mark in hashed.items()},
            }
        )
    write_slices(plan.archive, "convert", {"slices": slices, "records": str(records)}, lines)


def slice_convert(archive: str, part: Slice, *, observer: Observer | None = None) -> SliceResult:
    """Convert the blocks of a slice, in this process; no metadata is written.

    Raises
    ------
    hsi_batch.errors.StoreError
        Nothing was prepared, or somebody else does it.
    """
    target = absolute(archive)
    with leased(target, "convert", part):
        header, lines = read_slices(target, "convert", part)
        sized: list[tuple[_Item, int]] = [pair for line in lines for pair in _items(line)]
        own = part.of_items(sized, _size)
        return run_slice(
            target,
            "convert",
            part,
            batched(own, _size),
            lambda pairs, key: convert_items([item for item, _ in pairs], key, header["records"]),
            total=(
                sum(len(item_keys(item)) for item, _ in own),
                sum(size for item, size in own if not isinstance(item, HashItem)),
            ),
            warm="hsi_batch.stages.warm:converting",
            observer=observer,
        )


def _size(pair: tuple[_Item, int]) -> int:
    return pair[1]


def _items(line: dict[str, Any]) -> list[tuple[_Item, int]]:
    job = _JOB.validate_python(line["job"])
    planned = PlannedSession(
        job.name,
        job.path,
        "resume",
        {},
        todo=[BlockKey(job.name, *numbers) for numbers in line["todo"]],
        shard=None if line["shard"] is None else tuple(line["shard"]),
    )
    found: list[tuple[_Item, int]] = [
        (item, sum(job.geometry.bytes_of(key) for key in item_keys(item)))
        for item in planned.items(job)
    ]
    # Reading a file once more costs about an eighth of converting it.
    found += [(HashItem(job.name, file), size // 8) for file, size in line["files"].items()]
    return found
