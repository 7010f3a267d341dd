"""The recipes of the seed pages, run as the plain script files they are."""

import os
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import Marked
from recordings import scene, write_cu3s

from hsi_batch.pipeline import Pipeline
from hsi_batch.training import TrainingConfig, TrainRunConfig
from hsi_batch.workflow import shipped

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
NM = range(400, 400 + 10 * 61, 10)
COUNTS = {"Lentils_000": 6, "Demo_000": 3, "samples": 5}


def recording(folder, name, seed):
    cubes, masks = zip(
        *[scene(seed + i, lines=24, samples=20, bands=61) for i in range(COUNTS[name])], strict=True
    )
    write_cu3s(folder / f"{name}.cu3s", cubes, wavelength=NM, masks=masks)
    return np.stack(cubes), np.stack(masks)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folders that the pages name, and a cache that all scripts share."""
    here = tmp_path_factory.mktemp("seeds")
    lentils, samples = here / "data" / "Lentils", here / "data" / "initialization"
    cubes = {
        name: recording(folder, name, 10 * seed)
        for seed, (name, folder) in enumerate(
            [("Lentils_000", lentils), ("Demo_000", lentils), ("samples", samples)]
        )
    }
    (samples / "samples.json").rename(samples / "annotations.json")
    configs = here / "configs" / "pipeline" / "anomaly" / "rx"
    configs.mkdir(parents=True)
    shutil.copy(shipped() / "pipelines" / "rx_statistical.yaml", configs)
    return here, cubes


@pytest.fixture
def script(recorded, client, monkeypatch):
    """Run a script in the folder, on the workers that are there; give its names and warnings."""
    here, _ = recorded
    monkeypatch.chdir(here)
    monkeypatch.setenv("HSI_BATCH_CACHE", str(here / "cache"))

    def call(name):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            names = runpy.run_path(str(SCRIPTS / name))
        return names, [str(w.message) for w in caught]

    return call


def pixels(recorded, name, frames):
    cubes, _ = recorded[1][name]
    return cubes[list(frames)].reshape(-1, 61).astype(np.float64)


def test_statistical_training_in_a_process_of_its_own(recorded, hsi, monkeypatch):
    here, _ = recorded
    marked = Marked()
    shutil.copy(SCRIPTS / "statistical_training.py", here)
    done = subprocess.run(
        [sys.executable, "statistical_training.py"],
        env={**os.environ, **marked.env, "HSI_BATCH_CACHE": str(here / "cache")},
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not marked.wait()
    fitted = Pipeline.from_yaml(here / "artifacts" / "rx_statistical_fitted.yaml")
    assert fitted.fitted
    assert fitted.reference.count == 3 * 24 * 20
    tags = dict(tag.split(": ", 1) for tag in fitted.metadata.tags if ": " in tag)
    assert "Demo_000[0]" not in tags["fitted-on"]
    assert "3 frames of 1 session, 1440 pixels (valid)" in tags["fitted-on"]
    assert fitted.provenance["sources"] == [str(here / "data" / "Lentils" / "Demo_000.cu3s")]
    monkeypatch.chdir(here)
    monkeypatch.setenv("HSI_BATCH_CACHE", str(here / "cache"))
    command = ["restore-pipeline", "--pipeline-path", "artifacts/rx_statistical_fitted.yaml"]
    done = hsi(*command, "--cu3s-file-path", "data/Lentils/Demo_000.cu3s")
    assert done.code == 0
    assert (here / "rx_statistical_fitted_scores.zarr" / "Demo_000" / "scores").is_dir()


def test_many_recordings(script, recorded):
    names, said = script("many_recordings.py")
    assert said == []
    assert (names["result"].frames, names["result"].sessions) == (9, 2)
    expected = np.concatenate([pixels(recorded, n, range(COUNTS[n])) for n in list(COUNTS)[:2]])
    np.testing.assert_allclose(names["pipeline"].reference.mean, expected.mean(0), rtol=1e-12)


def test_single_nodes(script, recorded):
    names, said = script("single_nodes.py")
    assert all("is not connected yet; it is fitted to the cube as recorded" in s for s in said)
    expected = pixels(recorded, "samples", (0, 1, 2))
    rx, pca = names["rx_node"], names["pca"]
    np.testing.assert_allclose(rx.mu, expected.mean(0), rtol=1e-6)
    covariance = np.cov(expected.T) + 1e-6 * np.eye(61)
    np.testing.assert_allclose(rx.sigma, covariance, rtol=1e-5, atol=1e-3)
    assert pca.components.shape == (10, 61)
    variances = np.linalg.eigvalsh(np.cov(expected.T))[::-1][:10]
    np.testing.assert_allclose(pca.explained_variance, variances, rtol=1e-5)
    assert float(names["normalizer"].running_max) == expected.max()
    logits = np.log(expected.var(0, ddof=1) + 1e-6)
    np.testing.assert_allclose(names["selector"].channel_logits, logits, rtol=1e-5)


def test_two_phases(script, recorded, capsys):
    names, said = script("two_phase.py")
    assert {s.split(" declares")[0] for s in said} == {"rx_detector"}
    found, pipeline = names["statistical_results"], names["loaded"]
    _, masks = recorded[1]["Lentils_000"]
    decided = pooled_decisions(names, recorded, (1, 5))
    true = masks[[1, 5]] > 0
    both, either = (decided & true).sum(), (decided | true).sum()
    assert found["metrics_anomaly/iou"] == pytest.approx(both / either)
    assert [m.name for m in found["metrics"]] == list(found.metrics)
    with pytest.raises(KeyError, match="metrics_anomaly/iou"):
        _ = found["metrics_anomaly/io"]
    # A mean and a triangle: the numbers that a background has.
    assert names["trainable_params"] == 61 + 61 + 61 * 62 // 2 + 2
    result = names["grad_trainer"].result
    assert (result.epochs, result.steps) == (20, 40)
    assert np.isfinite([values["train/bce"] for values in result.history]).all()
    assert names["selector"].temperature == pytest.approx(5 * 0.9**19)
    assert names["test_results"].frames == 2
    assert pipeline.metadata.tags[:3] == ["two-phase", "gradient-trained", "production"]
    assert "Lentils_000[0],Lentils_000[2],Lentils_000[3]" in pipeline.provenance["selection"]
    assert pipeline.provenance["training"]["nodes"] == names["unfreeze_nodes"]
    trained = names["pipeline"].forward(names["test_data"])
    for ref, value in names["outputs"].items():
        if ref.port in ("scores", "decisions"):
            np.testing.assert_array_equal(value, trained[ref])
    separate = names["separate"].nodes["rx_detector"]
    np.testing.assert_array_equal(separate.mu, names["init_state"]["rx_mean"])
    assert torch.isfinite(separate(data=names["outputs"]["selector", "selected"])["scores"]).all()
    assert f"Validation IoU: {names['val_results']['metrics_anomaly/iou']:.3f}" in (
        capsys.readouterr().out
    )


def test_advice_on_trouble(script):
    names, _ = script("trouble.py")
    result = names["result"]
    # The monitored value need not change: then it stops after the patience.
    assert 6 <= result.epochs <= 12
    assert result.nodes == ("selector",)
    assert names["selector"].temperature == pytest.approx(10 * 0.92 ** (result.epochs - 1))


def pooled_decisions(names, recorded, frames):
    """Decisions of the recipe's pipeline in float64 numpy."""
    train = pixels(recorded, "Lentils_000", (0, 2, 3))
    low, high = train.min(), train.max()
    unit = (train - low) / (high - low)
    raised = np.exp((np.log(unit.var(0, ddof=1) + 1e-6)) / 5.0)
    weights = 10 * raised / raised.sum()
    mean, covariance = (unit * weights).mean(0), np.cov((unit * weights).T)
    inverse = np.linalg.inv(covariance + 1e-6 * np.eye(61))

    def score(values):
        away = (values - low) / (high - low) * weights - mean
        return np.einsum("ni,ij,nj->n", away, inverse, away)

    fitted = score(train)
    bias = fitted.mean() + 2 * fitted.std(ddof=1)
    logits = score(pixels(recorded, "Lentils_000", frames)) - bias
    return (logits >= 0).reshape(len(frames), 24, 20)


