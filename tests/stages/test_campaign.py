"""A synthetic campaign with known truth, from counts to detections."""

import numpy as np
import pandas as pd
import pytest
from campaign import BANDS, DEFECTS, NM, WATER, scan
from commands import command
from PIL import Image
from scipy.stats import binom

from hsi_batch.archive import open_archive
from hsi_batch.detect import detect
from hsi_batch.errors import ConfigError
from hsi_batch.nodes import CU3SDataNode, Destripe, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.mask import mask
from hsi_batch.stages.score import score

PFA = 1e-3


def scored(folder, name, client, pixels="valid", *, destripe=False, **options):
    import zarr

    made = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    even = Destripe(name="even")
    if destripe:
        made.connect((data.outputs.cube, even.inputs.cube), (even.outputs.cube, rx.data))
    else:
        made.connect((data.outputs.cube, rx.data))
    result = fit(made, folder / "a.zarr", frames=name, pixels=pixels, client=client, **options)
    # Destripe takes none; what is behind it does, and so do columns within a mask.
    assert result.passes == (0 if not destripe else 1 if pixels == "valid" else 2)
    score(made, folder / "a.zarr", folder / "s.zarr", frames=name, client=client)
    return zarr.open_group(folder / "s.zarr", mode="r")[f"{name}/scores"][0]


def test_reflectance_is_what_the_counts_were_made_from(tmp_path, client):
    made = scan("clean", 1)
    convert(made.write(tmp_path), tmp_path / "a.zarr", client=client)
    found = open_archive(tmp_path / "a.zarr")["clean"].cube[0].values
    # Counts are whole numbers, and references are noisy.
    assert np.abs(found - made.reflectance).max() < 0.004


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_changes_no_score_of_another_pixel(tmp_path, client, defect):
    clean, broken = scan("clean", 1), scan("broken", 1, defects=(defect,))
    for one in (clean, broken):
        one.write(tmp_path)
    convert(tmp_path, tmp_path / "a.zarr", client=client)
    found = scored(tmp_path, "broken", client)
    # What the same recording gives where those pixels, or bands, were never there.
    options = {}
    if defect == "water":
        options = {"exclude_bands": ",".join(f"{i}" for i in np.flatnonzero(WATER))}
    else:
        Image.fromarray((~broken.flagged).astype(np.uint8)).save(tmp_path / "kept.png")
        mask(tmp_path / "a.zarr", "kept", str(tmp_path / "kept.png"), frames="clean", client=client)
        options = {"pixels": "mask:kept"}
    known = scored(tmp_path, "clean", client, **options)
    np.testing.assert_array_equal(np.isnan(found), broken.flagged)
    others = ~broken.flagged
    np.testing.assert_allclose(found[others], known[others], rtol=1e-6)


def test_destripe_takes_stripes_away(tmp_path, client):
    clean, broken = scan("clean", 1), scan("broken", 1, defects=("striping",))
    assert np.abs(clean.counts - broken.counts).max() > 50
    for one in (clean, broken):
        one.write(tmp_path)
    convert(tmp_path, tmp_path / "a.zarr", client=client)
    known = scored(tmp_path, "clean", client, destripe=True)
    found = scored(tmp_path, "broken", client, destripe=True)
    # Reflectance is kept in float32, whose last digit is 1e-5 of the noise.
    np.testing.assert_allclose(found, known, rtol=3e-4)
    striped = scored(tmp_path, "broken", client)
    apart = np.abs(striped / scored(tmp_path, "clean", client) - 1)
    assert np.median(apart) > 0.05


