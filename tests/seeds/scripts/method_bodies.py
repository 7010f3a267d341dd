"""The page on two-phase training: two methods that it shows, as a class of one's own."""

import torch
from torch import nn

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer


class Shown(nn.Module):
    """Mean and covariance as the page sums them."""

    def __init__(self, num_channels):
        super().__init__()
        self.num_channels = num_channels
        self._statistically_initialized = False
        self.freezed = True

    def statistical_initialization(self, input_stream):
        """Compute statistics using Welford's algorithm."""
        n = 0
        mean = torch.zeros(self.num_channels, dtype=torch.float64)
        M2 = torch.zeros((self.num_channels, self.num_channels), dtype=torch.float64)

        for batch_data in input_stream:
            data = batch_data["data"]
            flattened = data.flatten(0, 2).double()

            for sample in flattened:
                n += 1
                delta = sample - mean
                mean += delta / n
                delta2 = sample - mean
                M2 += torch.outer(delta, delta2)

        covariance = M2 / (n - 1) if n > 1 else M2
        self.register_buffer("mu", mean.float())
        self.register_buffer("sigma", covariance.float())
        self._statistically_initialized = True

    def unfreeze(self):
        """Convert buffers to parameters for gradient training."""
        for name, buffer in list(self._buffers.items()):
            if buffer is not None and buffer.numel() > 0:
                param = nn.Parameter(buffer.clone())
                delattr(self, name)
                setattr(self, name, param)
        self.freezed = False


datamodule = SingleCu3sDataModule("data/Lentils/Lentils_000.cu3s", train_ids=["0-1"], val_ids=[4])
pipeline = Pipeline("ours")
rx_node = RXGlobal(num_channels=61, eps=0.0)
pipeline.add_node(rx_node)
StatisticalTrainer(pipeline=pipeline, datamodule=datamodule).fit()

shown = Shown(61)
shown.statistical_initialization(
    {"data": batch["cube"].float()} for batch in datamodule.train_dataloader()
)
shown.unfreeze()
