"""Training from archives that lie elsewhere."""

from __future__ import annotations

import pytest
import torch
import yaml
from gradient_helpers import selection_pipeline, write_scenes
from object_storage import SECRET, TOKEN, files_of

import hsi_batch as hb


@pytest.fixture
def trainrun(tmp_path, monkeypatch):
    """Two epochs of a selection of channels on four scenes."""
    monkeypatch.chdir(tmp_path)
    selection_pipeline().save(tmp_path / "pipeline.yaml")
    content = {
        "name": "run",
        "pipeline": "pipeline",
        "data": {
            "data_module": "archive",
            "params": {"archive": "elsewhere.zarr", "train": ["s0", "s1"], "val": "s2"},
        },
        "training": {
            "seed": 3,
            "trainer": {"max_epochs": 2, "callbacks": {"checkpoint": {"monitor": "val_loss"}}},
            "optimizer": {"name": "adamw", "lr": 0.01},
        },
        "loss_nodes": ["bce", "entropy"],
        "metric_nodes": ["metrics_anomaly"],
        "unfreeze_nodes": ["selector", "logit"],
        "output_dir": "outputs",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "run.yaml"


def test_the_weights_are_those_of_a_disk(hsi, workers, s3, tmp_path, trainrun):
    write_scenes(tmp_path / "in")
    archives = {
        "local": tmp_path / "a.zarr",
        "objects": f"{s3}/a.zarr",
        "versions": f"icechunk+{s3}/b",
    }
    trained = {}
    for name, archive in archives.items():
        hb.convert([tmp_path / "in"], archive, client=workers)
        target = tmp_path / f"{name}.yaml"
        done = hsi("train", trainrun, "--archive", archive, "--out", target, "--json")
        assert done.code == 0, done.err
        assert done.json["train"]["epochs"] == 2
        again = hsi("train", trainrun, "--archive", archive, "--out", target)
        assert "up to date" in again.out
        trained[name] = hb.Pipeline.from_yaml(target)
    for other in ("objects", "versions"):
        for name, node in trained["local"].nodes.items():
            for key, value in node.state_dict().items():
                assert torch.equal(value, trained[other].nodes[name].state_dict()[key])
    scored = hb.score(
        tmp_path / "objects.yaml", archives["objects"], f"{s3}/s.zarr", client=workers
    )
    assert scored.failed == 0
    kept = b"".join([*files_of(tmp_path).values(), *files_of(s3).values()])
    assert SECRET.encode() not in kept
    assert TOKEN.encode() not in kept
