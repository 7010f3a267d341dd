"""Bad input: one bad file or frame never stops the others, and nothing written is lost."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from recordings import scene, write_cu3s, write_envi, write_npz
from simulated_cuvis import Fault

from hsi_batch.archive import open_archive
from hsi_batch.errors import ConfigError, HsiBatchError, PlanError, StoreError
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.fit_file import pipeline_from

RX = Path(__file__).parents[1] / "rx_raw.yaml"


def good(folder, count=2):
    for i in range(count):
        write_npz(folder / f"good{i}.npz", scene(i)[0])


def truncated(path):
    header = write_envi(path.with_suffix(".hdr"), scene(1)[0])
    data = header.with_suffix(".raw")
    data.write_bytes(data.read_bytes()[:-100])
    return header


def empty(path):
    path = path.with_suffix(".npz")
    path.write_bytes(b"")
    return path


def wrong_suffix(path):
    path = path.with_suffix(".npz")
    path.write_bytes(b"ENVI\nsamples = 3\n")
    return path


def unreadable(path):
    path = path.with_suffix(".cu3s")
    path.write_bytes(bytes(range(256)) * 10)
    return path


def disagreeing(path):
    header = write_envi(path.with_suffix(".hdr"), scene(1)[0])
    header.write_text(header.read_text().replace("bands = 8", "bands = 9"))
    return header


def mixed_annotation(path):
    return write_envi(path.with_suffix(".hdr"), scene(1)[0], mask=scene(1)[1][:-1])


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (truncated, r"bytes"),
        (empty, r"empty|zip|npz"),
        (wrong_suffix, r"zip|npz"),
        (unreadable, r"cu3s|session|open"),
        (disagreeing, r"bytes"),
        (mixed_annotation, r"40|size|shape"),
    ],
)
def test_one_bad_file_does_not_stop_the_others(tmp_path, client, broken, says):
    good(tmp_path / "in")
    bad = broken(tmp_path / "in" / "bad")
    result = convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    assert sorted(open_archive(tmp_path / "a.zarr")) == ["good0", "good1"]
    assert result.failed == 1
    (path, reason) = result.broken[0]
    assert path == str(bad)
    assert "bad" in reason
    assert re.search(says, reason)
    # It is tried again, and again reported, while what is good is left alone.
    again = convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    assert (again.failed, again.up_to_date, again.blocks) == (1, 2, 0)


def test_no_source_at_all(tmp_path, client):
    with pytest.raises(ConfigError, match="no recordings were found"):
        convert(tmp_path / "nowhere", tmp_path / "a.zarr", client=client)


def test_failed_frames_are_left_out_and_retried(tmp_path, client):
    frames = [scene(i)[0] for i in range(5)]
    path = tmp_path / "s.cu3s"
    write_cu3s(path, frames, faults=[Fault("get_mesu", frame=2), Fault("apply", frame=4)])
    result = convert(path, tmp_path / "a.zarr", client=client)
    assert result.failed == 2
    assert {f.key.frame for f in result.failures} == {2, 4}
    session = open_archive(tmp_path / "a.zarr").session("s")
    assert sorted(session.failed_frames) == [2, 4]
    assert all(str(path) in reason for reason in session.failed_frames.values())
    # Plain xarray sees them flagged, not as zeros that look like data.
    data = xr.open_zarr(tmp_path / "a.zarr", group="s")
    assert (data.quality[2] == 1).all()
    assert (data.quality[1] == 0).all()
    # A selection leaves them out.
    assert list(open_archive(tmp_path / "a.zarr").select().frames["s"]) == [0, 1, 3]

    again = convert(path, tmp_path / "a.zarr", client=client)
    assert (again.blocks, again.failed, len(again.earlier)) == (0, 2, 2)

    # What kept the frames from being read is mended; the file keeps its size and time stamp.
    stamp = path.stat()
    raw = path.read_bytes()
    write_cu3s(path, frames)
    path.write_bytes(path.read_bytes().ljust(len(raw), b"\0"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    result = convert(path, tmp_path / "a.zarr", only_failed=True, client=client)
    assert (result.blocks, result.failed) == (2, 0)
    data = xr.open_zarr(tmp_path / "a.zarr", group="s")
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(data.cube[i], frame)


def test_frames_of_another_shape_or_dtype_fail_alone(tmp_path, client):
    frames = [
        scene(0)[0],
        scene(1, lines=41)[0],
        scene(2, dtype="uint8", scale=100)[0],
        scene(3)[0],
    ]
    write_cu3s(tmp_path / "s.cu3s", frames)
    result = convert(tmp_path / "s.cu3s", tmp_path / "a.zarr", client=client)
    reasons = {f.key.frame: f.reason for f in result.failures}
    assert sorted(reasons) == [1, 2]
    assert "41" in reasons[1]
    assert "40" in reasons[1]
    assert "uint8" in reasons[2]
    np.testing.assert_array_equal(open_archive(tmp_path / "a.zarr")["s"].cube[3], frames[3])


def damaged(path, seed=0):
    """A recording that opens, but whose compressed pixels cannot be decoded."""
    write_npz(path, scene(seed)[0], compressed=True)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    return path


def test_a_source_all_of_whose_frames_fail_is_no_session(tmp_path, client):
    good(tmp_path / "in", 1)
    bad = damaged(tmp_path / "in" / "bad.npz")
    result = convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    assert list(open_archive(tmp_path / "a.zarr")) == ["good0"]
    assert (result.failed, result.broken[0][0]) == (1, str(bad))
    assert not (tmp_path / "a.zarr" / "bad").exists()


def test_a_hopeless_run_stops_early(tmp_path, client):
    for i in range(40):
        damaged(tmp_path / "in" / f"s{i}.npz")
    with pytest.raises(HsiBatchError, match="all failed in the same way"):
        convert(tmp_path / "in", tmp_path / "a.zarr", client=client)


def test_flags_for_nan_nodata_and_saturation(tmp_path, client):
    cube = scene(1, dtype="float32")[0]
    cube[3, 4, 2] = np.nan
    cube[5, 6, :] = -9999
    cube[7, 8, 1] = np.inf
    write_envi(tmp_path / "s.hdr", cube, extra="data ignore value = -9999\n")
    convert(tmp_path / "s.hdr", tmp_path / "a.zarr", client=client)
    archive = open_archive(tmp_path / "a.zarr")
    quality = archive["s"].quality[0].values
    assert (quality[3, 4], quality[5, 6], quality[7, 8]) == (2, 1, 2)
    assert np.count_nonzero(quality) == 3
    assert archive.session("s").attrs["flags"] == {"nodata": 1, "non_finite": 2}
    pipeline = pipeline_from(RX)
    result = fit(pipeline, archive, client=client)
    assert result.pixels == cube[..., 0].size - 3
    clean = cube[quality == 0].astype(np.float64)
    np.testing.assert_allclose(pipeline.nodes["rx"].state["mean"], clean.mean(axis=0), rtol=1e-12)


def test_a_constant_band_is_named_with_advice(tmp_path, client):
    cube = scene(1)[0]
    cube[:, :, 3] = 7
    write_envi(tmp_path / "s.hdr", cube, wavelength=np.arange(400, 480, 10))
    convert(tmp_path / "s.hdr", tmp_path / "a.zarr", client=client)
    with pytest.raises(HsiBatchError, match=r"channel 3 \(430 nm\) is constant.*loading"):
        fit(pipeline_from(RX), tmp_path / "a.zarr", client=client)


def test_fewer_pixels_than_channels(tmp_path, client):
    write_npz(tmp_path / "s.npz", scene(1, lines=2, samples=3, bands=20)[0])
    convert(tmp_path / "s.npz", tmp_path / "a.zarr", client=client)
    with pytest.raises(HsiBatchError, match=r"6 valid pixels for 20 channels.*more pixels"):
        fit(pipeline_from(RX), tmp_path / "a.zarr", client=client)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"bands": 7}, "8 channels against 7"),
        ({"nm": 1.0}, "wavelengths differ by up to 1 nm"),
        ({"extra": "reflectance scale factor = 10000\n"}, "quantity|scale"),
        ({"dtype": "float32"}, "uint16 and .* float32"),
    ],
)
def test_sessions_that_do_not_agree_are_refused_in_one_fit(tmp_path, client, second, says):
    nm = np.arange(8) * 10.0 + 400
    write_envi(tmp_path / "in" / "a.hdr", scene(1)[0], wavelength=nm)
    bands = second.get("bands", 8)
    write_envi(
        tmp_path / "in" / "b.hdr",
        scene(2, bands=bands, dtype=second.get("dtype", "uint16"))[0],
        wavelength=nm[:bands] + second.get("nm", 0.0),
        extra=second.get("extra", ""),
    )
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    with pytest.raises(PlanError, match=says) as caught:
        fit(pipeline_from(RX), tmp_path / "a.zarr", client=client)
    assert "--frames a" in str(caught.value)


def test_the_place_of_the_archive_is_taken(tmp_path, client):
    write_npz(tmp_path / "s.npz", scene(1)[0])
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(StoreError, match="this is a file"):
        convert(tmp_path / "s.npz", tmp_path / "file.zarr", client=client)
    xr.Dataset({"x": ("a", [1])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(StoreError, match="an archive was expected"):
        convert(tmp_path / "s.npz", tmp_path / "other.zarr", client=client)


def test_unknown_mode_and_block_height_start_nothing(tmp_path, client):
    write_cu3s(tmp_path / "s.cu3s", [scene(0)[0]])
    with pytest.raises(ConfigError, match="Reflectance"):
        convert(tmp_path / "s.cu3s", tmp_path / "a.zarr", mode="Reflectanse", client=client)
    with pytest.raises(ConfigError, match="blocks of 17 lines do not fit"):
        convert(tmp_path / "s.cu3s", tmp_path / "a.zarr", block_lines=17, client=client)
    assert not (tmp_path / "a.zarr").exists()
