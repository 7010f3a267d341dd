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
from hsi_batch.stages.performance import performance


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


def test_what_has_no_labels_is_refused_with_the_remedy(made, tmp_path, client):
    scan("bare", 3, size=(60, 50)).write(tmp_path / "in")
    detect([tmp_path / "in"], tmp_path / "out", pfa=0.01, client=client)
    with pytest.raises(ConfigError, match="--annotations FILE"):
        performance(tmp_path / "out" / "scores.zarr", client=client)
    with pytest.raises(ConfigError, match="Name it with --archive"):
        performance(made[0], archive=tmp_path / "nowhere", client=client)


def test_the_command_line(made):
    done = command("evaluate", made[0], "--json", "--draws", "5", "--workers", "1").checked()
    assert done.code == 0, done
    assert done.json["pooled"]["objects"] == 10
