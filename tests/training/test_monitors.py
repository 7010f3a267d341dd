"""What monitors and schedules are told while a pipeline trains."""

import numpy as np
import pytest
from gradient_helpers import loaded, trainer

from hsi_batch.nodes import AnomalyDataNode
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import (
    CallbacksConfig,
    EarlyStoppingConfig,
    LearningRateMonitorConfig,
    SchedulerConfig,
)


def test_schedules_monitors_and_stopping(fitted, archive):
    class Log:
        def __init__(self):
            self.values = {}

        def log(self, name, value, step):
            self.values.setdefault(name, []).append((step, value))

    log = Log()
    stopping = EarlyStoppingConfig(monitor="val/metrics_anomaly/recall", mode="max", patience=1)
    settings = CallbacksConfig(
        early_stopping=[stopping],
        lr_monitor=LearningRateMonitorConfig(
            logging_interval="epoch", log_momentum=True, log_weight_decay=True
        ),
    )
    schedule = SchedulerConfig(name="cosine", warmup_epochs=1, t_max=4, min_lr=0.0)
    run = trainer(
        loaded(fitted, "logit"),
        archive,
        epochs=9,
        config={"callbacks": settings, "gradient_clip_val": 1e-9, "accumulate_grad_batches": 2},
        scheduler_config=schedule,
        monitors=[log],
    )
    result = run.fit()
    assert result.stopped
    assert result.epochs < 9
    assert result.steps == result.epochs
    rates = [value for _, value in log.values["lr-AdamW"]]
    cosine = [0.01 * (1 + np.cos(np.pi * n / 4)) / 2 for n in range(8)]
    np.testing.assert_allclose(rates, [0.005, *cosine][: len(rates)], rtol=1e-12)
    assert {v for _, v in log.values["lr-AdamW-momentum"]} == {0.9}
    assert {v for _, v in log.values["lr-AdamW-weight_decay"]} == {0.0}
    assert [v for _, v in log.values["train/bce"]] == [h["train/bce"] for h in result.history]


def test_tensorboard_has_values_weights_masks_and_score_maps(fitted, archive, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from hsi_batch.nodes import AnomalyMask, ScoreHeatmapVisualizer, TensorBoardMonitorNode

    pipeline = loaded(fitted, "selector", "logit")
    nodes = pipeline.nodes
    mask, heat = AnomalyMask(1, name="mask"), ScoreHeatmapVisualizer(name="heat")
    board = TensorBoardMonitorNode(str(tmp_path / "runs"), "run", name="board")
    data_node = next(node for node in nodes.values() if node.is_source)
    pipeline.connect(
        (data_node.outputs.cube, mask.cube),
        (data_node.outputs.mask, mask.mask),
        (nodes["decider"].decisions, mask.decisions),
        (nodes["rx"].scores, heat.scores),
        (mask.artifacts, board.artifacts),
        (heat.artifacts, board.artifacts),
    )
    start = nodes["selector"].get_selection_weights().detach().numpy()
    result = trainer(pipeline, archive, epochs=3).fit()
    nodes["board"].close()
    found = EventAccumulator(str(tmp_path / "runs" / "run"), size_guidance={"images": 0})
    found.Reload()
    channels = [f"selector/weights/{nm}nm" for nm in range(400, 460, 10)]
    assert {t for t in found.Tags()["scalars"] if t.startswith("selector/")} == set(channels)
    assert {"train/bce", "val/bce", "metrics_anomaly/iou"} <= set(found.Tags()["scalars"])
    over_time = np.array([[e.value for e in found.Scalars(tag)] for tag in channels]).T
    # Before the training, and at the end of each epoch; two batches an epoch.
    assert [e.step for e in found.Scalars(channels[0])] == [0, 2, 4, 6]
    np.testing.assert_allclose(over_time[0], start, rtol=1e-6)
    now = nodes["selector"].get_selection_weights().detach().numpy()
    np.testing.assert_allclose(over_time[-1], now, rtol=1e-6)
    np.testing.assert_allclose(over_time.sum(axis=1), 3, rtol=1e-5)
    assert not np.allclose(over_time[1], over_time[0])
    for wanted in ("mask", "heat"):
        tags = [t for t in found.Tags()["images"] if wanted in t]
        assert tags, found.Tags()["images"]
        steps = sorted({e.step for tag in tags for e in found.Images(tag)})
        assert len(steps) == result.epochs
    # What is told is no value of the epoch: nothing can monitor it.
    assert not [name for name in result.history[0] if "weights" in name]


def test_weights_of_several_outputs_have_names():
    from hsi_batch.nodes import ConcreteChannelMixer
    from hsi_batch.training.channel_weights import channel_weights

    pipeline = Pipeline("mixer")
    mixer = ConcreteChannelMixer(3, 2, name="mixer")
    pipeline.connect((AnomalyDataNode(name="data").cube, mixer.data))
    assert channel_weights(pipeline) == {}
    pipeline.unfreeze_nodes_by_name(["mixer"])
    found = channel_weights(pipeline)
    names = {f"mixer/weights/{k}/channel_00{c}" for k in range(2) for c in range(3)}
    assert set(found) == names
    assert found["mixer/weights/1/channel_002"] == pytest.approx(1 / 3)
