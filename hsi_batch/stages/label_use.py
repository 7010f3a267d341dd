"""What depends on labels, and on which version of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hsi_batch.archive.labels import label_stamp
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.pipeline.graph import Graph

__all__ = ["fits_on_labels", "label_stamps", "picks_by_label", "reads_labels"]

#: Ports of the data node that hold labels.
_LABELS = ("mask", "class_mask")


def label_stamps(sessions: Mapping[str, Session]) -> dict[str, str]:
    """The versions of labels that hold, of sessions that were labelled after their conversion."""
    found = {name: label_stamp(session) for name, session in sessions.items()}
    return {name: stamp for name, stamp in found.items() if stamp is not None}


def picks_by_label(pixels: PixelChoice) -> bool:
    """Whether labels say which pixels count."""
    return pixels == "labelled-normal" or pixels.startswith("class:")


def fits_on_labels(pipeline: Graph, pixels: PixelChoice) -> bool:
    """Whether labels say which pixels count in a fit, or reach a node that is fitted."""
    fitted = [name for name, node in pipeline.nodes.items() if node.requires_initial_fit]
    return picks_by_label(pixels) or reads_labels(pipeline, fitted)


def reads_labels(pipeline: Graph, nodes: Iterable[str]) -> bool:
    """Whether labels reach any of some nodes, directly or through others."""
    wanted = set(nodes)
    wanted |= {above for name in wanted for above in pipeline.ancestors(name)}
    return any(
        pipeline.nodes[edge.source.node].is_source
        and edge.source.port in _LABELS
        and edge.target.node in wanted
        for edge in pipeline.edges
    )
