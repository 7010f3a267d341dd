"""Counters of ours on the page of metrics that every Dask worker has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

__all__ = ["count"]


@cache
def _counters() -> Mapping[str, Any]:
    """Prometheus counters of this process; none where the package is not installed."""
    try:
        from prometheus_client import Counter
    except ImportError:
        return {}
    texts = {
        "frames": "Frames of which the first block was done.",
        "bytes": "Bytes of pixels of blocks that were done.",
        "failures": "Blocks that failed.",
    }
    return {name: Counter(f"hsi_batch_{name}", text, ["stage"]) for name, text in texts.items()}


def count(stage: str, *, frames: int, size: int, failures: int) -> None:
    """Add to the counters of this process, by stage.

    Parameters
    ----------
    stage : str
    frames, failures : int
    size : int
        Bytes.
    """
    for name, value in (("frames", frames), ("bytes", size), ("failures", failures)):
        if name in _counters():
            _counters()[name].labels(stage).inc(max(value, 0))
