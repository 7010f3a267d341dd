"""Everything that a fit or a score store holds, as bytes to compare."""

from __future__ import annotations

import numpy as np
import zarr


def state_of(pipeline):
    """Statistics, buffers and precision of a fitted pipeline, by name."""
    found = {}
    for name, node in pipeline.nodes.items():
        found |= {f"{name}.{k}": np.asarray(v).tobytes() for k, v in node.state.items()}
        found |= {f"{name}:{k}": v.numpy().tobytes() for k, v in node.state_dict().items()}
    return found | {f"precision {n}": p.dtype for n, p in pipeline.precision.items()}


def maps_of(store):
    """Every array of every session of a store."""
    root = zarr.open_group(store, mode="r")
    return {
        f"{session}/{name}": array[:].tobytes()
        for session, group in root.groups()
        for name, array in group.arrays()
    }


def assert_same(first, second):
    """Nothing differs, and nothing is there only once."""
    assert first
    differ = [key for key in first if first[key] != second.get(key)]
    assert not differ, f"these differ: {differ}"
    extra = sorted(second.keys() - first.keys())
    assert not extra, f"these are in the second only: {extra}"
