"""The shipped workflows that train, on recordings with labels."""

import shutil

import pytest
import yaml
from commands import files_below, hsi_fixture  # noqa: F401
from gradient_helpers import write_scenes

from hsi_batch.workflow import shipped

SPLIT = {"train": ["s0", "s1"], "val": "s2", "test": "s3"}


def short(tmp_path, monkeypatch, name):
    """A shipped workflow with its trainrun, for three epochs on four scenes."""
    monkeypatch.delenv("RECORDINGS", raising=False)
    monkeypatch.delenv("RESULTS", raising=False)
    write_scenes(tmp_path / "recordings")
    shutil.copytree(shipped() / "trainruns", tmp_path / "trainruns")
    shutil.copy(shipped() / f"{name}.yaml", tmp_path)
    trainrun = tmp_path / "trainruns" / f"{name}.yaml"
    content = yaml.safe_load(trainrun.read_text())
    content["data"]["params"] |= SPLIT
    content["training"]["trainer"]["max_epochs"] = 3
    trainrun.write_text(yaml.safe_dump(content))
    return tmp_path / f"{name}.yaml", trainrun


def test_a_dry_run_plans_the_training(hsi, tmp_path, monkeypatch):
    workflow, _ = short(tmp_path, monkeypatch, "channel_mixer")
    before = files_below(tmp_path)
    done = hsi("run", workflow, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert (
        "train: trains mixer, logit in this process; at most 3 epochs\n  4 recordings" in done.out
    )
    plans = hsi("run", workflow, "--dry-run", "--json").json
    assert (plans["train"]["epochs"], plans["train"]["frames"]) == (3, None)
    assert files_below(tmp_path) == before
    assert hsi("convert", tmp_path / "recordings", "--archive", tmp_path / "archive.zarr").code == 0
    before = files_below(tmp_path)
    done = hsi("run", workflow, "--dry-run")
    assert done.code == 0, done.err
    assert "trains mixer, logit in this process; frames: train 2, val 1, test 1" in done.out
    assert "3 epochs, 2 batches in each; an epoch reads at most" in done.out
    plans = hsi("run", workflow, "--dry-run", "--json").json
    assert (plans["train"]["batches"], plans["train"]["fit"]["frames"]) == (2, 2)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("name", ["channel_selector", "deep_svdd", "channel_mixer"])
def test_shipped_workflows_train(hsi, tmp_path, monkeypatch, name):
    workflow, trainrun = short(tmp_path, monkeypatch, name)
    done = hsi("run", workflow, "--json")
    assert done.code == 0, done.err
    found = done.json["train"]
    assert found["train"]["epochs"] == 3
    assert set(found["after"]) == {"val", "test"}
    assert "metrics_anomaly/average_precision" in found["after"]["val"]
    text = (tmp_path / f"report_{name}.html").read_text()
    assert "Training: as fitted, as trained" in text
    assert "<h3>test (1 frame)</h3>" in text
    assert ("Channels of selector" in text) == (name == "channel_selector")
    assert hsi("check", workflow, trainrun).code == 0
    again = hsi("run", workflow)
    assert "up to date" in again.out
