"""Thresholds that are set on the val frames."""

import numpy as np
import pytest
from gradient_helpers import scenes, write_scenes
from sklearn.metrics import f1_score, precision_recall_curve

import hsi_batch as hb
from hsi_batch.errors import ConfigError, DataError, PlanError
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer, calibration


def data(archive, **options):
    return scenes(archive, **{"val": ["s2", "s3"], "test": None} | options)


def test_the_threshold_is_that_of_the_largest_f1_and_is_saved(fitted, archive, tmp_path):
    pipeline = Pipeline.from_yaml(fitted)
    (cut,) = calibration.calibrate_deciders(pipeline, data(archive))
    scores, wanted = [], []
    for batch in data(archive).val_dataloader():
        logits = pipeline.forward(batch)["logit", "logits"].double().numpy().ravel()
        scores.append(1 / (1 + np.exp(-logits)))
        wanted.append(batch["mask"].numpy().ravel() > 0)
    scores, wanted = np.concatenate(scores), np.concatenate(wanted)
    precision, recall, _ = precision_recall_curve(wanted, scores)
    best = np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert cut.f1 == pytest.approx(best)
    assert cut.before == {"threshold": 0.5}
    assert f1_score(wanted, scores >= cut.after["threshold"]) == pytest.approx(best)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    assert again.nodes["decider"].threshold == cut.after["threshold"]
    found = StatisticalTrainer(again, data(archive)).validate()
    assert found["metrics_anomaly/f1_score"] == pytest.approx(best)
    assert str(cut).startswith("calibrated decider on val: threshold 0.5 -> ")


def test_what_cannot_be_calibrated_is_said(fitted, archive, client, tmp_path, monkeypatch):
    write_scenes(tmp_path / "in")
    hb.convert([tmp_path / "in"], tmp_path / "b.zarr", annotations="none", client=client)
    unlabelled = tmp_path / "b.zarr"
    pipeline = Pipeline.from_yaml(fitted)
    with pytest.raises(ConfigError, match="no frames are named for val"):
        calibration.calibrate_deciders(pipeline, data(archive, val=None))
    with pytest.raises(DataError, match="both classes are needed"):
        calibration.calibrate_deciders(pipeline, data(unlabelled))
    monkeypatch.setattr(calibration, "_MOST_BYTES", 10)
    with pytest.raises(PlanError, match="Name fewer val frames"):
        calibration.calibrate_deciders(pipeline, data(archive))
    assert pipeline.nodes["decider"].threshold == 0.5
