"""``train`` and the trainruns that ask for gradients."""

import sys

import pytest
import torch
import yaml
from commands import hsi_fixture  # noqa: F401
from gradient_helpers import selection_pipeline, write_scenes

import hsi_batch as hb
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import TrainRunConfig

SECTION = {
    "seed": 3,
    "optimizer": {"name": "adamw", "lr": 0.01},
    "scheduler": {"name": "step", "step_size": 2, "gamma": 0.5},
}
LOOP = {"max_epochs": 3, "callbacks": {"checkpoint": {"monitor": "val_loss", "save_last": True}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory, client):
    here = tmp_path_factory.mktemp("train")
    hb.convert([write_scenes(here / "in")], here / "a.zarr", client=client)
    selection_pipeline().save(here / "pipeline.yaml")
    return here


def trainrun(place, name, training, **options):
    content = {
        "name": name,
        "pipeline": "pipeline",
        "data": {
            "data_module": "archive",
            "params": {"archive": str(place / "a.zarr"), "train": ["s0", "s1"], "val": "s2"},
        },
        "training": training,
        "loss_nodes": ["bce", "entropy"],
        "metric_nodes": ["metrics_anomaly"],
        "unfreeze_nodes": ["selector", "logit"],
        "output_dir": "outputs",
    } | options
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def there(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_both_forms_train_the_same(hsi, place, there):
    nested = trainrun(place, "nested", {**SECTION, "trainer": LOOP})
    flat = trainrun(place, "flat", {**SECTION, **LOOP})
    first = hsi("train", nested, "--out", "n.yaml", "--json")
    assert (first.code, first.err) == (0, "")
    found = first.json
    assert found["train"]["epochs"] == 3
    assert found["before"]["val"].keys() == found["after"]["val"].keys()
    assert {p.name for p in there.iterdir()} == {"outputs", "n.yaml", "n.pt"}
    kept = {p.name for p in (there / "outputs" / "checkpoints").iterdir()}
    assert "last.ckpt" in kept
    assert not [name for name in kept if name.startswith("resume")]
    again = hsi("train", nested, "--out", "n.yaml")
    assert again.out == "nested: up to date, n.yaml\n"
    done = hsi("restore-trainrun", "--trainrun-path", flat, "--mode", "train", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")
    one = Pipeline.from_yaml("n.yaml")
    two = Pipeline.from_yaml("outputs/trained_models/selection_restored.yaml")
    for name, node in one.nodes.items():
        for key, value in node.state_dict().items():
            assert torch.equal(value, two.nodes[name].state_dict()[key])
    assert one.nodes["selector"].temperature == two.nodes["selector"].temperature
    values = hsi("restore-trainrun", "--trainrun-path", flat, "--mode", "validate", "--json").json
    assert values["val"].items() <= found["after"]["val"].items()
    checkpoint = "outputs/checkpoints/last.ckpt"
    arguments = ["--mode", "validate", "--checkpoint-path", checkpoint, "--json"]
    values = hsi("restore-trainrun", "--trainrun-path", flat, *arguments).json
    assert values["val"]["val_loss"] == pytest.approx(found["train"]["history"][-1]["val_loss"])


def test_progress_is_told_in_lines(hsi, place, there):
    path = trainrun(place, "told", {**SECTION, "trainer": {"max_epochs": 2}})
    done = hsi("train", path, "--archive", place / "a.zarr", "--out", "t.yaml")
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if line.startswith("train: ")]
    assert lines[0].startswith("train: 1/4 batches, epoch 1/2, loss ")
    assert lines[-1].startswith("train: 4/4 batches, epoch 2/2, loss ")
    assert "fitted -> trained:" in done.out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"section": None}, "no section `training`"),
        ({"unfreeze_nodes": []}, "unfreeze_nodes names no node"),
        (
            {"unfreeze_nodes": ["selectr"]},
            "unfreeze_nodes: the pipeline has no node 'selectr'. Did",
        ),
        ({"unfreeze_nodes": ["logit"], "freeze_nodes": ["logit"]}, "unfreeze_nodes names no node"),
    ],
)
def test_what_is_wrong_is_said_before_the_fit(hsi, place, there, options, text):
    section = options.pop("section", {**SECTION, "trainer": LOOP})
    path = trainrun(place, "wrong", section, **options)
    done = hsi("train", path)
    assert done.code == 2
    assert text in done.err
    assert not list(there.iterdir())


