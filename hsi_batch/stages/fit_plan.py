"""What a fit would read, and what it need not read again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from hsi_batch.errors import HsiBatchError, HsiBatchWarning
from hsi_batch.pipeline.fitting import FitPlan
from hsi_batch.pipeline.gather import Need
from hsi_batch.stages.fit_members import Member
from hsi_batch.stages.fit_pass import PassReader, Wanted
from hsi_batch.stages.fit_stream import known_streams, stream_bytes

__all__ = ["count_plan"]


def count_plan(reader: PassReader, plans: Mapping[str, FitPlan], members: Sequence[Member]) -> int:
    """Count into ``reader.counts`` what all passes would read and what an earlier run has kept.

    Parameters
    ----------
    reader : PassReader
    plans : mapping
        Of each background.
    members : sequence of Member
        Copies of the backgrounds, fitted as far as goes without reading; none if nothing is kept.

    Returns
    -------
    int
        Memory of a worker above its base, in bytes.
    """
    needed = 0
    kept = _kept(reader, members)
    for number in range(1, max(plan.passes for plan in plans.values()) + 1):
        wanted: dict[str, tuple[Need, ...]] = {}
        streamed = []
        for group, plan in plans.items():
            taken = tuple(dict.fromkeys(n.need for n in plan.nodes if n.reading == number))
            if taken:
                wanted[group] = taken
            streamed += [(group, s.name) for s in plan.streams if s.reading == number]
        if wanted:
            reader.plan(wanted, kept.get(number, 0))
            waves = reader.waves(wanted)
            needed = max(needed, *(sum(reader.worker_bytes(wave)) for wave in waves))
        if streamed:
            reader.plan({group: () for group, _ in streamed}, kept.get(number, 0))
            needed = max(needed, *(stream_bytes(reader, name) for _, name in streamed))
    return needed


def _followed(
    reader: PassReader,
    wanted: Wanted,
    members: Sequence[Member],
    kept: dict[int, int],
    number: int,
) -> bool:
    """Whether a pass was finished; members are then supplied."""
    kept[number] = 0
    for wave in reader.waves(wanted):
        portions, _ = reader.portions(wave, members)
        found = reader.known(wave, portions)
        if found is None:
            blocks, reader.counts.redone = reader.kept.planned(portions)
            kept[number] += blocks
            return False
        kept[number] += sum(portion.blocks for portion in portions)
        for member in members:
            if member.group in wave:
                member.supply(found[member.group])
    return True


def _kept(reader: PassReader, members: Sequence[Member]) -> dict[int, int]:
    """Blocks per pass whose statistics are kept: the fit is followed as far as they go."""
    kept: dict[int, int] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HsiBatchWarning)
            for number in range(1, 1000):
                streams = {m.group: name for m in members if (name := m.stream()) is not None}
                wanted = {m.group: needs for m in members if (needs := m.needs())}
                if streams:
                    weights, blocks = known_streams(reader, streams, members)
                    kept[number] = blocks
                    if len(weights) < len(streams):
                        break
                    for member in members:
                        if member.group in streams:
                            member.settle(streams[member.group], weights[member.group])
                    continue
                if not wanted:
                    break
                if not _followed(reader, wanted, members, kept, number):
                    break
    except HsiBatchError:
        # What is wrong with the data shows when it is fitted.
        return kept
    finally:
        reader.sample.clear()
    return kept
