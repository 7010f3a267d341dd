"""Which backgrounds of a pass are fitted together, so that their statistics fit into memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from hsi_batch.pipeline.groups import POOLED

__all__ = ["MOST", "waves_of"]

T = TypeVar("T")

#: Bytes of statistics of different backgrounds in a process at once: moments of thousands of
#: backgrounds, histograms of some tens.
MOST = 2**29
#: Copies of the statistics of each background where they come together.
_COPIES = 3


def waves_of(wanted: Mapping[str, T], statistics: int) -> list[Mapping[str, T]]:
    """Runs of backgrounds, of which each reads its own pixels once.

    The background of all pixels then goes by itself, for it holds what all others read.

    Parameters
    ----------
    wanted : mapping
        What each background needs.
    statistics : int
        Bytes of one copy of the statistics of a background.

    Examples
    --------
    >>> waves_of({"a": 1, "b": 2, "c": 3}, 2**27)
    [{'a': 1}, {'b': 2}, {'c': 3}]
    """
    size = max(1, MOST // max(_COPIES * statistics, 1))
    if len(wanted) <= size + (POOLED in wanted):
        return [wanted]
    groups = [group for group in wanted if group != POOLED]
    waves: list[Mapping[str, T]] = [
        {group: wanted[group] for group in groups[start : start + size]}
        for start in range(0, len(groups), size)
    ]
    return [{POOLED: wanted[POOLED]}, *waves] if POOLED in wanted else waves