def test_settings(script):
    names, said = script("settings.py")
    assert said == []
    config = names["training_config"]
    assert config.trainer.callbacks.learning_rate_monitor.logging_interval == "epoch"
    assert config.trainer.callbacks.early_stopping[0].patience == 10
    assert TrainingConfig.from_dict(config.to_dict()) == config
    changed = names["training_cfg"]
    assert (changed.seed, changed.trainer.max_epochs) == (7, 50)
    assert changed.trainer.callbacks.checkpoint.save_last is True


def test_channel_selector(script, recorded, hsi):
    names, said = script("channel_selector.py")
    unnamed = [s for s in said if s.startswith("no frames were named for ")]
    assert [s for s in said if "declares" not in s] == unnamed
    weights, result = names["selector_weights"], names["result"]
    assert weights.shape == (61,)
    assert float(weights.detach().sum()) == pytest.approx(3, rel=1e-5)
    assert len({"train/bce", "train/entropy", "train/diversity"} & result.history[0].keys()) == 3
    best = max(values["metrics_anomaly/iou"] for values in result.history)
    assert names["val_results"]["metrics_anomaly/iou"] == pytest.approx(best)
    folder = Path("outputs/selection/checkpoints")
    assert (folder / "last.ckpt").exists()
    assert {p.stem for p in folder.iterdir()} - {"last"} == {
        f"epoch={epoch:02d}" for epoch in top_three(result.history)
    }
    tags = logged(names["tensorboard_node"].log_dir)
    assert {"train/bce", "val/bce", "metrics_anomaly/iou"} <= tags["scalars"]
    assert any("rgb" in tag for tag in tags["images"])
    path = "outputs/trained_models/channel_selector_trainrun.yaml"
    saved = TrainRunConfig.load_from_file(path)
    assert saved == names["trainrun_config"]
    assert saved.data.params["data_dir"] == "data/initialization"
    done = hsi("restore-trainrun", "--trainrun-path", path, "--json")
    assert done.json["info"]["training"] == "gradient"


