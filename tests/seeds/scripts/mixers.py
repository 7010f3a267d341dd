"""The page on deep learning nodes: mixers of channels, each trained for a few epochs."""

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import (
    ConcreteBandSelector,
    CU3SDataNode,
    DistinctnessLoss,
    LearnableChannelMixer,
    MinMaxNormalizer,
    MSEReconstructionLoss,
    OrthogonalityLoss,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import CuvisPipeline
from hsi_batch.training import GradientTrainer, StatisticalTrainer, TrainerConfig

datamodule = SingleCu3sDataModule(
    "data/Lentils/Lentils_000.cu3s", train_ids=[0, 1, 2], val_ids=[3], test_ids=[4]
)
pipeline = CuvisPipeline("mixers")
data_node = CU3SDataNode()
normalizer = MinMaxNormalizer(name="normalizer")
encoder = ZScoreNormalizerGlobal(num_channels=61, sample_n=500_000, seed=0, eps=1e-8)
mixer = LearnableChannelMixer(
    input_channels=61,
    output_channels=3,
    reduction_scheme=[61, 16, 8, 3],
    leaky_relu_negative_slope=0.01,
    normalize_output=True,
    init_method="xavier",
)
selector = ConcreteBandSelector(
    input_channels=61,
    output_channels=3,
    tau_start=10.0,
    tau_end=0.1,
    max_epochs=50,
    use_hard_inference=True,
)
pca = TrainablePCA(num_channels=61, n_components=3, whiten=False, init_method="svd")
distinctness_loss = DistinctnessLoss(name="distinctness")
orthogonality_loss = OrthogonalityLoss(name="orthogonality")
likeness_loss = MSEReconstructionLoss(name="likeness")

pipeline.add_nodes(mixer=mixer, selector=selector)
pipeline.connect(
    (data_node.cube, normalizer.data),
    (normalizer.output, mixer.data),
    (normalizer.output, selector.data),
    (data_node.cube, encoder.data),
    (encoder.output, pca.data),
    (selector.selection_weights, distinctness_loss.weights),
    (pca.outputs.components, orthogonality_loss.components),
    (mixer.rgb, likeness_loss.reconstruction),
    (selector.rgb, likeness_loss.target),
)
StatisticalTrainer(pipeline=pipeline, datamodule=datamodule).fit()
variances = pca.explained_variance.clone()

mixer.unfreeze()
selector.unfreeze()
pca.unfreeze()
result = GradientTrainer(
    pipeline=pipeline,
    datamodule=datamodule,
    loss_nodes=[distinctness_loss, orthogonality_loss, likeness_loss],
    trainer_config=TrainerConfig(max_epochs=4),
).fit()
