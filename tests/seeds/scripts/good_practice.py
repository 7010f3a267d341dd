"""The page on two-phase training: its functions that judge a fit and new data."""

import torch

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer


def validate_initialization(rx_node, validation_data):
    with torch.no_grad():
        scores = [
            rx_node.forward(data=batch["cube"].float())["scores"] for batch in validation_data
        ]
        return torch.cat(scores).mean().item()


def needs_reinitialization(node, new_data_stats, threshold=0.1):
    if not node._statistically_initialized:
        return True
    mean_drift = torch.abs(node.mu - new_data_stats["mean"]).mean()
    drift_ratio = mean_drift / torch.abs(node.mu).mean()
    return drift_ratio > threshold


datamodule = SingleCu3sDataModule(
    "data/Lentils/Lentils_000.cu3s", train_ids=["0-3"], val_ids=[4], test_ids=[5]
)
pipeline = Pipeline("rx")
rx_node = pipeline.add_node(RXGlobal())
fresh = needs_reinitialization(rx_node, {"mean": 0.0})
StatisticalTrainer(pipeline, datamodule).fit()

mean_score = validate_initialization(rx_node, datamodule.val_dataloader())
same = needs_reinitialization(rx_node, {"mean": rx_node.mu})
moved = needs_reinitialization(rx_node, {"mean": rx_node.mu * 1.5})
initialization_meta = pipeline.provenance
