"""A first look at a recording, against what was written."""

import numpy as np
import pytest
from campaign import WATER, scan
from commands import command

from hsi_batch.errors import ConfigError
from hsi_batch.stages.quicklook import quicklook


def test_flags_spectra_noise_and_bad_bands(tmp_path):
    made = scan("scan", 5, defects=("border", "saturated", "water"))
    rng = np.random.default_rng(0)
    made.counts[..., 3] = np.where(
        made.flagged, made.counts[..., 3], rng.normal(0, 50, made.counts.shape[:2])
    )
    header = made.write(tmp_path)
    found = quicklook(header, tmp_path / "page.html")
    pixels = made.counts[~made.flagged].astype(float)
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-12)
    assert sum(found.flags.values()) == pytest.approx(100 * made.flagged.mean(), abs=0.5)
    assert set(found.flags) == {"nodata", "saturated"}
    assert found.bad["constant"] == np.flatnonzero(WATER).tolist()
    assert found.bad["mostly noise"] == [3]
    assert found.noise[3] == pytest.approx(50, rel=0.05)
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "data:image/png" in page
    assert "<svg" in page
    said = str(found)
    assert "WHITEREF_scan.hdr, DARKREF_scan.hdr" in said
    assert "--exclude-bands 3," in said


def test_long_recordings_are_looked_at_in_part(tmp_path):
    made = scan("long", 6, defects=("border", "saturated", "water"), size=(1500, 50))
    found = quicklook(made.write(tmp_path))
    assert found.facts["looked at"] == "512 of 1500 lines"
    pixels = made.counts[~made.flagged].astype(float)
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=0.02, atol=2)


def test_the_command_line_and_a_frame_that_is_not_there(tmp_path):
    header = scan("scan", 5).write(tmp_path)
    done = command("quicklook", header, "--json").checked()
    assert (done.code, len(done.json["mean"]), done.json["flags"]) == (0, 24, {})
    with pytest.raises(ConfigError, match="Frames count from 0"):
        quicklook(header, frame=1)
