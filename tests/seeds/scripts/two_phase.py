"""The page on two-phase training: its complete example, and saving and loading."""

import torch

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import (
    AnomalyBCEWithLogits,
    AnomalyDetectionMetrics,
    BinaryDecider,
    LentilsAnomalyDataNode,
    MinMaxNormalizer,
    RXGlobal,
    ScoreToLogit,
    SoftChannelSelector,
)
from hsi_batch.pipeline import CuvisPipeline
from hsi_batch.training import (
    GradientTrainer,
    OptimizerConfig,
    PipelineMetadata,
    SchedulerConfig,
    StatisticalTrainer,
    TrainerConfig,
    TrainingConfig,
)


def build_pipeline():
    pipeline = CuvisPipeline("Channel_Selector")
    data_node = LentilsAnomalyDataNode(normal_class_ids=[0])
    normalizer = MinMaxNormalizer(eps=1e-6, use_running_stats=True, name="normalizer")
    selector = SoftChannelSelector(
        n_select=10, input_channels=61, init_method="variance", name="selector"
    )
    rx_node = RXGlobal(num_channels=10, eps=1e-6, name="rx_detector")
    logit_head = ScoreToLogit(init_scale=1.0, init_bias=0.0, name="logit_head")
    decider = BinaryDecider(threshold=0.5)
    bce_loss = AnomalyBCEWithLogits(name="bce", weight=10.0)
    metrics_node = AnomalyDetectionMetrics(name="metrics_anomaly")
    pipeline.connect(
        (data_node.cube, normalizer.data),
        (normalizer.normalized, selector.data),
        (selector.selected, rx_node.data),
        (rx_node.scores, logit_head.scores),
        (logit_head.logits, bce_loss.predictions),
        (data_node.mask, bce_loss.targets),
        (logit_head.logits, decider.logits),
        (decider.decisions, metrics_node.decisions),
        (data_node.mask, metrics_node.targets),
    )
    return pipeline


pipeline = build_pipeline()
selector, rx_node = pipeline.nodes["selector"], pipeline.nodes["rx_detector"]
logit_head, bce_loss = pipeline.nodes["logit_head"], pipeline.nodes["bce"]
metrics_node = pipeline.nodes["metrics_anomaly"]

datamodule = SingleCu3sDataModule(
    cu3s_file_path="data/Lentils/Lentils_000.cu3s",
    annotation_json_path="data/Lentils/Lentils_000.json",
    train_ids=[0, 2, 3],
    val_ids=[1],
    test_ids=[1, 5],
    batch_size=2,
)

# Phase 1
stat_trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
stat_trainer.fit()
assert pipeline.nodes["rx_detector"]._statistically_initialized

val_results = stat_trainer.validate()
print(f"Validation IoU: {val_results['metrics_anomaly/iou']:.3f}")
for metric in val_results["metrics"]:
    print(f"{metric.name}: {metric.value:.4f}")
statistical_results = stat_trainer.test()
initialization_state = {
    "rx_mean": pipeline.nodes["rx_detector"].mu.clone(),
    "rx_cov": pipeline.nodes["rx_detector"].sigma.clone(),
    "normalizer_min": pipeline.nodes["normalizer"].running_min.clone(),
    "normalizer_max": pipeline.nodes["normalizer"].running_max.clone(),
}

# Phase 2
unfreeze_nodes = [selector.name, rx_node.name, logit_head.name]
pipeline.unfreeze_nodes_by_name(unfreeze_nodes)
trainable_params = sum(p.numel() for p in pipeline.parameters() if p.requires_grad)
print(f"Trainable parameters: {trainable_params:,}")

training_config = TrainingConfig(
    seed=42,
    optimizer=OptimizerConfig(name="adamw", lr=0.001, weight_decay=1e-4),
    scheduler=SchedulerConfig(
        name="reduce_on_plateau",
        monitor="metrics_anomaly/iou",
        mode="max",
        factor=0.5,
        patience=5,
    ),
    trainer=TrainerConfig(max_epochs=20, accelerator="auto"),
)
grad_trainer = GradientTrainer(
    pipeline=pipeline,
    datamodule=datamodule,
    loss_nodes=[bce_loss],
    metric_nodes=[metrics_node],
    trainer_config=training_config.trainer,
    optimizer_config=training_config.optimizer,
    scheduler_config=training_config.scheduler,
)
grad_trainer.fit()
test_results = grad_trainer.test()
print(f"Test IoU: {test_results['metrics_anomaly/iou']:.3f}")

# Saving and loading
pipeline.save_to_file(
    "outputs/trained_pipeline.yaml",
    metadata=PipelineMetadata(
        name="Channel_Selector_v1",
        description="RX + learnable channel selection",
        tags=["two-phase", "gradient-trained", "production"],
    ),
)
torch.save(initialization_state, "outputs/initialization.pt")

loaded = CuvisPipeline.load_from_file(
    config_path="outputs/trained_pipeline.yaml",
    weights_path="outputs/trained_pipeline.pt",
    device="cpu",
)
test_data = next(iter(datamodule.test_dataloader()))
outputs = loaded.forward(batch=test_data)

init_state = torch.load("outputs/initialization.pt")
separate = build_pipeline()
separate.nodes["rx_detector"].mu = init_state["rx_mean"]
separate.nodes["rx_detector"].sigma = init_state["rx_cov"]
separate.nodes["rx_detector"]._statistically_initialized = True
