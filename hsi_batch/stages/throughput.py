"""What each worker and each machine did in a stage, from the records."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass

from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.store import state_folder
from hsi_batch.places import Place

__all__ = ["StageThroughput", "WorkerShare", "throughput"]

#: Workers that a table lists.
_SHOWN = 50


@dataclass(frozen=True)
class WorkerShare:
    """What a worker, or all workers of a machine, did.

    Attributes
    ----------
    name : str
    blocks, failed : int
    seconds : float
        Spent on blocks.
    slowest : str
        The block that took longest.
    slowest_seconds : float
    """

    name: str
    blocks: int
    failed: int
    seconds: float
    slowest: str
    slowest_seconds: float

    @property
    def rate(self) -> float:
        """Blocks per second spent on them."""
        return self.blocks / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class StageThroughput:
    """The work of a stage by machine and by worker, the slowest first.

    Attributes
    ----------
    stage : str
    nodes, workers : tuple of WorkerShare
    """

    stage: str
    nodes: tuple[WorkerShare, ...]
    workers: tuple[WorkerShare, ...]

    def __str__(self) -> str:
        rows = [("", "blocks", "failed", "blocks/s", "slowest block")]
        for kind, shares in (("node", self.nodes), ("worker", self.workers[:_SHOWN])):
            rows += [
                (
                    f"{kind} {share.name}",
                    str(share.blocks),
                    str(share.failed),
                    f"{share.rate:.2f}",
                    f"{share.slowest_seconds:.2f} s {share.slowest}",
                )
                for share in shares
            ]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            f"{name:<{widths[0]}}  "
            + "  ".join(f"{v:>{w}}" for v, w in zip(r, widths[1:], strict=True))
            + f"  {last}"
            for name, *r, last in rows
        ]
        return "\n".join([f"{self.stage}:", *lines])


def throughput(store: str | Place) -> list[StageThroughput]:
    """What the records of a store say of each stage.

    Parameters
    ----------
    store : path
        Archive or scores.
    """
    found = []
    folder = state_folder(store) / "records"
    stages: list[Place] = [*folder.iterdir()] if folder.is_dir() else []
    for stage in sorted(stages, key=str):
        records = list(Records(stage).load().values())
        by_node: dict[str, list[BlockRecord]] = {}
        by_worker: dict[str, list[BlockRecord]] = {}
        for record in records:
            worker = record.worker or "unknown"
            parts = urllib.parse.urlsplit(worker if "//" in worker else f"//{worker}")
            by_worker.setdefault(worker, []).append(record)
            by_node.setdefault(parts.hostname or worker, []).append(record)
        found.append(StageThroughput(stage.name, _shares(by_node), _shares(by_worker)))
    return found


def _shares(groups: dict[str, list[BlockRecord]]) -> tuple[WorkerShare, ...]:
    shares = (_share(name, records) for name, records in groups.items())
    return tuple(sorted(shares, key=lambda share: (share.rate, share.name)))


def _share(name: str, records: Iterable[BlockRecord]) -> WorkerShare:
    own = list(records)
    done = [record for record in own if record.outcome == "done"]
    slowest = max(own, key=lambda record: record.seconds)
    return WorkerShare(
        name,
        len(done),
        len(own) - len(done),
        sum(record.seconds for record in done),
        str(slowest.key),
        slowest.seconds,
    )
