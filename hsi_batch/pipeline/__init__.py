"""The graph of nodes: wiring, YAML, weights, fit planning, affine folding, lazy application."""

from hsi_batch.pipeline.graph import Edge, Graph
from hsi_batch.pipeline.pipeline import CuvisPipeline, Pipeline

__all__ = ["CuvisPipeline", "Edge", "Graph", "Pipeline"]
