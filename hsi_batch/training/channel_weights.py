"""Weights of channels as values that monitors are told."""

from __future__ import annotations

import numpy as np

from hsi_batch.nodes import Node
from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["channel_weights"]


def channel_weights(pipeline: Pipeline) -> dict[str, float]:
    """Weights of the selectors that are trained, as they are now and without noise.

    Names are ``NODE/weights/CHANNEL``, for a selector with several outputs
    ``NODE/weights/OUTPUT/CHANNEL``. A channel is named by its wavelength (``652.5nm``), or by its
    number (``channel_007``) where there is none or two share one.
    """
    found: dict[str, float] = {}
    for name, node in pipeline.nodes.items():
        weights_of = getattr(node, "get_selection_weights", None)
        if node.frozen or weights_of is None:
            continue
        weights = weights_of().detach().double().cpu().numpy()
        rows = weights[None] if weights.ndim == 1 else weights
        channels = _channels(node, rows.shape[1])
        for k, row in enumerate(rows):
            place = f"{name}/weights" if weights.ndim == 1 else f"{name}/weights/{k}"
            found |= {f"{place}/{c}": float(w) for c, w in zip(channels, row, strict=True)}
    return found


def _channels(node: Node, count: int) -> list[str]:
    axis = node.axes.get("data")
    known = None if axis is None else axis.wavelength
    if known is not None and len(known) == count:
        texts = [f"{nm:g}nm" for nm in np.round(known, 3)]
        if len(set(texts)) == count:
            return texts
    return [f"channel_{i:03d}" for i in range(count)]
