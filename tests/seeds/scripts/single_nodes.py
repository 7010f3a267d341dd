"""The page on two-phase training: nodes that are added one by one, and fitted unconnected."""

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import MinMaxNormalizer, RXGlobal, SoftChannelSelector, TrainablePCA
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer

datamodule = SingleCu3sDataModule(
    cu3s_file_path="data/initialization/samples.cu3s",
    annotation_json_path="data/initialization/annotations.json",
    train_ids=[0, 1, 2],
    val_ids=[3],
    test_ids=[4],
    batch_size=4,
)
datamodule.setup(stage="fit")

pipeline = Pipeline("single")
rx_node = RXGlobal(num_channels=61, eps=1e-6)
pipeline.add_node(rx_node)
trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
trainer.fit()
print(rx_node.mu.shape)
print(rx_node.sigma.shape)

normalizer = MinMaxNormalizer(eps=1e-6, use_running_stats=True)
pipeline.add_node(normalizer)
trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
trainer.fit()
print(normalizer.running_min)
print(normalizer.running_max)

selector = SoftChannelSelector(
    n_select=10, input_channels=61, init_method="variance", temperature_init=5.0
)
pipeline.add_node(selector)
pca = TrainablePCA(n_components=10, input_dim=61)
pipeline.add_node(pca)
trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
trainer.fit()
print(pca.components.shape)
print(pca.explained_variance)
