"""Three epochs of the shipped channel selection, trained here and there on the same frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import peer
import pytest
import pytorch_lightning as pl
import torch
import yaml
from cases import NM

import hsi_batch as hb
from hsi_batch.data import ArchiveDataModule
from hsi_batch.training import (
    GradientTrainer,
    OptimizerConfig,
    SchedulerConfig,
    StatisticalTrainer,
    TrainerConfig,
    TrainRunConfig,
)
from hsi_batch.training.trainrun import build_pipeline
from hsi_batch.workflow import shipped

TRAINRUN = shipped() / "trainruns" / "channel_selector.yaml"
EPOCHS = 3
SCHEDULE = {"name": "cosine", "warmup_epochs": 1}
SEED = 42
SPLIT = {"train": ["f0", "f1", "f2", "f3"], "val": ["f4", "f5"]}
#: What is set so that both mean the same. Here temperatures fall, `spread` lowers the variance of
#: the weights, `loading` is a ridge in units of the data, and no direction of RX is cut off.
SAME = {
    "selector": {"temperature_decay": 1.0},
    "diversity": {"mode": "concentrate"},
    "rx": {"eps": 0.0, "inverse": "pinv32"},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Six frames, each a session; labels as 0 and 1."""
    here = tmp_path_factory.mktemp("parity")
    cube, mask = peer.scene(frames=6, height=40, width=30)
    for i in range(6):
        labels = (mask[i] == 1).astype(np.uint8)
        np.savez(here / f"f{i}.npz", cube=cube[i], mask=labels, wavelengths=NM * 1.0)
    hb.convert([here], here / "a.zarr", workers=1)
    return here / "a.zarr"


def settings():
    """The shipped trainrun, and its pipeline with what makes both mean the same."""
    content = yaml.safe_load(TRAINRUN.read_text())
    for node in content["pipeline"]["nodes"]:
        if node["name"] == "rx":
            node["hparams"] = {}
        node.setdefault("hparams", {}).update(SAME.get(node["name"], {}))
    config = TrainRunConfig.from_dict(content)
    return config, build_pipeline(config, TRAINRUN)


