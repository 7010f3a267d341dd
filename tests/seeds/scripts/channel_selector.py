"""The tutorial on channel selection: its statistical phase, and the trainrun it saves."""

from pathlib import Path

from hsi_batch.data import SingleCu3sDataModule
from hsi_batch.nodes import (
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
    PipelineMetadata,
    StatisticalTrainer,
    TrainingConfig,
    TrainRunConfig,
)

data = {"data_dir": "data/initialization", "batch_size": 4, "num_workers": 0}
datamodule = SingleCu3sDataModule(**data)
datamodule.setup(stage="fit")

pipeline = CuvisPipeline("Channel_Selector")
data_node = LentilsAnomalyDataNode(normal_class_ids=[0, 1])
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
metrics_anomaly = AnomalyDetectionMetrics(name="metrics_anomaly")

pipeline.connect(
    (data_node.outputs.cube, normalizer.data),
    (normalizer.normalized, selector.data),
    (selector.selected, rx.data),
    (rx.scores, logit_head.scores),
    (logit_head.logits, decider.logits),
    (decider.decisions, metrics_anomaly.decisions),
    (data_node.outputs.mask, metrics_anomaly.targets),
)

stat_trainer = StatisticalTrainer(pipeline=pipeline, datamodule=datamodule)
stat_trainer.fit()

unfreeze_node_names = [selector.name, rx.name, logit_head.name]
pipeline.unfreeze_nodes_by_name(unfreeze_node_names)

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
    data=data,
    training=TrainingConfig(),
    output_dir="outputs",
    loss_nodes=[],
    metric_nodes=["metrics_anomaly"],
    freeze_nodes=[],
    unfreeze_nodes=unfreeze_node_names,
)
trainrun_config.save_to_file("outputs/trained_models/channel_selector_trainrun.yaml")