def test_trainruns_that_are_composed_of_others(place, monkeypatch, tmp_path):
    root = tmp_path / "configs"
    whole = yaml.safe_load(trainrun(place, "whole", {**SECTION, "trainer": LOOP}).read_text())
    for group, key in (("data", "data"), ("training", "training")):
        (root / group).mkdir(parents=True)
        (root / group / "mine.yaml").write_text(yaml.safe_dump(whole.pop(key)))
    whole["pipeline"] = str(place / "pipeline.yaml")
    defaults = ["/data@data: mine", "/training@training: mine", "_self_"]
    text = "# @package _global_\ndefaults:\n" + "".join(f"  - {line}\n" for line in defaults)
    (root / "trainrun").mkdir()
    path = root / "trainrun" / "composed.yaml"
    path.write_text(text + yaml.safe_dump(whole))
    from hsi_batch.training.trainrun import read_trainrun

    found, _ = read_trainrun(path, ["training.seed=9"])
    assert isinstance(found, TrainRunConfig)
    assert (found.training.seed, found.training.trainer.max_epochs) == (9, 3)
    assert found.data.params["val"] == "s2"
    path.write_text(text.replace("mine", "yours") + yaml.safe_dump(whole))
    with pytest.raises(hb_error(), match="cannot be composed"):
        read_trainrun(path)
    monkeypatch.setitem(__import__("sys").modules, "hydra", None)
    with pytest.raises(hb_error(), match=r"needs Hydra[\s\S]*hsi-batch\[hydra\]"):
        read_trainrun(path)


def hb_error():
    from hsi_batch.errors import ConfigError

    return ConfigError


def test_a_plan_says_what_would_be_done_and_does_nothing(hsi, place, there):
    path = trainrun(place, "planned", {**SECTION, "trainer": LOOP})
    before = sorted(place.rglob("*"))
    found = hsi("train", path, "--dry-run", "--json").json
    assert found["nodes"] == ["selector", "logit"]
    assert found["frames"] == {"train": 2, "val": 1}
    assert (found["epochs"], found["batches"], found["resumed"]) == (3, 2, 0)
    assert (found["epoch_bytes"], found["val_bytes"]) == (2 * 14 * 12 * 6 * 2, 14 * 12 * 6 * 2)
    assert found["fit"]["frames"] == 2
    assert not found["up_to_date"]
    said = hsi("train", path, "--dry-run", "--set", "training.patch=[4,4]")
    assert "3 epochs, 2 batches in each; an epoch reads at most" in said.out
    assert hsi("train", path, "--dry-run", "-q").out == ""
    assert sorted(place.rglob("*")) == before
    assert not list(there.iterdir())
    assert hsi("train", path, "-q", "--out", "p.yaml").code == 0
    assert hsi("train", path, "--out", "p.yaml", "--dry-run", "--json").json["up_to_date"]
    forced = hsi("train", path, "--out", "p.yaml", "--dry-run", "--force", "--json").json
    assert not forced["up_to_date"]
    again = hsi("train", path, "--out", "p.yaml", "--force", "--json").json
    assert (again["train"]["epochs"], again["train"]["resumed"]) == (3, 0)
    nowhere = hsi("train", path, "--set", "resources.GPU=1")
    assert nowhere.code == 2
    assert "no worker of the cluster offers the resources of the training (GPU: 1)" in nowhere.err