def top_three(history):
    """Epochs of the largest IoU; of equal ones the library keeps those it had."""
    ranked = sorted(history, key=lambda values: (-values["metrics_anomaly/iou"], values["epoch"]))
    return [int(values["epoch"]) for values in ranked[:3]]


def logged(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"images": 1})
    found.Reload()
    return {kind: set(found.Tags()[kind]) for kind in ("scalars", "images")}


def test_deep_svdd(script, recorded):
    names, _ = script("deep_svdd.py")
    result, projection = names["result"], names["projection"]
    losses = [values["train/svdd_loss"] for values in result.history]
    assert losses[-1] < losses[0]
    assert not torch.equal(projection.net.fc1.weight, names["start"])
    assert result.parameters == 61 * 128 + 128 + 128 * 32 + 1
    embedded = names["pipeline"].forward(next(iter(names["datamodule"].test_dataloader())))
    z = embedded["projection", "embeddings"].double().numpy()
    centre = names["center_tracker"]._tracked_center.double().numpy()
    expected = np.square(z - centre).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(embedded["scorer", "scores"].numpy(), expected, rtol=1e-5)


def test_mixers(script):
    names, _ = script("mixers.py")
    result, selector = names["result"], names["selector"]
    assert set(result.nodes) == {"mixer", "selector", names["pca"].name}
    assert selector.temperature() == pytest.approx(10 * (0.1 / 10) ** (3 / 49))
    assert selector.get_selected_bands().shape == (3,)
    assert {"train/distinctness", "train/orthogonality", "train/likeness"} <= (
        result.history[0].keys()
    )
    assert torch.equal(names["pca"].explained_variance, names["variances"])


def test_good_practice(script, recorded):
    names, _ = script("good_practice.py")
    assert (names["fresh"], bool(names["same"]), bool(names["moved"])) == (True, False, True)
    train, val = (pixels(recorded, "Lentils_000", f) for f in (range(4), [4]))
    inverse = np.linalg.inv(np.cov(train.T))
    away = val - train.mean(0)
    expected = np.einsum("ni,ij,nj->n", away, inverse, away).mean()
    assert names["mean_score"] == pytest.approx(expected, rel=1e-3)
    meta = names["initialization_meta"]
    assert (meta["frames"], meta["pixel_count"]) == (4, 4 * 480)
    assert meta["sources"][0].endswith("Lentils_000.cu3s")


def test_deep_learning_nodes(script, recorded):
    names, said = script("deep_learning_nodes.py")
    assert len([s for s in said if "not connected yet" in s]) == 2
    pipeline, pca = names["pipeline"], names["pca"]
    assert pipeline.fitted
    assert isinstance(pca._components, torch.nn.Parameter)
    train = pixels(recorded, "Lentils_000", range(6))
    correlation = np.corrcoef(train.T)
    expected = np.linalg.eigvalsh(correlation)[::-1][:3]
    np.testing.assert_allclose(pca.explained_variance, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["short_form.yaml", "short_form_svdd.yaml"])
def test_the_short_form(script, recorded, client, name):
    import hsi_batch as hb
    from hsi_batch.data import SingleCu3sDataModule

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pipeline = Pipeline.from_yaml(HERE / name)
    module = SingleCu3sDataModule("data/Lentils/Lentils_000.cu3s")
    result = hb.StatisticalTrainer(pipeline, module).fit()
    assert (pipeline.fitted, result.passes) == (True, int("svdd" in name))
    assert yaml.safe_load((HERE / name).read_text())["nodes"].keys() == pipeline.nodes.keys()


def test_methods_that_are_shown(script):
    names, said = script("method_bodies.py")
    shown, rx = names["shown"], names["rx_node"]
    assert all("not connected yet" in s for s in said)
    assert {name for name, _ in shown.named_parameters()} == {"mu", "sigma"}
    # What the page sums in float64 is what we fit.
    torch.testing.assert_close(rx.mu, shown.mu.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(rx.sigma, shown.sigma.detach(), rtol=1e-5, atol=1e-3)


def test_advice_on_numbers_of_channels(script):
    names, _ = script("channel_counts.py")
    assert "50" in str(names["error"])
    assert "61" in str(names["error"])
    for output in names["outputs"]:
        assert torch.isfinite(output).all()
        assert float(output.abs().max()) < 10