def test_dead_columns_change_no_other_score_behind_destripe(tmp_path, client):
    clean, broken = scan("clean", 1), scan("broken", 1, defects=("dead",))
    for one in (clean, broken):
        one.write(tmp_path)
    convert(tmp_path, tmp_path / "a.zarr", client=client)
    Image.fromarray((~broken.flagged).astype(np.uint8)).save(tmp_path / "kept.png")
    mask(tmp_path / "a.zarr", "kept", str(tmp_path / "kept.png"), frames="clean", client=client)
    found = scored(tmp_path, "broken", client, destripe=True)
    known = scored(tmp_path, "clean", client, pixels="mask:kept", destripe=True)
    others = ~broken.flagged
    np.testing.assert_array_equal(np.isnan(found), broken.flagged)
    np.testing.assert_allclose(found[others], known[others], rtol=1e-6)


def test_columns_that_are_named_as_dead_change_no_other_score(tmp_path, client):
    clean, broken = scan("clean", 1), scan("broken", 1)
    broken.counts[:, [5, 47]] = 16000
    for one in (clean, broken):
        one.write(tmp_path)
    convert(tmp_path, tmp_path / "a.zarr", white="none", dead_columns="5,47", client=client)
    found, known = (scored(tmp_path, name, client) for name in ("broken", "clean"))
    assert np.isnan(found[:, [5, 47]]).all()
    np.testing.assert_allclose(found, known, rtol=1e-6)


def test_detect_finds_the_targets_at_the_stated_rate(tmp_path, client):
    scans = [
        scan("morning", 11, defects=DEFECTS, size=(400, 300)),
        scan("evening", 12, defects=DEFECTS, size=(400, 300), shift=0.4, sensor="SWIR-2"),
    ]
    for one in scans:
        one.write(tmp_path / "in")
    result = detect([tmp_path / "in"], tmp_path / "out", pfa=PFA, client=client)
    assert result.failed == 0
    fitted = result.run.fit
    assert (fitted.groups, fitted.passes) == (2, 1)
    import zarr

    table = pd.read_parquet(result.table)
    for one in scans:
        decided = zarr.open_group(tmp_path / "out" / "scores.zarr")[f"{one.name}/decisions"][0]
        np.testing.assert_array_equal(decided == 255, one.flagged)
        mine = table[table.session == one.name]
        for y0, x0, y1, x1 in one.boxes:
            if one.flagged[y0:y1, x0:x1].all():
                continue
            hit = (mine.y0 < y1) & (mine.y1 > y0) & (mine.x0 < x1) & (mine.x1 > x0)
            assert hit.any(), (one.name, y0, x0)
        background = ~one.targets & ~one.flagged
        alarms = np.count_nonzero(decided[background] == 1)
        low, high = binom.ppf([0.0005, 0.9995], background.sum(), PFA)
        assert low <= alarms <= high, (alarms, low, high)
    assert (table.crs == "EPSG:32633").all()
    assert (tmp_path / "out" / "report.html").exists()
    group = open_archive(tmp_path / "out" / "archive.zarr").session("morning")
    assert np.flatnonzero(~group.good_band).tolist() == np.flatnonzero(WATER).tolist()
    assert len(NM) == BANDS
    again = detect([tmp_path / "in"], tmp_path / "out", pfa=PFA, client=client)
    assert (again.run.convert.blocks, again.run.fit.up_to_date, again.run.score.blocks) == (
        0,
        True,
        0,
    )
    workflow = tmp_path / "out" / "workflow.yaml"
    workflow.write_text(workflow.read_text().replace("session", "sensor"))
    with pytest.raises(ConfigError, match=r"hsi-batch run .*workflow.yaml"):
        detect([tmp_path / "in"], tmp_path / "out", pfa=PFA, client=client)


def test_a_plan_leaves_nothing_behind(tmp_path):
    scan("one", 3).write(tmp_path / "in")
    done = command("detect", tmp_path / "in", "--out", tmp_path / "out", "--dry-run").checked()
    assert done.code == 0, done
    assert "1 new" in done.out
    assert "2 files" in done.out or "skip" in done.out
    assert not (tmp_path / "out").exists()


def test_a_false_alarm_rate_must_be_one(tmp_path, client):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        detect([tmp_path], tmp_path / "out", pfa=5, client=client)
