"""What is in TensorBoard's files, read by TensorBoard itself."""

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, labelled, scene
from PIL import Image

from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import (
    AnomalyMask,
    Artifact,
    Context,
    CubeRGBVisualizer,
    Metric,
    RXGlobal,
    ScoreStatisticsMetric,
    SoftChannelSelector,
    Stage,
    TensorBoardMonitorNode,
)
from hsi_batch.pipeline import Pipeline

VAL = Context(Stage.VAL, epoch=1, global_step=7)


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_nothing_is_made_before_something_is_written(tmp_path):
    node = TensorBoardMonitorNode(str(tmp_path / "runs"))
    node()
    node(metrics=[[]], artifacts=[])
    node.flush()
    node.close()
    assert node.log_dir is None
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    node = TensorBoardMonitorNode(str(tmp_path / "runs"))
    with pytest.raises(ConfigError, match=r"not installed\. Install it .*hsi-batch\[tensorboard\]"):
        node.log("a", 1.0, 0)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"run_name": "a/b"}, "run_name 'a/b' is not the name of one folder"),
        ({"run_name": ".."}, r"run_name '\.\.' is not the name"),
        ({"comment": "/x"}, "comment '/x' holds a slash"),
        ({"flush_secs": 0}, "flush_secs 0 must be at least 1"),
    ],
)
def test_wrong_arguments(given, text):
    with pytest.raises(PipelineError, match=text):
        TensorBoardMonitorNode(**given)


def test_what_is_written_is_read(tmp_path):
    node = TensorBoardMonitorNode(str(tmp_path), "run")
    picture = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    lists = [[Metric("iou", 0.25), Metric("f1", 0.5)], [Metric("scores/mean", -3.0)]]
    node(metrics=lists, artifacts=[[Artifact("a", picture)]], context=VAL)
    node(metrics=[Metric("iou", 0.75)], context=VAL)
    later = Context(Stage.VAL, epoch=1, batch_idx=2, global_step=7)
    node(artifacts=[Artifact("a", picture / np.float32(255))], context=later)
    node(artifacts=[Artifact("w", picture)], context=Context(Stage.TRAIN, batch_idx=4))
    # What plugins give needs only to look like ours.
    node(metrics=[SimpleNamespace(name="theirs", value=2)], context=VAL)
    node.log("train/loss", torch.tensor(1.5), step=3)
    assert node.log_dir == tmp_path / "run"
    node.close()
    found = events(tmp_path / "run")
    assert set(found.Tags()["scalars"]) == {
        "val/iou",
        "val/f1",
        "val/scores/mean",
        "val/theirs",
        "train/loss",
    }
    assert [(e.step, e.value) for e in found.Scalars("val/iou")] == [(7, 0.25), (7, 0.75)]
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(3, 1.5)]
    assert set(found.Tags()["images"]) == {"val/a", "val/a/batch2", "train/w"}
    for tag in ("val/a", "val/a/batch2"):
        (event,) = found.Images(tag)
        assert event.step == 7
        shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert np.array_equal(shown, picture)


def test_every_run_has_its_folder(tmp_path):
    (tmp_path / "run_07_old").mkdir()
    (tmp_path / "running").mkdir()

    def made(**given):
        node = TensorBoardMonitorNode(str(tmp_path), **given)
        node.log("a", 1.0, 0)
        node.close()
        return node.log_dir.name

    assert [made(), made(), made(comment="_x")] == ["run_08", "run_09", "run_10_x"]
    names = [made(run_name="rx"), made(run_name="rx"), made(run_name="rx"), made(run_name="r")]
    assert names == ["rx", "rx_v2", "rx_v3", "r"]
    node = TensorBoardMonitorNode(str(tmp_path), "again")
    for expected in ("again", "again_v2"):
        node.log("a", 1.0, 0)
        assert node.log_dir.name == expected
        node.close()


def test_the_log_is_whole_without_a_close(tmp_path):
    script = f"""
from hsi_batch.nodes import TensorBoardMonitorNode
kept, gone = (TensorBoardMonitorNode({str(tmp_path)!r}, name) for name in ("kept", "gone"))
for step in range(20):
    kept.log("loss", step / 2, step)
    gone.log("loss", step / 2, step)
del gone
raise SystemExit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    for run in ("kept", "gone"):
        found = events(tmp_path / run).Scalars("loss")
        assert [e.value for e in found] == [i / 2 for i in range(20)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((4, 4), np.uint8), r"artifact 'a' has shape \(4, 4\); expected \(y, x, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "has shape"),
        (np.full((4, 4, 3), 2.0), r"float64 from 2\.0 to 2\.0; expected uint8, or"),
        (np.full((4, 4, 3), np.nan), "float64 from nan to nan"),
        (np.zeros((4, 4, 3), int), "is int64 from 0 to 0"),
    ],
)
def test_pictures_that_are_none(tmp_path, value, text):
    node = TensorBoardMonitorNode(str(tmp_path))
    with pytest.raises(PipelineError, match=text):
        node(artifacts=[Artifact("a", value)])
    with pytest.raises(PipelineError, match="expected a Metric or an Artifact"):
        node(metrics=[0.5])
    node.close()


def test_in_the_graph_of_the_tutorial(tmp_path):
    cube = scene(channels=4)
    pipeline = chain(SoftChannelSelector(2, name="select"), RXGlobal(name="rx", eps=0.0))
    nodes = pipeline.nodes
    mask, rgb = AnomalyMask(1, name="mask"), CubeRGBVisualizer(name="rgb")
    scores = ScoreStatisticsMetric(name="scores")
    board = TensorBoardMonitorNode(str(tmp_path / "runs"), "rx", name="board")
    cubes = nodes["data"].outputs.cube
    pipeline.connect(
        (cubes, mask.cube),
        (nodes["rx"].scores, mask.scores),
        (cubes, rgb.cube),
        (nodes["select"].weights, rgb.weights),
        (nodes["rx"].scores, scores.scores),
        (mask.artifacts, board.artifacts),
        (rgb.artifacts, board.artifacts),
        (scores.metrics, board.metrics),
    )
    fit(pipeline, cube)
    saved = pipeline.save(tmp_path / "p.yaml")
    pipeline = Pipeline.from_yaml(saved)
    batch = {"cube": torch.from_numpy(cube.astype("f4"))[None]}
    pipeline.forward(batch)
    pipeline.forward(batch, stage="train")
    scored = pipeline.apply(labelled(cube), "scores").compute()
    assert scored.shape == cube.shape[:2]
    assert not (tmp_path / "runs").exists()
    pipeline.forward(batch, context=Context(Stage.TEST, global_step=5))
    board = pipeline.nodes["board"]
    board.close()
    found = events(tmp_path / "runs" / "rx")
    assert set(found.Tags()["images"]) == {"test/anomaly_mask_img00", "test/viz_rgb_sample_0"}
    values = pipeline.nodes["scores"].compute()
    assert {f"test/{name}" for name in values} == set(found.Tags()["scalars"])
    (event,) = found.Scalars("test/scores/mean")
    assert event.step == 5
    assert event.value == pytest.approx(values["scores/mean"])
