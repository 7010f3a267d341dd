"""White and dark references at conversion, against the formula computed by plain NumPy."""

import warnings

import numpy as np
import pytest
from commands import command
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.errors import ConfigError
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.repair import repair

HEIGHT, WIDTH, BANDS = 40, 12, 6
NM = "{" + ", ".join(str(450 + 50 * i) for i in range(BANDS)) + "}"
AXIS = {"wavelength": NM, "wavelength_units": "nm"}


def counts(seed, low=400, high=3000, height=HEIGHT):
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (height, WIDTH, BANDS)).astype(np.uint16)


def scan(folder, name="scan", *, white="WHITEREF_scan", dark="DARKREF_scan", **extra):
    folder.mkdir(parents=True, exist_ok=True)
    raw, w, d = counts(1), counts(2, 3500, 3900, 9), counts(3, 90, 110, 7)
    write_envi(folder, raw, name=name, **AXIS, **extra)
    if white:
        write_envi(folder, w, name=white, **AXIS, **extra)
    if dark:
        write_envi(folder, d, name=dark, **AXIS, **extra)
    return raw, w, d


def expected(raw, w, d, panel=1.0, ratio=1.0):
    w, d = w.astype(float).mean(0), d.astype(float).mean(0)
    return (raw.astype(float) - d) / (w - d) * panel * ratio


def run(folder, tmp_path, client, **options):
    result = convert(folder, tmp_path / "a.zarr", client=client, **options)
    assert not result.failed, result
    return open_archive(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("white", "dark"),
    [
        ("WHITEREF_scan", "DARKREF_scan"),
        ("scan_white", "scan_dark"),
        ("whiteReference", "darkReference"),
        ("white", "dark"),
    ],
)
def test_references_beside_a_scan_are_paired_by_their_names(tmp_path, client, white, dark):
    raw, w, d = scan(tmp_path / "in", white=white, dark=dark)
    archive = run(tmp_path / "in", tmp_path, client)
    data = archive["scan"]
    assert data.cube.dtype == np.float32
    np.testing.assert_allclose(data.cube[0], expected(raw, w, d), rtol=3e-7, atol=1e-7)
    assert (data.attrs["quantity"], data.attrs["units"]) == ("reflectance", "1")
    said = data.attrs["calibration"]
    assert said["white"].endswith(f"{white}.hdr")
    assert (said["white_lines"], said["dark_lines"], said["bad_pixels"]) == (9, 7, 0)
    np.testing.assert_allclose(data.white, w.mean(0), rtol=1e-12)


def test_panel_and_integration_time(tmp_path, client):
    folder = tmp_path / "in"
    raw, w, d = scan(folder, tint=4)
    write_envi(folder, w, name="WHITEREF_scan", **AXIS, tint=2)
    panel = tmp_path / "panel.csv"
    panel.write_text("wavelength,panel\n400,0.9\n800,0.98\n")
    archive = run(folder, tmp_path, client, panel=panel)
    nm = 450 + 50 * np.arange(BANDS)
    known = expected(raw, w, d, np.interp(nm, [400, 800], [0.9, 0.98]), 0.5)
    np.testing.assert_allclose(archive["scan"].cube[0], known, rtol=3e-7, atol=1e-7)
    assert archive["scan"].integration_time.values.tolist() == [4.0]
    again = convert(folder, tmp_path / "a.zarr", client=client, panel=panel)
    assert again.up_to_date == 1


def test_named_references_a_frame_of_one_and_a_dark_signal_of_zero(tmp_path, client):
    raw, w, d = scan(tmp_path / "in", white=None, dark=None)
    elsewhere = tmp_path / "refs"
    elsewhere.mkdir()
    white = elsewhere / "calibration.npz"
    np.savez(white, cube=np.stack([w * 0 + 1, w]))
    options = {"white": f"{white}:1", "dark": "none"}
    archive = run(tmp_path / "in", tmp_path, client, **options)
    np.testing.assert_allclose(archive["scan"].cube[0], expected(raw, w, d * 0), rtol=3e-7)


def test_crop_cuts_pixels_labels_and_references(tmp_path, client):
    from PIL import Image

    raw, w, d = scan(tmp_path / "in")
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[10:12, 5] = 1
    Image.fromarray(mask).save(tmp_path / "in" / "scan_mask.png")
    archive = run(tmp_path / "in", tmp_path, client, crop="3,1,2,4")
    data = archive["scan"]
    known = expected(raw, w, d)[3:-1, 2:-4]
    np.testing.assert_allclose(data.cube[0], known, rtol=3e-7, atol=1e-7)
    np.testing.assert_array_equal(data.label[0], mask[3:-1, 2:-4])


def test_bad_references_become_flags_and_a_dead_band_a_bad_band(tmp_path, client):
    folder = tmp_path / "in"
    raw, w, d = scan(folder, bit_depth=12)
    w[:, 3, 2] = d[:, 3, 2][:1]
    w[:, 7, 4] = 4095  # saturated white
    w[:, :, 5] = d.max()
    d[:, :, 5] = d.max()
    raw[20, 9, 1] = 4095
    for name, cube in (("scan", raw), ("WHITEREF_scan", w), ("DARKREF_scan", d)):
        write_envi(folder, cube, name=name, **AXIS, bit_depth=12)
    archive = run(folder, tmp_path, client)
    data = archive["scan"]
    assert data.good_band.values.tolist() == [True] * 5 + [False]
    flags = data.quality[0].values
    assert (flags[:, [3, 7]] == 8).all()  # dead
    assert flags[20, 9] == 4  # saturated in counts, before calibration
    assert np.count_nonzero(flags) == 2 * HEIGHT + 1
    good = np.delete(np.arange(WIDTH), [3, 7])
    known = expected(raw[..., :5], w[..., :5], d[..., :5])
    np.testing.assert_allclose(
        data.cube[0].values[:, good, :5], known[:, good], rtol=3e-7, atol=1e-7
    )
    assert data.attrs["flags"] == {"saturated": 1, "dead": 2 * HEIGHT}


