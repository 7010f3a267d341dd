"""Refusing what cannot fit into the memory of a worker."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from distributed import Client

from hsi_batch.archive.layout import Geometry
from hsi_batch.engine.worker import ask_workers, memory_now
from hsi_batch.errors import PlanError
from hsi_batch.nodes import PortRef
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.statistics import Measure
from hsi_batch.statistics.columns import COLUMNS
from hsi_batch.statistics.float_histogram import CAPACITY
from hsi_batch.statistics.moments import is_exact

__all__ = ["LARGE_STATISTICS", "assembled_bytes", "check_memory", "statistic_bytes"]

#: Statistics from this size on are merged two by two, so that few are in memory at once.
LARGE_STATISTICS = 2**20


def assembled_bytes(geometries: Iterable[Geometry], channels: int) -> int:
    """Bytes of what is assembled of the largest frame for nodes that must see it whole.

    Parameters
    ----------
    geometries : iterable of Geometry
    channels : int
        Values held per pixel, float32; ``forward`` may hold as much again.
    """
    per_pixel = max(16, 8 * channels)
    return max((g.shape[0] * g.shape[1] * per_pixel for g in geometries), default=0)


def statistic_bytes(
    pipeline: Pipeline, needs: Iterable[Need], geometries: Iterable[Geometry]
) -> int:
    """Bytes of one copy of the statistics that a pass takes, at most.

    Moments are a triangle of 8-byte numbers, histograms of 8 and 16-bit integers 8 bytes per
    possible value and channel (0.5 MB), those of other values 12 bytes per different value.

    Parameters
    ----------
    pipeline : Pipeline
        Resolved.
    needs : iterable of Need
    geometries : iterable of Geometry
        Of the sessions.
    """
    shapes = list(geometries)
    return sum(
        max(_bytes_of(need, _channels(pipeline, need.root, g.shape[2]), g) for g in shapes)
        for need in needs
    )


def _channels(pipeline: Pipeline, root: PortRef, stored: int) -> int:
    if root == CUBE:
        return stored
    node = pipeline.nodes[root.node]
    known = node.channel_axis(node.axes).get(root.port)
    declared = node.OUTPUT_SPECS[root.port].shape[-1]
    if known is not None:
        return known.size
    return declared if isinstance(declared, int) and declared > 0 else stored


def _bytes_of(need: Need, channels: int, geometry: Geometry) -> int:
    if need.kind == COLUMNS:
        return 16 * geometry.shape[1] * channels
    if isinstance(need.kind, Measure):
        return need.kind.nbytes(channels)
    exact = need.root == CUBE and is_exact(np.dtype(geometry.dtype))
    if need.kind == "histogram" and exact:
        return channels * 8 << (8 * geometry.item_bytes)
    if need.kind == "histogram":
        pixels = geometry.frames * geometry.shape[0] * geometry.shape[1]
        return channels * 12 * min(CAPACITY, pixels)
    if need.kind == "extrema":
        return 16 * channels
    return 8 * (channels + 1) * (channels + 2)


def check_memory(client: Client, needed: int, stage: str, statistics: int = 0) -> int:
    """Compare what a stage needs above the base with what a worker may take.

    Parameters
    ----------
    client : distributed.Client
    needed : int
        Bytes above the base.
    stage : str
        For the message.
    statistics : int
        Bytes of statistics in addition.

    Returns
    -------
    int
        Base of the largest worker in bytes.

    Raises
    ------
    hsi_batch.errors.PlanError
        A worker's limit is lower than its base and the need.
    """
    base = max(ask_workers(client, memory_now).values(), default=0)
    limits = [
        worker["memory_limit"]
        for worker in client.scheduler_info(n_workers=-1)["workers"].values()
        if worker.get("memory_limit")
    ]
    limit = min(limits, default=0)
    if limit and base + needed + statistics > limit:
        data = f"{needed / 1e6:.0f} MB for the data in flight"
        hint = "Use fewer workers with more memory each, or lower blocks (--block-lines)."
        if statistics > needed:
            data = f"{data}, {statistics / 1e6:.0f} MB for statistics"
            hint = (
                "Use fewer workers with more memory each, or fewer channels: a histogram of 16-bit"
                " values takes 0.5 MB per channel, and several are in memory at once."
            )
        raise PlanError(
            f"{stage} needs {(base + needed + statistics) / 1e6:.0f} MB per worker (base"
            f" {base / 1e6:.0f} MB and {data}), but a worker may take {limit / 1e6:.0f} MB.",
            hint=hint,
        )
    return base
