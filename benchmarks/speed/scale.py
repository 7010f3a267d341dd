"""What the engine adds to each task, and whether its memory grows with their number."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.speed.archives import WORKERS
from benchmarks.speed.harness import Line, Scale
from hsi_batch.cluster import connect
from hsi_batch.engine.tasks import Task
from hsi_batch.engine.window import run_window
from hsi_batch.engine.worker import memory_now, prepare

__all__ = ["run"]

FAMILY = "Scale"
_FLAT_MB = 50


def run(scale: Scale, _folder: Path) -> Iterator[Line]:
    """All lines."""
    count = scale.tasks
    with connect(workers=WORKERS) as client:
        prepare(client, "hsi_batch.stages.warm:converting")
        _all(client, max(count // 10, 1))
        before = _memory(client)
        begun = time.perf_counter()
        _all(client, count)
        seconds = time.perf_counter() - begun
        after = _memory(client)
    each = 1000 * seconds / count
    what = f"{count} empty tasks"
    yield Line(FAMILY, f"{what}: each", "", each, 0, "ms", each, None, 2.0, True)
    for name, grown in ((name, (after[name] - before[name]) / 1e6) for name in before):
        yield Line(
            FAMILY, f"{what}: growth of the {name}", "", grown, 0, "MB", grown, None, _FLAT_MB, True
        )


def _all(client: Any, count: int) -> None:
    tasks = (Task(f"nothing-{number}", (number,)) for number in range(count))
    done = sum(outcome.result for outcome, _ in run_window(client, _nothing, tasks))
    assert done == count


def _nothing(items: Iterable[int], _key: str) -> int:
    return len(list(items))


def _memory(client: Any) -> dict[str, int]:
    return {"driver": memory_now(), "scheduler": client.run_on_scheduler(memory_now)}
