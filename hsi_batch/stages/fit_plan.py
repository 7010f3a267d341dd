"""What a fit would read, and what it need not read again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hsi_batch.errors import HsiBatchError, HsiBatchWarning
from hsi_batch.pipeline.fitting import FitPlan, Fitting, plan_fit
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.fit_pass import PassCounts, PassReader
from hsi_batch.stages.fit_stream import known_stream, stream_bytes

__all__ = ["count_plan"]

#: Statistics by need, as the archive holds them.
Stored = Callable[[Sequence[Need]], dict[Need, Any]]


def count_plan(reader: PassReader, plan: FitPlan, stored: Stored) -> int:
    """Count into ``reader.counts`` what all passes would read and what an earlier run has kept.

    Returns
    -------
    int
        Memory of a worker above its base, in bytes.
    """
    needed = 0
    kept = dict(_kept(reader, plan, stored)) if not reader.kept.empty else {}
    for number in range(1, plan.passes + 1):
        needs = tuple(dict.fromkeys(n.need for n in plan.nodes if n.reading == number))
        streams = [stream.name for stream in plan.streams if stream.reading == number]
        if needs:
            reader.plan(needs, kept.get(number, 0))
            needed = max(needed, sum(reader.worker_bytes(needs)))
        for name in streams:
            reader.plan((), kept.get(number, 0))
            needed = max(needed, stream_bytes(reader, name))
    return needed


def _kept(reader: PassReader, plan: FitPlan, stored: Stored) -> list[tuple[int, int]]:
    """Blocks per pass whose statistics are kept: followed on a copy, as far as they go."""
    pipeline = reader.pipeline
    copy = Pipeline.from_bytes(*pipeline.to_bytes())
    if pipeline.axis is not None:
        copy.resolve(pipeline.axis)
    other = replace(reader, pipeline=copy, counts=PassCounts(), sample={}, failures=[])
    stored_kinds = [str(node.need.kind) for node in plan.nodes if node.reading == 0]
    fitting = Fitting(copy, plan_fit(copy, stored_kinds), other.spectra)
    kept: list[tuple[int, int]] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HsiBatchWarning)
            found = stored(fitting.stored())
            for number in range(1, plan.passes + 1):
                fitting.supply(found)
                name, needs = fitting.stream(), fitting.needs()
                if name is not None:
                    weights, blocks = known_stream(other, name)
                    if weights is None:
                        break
                    fitting.settle(name, weights)
                    kept.append((number, blocks))
                    found = {}
                    continue
                if not needs:
                    break
                portions, _ = other.portions(needs, other.digest(needs))
                known = other.known(needs, portions)
                if known is None:
                    blocks, reader.counts.redone = other.kept.planned(portions)
                    kept.append((number, blocks))
                    break
                kept.append((number, sum(portion.blocks for portion in portions)))
                found = known
    except HsiBatchError:
        # What is wrong with the data shows when it is fitted.
        return kept
    return kept
