"""The page on statistical training: fit a pipeline file, save the fitted one."""

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer

pipeline = Pipeline.from_yaml("configs/pipeline/anomaly/rx/rx_statistical.yaml")
datamodule = SingleCu3sDataModule(cu3s_file_path="data/Lentils/Demo_000.cu3s")
trainer = StatisticalTrainer()
trainer.fit(pipeline=pipeline, datamodule=datamodule)
pipeline.save("artifacts/rx_statistical_fitted.yaml")