def test_no_data_of_the_counts_stays_no_data(tmp_path, client):
    folder = tmp_path / "in"
    folder.mkdir()
    raw, w, d = (c.astype(np.int16) for c in (counts(1), counts(2, 3500, 3900), counts(3, 9, 20)))
    raw[:, :2] = -9999
    for name, cube in (("scan", raw), ("WHITEREF_scan", w), ("DARKREF_scan", d)):
        write_envi(folder, cube, name=name, **AXIS, data_ignore_value=-9999)
    data = run(folder, tmp_path, client)["scan"]
    assert (data.quality[0, :, :2] == 1).all()
    assert int((data.quality != 0).sum()) == 2 * HEIGHT
    assert np.isnan(data.cube[0, :, :2]).all()
    np.testing.assert_allclose(
        data.cube[0].values[:, 2:], expected(raw, w, d)[:, 2:], rtol=3e-7, atol=1e-7
    )


def test_repair_calibrates_as_before(tmp_path, client):
    scan(tmp_path / "in")
    archive = run(tmp_path / "in", tmp_path, client)
    before = archive["scan"].cube.values
    chunk = next((tmp_path / "a.zarr/scan/cube").glob("c.*"))
    chunk.unlink()
    repair(tmp_path / "a.zarr", client=client)
    after = open_archive(tmp_path / "a.zarr")["scan"].cube.values
    np.testing.assert_array_equal(before, after)


def test_counts_stay_counts_on_request_and_a_lone_reference_is_told_of(tmp_path, client):
    raw, _, _ = scan(tmp_path / "in", dark=None)
    with pytest.warns(UserWarning, match=r"no dark one.*--dark FILE"):
        archive = run(tmp_path / "in", tmp_path, client)
    np.testing.assert_array_equal(archive["scan"].cube[0], raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(tmp_path / "in", tmp_path / "b.zarr", white="none", client=client)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"white": "nowhere.hdr"}, "there is no such white reference"),
        ({"white": "none", "panel": 0.9}, "only with a white reference"),
        ({"panel": 99}, "above 0, 1 being"),
        ({"panel": "nowhere.csv"}, "no such spectrum of a panel"),
        ({"crop": "1,2"}, "T,B,L,R"),
        ({"quantity": "reflectence"}, "Did you mean 'reflectance'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, client, options, said):
    scan(tmp_path / "in")
    with pytest.raises(ConfigError, match=said):
        convert(tmp_path / "in", tmp_path / "a.zarr", client=client, **options)


def broken(folder, tmp_path, client, **options):
    result = convert(folder, tmp_path / "a.zarr", client=client, **options)
    return "; ".join(reason for _, reason in result.broken)


def test_references_that_do_not_fit_are_refused_with_the_remedy(tmp_path, client):
    _, w, _ = scan(tmp_path / "in")
    other = tmp_path / "other"
    other.mkdir()
    narrow = write_envi(other, np.ascontiguousarray(w[:, :-1]), name="white", **AXIS)
    assert "11 columns" in broken(tmp_path / "in", tmp_path, client, white=narrow)
    shifted = write_envi(other, w, name="white2", wavelength=NM.replace("450", "451"),
                         wavelength_units="nm")  # fmt: skip
    said = broken(tmp_path / "in", tmp_path, client, white=shifted)
    assert "up to 1 nm apart" in said
    assert "--white FILE" in said


def test_a_missing_reference_is_refused_with_the_remedy(tmp_path, client):
    _, w, _ = scan(tmp_path / "in", white=None, dark=None)
    other = tmp_path / "other"
    other.mkdir()
    white = write_envi(other, w, name="white", **AXIS)
    said = broken(tmp_path / "in", tmp_path, client, white=white)
    assert "no dark reference" in said
    assert "--dark none" in said


def test_several_references_that_could_be_meant_are_refused(tmp_path, client):
    _, w, _ = scan(tmp_path / "in", white="white_1", dark="dark")
    write_envi(tmp_path / "in", w, name="white_2", **AXIS)
    said = broken(tmp_path / "in", tmp_path, client)
    assert "white_1.hdr, white_2.hdr" in said
    assert "--white FILE" in said


def test_reflectance_is_not_calibrated_twice(tmp_path, client):
    raw, w, _ = scan(tmp_path / "in", reflectance_scale_factor=10000)
    archive = run(tmp_path / "in", tmp_path, client)
    np.testing.assert_array_equal(archive["scan"].cube[0], raw)
    other = tmp_path / "other"
    other.mkdir()
    white = write_envi(other, w, name="white", **AXIS)
    said = broken(tmp_path / "in", tmp_path / "b", client, white=white, dark=white)
    assert "twice" in said


def test_counts_and_reflectance_are_not_put_into_one_fit(tmp_path, client):
    scan(tmp_path / "in")
    scan(tmp_path / "in" / "raw", "bare", white=None, dark=None)
    run(tmp_path / "in", tmp_path, client)
    with pytest.raises(ConfigError, match=r"differ in quantity.*--frames"):
        fit("workflows/pipelines/rx_global.yaml", tmp_path / "a.zarr", client=client)


def test_the_command_line_knows_the_options(tmp_path):
    scan(tmp_path / "in")
    done = command(
        "convert", tmp_path / "in", "--archive", tmp_path / "a.zarr", "--white", "sibling",
        "--panel", "0.95", "--crop", "0,0,1,1", "--dry-run",
    )  # fmt: skip
    assert done.checked().code == 0, done
    assert "1 new" in done.out
