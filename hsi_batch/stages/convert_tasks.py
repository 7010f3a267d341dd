"""What workers do of a conversion, as tasks."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from hsi_batch.archive.record_objects import record_writer
from hsi_batch.archive.records import BlockRecord
from hsi_batch.engine.tasks import Task, batches
from hsi_batch.places import Place
from hsi_batch.stages.convert_plan import ConvertPlan
from hsi_batch.stages.convert_work import ConvertItem, HashItem, ShardItem, item_keys
from hsi_batch.stages.run import BlockWork

__all__ = ["convert_tasks", "record_killed"]


def convert_tasks(
    plan: ConvertPlan,
    threads: int,
    task_bytes: int,
    hashes: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Iterable[Task]:
    """Blocks to convert and files to sum up, grouped into tasks."""
    items: list[ConvertItem | ShardItem | HashItem] = []
    sizes: dict[int, int] = {}
    token = uuid.uuid4().hex
    for planned in plan.todo:
        assert planned.info is not None
        job = replace(planned.job(plan.archive, plan.options), run=token)
        # Whole files first: at the end, where tasks become small, one would keep a worker alone.
        if planned.status != "retry":
            for file, mark in planned.signature.items():
                if file in hashes.get(planned.name, {}):
                    continue
                hashed = HashItem(planned.name, file)
                sizes[id(hashed)] = (mark[0] if mark else 0) // 8
                items.append(hashed)
        for item in planned.items(job):
            sizes[id(item)] = sum(job.geometry.bytes_of(key) for key in item_keys(item))
            items.append(item)
    return batches(
        items,
        lambda item: sizes[id(item)],
        threads=threads,
        target=task_bytes,
        prefix="convert",
    )


def record_killed(folder: Place, items: Sequence[ConvertItem | ShardItem], work: BlockWork) -> None:
    """Record blocks whose conversion kept killing its worker, in the worker's place."""
    reasons = {failure.key: failure.reason for failure in work.failures}
    with record_writer(folder, "killed") as writer:
        for item in items:
            if isinstance(item, HashItem):
                continue
            for key in item_keys(item):
                writer.write(
                    BlockRecord(key, "failed", item.job.digest, reason=reasons.get(key, ""))
                )
