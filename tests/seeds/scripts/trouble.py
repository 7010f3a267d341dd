"""The page on two-phase training: its advice on trouble, all of it in one script."""

import torch

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import (
    AnomalyBCEWithLogits,
    AnomalyDetectionMetrics,
    BinaryDecider,
    LentilsAnomalyDataNode,
    RXGlobal,
    ScoreToLogit,
    SelectorDiversityRegularizer,
    SelectorEntropyRegularizer,
    SoftChannelSelector,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import (
    CallbacksConfig,
    EarlyStoppingConfig,
    GradientTrainer,
    OptimizerConfig,
    StatisticalTrainer,
    TrainerConfig,
)

datamodule = SingleCu3sDataModule(
    "data/Lentils/Lentils_000.cu3s", train_ids=["0-3"], val_ids=[4], batch_size=32
)
pipeline = Pipeline("trouble")
data_node = LentilsAnomalyDataNode(normal_class_ids=[0])
selector = SoftChannelSelector(
    n_select=10, temperature_init=10.0, temperature_decay=0.95, name="selector"
)
rx, logit_head = RXGlobal(eps=0.0), ScoreToLogit(name="logit_head")
decider = BinaryDecider()
bce_loss = AnomalyBCEWithLogits(name="bce")
entropy_loss = SelectorEntropyRegularizer(name="entropy", weight=0.1)
diversity_loss = SelectorDiversityRegularizer(name="diversity", weight=0.01)
metrics_anomaly = AnomalyDetectionMetrics(name="metrics_anomaly")
pipeline.connect(
    (data_node.cube, selector.data),
    (selector.selected, rx.data),
    (rx.scores, logit_head.scores),
    (logit_head.logits, decider.logits),
    (logit_head.logits, bce_loss.predictions),
    (data_node.mask, bce_loss.targets),
    (selector.weights, entropy_loss.weights),
    (selector.weights, diversity_loss.weights),
    (decider.decisions, metrics_anomaly.decisions),
    (data_node.mask, metrics_anomaly.targets),
)
early_stopping = EarlyStoppingConfig(monitor="val/metrics_anomaly/iou", mode="max", patience=5)
optimizer_config = OptimizerConfig(lr=0.0001)
trainer_config = TrainerConfig(
    max_epochs=12, callbacks=CallbacksConfig(early_stopping=[early_stopping])
)
entropy_loss.weight = 0.05
diversity_loss.weight = 0.005
selector.temperature_decay = 0.92

calib_data = torch.cat([b["cube"].float() for b in datamodule.train_dataloader()]).flatten()
print(f"Calibration samples: {len(calib_data)}")
print(f"Data range: [{calib_data.min():.2f}, {calib_data.max():.2f}]")
percentiles = torch.quantile(calib_data[:100_000], torch.tensor([0.01, 0.99]))
if len(calib_data) > 10000:
    indices = torch.randperm(len(calib_data))[:10000]
    calib_data = calib_data[indices]
pipeline = pipeline.to("cpu")

stat_trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
grad_trainer = GradientTrainer(
    pipeline,
    datamodule,
    [bce_loss, entropy_loss, diversity_loss],
    trainer_config=trainer_config,
    optimizer_config=optimizer_config,
)
stat_trainer.fit()
pipeline.unfreeze_nodes_by_name(["selector"])
result = grad_trainer.fit()
