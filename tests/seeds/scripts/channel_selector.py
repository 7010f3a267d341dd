"""The tutorial on channel selection, from the data to the trainrun it saves."""

from pathlib import Path

from omegaconf import OmegaConf

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import (
    AnomalyBCEWithLogits,
    AnomalyDetectionMetrics,
    AnomalyMask,
    BinaryDecider,
    CubeRGBVisualizer,
    LentilsAnomalyDataNode,
    MinMaxNormalizer,
    RXGlobal,
    ScoreToLogit,
    SelectorDiversityRegularizer,
    SelectorEntropyRegularizer,
    SoftChannelSelector,
    TensorBoardMonitorNode,
)
from hsi_batch.pipeline import CuvisPipeline
from hsi_batch.training import (
    CallbacksConfig,
    EarlyStoppingConfig,
    GradientTrainer,
    ModelCheckpointConfig,
    PipelineMetadata,
    SchedulerConfig,
    StatisticalTrainer,
    TrainingConfig,
    TrainRunConfig,
)

output_dir = Path("outputs/selection")
output_dir.mkdir(parents=True, exist_ok=True)
cfg = OmegaConf.create(
    {
        "data": {
            "data_dir": "data/initialization",
            "annotation_json_path": "data/initialization/annotations.json",
            "batch_size": 4,
            "num_workers": 0,
        },
        "training": {"seed": 42, "trainer": {"max_epochs": 6}, "optimizer": {"lr": 0.001}},
    }
)
datamodule = SingleCu3sDataModule(**cfg.data)
datamodule.setup(stage="fit")

pipeline = CuvisPipeline("Channel_Selector")
data_node = LentilsAnomalyDataNode(normal_class_ids=[0])
normalizer = MinMaxNormalizer(eps=1.0e-6, use_running_stats=True)
selector = SoftChannelSelector(
    n_select=3,
    input_channels=61,
    init_method="variance",
    temperature_init=5.0,
    temperature_min=0.1,
    temperature_decay=0.9,
    hard=False,
    eps=1.0e-6,
)
rx = RXGlobal(num_channels=15, eps=1.0e-6)
logit_head = ScoreToLogit(init_scale=1.0, init_bias=0.0)
decider = BinaryDecider(threshold=0.5)
bce_loss = AnomalyBCEWithLogits(name="bce", weight=10.0, pos_weight=None)
entropy_loss = SelectorEntropyRegularizer(name="entropy", weight=0.1, target_entropy=None)
diversity_loss = SelectorDiversityRegularizer(name="diversity", weight=0.01)
metrics_anomaly = AnomalyDetectionMetrics(name="metrics_anomaly")
viz_mask = AnomalyMask(name="mask", channel=30, up_to=5)
viz_rgb = CubeRGBVisualizer(name="rgb", up_to=5)
tensorboard_node = TensorBoardMonitorNode(
    output_dir=str(output_dir / ".." / "tensorboard"), run_name=pipeline.name
)

pipeline.connect(
    (data_node.outputs.cube, normalizer.data),
    (normalizer.normalized, selector.data),
    (selector.selected, rx.data),
    (rx.scores, logit_head.scores),
    (logit_head.logits, bce_loss.predictions),
    (data_node.outputs.mask, bce_loss.targets),
    (selector.weights, entropy_loss.weights),
    (selector.weights, diversity_loss.weights),
    (logit_head.logits, decider.logits),
    (decider.decisions, metrics_anomaly.decisions),
    (data_node.outputs.mask, metrics_anomaly.targets),
    (metrics_anomaly.metrics, tensorboard_node.metrics),
    (decider.decisions, viz_mask.decisions),
    (data_node.outputs.mask, viz_mask.mask),
    (data_node.outputs.cube, viz_mask.cube),
    (data_node.outputs.cube, viz_rgb.cube),
    (selector.weights, viz_rgb.weights),
    (data_node.outputs.wavelengths, viz_rgb.wavelengths),
    (viz_mask.artifacts, tensorboard_node.artifacts),
    (viz_rgb.artifacts, tensorboard_node.artifacts),
)

training_cfg = TrainingConfig.from_dict(OmegaConf.to_container(cfg.training, resolve=True))
if training_cfg.trainer.callbacks is None:
    training_cfg.trainer.callbacks = CallbacksConfig()
training_cfg.trainer.callbacks.early_stopping.append(
    EarlyStoppingConfig(monitor="train/bce", mode="min", patience=20)
)
training_cfg.scheduler = SchedulerConfig(
    name="reduce_on_plateau", monitor="metrics_anomaly/iou", mode="max", factor=0.5, patience=5
)
training_cfg.trainer.callbacks.checkpoint = ModelCheckpointConfig(
    dirpath=str(output_dir / "checkpoints"),
    monitor="metrics_anomaly/iou",
    mode="max",
    save_top_k=3,
    save_last=True,
    filename="{epoch:02d}",
    verbose=True,
)

stat_trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
stat_trainer.fit()
unfreeze_node_names = [selector.name, rx.name, logit_head.name]
pipeline.unfreeze_nodes_by_name(unfreeze_node_names)

grad_trainer = GradientTrainer(
    pipeline=pipeline,
    datamodule=datamodule,
    loss_nodes=[bce_loss, entropy_loss, diversity_loss],
    metric_nodes=[metrics_anomaly],
    trainer_config=training_cfg.trainer,
    optimizer_config=training_cfg.optimizer,
    scheduler_config=training_cfg.scheduler,
    monitors=[tensorboard_node],
)
result = grad_trainer.fit()
val_results = grad_trainer.validate()
test_results = grad_trainer.test()

selector_weights = selector.get_selection_weights()
print(f"Selector weights shape: {selector_weights.shape}")
print(f"Top 3 channels: {selector_weights.topk(3).indices}")

results_dir = Path("outputs/trained_models")
pipeline.save_to_file(
    str(results_dir / "Channel_Selector.yaml"),
    metadata=PipelineMetadata(
        name=pipeline.name,
        description="Channel Selector with two-phase training",
        tags=["gradient", "statistical", "channel_selector", "rx"],
        author="cuvis.ai",
    ),
)
trainrun_config = TrainRunConfig(
    name="channel_selector",
    pipeline=pipeline.serialize(),
    data=OmegaConf.to_container(cfg.data),
    training=training_cfg,
    output_dir="outputs",
    loss_nodes=["bce"],
    metric_nodes=["metrics_anomaly"],
    freeze_nodes=[],
    unfreeze_nodes=unfreeze_node_names,
)
trainrun_config.save_to_file("outputs/trained_models/channel_selector_trainrun.yaml")