def test_deciders_are_calibrated_if_that_is_asked_for(hsi, place, there):
    hb.convert([place / "in"], there / "b.zarr", annotations="sibling")
    data = {
        "data_module": "archive",
        "params": {"archive": str(there / "b.zarr"), "train": ["s0", "s1"], "val": "s2"},
    }
    section = {**SECTION, "trainer": {"max_epochs": 1}}
    path = trainrun(place, "cut", section, data=data, calibrate=True)
    done = hsi("train", path, "--out", "c.yaml")
    assert done.code == 0, done.err
    # As fitted too, or what calibration is worth would pass for what training is worth.
    assert "calibrated decider on val, as fitted: threshold 0.5 -> " in done.out
    assert "calibrated decider on val, as trained: " in done.out
    assert Pipeline.from_yaml("c.yaml").nodes["decider"].threshold != 0.5
    del data["params"]["val"]
    path = trainrun(place, "blind", section, data=data, calibrate=True)
    assert "calibrate: no frames are named for val" in hsi("train", path).err


def test_a_statistical_trainrun_says_that_it_calibrated_and_is_tagged(hsi, place, there):
    path = trainrun(place, "statistical", None, calibrate=True, tags={"by": "me"})
    words = ("restore-trainrun", "--mode", "train", "--trainrun-path", path)
    done = hsi(*words)
    assert done.code == 0, done.err
    assert "  calibrated decider on val: threshold 0.5 -> " in done.out
    fitted = Pipeline.from_yaml("outputs/trained_models/selection_restored.yaml")
    (cut,) = hsi(*words, "--json").json["calibrated"]
    assert fitted.nodes["decider"].threshold == cut["after"]["threshold"] != 0.5
    assert "by: me" in fitted.metadata.tags


def test_tags_are_in_the_pipeline_and_change_without_another_training(hsi, place, there):
    section = {**SECTION, "trainer": {"max_epochs": 1}}
    path = trainrun(place, "tagged", section, tags={"by": "me", "take": "1"})
    assert hsi("train", path, "--out", "t.yaml", "-q").code == 0
    first = Pipeline.from_yaml("t.yaml")
    assert {"by: me", "take: 1"} <= set(first.metadata.tags)
    assert first.provenance["training"]["tags"] == {"by": "me", "take": "1"}
    assert any(tag.startswith("fitted-on: ") for tag in first.metadata.tags)
    again = hsi("train", path, "--out", "t.yaml", "--set", "tags={take: two}")
    assert "up to date" in again.out
    tags = Pipeline.from_yaml("t.yaml").metadata.tags
    assert "take: two" in tags
    assert not {"by: me", "take: 1"} & set(tags)


def test_a_plan_converts_nothing_and_says_what_it_cannot_know(hsi, place, there, monkeypatch):
    monkeypatch.setenv("HSI_BATCH_CACHE", str(there / "cache"))
    data = {
        "data_module": "cu3s",
        "params": {"cu3s_file_path": str(place / "in" / "s0.npz")},
    }
    path = trainrun(place, "unconverted", {**SECTION, "trainer": LOOP}, data=data)
    done = hsi("train", path, "--dry-run")
    assert (done.code, done.err) == (0, "")
    first = "1 recording, 1 block of 2.0 kB"
    unknown = "until then frames, batches, bytes and memory are not known"
    assert done.out.splitlines() == [
        "trains selector, logit in this process; at most 3 epochs",
        f"  {first} are converted first; {unknown}",
    ]
    found = hsi("train", path, "--dry-run", "--json").json
    assert (found["epochs"], found["recordings"], found["batches"]) == (3, 1, None)
    assert not list(there.iterdir())


@pytest.mark.parametrize(
    "words", [("train",), ("restore-trainrun", "--mode", "train", "--trainrun-path")]
)
def test_a_missing_library_is_named_before_the_fit(hsi, place, there, monkeypatch, words):
    path = trainrun(place, "bare", {**SECTION, "trainer": LOOP})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    done = hsi(*words, path)
    assert done.code == 2
    assert "pip install 'hsi-batch[train]'" in done.err
    assert "pass" not in done.err
    assert not list(there.rglob("*.pt"))
