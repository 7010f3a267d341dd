"""Scores against labels, per session and pooled; wrong uses refused."""

import numpy as np
import pytest
import zarr
from campaign import scan
from commands import command
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from hsi_batch.detect import detect
from hsi_batch.errors import ConfigError
from hsi_batch.nodes import CU3SDataNode, QuantileBinaryDecider, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.performance import performance
from hsi_batch.stages.score import score


@pytest.fixture(scope="module", name="made")
def made_fixture(tmp_path_factory, client):
    folder = tmp_path_factory.mktemp("performance")
    scans = [scan(f"scan_{i}", 20 + i, size=(90, 80)) for i in range(3)]
    for one in scans:
        one.write(folder / "in")
        if one.name != "scan_2":
            labels = one.targets.astype(np.uint8)
            Image.fromarray(labels).save(folder / "in" / f"{one.name}_mask.png")
    detect([folder / "in"], folder / "out", pfa=0.02, client=client)
    return folder / "out" / "scores.zarr", scans


def test_pixels_objects_and_false_alarms(made, client):
    store, scans = made
    found = performance(store, client=client)
    group = zarr.open_group(store, mode="r")
    scores, decisions, truth = [], [], []
    for one in scans[:2]:
        values = group[f"{one.name}/scores"][0]
        said = group[f"{one.name}/decisions"][0] == 1
        unit = found.units[one.name]
        known = roc_auc_score(one.targets.ravel(), values.ravel())
        assert unit["auc"] == pytest.approx(known, rel=1e-9)
        regions, count = ndimage.label(said, np.ones((3, 3)))
        false = sum(not one.targets[regions == i].any() for i in range(1, count + 1))
        assert unit["false_objects_per_frame"] == false
        hit = sum(said[y0:y1, x0:x1].any() for y0, x0, y1, x1 in one.boxes)
        assert (unit["objects"], unit["object_pd"]) == (5, hit / 5)
        scores.append(values.ravel())
        decisions.append(said.ravel())
        truth.append(one.targets.ravel())
    scores, decisions, truth = (np.concatenate(v) for v in (scores, decisions, truth))
    assert found.pooled["auc"] == pytest.approx(roc_auc_score(truth, scores), rel=1e-9)
    rate = decisions[~truth].mean()
    assert found.pooled["false_alarm_rate"] == pytest.approx(rate, rel=1e-12)
    low, high = found.intervals["false_alarm_rate"]
    assert low < rate < high
    assert found.intervals["auc"][0] <= found.pooled["auc"] <= found.intervals["auc"][1]
    said = str(found)
    assert "requested 0.02" in said
    page = (store.parent / "report.html").read_text()
    assert f"requested 0.02, achieved {rate:.3g} ({low:.3g} to {high:.3g})" in page
    assert "fitted on scan_0 and scan_1 too" in said
    assert "left out: scan_2" in said


def test_units_are_of_an_attribute(made, client):
    found = performance(made[0], by="sensor", draws=10, client=client)
    assert list(found.units) == ["SWIR-1"]
    assert set(found.intervals) == {"false_alarm_rate"}


@pytest.fixture(scope="module", name="lots")
def lots_fixture(tmp_path_factory, client):
    """Four scans of two lots; the pipeline is fitted on one of them."""
    folder = tmp_path_factory.mktemp("lots")
    scans = [scan(f"scan_{i}", 30 + i, size=(60, 50), sensor=f"SWIR-{i // 2}") for i in range(4)]
    for one in scans:
        one.write(folder / "in")
        image = Image.fromarray(one.targets.astype(np.uint8))
        image.save(folder / "in" / f"{one.name}_mask.png")
    archive = folder / "a.zarr"
    convert(folder / "in", archive, client=client)
    pipeline = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    decider = QuantileBinaryDecider(quantile=0.99, name="decider")
    pipeline.connect((data.outputs.cube, rx.data), (rx.scores, decider.scores))
    fit(pipeline, archive, frames="scan_0[0][y=0:40]", client=client)
    score(pipeline, archive, folder / "s.zarr", client=client)
    return folder / "s.zarr", scans


def known_auc(store, scans):
    group = zarr.open_group(store, mode="r")
    values = np.concatenate([group[f"{one.name}/scores"][0].ravel() for one in scans])
    return roc_auc_score(np.concatenate([one.targets.ravel() for one in scans]), values)


def test_what_the_fit_has_seen_is_reported_apart(lots, client):
    store, scans = lots
    found = performance(store, split="session", draws=20, client=client)
    assert found.part_sizes == {"train": 1, "test": 3}
    assert found.parts["train"]["auc"] == pytest.approx(known_auc(store, scans[:1]), rel=1e-9)
    assert found.parts["test"]["auc"] == pytest.approx(known_auc(store, scans[1:]), rel=1e-9)
    assert found.part_intervals["test"]["auc"]
    assert "auc" not in found.part_intervals["train"]
    said = str(found)
    assert "test: 3 sessions of a session that the fit has not seen" in said
    # The same session, though other lines of it.
    assert "the pipeline was fitted on scan_0 too" in said
    lots = performance(store, split="sensor", draws=5, client=client)
    assert lots.part_sizes == {"train": 2, "test": 2}
    assert lots.parts["test"]["auc"] == pytest.approx(known_auc(store, scans[2:]), rel=1e-9)
    assert performance(store, draws=5, client=client).parts == {}


def test_thresholds_of_the_scored_set_are_said(lots, made, client):
    found = performance(lots[0], draws=5, client=client)
    assert found.own_thresholds == ("decider",)
    assert "takes its thresholds from the scores that are measured here" in str(found)
    other = performance(made[0], split="session", draws=5, client=client)
    assert other.own_thresholds == ()
    assert "there is no test part: the pipeline was fitted on every session" in str(other)
    with pytest.raises(ConfigError, match="is not one of session, sensor, attr:NAME"):
        performance(made[0], split="lot", client=client)
    with pytest.raises(ConfigError, match="state no 'lot'"):
        performance(made[0], split="attr:lot", client=client)


def test_what_has_no_labels_is_refused_with_the_remedy(made, tmp_path, client):
    scan("bare", 3, size=(60, 50)).write(tmp_path / "in")
    detect([tmp_path / "in"], tmp_path / "out", pfa=0.01, client=client)
    with pytest.raises(ConfigError, match="label STORE --annotations FILE"):
        performance(tmp_path / "out" / "scores.zarr", client=client)
    with pytest.raises(ConfigError, match="Name it with --archive"):
        performance(made[0], archive=tmp_path / "nowhere", client=client)


def test_the_command_line(made):
    done = command("evaluate", made[0], "--json", "--draws", "5", "--workers", "1").checked()
    assert done.code == 0, done
    assert done.json["pooled"]["objects"] == 10
