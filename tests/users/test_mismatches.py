"""Data and pipelines that do not belong together: one paragraph that names both."""

import re
from pathlib import Path

import numpy as np
import pytest
from commands import files_below
from recordings import scene, write_envi, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.workflow import shipped

NM = np.arange(8) * 10.0 + 400
RX = Path(__file__).parents[1] / "rx_raw.yaml"


@pytest.fixture
def fitted(hsi, tmp_path):
    """A pipeline that was fitted on 8 channels, 400 to 470 nm."""
    write_envi(tmp_path / "first" / "a.hdr", scene(1)[0], wavelength=NM)
    first = tmp_path / "first.zarr"
    assert hsi("convert", tmp_path / "first", "--archive", first).code == 0
    assert hsi("fit", RX, "--archive", first, "--out", tmp_path / "f.yaml").code == 0
    return tmp_path / "f.yaml"


@pytest.mark.parametrize(
    ("bands", "nm", "says"),
    [
        (6, NM[:6], ["8 channels against 6"]),
        (8, NM + 3, ["wavelengths differ by up to 3 nm"]),
        (9, None, ["8 channels against 9"]),
    ],
)
def test_scoring_other_channels(hsi, fitted, tmp_path, bands, nm, says):
    write_envi(tmp_path / "second" / "other.hdr", scene(2, bands=bands)[0], wavelength=nm)
    archive = tmp_path / "second.zarr"
    assert hsi("convert", tmp_path / "second", "--archive", archive).code == 0
    before = files_below(tmp_path)
    for extra in ([], ["--dry-run"]):
        done = hsi("score", fitted, "--archive", archive, "--out", tmp_path / "s.zarr", *extra)
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
        for part in ["session other", "'RX_Global'", *says]:
            assert part in done.err
    assert files_below(tmp_path) == before


def test_a_recording_without_wavelengths_is_scored(hsi, fitted, tmp_path):
    write_envi(tmp_path / "second" / "other.hdr", scene(2)[0])
    archive = tmp_path / "second.zarr"
    assert hsi("convert", tmp_path / "second", "--archive", archive).code == 0
    assert hsi("score", fitted, "--archive", archive, "--out", tmp_path / "s.zarr").code == 0


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"bands": 7}, "7 channels against 8"),
        ({"shift": 2.0}, "wavelengths differ by up to 2 nm"),
        ({"extra": "reflectance scale factor = 10000\n"}, "quantity"),
        ({"dtype": "float32"}, "float32"),
    ],
)
def test_fitting_sessions_that_do_not_agree(hsi, tmp_path, second, says):
    write_envi(tmp_path / "in" / "near.hdr", scene(1)[0], wavelength=NM)
    bands = second.get("bands", 8)
    write_envi(
        tmp_path / "in" / "far.hdr",
        scene(2, bands=bands, dtype=second.get("dtype", "uint16"))[0],
        wavelength=NM[:bands] + second.get("shift", 0.0),
        extra=second.get("extra", ""),
    )
    archive, out = tmp_path / "a.zarr", tmp_path / "f.yaml"
    assert hsi("convert", tmp_path / "in", "--archive", archive).code == 0
    before = files_below(tmp_path)
    done = hsi("fit", RX, "--archive", archive, "--out", out)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    for part in ("near", "far", says, "--frames"):
        assert part in done.err
    assert files_below(tmp_path) == before
    # What the hint names can be typed as it stands.
    hint = re.search(r"--frames (\w+)", done.err).group(1)
    assert hint in ("near", "far")
    assert hsi("fit", RX, "--archive", archive, "--out", out, "--frames", hint).code == 0


def test_the_hint_names_the_whole_group(hsi, tmp_path):
    for i in range(3):
        write_envi(tmp_path / "in" / f"a{i}.hdr", scene(i)[0], wavelength=NM)
    write_envi(tmp_path / "in" / "b.hdr", scene(3, bands=5)[0], wavelength=NM[:5])
    archive, out = tmp_path / "a.zarr", tmp_path / "f.yaml"
    assert hsi("convert", tmp_path / "in", "--archive", archive).code == 0
    done = hsi("fit", RX, "--archive", archive, "--out", out)
    assert "Select one group, for example --frames a0,a1,a2." in done.err
    done = hsi("fit", RX, "--archive", archive, "--out", out, "--frames", "a0,a1,a2")
    assert "3 frames in 3 sessions" in done.out


def test_gains_per_band(hsi, tmp_path):
    many = ", ".join(str(1 + i) for i in range(8))
    for name, gains in {"one": "0.5", "few": many, "more": many}.items():
        write_envi(
            tmp_path / "in" / f"{name}.hdr",
            scene(1)[0],
            extra=f"data gain values = {{{gains}}}\ndata offset values = {{3}}\n",
        )
    archive = tmp_path / "a.zarr"
    convert = ["convert", tmp_path / "in", "--archive", archive]
    done = hsi(*convert)
    assert done.code == 0
    said = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(said) == 1
    path = tmp_path / "in" / "few.hdr"
    assert said[0].startswith(f"warning: {path} and 1 more: its 'data gain values' differ")
    sessions = {name: open_archive(archive).session(name) for name in ("one", "few")}
    assert [sessions["one"].attrs[key] for key in ("scale", "offset")] == [0.5, 3.0]
    assert [sessions["few"].attrs[key] for key in ("scale", "offset")] == [1.0, 0.0]
    assert sessions["few"].attrs["metadata"]["data gain values"] == many.split(", ")
    np.testing.assert_array_equal(sessions["few"].cube[0], scene(1)[0])
    assert "warning" not in hsi(*convert).err


@pytest.mark.parametrize(("graph", "node"), [("rx_statistical", "rx"), ("pca", "pca")])
@pytest.mark.parametrize("scale", [1e303, -1e160])
def test_fitting_values_whose_squares_overflow(hsi, tmp_path, graph, node, scale):
    cube = scene(1, dtype="float64")[0] * scale / 3000
    assert np.isfinite(cube).all()
    write_npz(tmp_path / "in" / "far.npz", cube)
    archive, out = tmp_path / "a.zarr", tmp_path / "f.yaml"
    assert hsi("convert", tmp_path / "in", "--archive", archive).code == 0
    pipeline = shipped() / "pipelines" / f"{graph}.yaml"
    done = hsi("fit", pipeline, "--archive", archive, "--out", out)
    assert (done.code, done.out) == (1, "")
    assert f"hsi-batch: {node}: the values are so large" in done.err
    assert "smaller units" in done.err
    assert not out.exists()
