"""Gradient training: what is trained, what is told, and that it can be resumed."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gradient_helpers import loaded, same, selection_pipeline, trainer, weights
from gradient_helpers import scenes as data
from torch.nn.functional import binary_cross_entropy_with_logits

from hsi_batch.errors import ConfigError, DataError, DataWarning, NotFittedError
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import (
    CallbacksConfig,
    EarlyStoppingConfig,
    ModelCheckpointConfig,
    OptimizerConfig,
    SchedulerConfig,
    StatisticalTrainer,
)


def test_only_named_nodes_are_trained_and_nothing_is_left_behind(
    fitted, archive, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    pipeline = loaded(fitted, "selector", "logit")
    before, drawn = weights(pipeline), torch.get_rng_state()
    result = trainer(pipeline, archive).fit()
    changed = {
        k.split(".")[0] for k, v in weights(pipeline).items() if not torch.equal(v, before[k])
    }
    assert changed == {"selector", "logit"}
    assert (result.epochs, result.steps, result.nodes) == (3, 6, ("selector", "logit"))
    assert result.parameters == 6 + 2
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_values_are_those_of_a_loop_written_by_hand(fitted, archive):
    pipeline, by_hand = loaded(fitted, "logit"), loaded(fitted, "logit")
    result = trainer(
        pipeline,
        archive,
        epochs=2,
        optimizer_config=OptimizerConfig(name="sgd", lr=1e-3, momentum=0.0),
        datamodule=data(archive, batch_size=2),
    ).fit()
    module = data(archive)
    head = by_hand.nodes["logit"]
    scale, bias = float(head.scale.detach()), float(head.bias.detach())
    scores, targets = [], []
    for batch in module.train_dataloader():
        found = by_hand.forward(batch)
        scores.append(found["rx", "scores"].double().flatten())
        targets.append((batch["mask"] > 0).double().flatten())
    s, t = torch.cat(scores), torch.cat(targets)
    for epoch in range(2):
        a = torch.tensor([scale, bias], dtype=torch.float64, requires_grad=True)
        loss = 10 * binary_cross_entropy_with_logits(a[0] * (s - a[1]), t)
        loss.backward()
        assert result.history[epoch]["train/bce"] == pytest.approx(float(loss.detach()), rel=1e-5)
        scale, bias = (a - 1e-3 * a.grad).tolist()
    assert float(head.scale.detach()) != scale
    assert float(pipeline.nodes["logit"].scale.detach()) == pytest.approx(scale, rel=1e-5)
    # A loss that is not listed is measured, and not minimised.
    assert result.history[0]["train_loss"] == result.history[0]["train/bce"]
    assert "train/entropy" in result.history[0]


def test_epoch_values_are_means_over_the_epoch(fitted, archive):
    pipeline = loaded(fitted, "logit")
    options = {"optimizer_config": OptimizerConfig(lr=1e-30)}
    one = trainer(pipeline, archive, epochs=1, **options).fit().history[0]
    means = []
    for frame in ("s0", "s1"):
        module = data(archive, train=frame)
        found = trainer(loaded(fitted, "logit"), archive, 1, datamodule=module, **options).fit()
        means.append(found.history[0]["train/bce"])
    assert one["train/bce"] == pytest.approx(np.mean(means), rel=1e-6)
    assert one["train/bce"] != pytest.approx(means[0], rel=1e-3)


def test_trained_twice_it_is_the_same_and_another_seed_is_not(fitted, archive):
    runs = []
    for seed in (1, 1, 2):
        pipeline = loaded(fitted)
        options = {"patch": [6, 6], "patches_per_frame": 2, "balance": 0.5}
        trainer(pipeline, archive, seed=seed, **options).fit()
        runs.append(weights(pipeline))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_a_resumed_training_ends_as_one_that_was_not_interrupted(fitted, archive, tmp_path):
    def kept(folder):
        checkpoint = ModelCheckpointConfig(
            dirpath=str(tmp_path / folder), monitor="metrics_anomaly/average_precision", mode="max"
        )
        stopping = EarlyStoppingConfig(monitor="train/bce", patience=50)
        return {"callbacks": CallbacksConfig(checkpoint=checkpoint, early_stopping=[stopping])}

    schedule = SchedulerConfig(name="plateau", monitor="train_loss", patience=0, factor=0.5)
    options = {"scheduler_config": schedule, "losses": ["bce", "entropy"]}
    whole = loaded(fitted)
    expected = trainer(whole, archive, 5, config=kept("a"), **options).fit()

    killed = trainer(loaded(fitted), archive, 5, config=kept("b"), **options)
    killed.observer = stop_at(2 * 2 + 1)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(last=tmp_path / "last.ckpt")
    again = loaded(fitted)
    result = trainer(again, archive, 5, config=kept("b"), **options).fit(
        last=tmp_path / "last.ckpt"
    )
    assert (result.resumed, result.epochs) == (2, 5)
    assert result.history == expected.history
    assert result.best.value == expected.best.value
    assert same(weights(again), weights(whole))
    assert again.nodes["selector"].temperature == whole.nodes["selector"].temperature
    # One that was finished is not trained again.
    third = loaded(fitted)
    done = trainer(third, archive, 5, config=kept("b"), **options).fit(last=tmp_path / "last.ckpt")
    assert (done.resumed, done.epochs, done.steps) == (5, 5, 10)
    assert same(weights(third), weights(whole))


def stop_at(batch):
    def observe(progress):
        if progress.done == batch:
            raise KeyboardInterrupt

    return observe


def test_temperatures_fall_and_are_saved(fitted, archive, tmp_path):
    pipeline = loaded(fitted, "selector")
    trainer(pipeline, archive, epochs=3).fit()
    assert pipeline.nodes["selector"].temperature == 5.0 * 0.5**2
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    assert again.nodes["selector"].temperature == 1.25
    assert pipeline.nodes["selector"].as_arguments() == {"temperature_init": 1.25}
    frozen = loaded(fitted, "logit")
    trainer(frozen, archive, epochs=2).fit()
    assert frozen.nodes["selector"].temperature == 5.0


def test_a_trained_background_stays_a_background(fitted, archive, tmp_path):
    pipeline = loaded(fitted, "rx")
    rx = pipeline.nodes["rx"]
    start = rx.cov_inv.clone()
    trainer(pipeline, archive, 4, optimizer_config=OptimizerConfig(lr=0.3)).fit()
    inverse = rx.cov_inv.double().numpy()
    assert not torch.equal(rx.cov_inv, start)
    np.testing.assert_array_equal(inverse, inverse.T)
    assert np.linalg.eigvalsh(inverse).min() > 0
    np.testing.assert_allclose(rx.cov.double().numpy() @ inverse, np.eye(6), atol=1e-2)
    batch = next(iter(data(archive).test_dataloader()))
    found = pipeline.forward(batch)
    pixels = found["selector", "selected"].double().numpy().reshape(-1, 6) - rx.mu.numpy()
    expected = np.einsum("ni,ij,nj->n", pixels, inverse, pixels)
    scores = found["rx", "scores"].numpy().ravel()
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    np.testing.assert_array_equal(again.forward(batch)["rx", "scores"].numpy().ravel(), scores)
    pipeline.freeze_nodes_by_name(["rx"])
    np.testing.assert_array_equal(pipeline.forward(batch)["rx", "scores"].numpy().ravel(), scores)
    assert set(rx.state_dict()) == {"mu", "cov", "cov_inv"}


def test_validate_and_test_are_those_of_the_statistical_trainer(fitted, archive):
    pipeline = loaded(fitted)
    run = trainer(pipeline, archive, losses=["bce", "entropy"])
    result = run.fit()
    found, other = run.validate(), StatisticalTrainer(pipeline, data(archive)).validate()
    assert other.metrics.items() <= found.metrics.items()
    for name, value in found.metrics.items():
        assert result.history[-1][name] == pytest.approx(value, rel=1e-6)
    tested = run.test()
    assert tested["test_loss"] == pytest.approx(tested["test/bce"] + tested["test/entropy"])
    assert tested["metrics_anomaly/iou"] == tested.metrics["metrics_anomaly/iou"]


def test_a_state_of_the_middle_of_an_epoch_or_of_weights_only_is_no_place_to_go_on(
    fitted, archive, tmp_path
):
    for kept, text in (
        ({"save_on_train_epoch_end": False}, ""),
        ({"save_weights_only": True}, "holds weights only"),
    ):
        folder = tmp_path / (text or "middle")
        checkpoint = ModelCheckpointConfig(dirpath=str(folder), save_top_k=-1, **kept)
        config = {"callbacks": CallbacksConfig(checkpoint=checkpoint)}
        trainer(loaded(fitted, "logit"), archive, 2, config=config).fit()
        state = min(folder.glob("*.ckpt"))
        with pytest.raises(ConfigError, match=text or "middle of epoch"):
            trainer(loaded(fitted, "logit"), archive, 4).fit(state)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"losses": []}, "no loss is listed"),
        ({"losses": ["bse"]}, r"loss node 'bse' is not in the pipeline\. Did you mean 'bce'"),
        ({"losses": ["rx"]}, r"rx \(RXGlobal\) is no loss"),
        ({"optimizer_config": OptimizerConfig(name="adamm")}, r"Did you mean 'adam'|'adamw'"),
        ({"scheduler_config": SchedulerConfig(name="cosinus")}, "Did you mean 'cosine'"),
        ({"scheduler_config": SchedulerConfig(name="step", warmup_epochs=9)}, "less than max_ep"),
        ({"scheduler_config": SchedulerConfig(name="plateau", monitor="val/bse")}, "val/bce"),
        ({"config": {"precision": "8"}}, "precision '8' is not one of"),
        ({"config": {"devices": 4}}, "one device"),
        ({"config": {"limit_train_batches": 0}}, "nothing to train on"),
        ({"config": {"default_root_dir": "x"}}, "nothing is written there"),
        ({"config": {"enable_checkpointing": True}}, "which states are to be kept is not said"),
        ({"optimizer_config": OptimizerConfig(name="sgd", betas=[0.9, 0.9])}, "sgd has none"),
        ({"patch": [0, 4]}, "patch"),
        ({"patches_per_frame": 3}, "need `patch`"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(fitted, archive, options, text):
    with pytest.raises(ConfigError, match=text):
        trainer(loaded(fitted, "logit"), archive, **options).fit()


def test_what_cannot_be_trained_is_said(fitted, archive):
    pipeline = Pipeline.from_yaml(fitted)
    with pytest.raises(ConfigError, match="all nodes are frozen"):
        trainer(pipeline, archive).fit()
    with pytest.raises(NotFittedError, match="not fitted"):
        trainer(selection_pipeline(), archive).fit()
    both = data(archive, train=["s0", "s1"], val="s1[0]")
    with pytest.raises(ConfigError, match=r"1 frames are in train and in val: s1\[0\]"):
        trainer(loaded(fitted, "logit"), archive, datamodule=both).fit()
    alone = data(archive, val=None, test=None)
    watched = SchedulerConfig(name="plateau")
    with pytest.raises(ConfigError, match="val_loss is monitored, but the data module has no"):
        trainer(loaded(fitted, "logit"), archive, datamodule=alone, scheduler_config=watched).fit()
    pipeline = loaded(fitted, "logit")
    with torch.no_grad():
        pipeline.nodes["logit"].scale.fill_(torch.nan)
    with pytest.raises(DataError, match="the loss bce is"):
        trainer(pipeline, archive).fit()


def test_limits_are_batches_or_shares_of_them_and_looks_before_change_nothing(fitted, archive):
    def run(**config):
        pipeline = loaded(fitted, "logit")
        module = data(archive, train=["s0", "s1", "s3"], test=None)
        return trainer(pipeline, archive, 2, config=config, datamodule=module).fit()

    assert run(limit_train_batches=2).steps == 4
    assert run(limit_train_batches=0.67).steps == 4
    assert "val_loss" not in run(limit_val_batches=0).history[0]
    assert run(num_sanity_val_steps=1).history == run().history
    told = []
    quiet = loaded(fitted, "logit")
    silent = {"enable_progress_bar": False}
    trainer(quiet, archive, 1, config=silent, observer=told.append).fit()
    assert not told


def test_one_corrupt_frame_is_left_out_and_named(fitted, archive, tmp_path):
    import shutil

    copy = tmp_path / "b.zarr"
    shutil.copytree(archive, copy)
    chunk = next((copy / "s1" / "cube").glob("c.0.*"))
    chunk.write_bytes(chunk.read_bytes()[:-3] + b"abc")
    ends = []
    for threads in (1, 4):
        pipeline, module = loaded(fitted, "logit"), data(copy, num_workers=threads)
        with pytest.warns(DataWarning, match="a frame was left out") as told:
            result = trainer(pipeline, copy, datamodule=module).fit()
        assert len(told) == 1
        assert [str(f.key.session) for f in result.failures] == ["s1"]
        assert (result.epochs, result.steps, result.failed) == (3, 6, 1)
        ends.append(weights(pipeline))
    assert same(*ends)


def test_importing_the_trainer_loads_no_lightning():
    code = (
        "import sys; from hsi_batch.training import GradientTrainer;"
        "assert 'pytorch_lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
