"""The page on deep learning nodes: Deep SVDD in two phases, with the soft-boundary loss."""

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import (
    BandpassByWavelength,
    CU3SDataNode,
    DeepSVDDCenterTracker,
    DeepSVDDProjection,
    DeepSVDDScores,
    DeepSVDDSoftBoundaryLoss,
    QuantileBinaryDecider,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import CuvisPipeline
from hsi_batch.training import GradientTrainer, StatisticalTrainer, TrainerConfig

pipeline = CuvisPipeline("Deep_SVDD")
datamodule = SingleCu3sDataModule(
    "data/Lentils/Lentils_000.cu3s", train_ids=[0, 1, 2], val_ids=[3], test_ids=[4]
)
data_node = CU3SDataNode()
bandpass = BandpassByWavelength(min_wavelength_nm=400.0)
encoder = ZScoreNormalizerGlobal(num_channels=61, sample_n=500_000, eps=1e-6)
projection = DeepSVDDProjection(in_channels=61, rep_dim=32, hidden=128, kernel="linear")
center_tracker = DeepSVDDCenterTracker(rep_dim=32, alpha=0.1, update_in_eval=False)
scorer = DeepSVDDScores()
decider = QuantileBinaryDecider(quantile=0.995)
svdd_loss = DeepSVDDSoftBoundaryLoss(name="svdd_loss")

pipeline.add_nodes(projection=projection, scorer=scorer)
pipeline.connect(
    (data_node.cube, bandpass.data),
    (data_node.wavelengths, bandpass.wavelengths),
    (bandpass.output, encoder.data),
    (encoder.normalized, projection.data),
    (projection.embeddings, center_tracker.embeddings),
    (projection.embeddings, scorer.embeddings),
    (center_tracker.center, scorer.center),
    (scorer.scores, decider.scores),
    (projection.embeddings, svdd_loss.embeddings),
    (center_tracker.center, svdd_loss.center),
)
trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
trainer.fit()
start = projection.net.fc1.weight.detach().clone()

projection.unfreeze()
svdd_loss.unfreeze()
grad_trainer = GradientTrainer(
    pipeline, datamodule, [svdd_loss], trainer_config=TrainerConfig(max_epochs=5)
)
result = grad_trainer.fit()
test_results = grad_trainer.test()
