"""The same page: all recordings of a folder."""

from hsi_batch.data import MultiCu3sDataModule
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer

pipeline = Pipeline.from_yaml("configs/pipeline/anomaly/rx/rx_statistical.yaml")
datamodule = MultiCu3sDataModule("data/Lentils")
result = StatisticalTrainer().fit(pipeline=pipeline, datamodule=datamodule)