class Steps:
    """The loss of every step, as monitors of both libraries are told it."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def log(self, name: str, value: Any, step: int) -> None:  # noqa: ARG002
        """Keep losses of train."""
        if name in ("train/loss", "train/loss_step"):
            self.values.append(float(value))


class Epochs:
    """The frames of each epoch, as one loader; of the only one, in every epoch."""

    def __init__(self, module: pl.LightningDataModule, epochs: list[list[dict[str, Any]]]) -> None:
        self.module, self.epochs = module, epochs

    def __len__(self) -> int:
        return len(self.epochs[0])

    def __iter__(self) -> Any:
        last = len(self.epochs) - 1
        return iter(self.epochs[min(self.module.trainer.current_epoch, last)])


class Frames(pl.LightningDataModule):
    """Frames for them, in the order in which our trainer took them."""

    def __init__(self, train: list[list[dict[str, Any]]], val: list[dict[str, Any]]) -> None:
        super().__init__()
        self.train, self.val = Epochs(self, train), Epochs(self, [val])

    def train_dataloader(self) -> Epochs:
        """Another order in each epoch."""
        return self.train

    def val_dataloader(self) -> Epochs:
        """In order."""
        return self.val


def for_them(batch: dict[str, Any]) -> dict[str, Any]:
    """One of our batches with the keys and types of theirs."""
    return {
        "cube": batch["cube"].float(),
        "mask": batch["mask"].to(torch.int32),
        "wavelengths": batch["wavelengths"],
    }


class History(pl.Callback):
    """Their values of val at the end of each epoch."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """Of all val frames."""
        if not trainer.sanity_checking:
            found = trainer.callback_metrics
            self.values.append({name: float(value) for name, value in found.items()})


def train_here(pipeline, archive, config, unfrozen, epochs=EPOCHS):
    """Our trainer, and the frames it takes."""
    pipeline.unfreeze_nodes_by_name(unfrozen)
    training, steps = config.training, Steps()
    trainer = GradientTrainer(
        pipeline,
        ArchiveDataModule(archive, **SPLIT),
        config.loss_nodes,
        config.metric_nodes,
        TrainerConfig(
            max_epochs=epochs,
            gradient_clip_val=training.trainer.gradient_clip_val,
            log_every_n_steps=1,
        ),
        OptimizerConfig(**training.optimizer.to_dict()),
        SchedulerConfig(**SCHEDULE),
        monitors=[steps],
        seed=SEED,
    )
    batches = trainer.train_batches()
    train = []
    for epoch in range(epochs):
        batches.epoch = epoch
        train.append([for_them(batch) for batch in batches])
    val = [for_them(batch) for batch in trainer.val_batches()]
    return trainer.fit(), steps.values, Frames(train, val)


def train_there(theirs, frames, config, unfrozen, folder, epochs=EPOCHS):
    """Their trainer, on the same frames."""
    from cuvis_ai_core.training import GradientTrainer as Theirs
    from cuvis_ai_core.training.config import TrainingConfig

    there = peer.nodes_there(theirs)
    theirs.unfreeze_nodes_by_name(unfrozen)
    training, steps, history = config.training, Steps(), History()
    trainer = Theirs(
        theirs,
        frames,
        loss_nodes=[there[name] for name in config.loss_nodes],
        metric_nodes=[there[name] for name in config.metric_nodes],
        training_config=TrainingConfig(
            seed=SEED,
            optimizer={"name": training.optimizer.name, "lr": training.optimizer.lr},
            scheduler=SCHEDULE,
            max_epochs=epochs,
            accelerator="cpu",
            gradient_clip_val=training.trainer.gradient_clip_val,
            enable_progress_bar=False,
            default_root_dir=str(folder),
            num_sanity_val_steps=0,
        ),
        monitors=[steps],
        callbacks=[history],
    )
    trainer.fit()
    return history.values, steps.values


def both(archive, folder):
    """The pipeline fitted here, and there with our weights."""
    config, ours = settings()
    StatisticalTrainer(ours, ArchiveDataModule(archive, **SPLIT), workers=1).fit()
    theirs = peer.load_there(ours, folder)
    return config, ours, theirs


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_three_epochs_are_the_same(archive, tmp_path, close):
    # RX stays as it was fitted: trained, it is parametrised in another way here.
    unfrozen = ["selector", "logit"]
    config, ours, theirs = both(archive, tmp_path)
    start = ours.nodes["selector"].channel_logits.clone()
    result, steps, frames = train_here(ours, archive, config, unfrozen)
    history, other = train_there(theirs, frames, config, unfrozen, tmp_path)
    assert len(steps) == len(other) == EPOCHS * len(SPLIT["train"])
    close("loss of each step", steps, other, 1e-4)
    for name in ("val_loss", *(f"val/{loss}" for loss in config.loss_nodes)):
        here = [values[name] for values in result.history]
        close(name, here, [values[name] for values in history], 1e-4)
    for name in ("precision", "recall", "f1_score", "iou"):
        here = [values[f"metrics_anomaly/{name}"] for values in result.history]
        close(name, here, [values[f"metrics_anomaly/{name}"] for values in history], 1e-6)
    there = peer.nodes_there(theirs)
    for node, buffer in (("selector", "channel_logits"), ("logit", "scale"), ("logit", "bias")):
        found, expected = (getattr(nodes[node], buffer).detach() for nodes in (ours.nodes, there))
        close(f"{node}.{buffer}", found, expected, 1e-4)
    assert float((ours.nodes["selector"].channel_logits - start).detach().abs().max()) > 0.01
    # Epoch values of train: means of the epoch here, the last step of it there.
    per_epoch = np.reshape(steps, (EPOCHS, -1))
    here = [values["train_loss"] for values in result.history]
    close("mean", here, per_epoch.mean(axis=1), 1e-6)
    close("last step", [values["train_loss"] for values in history], per_epoch[:, -1], 1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_unfrozen_rx_begins_the_same(archive, tmp_path, close):
    # The first loss is that of the fit on both sides. What a step does to RX differs on purpose:
    # here its inverse stays symmetric and positive definite, there it need not.
    unfrozen = ["selector", "rx", "logit"]
    config, ours, theirs = both(archive, tmp_path)
    config.training.optimizer.lr = 0.3
    _, steps, frames = train_here(ours, archive, config, unfrozen, epochs=2)
    _, other = train_there(theirs, frames, config, unfrozen, tmp_path, epochs=2)
    close("first loss", steps[:1], other[:1], 1e-4)
    here, there = (
        nodes["rx"].cov_inv.detach().double().numpy()
        for nodes in (ours.nodes, peer.nodes_there(theirs))
    )
    np.testing.assert_array_equal(here, here.T)
    assert np.linalg.eigvalsh(here).min() > 0
    assert not np.array_equal(there, there.T)
    cube = frames.val.epochs[0][0]
    scores = peer.run_here(ours, cube)["rx", "scores"]
    assert float(scores.min()) >= 0
