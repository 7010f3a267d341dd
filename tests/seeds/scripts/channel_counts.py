"""The page on deep learning nodes: its advice on the z-score."""

import torch

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import ChannelAxis, CU3SDataNode, ZScoreNormalizerGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.statistics import Moments

spectra = 100 + torch.randn(1, 8, 9, 61, generator=torch.Generator().manual_seed(0))
spectra[..., 7] = 100.0  # one channel without any variance
moments = Moments.empty(61, "float32").update(spectra.reshape(-1, 61).numpy())

# Problem: num_channels doesn't match data
encoder = ZScoreNormalizerGlobal(num_channels=50, name="encoder")
pipeline = Pipeline("mismatch")
pipeline.connect((CU3SDataNode(name="data").outputs.cube, encoder.data))
try:
    pipeline.resolve(ChannelAxis(61))
except PipelineError as problem:
    error = problem

# Numerical instability with small std
small = ZScoreNormalizerGlobal(num_channels=61, eps=1e-10)
encoder = ZScoreNormalizerGlobal(num_channels=61, eps=1e-6)
outputs = []
for node in (small, encoder):
    node.fit(moments)
    outputs.append(node.forward(spectra)["normalized"])
