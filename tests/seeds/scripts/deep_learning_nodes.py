"""The page on deep learning nodes: what is fitted from statistics, added first, connected then."""

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import (
    BandpassByWavelength,
    CU3SDataNode,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import CuvisPipeline
from hsi_batch.training import StatisticalTrainer

pipeline = CuvisPipeline("nodes")
datamodule = SingleCu3sDataModule("data/Lentils/Lentils_000.cu3s")
data_node = CU3SDataNode()
bandpass = BandpassByWavelength(min_wavelength_nm=400.0)
pipeline.connect((data_node.cube, bandpass.data), (data_node.wavelengths, bandpass.wavelengths))

encoder = ZScoreNormalizerGlobal(num_channels=61, sample_n=500_000)
pipeline.add_node(encoder)
trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
trainer.fit()
pipeline.connect((bandpass.output, encoder.data))

pca = TrainablePCA(num_channels=61, n_components=3, whiten=False)
pipeline.add_node(pca)
trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
trainer.fit()
pca.unfreeze()
pipeline.connect((encoder.output, pca.data))
trainer.fit()
