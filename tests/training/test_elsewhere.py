"""A training on a worker that offers what it asks for, and the loss of that worker."""

import pytest
import torch
from engine_tasks import die_once_in_epoch
from gradient_helpers import selection_pipeline

from hsi_batch.cluster import LocalConfig, connect
from hsi_batch.data import ArchiveDataModule
from hsi_batch.errors import ConfigError, DataWarning
from hsi_batch.nodes import TensorBoardMonitorNode
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import (
    CallbacksConfig,
    GradientTrainer,
    ModelCheckpointConfig,
    OptimizerConfig,
    StatisticalTrainer,
    TrainerConfig,
    elsewhere,
)

EPOCHS = 4


@pytest.fixture(scope="module")
def fitted(archive, client, tmp_path_factory):
    pipeline = selection_pipeline()
    board = TensorBoardMonitorNode("runs", name="board")
    pipeline.connect((pipeline.nodes["metrics_anomaly"].metrics, board.inputs["metrics"]))
    StatisticalTrainer(pipeline, data(archive), client=client).fit()
    return pipeline.save(tmp_path_factory.mktemp("fitted") / "p.yaml")


@pytest.fixture(scope="module")
def offering(simulated_cuvis):
    """A cluster of two workers, each of which may train."""
    with connect(LocalConfig(workers=2, resources={"TRAIN": 1})) as found:
        yield found


def data(archive):
    return ArchiveDataModule(archive, train=["s0", "s1"], val="s2")


def trainer(fitted, archive, folder, **options):
    pipeline = Pipeline.from_yaml(fitted)
    pipeline.unfreeze_nodes_by_name(["selector", "rx", "logit"])
    checkpoint = ModelCheckpointConfig(
        dirpath=str(folder / "kept"), monitor="train_loss", save_top_k=2, save_last=True
    )
    settings = TrainerConfig(
        max_epochs=EPOCHS, deterministic=True, callbacks=CallbacksConfig(checkpoint=checkpoint)
    )
    options = {"optimizer_config": OptimizerConfig(lr=0.02), "patch": [8, 8], **options}
    return GradientTrainer(pipeline, data(archive), ["bce"], None, settings, **options)


def ended(run, folder):
    weights = {
        f"{name}.{key}": value
        for name, node in run.pipeline.nodes.items()
        for key, value in node.state_dict().items()
    }
    return weights, run.result.history, {path.name for path in (folder / "kept").iterdir()}


def same(one, other):
    assert one[0].keys() == other[0].keys()
    for key, value in one[0].items():
        assert torch.equal(value, other[0][key]), key
    assert one[1:] == other[1:]


class Values(list):
    def log(self, name, value, step):
        self.append((name, value, step))


def test_a_lost_worker_changes_nothing(
    fitted, archive, client, offering, tmp_path, monkeypatch, recwarn
):
    # Where the training stands when its worker dies: in the second epoch.
    monkeypatch.setattr(elsewhere, "_STRETCH_SECONDS", 0.0)
    monkeypatch.setattr(elsewhere, "_REPORT_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    expected = Values()
    local = trainer(fitted, archive, here, monitors=[expected])
    local.fit()
    found, told = Values(), []
    offering.run(die_once_in_epoch, 1, str(tmp_path / "died"))

    def observe(progress):
        told.append((progress.done, progress.total, progress.epoch))

    run = trainer(
        fitted,
        archive,
        there,
        monitors=[found],
        resources={"TRAIN": 1},
        client=offering,
        observer=observe,
    )
    result = run.fit()
    assert (tmp_path / "died").exists()
    assert result.device.startswith("cpu of tcp://")
    same(ended(run, there), ended(local, here))
    assert found == expected
    assert told[-1] == (2 * EPOCHS, 2 * EPOCHS, EPOCHS)
    assert not [w for w in recwarn if issubclass(w.category, DataWarning)]
    # What the graph itself writes is written where the training was started.
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_what_cannot_be_found_is_said_before_anything_starts(fitted, archive, offering, tmp_path):
    run = trainer(fitted, archive, tmp_path, resources={"GPU": 1}, client=offering)
    with pytest.raises(ConfigError, match=r"no worker of the cluster offers .* \(GPU: 1\)"):
        run.fit()
    assert not list(tmp_path.iterdir())
