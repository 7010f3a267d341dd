"""What a conversion did, as tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hsi_batch.markup import Raw, fold, table
from hsi_batch.stages.run import failure_rows
from hsi_batch.wording import counted, sized, some

if TYPE_CHECKING:
    from hsi_batch.stages.convert_result import ConvertResult

__all__ = ["convert_tables"]


def convert_tables(result: ConvertResult) -> Iterator[Raw | None]:
    """Facts, sessions, and what could not be converted."""
    facts: list[tuple[str, object]] = [
        ("archive", result.archive),
        ("sessions up to date", result.up_to_date),
        ("done in this run", f"{counted(result.blocks, 'block')}, {sized(result.bytes)}"),
        ("seconds", round(result.seconds, 2)),
    ]
    if result.memory and result.blocks:
        facts.append(("memory", str(result.memory)))
    if result.changed:
        facts.append(("changed since, kept as converted", some(result.changed)))
    yield table(facts)
    rows = [(each.name, each.frames, each.failed, each.problem) for each in result.converted]
    yield table(rows, ("converted", "frames", "failed", "problem"), rest="sessions")
    yield table(result.broken, ("could not be opened", "why"), rest="files")
    yield table(failure_rows(result.failures, result.earlier), ("failed", "why"))
    yield fold(f"{counted(len(result.skipped), 'file')} skipped", table(result.skipped))
