"""Trainings that are killed, whenever, and started again."""

import json
import random

import pytest
import torch
import yaml
from commands import cluster_file_fixture  # noqa: F401
from dying import run_each
from gradient_helpers import selection_pipeline, write_scenes

import hsi_batch as hb
from hsi_batch.pipeline import Pipeline

EPOCHS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory, client):
    here = tmp_path_factory.mktemp("killed")
    hb.convert([write_scenes(here / "in")], here / "a.zarr", client=client)
    selection_pipeline().save(here / "pipeline.yaml")
    checkpoint = {"monitor": "metrics_anomaly/average_precision", "mode": "max", "save_top_k": 2}
    content = {
        "name": "killed",
        "pipeline": "pipeline",
        "data": {
            "data_module": "archive",
            "params": {"archive": str(here / "a.zarr"), "train": ["s0", "s1"], "val": "s2"},
        },
        "training": {
            "seed": 5,
            "patch": [8, 8],
            "patches_per_frame": 2,
            "balance": 0.5,
            "optimizer": {"name": "adamw", "lr": 0.02},
            "scheduler": {"name": "plateau", "monitor": "train_loss", "patience": 0},
            "trainer": {
                "max_epochs": EPOCHS,
                "deterministic": True,
                "callbacks": {
                    "checkpoint": {**checkpoint, "save_last": True},
                    "early_stopping": [{"monitor": "val_loss", "patience": 40}],
                },
            },
        },
        "loss_nodes": ["bce", "entropy"],
        "unfreeze_nodes": ["selector", "rx", "logit"],
        "output_dir": "outputs",
    }
    (here / "run.yaml").write_text(yaml.safe_dump(content))
    return here


def same_end(one, other):
    """Equal to the bit: weights, schedule, history, kept states; and nothing is left behind."""
    (here, found), (expected_folder, expected) = one, other
    assert found["train"]["history"] == expected["train"]["history"]
    assert found["after"] == expected["after"]
    assert found["before"] == expected["before"]
    for told, folder in ((found, here), (expected, expected_folder)):
        told["train"]["best"]["path"] = told["train"]["best"]["path"].removeprefix(f"{folder}/")
    assert found["train"]["best"] == expected["train"]["best"]
    assert len(found["train"]["history"]) == EPOCHS
    one, two = (Pipeline.from_yaml(folder / "t.yaml") for folder in (here, expected_folder))
    for name, node in one.nodes.items():
        for key, value in node.state_dict().items():
            assert torch.equal(value, two.nodes[name].state_dict()[key]), (name, key)
    assert one.nodes["selector"].temperature == two.nodes["selector"].temperature
    assert names(here) == names(expected_folder)
    for name in names(here):
        if name.endswith(".ckpt"):
            same_states(torch.load(here / name), torch.load(expected_folder / name))


def same_states(one, two):
    nodes = [held["hsi_batch"]["nodes"] for held in (one, two)]
    for name, state in nodes[0].items():
        for key, value in state["tensors"].items():
            assert torch.equal(value, nodes[1][name]["tensors"][key])


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_killed_anywhere_it_ends_with_the_same_weights(place, cluster_file, tmp_path):
    # Each death is in another phase; how often the function was called by then is drawn.
    rng = random.Random(7)
    deaths = [
        ("fit", 1),
        ("step", rng.randint(2, 4)),
        ("write", rng.randint(3, 8)),
        ("val", rng.randint(1, 2)),
        ("rename", rng.randint(1, 4)),
        ("epoch", 1),
        ("save", 1),
    ]
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    whole.mkdir()
    hurt.mkdir()
    lives = [(whole, None, 0), *((hurt, *death) for death in deaths), (hurt, None, 0)]
    command = ["train", place / "run.yaml", "--out", "t.yaml", "--cluster", cluster_file, "--json"]
    told = run_each(command, lives, timeout=280)
    ends = [(point, dead, err) for (_, point, _), (dead, _, err) in zip(lives, told, strict=True)]
    assert all(dead == (point is not None) for point, dead, _ in ends), ends
    expected, found = (json.loads(told[i][1]) for i in (0, -1))
    assert expected["train"]["resumed"] == 0
    assert found["train"]["resumed"] == EPOCHS
    same_end((hurt, found), (whole, expected))
