"""Converting: what is in the archive is what was in the recording."""

import json
import os
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from recordings import scene, write_cu3s, write_envi, write_npz
from simulated_cuvis import Fault

from hsi_batch.archive import open_archive
from hsi_batch.stages.convert import convert
from hsi_batch.statistics import Extrema, IntegerMoments


def paths_of(folder):
    return sorted(str(p) for p in folder.iterdir())


def test_cube_labels_wavelengths_and_source(tmp_path, client):
    cube, mask = scene(1)
    nm = np.linspace(420, 900, 8)
    header = write_envi(tmp_path / "in" / "rec 1.hdr", cube, wavelength=nm, mask=mask)
    result = convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    assert (result.failed, len(result.converted)) == (0, 1)
    archive = open_archive(tmp_path / "a.zarr")
    assert list(archive) == ["rec_1"]
    data = archive["rec_1"]
    np.testing.assert_array_equal(data.cube[0], cube)
    assert data.cube.dtype == np.uint16
    np.testing.assert_array_equal(data.label[0], mask)
    assert data.label.attrs["classes"] == {"0": "background", "1": "anomaly"}
    np.testing.assert_allclose(data.wavelength, nm, atol=1e-5)
    assert data.wavelength.dims == ("channel",)
    source = archive.session("rec_1").attrs["source"]
    import hashlib

    assert source["path"] == str(header)
    assert source["sha256"] == hashlib.sha256(header.with_suffix(".raw").read_bytes()).hexdigest()


def test_opens_with_plain_xarray_without_a_warning(tmp_path, client):
    frames = [scene(i)[0] for i in range(3)]
    write_cu3s(tmp_path / "in" / "s.cu3s", frames)
    write_npz(tmp_path / "in" / "n.npz", scene(9, bands=5)[0])
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(tmp_path / "a.zarr", engine="zarr")
        assert sorted(tree.children) == ["n", "s"]
        opened = xr.open_zarr(tmp_path / "a.zarr", group="s")
        np.testing.assert_array_equal(opened.cube[2], frames[2])
        assert str(opened.time.dtype).startswith("datetime64")
        # Stored integers stay integers: scale and no-data are under names of our own.
        assert opened.cube.dtype == np.uint16


def test_stored_moments_and_extrema_are_those_of_the_pixels(tmp_path, client):
    cube, mask = scene(3, lines=70, samples=20)
    cube[5, 5] = 65535
    write_npz(tmp_path / "in" / "s.npz", cube, mask=mask)
    convert(tmp_path / "in", tmp_path / "a.zarr", saturation=65535, block_lines=16, client=client)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")["s"]
    # 16 x 20 x 8 pixels are small: one row for the session.
    total = IntegerMoments.from_row(group["moments"][0])
    valid = np.ones(cube.shape[:2], dtype=bool)
    valid[5, 5] = False
    pixels = cube[valid].astype(object)
    assert total.count == len(pixels)
    np.testing.assert_array_equal(total.total, pixels.sum(axis=0))
    gram = pixels.T @ pixels
    stored = total.high.astype(object) * 2**32 + total.low
    np.testing.assert_array_equal(stored, gram[np.triu_indices(8)])
    normal = IntegerMoments.from_row(group["moments_normal"][0])
    assert normal.count == int((valid & (mask == 0)).sum())
    low, high = group["extrema"][0]
    np.testing.assert_array_equal(low, cube[valid].min(axis=0))
    np.testing.assert_array_equal(high, cube[valid].max(axis=0))
    low, high = group["extrema_normal"][0]
    np.testing.assert_array_equal(high, cube[valid & (mask == 0)].max(axis=0))
    assert group["quality"][0, 5, 5] == 4
    assert int(group.attrs["flagged_pixels"]) == 1


def test_blocks_with_rows_of_their_own(tmp_path, client):
    # Large enough that statistics are a small share of the pixels.
    cube = np.random.default_rng(0).integers(0, 4000, (600, 700, 4), dtype=np.uint16)
    write_envi(tmp_path / "s.hdr", cube, interleave="bsq")
    convert(tmp_path / "s.hdr", tmp_path / "a.zarr", block_lines=64, client=client)
    session = open_archive(tmp_path / "a.zarr").session("s")
    assert session.geometry.row_frames is None
    rows = session.group["moments"]
    assert rows.shape[0] == 10
    for index, start in enumerate(range(0, 600, 64)):
        part = IntegerMoments.from_row(rows[index])
        pixels = cube[start : start + 64].reshape(-1, 4)
        assert part == IntegerMoments.zero(4).update(pixels)
        found = Extrema(part.count, *session.group["extrema"][index])
        np.testing.assert_array_equal(found.maximum, pixels.max(axis=0))


def test_a_rerun_does_nothing(tmp_path, client):
    for i in range(3):
        write_npz(tmp_path / "in" / f"s{i}.npz", scene(i)[0])
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()}
    again = convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    assert (again.blocks, again.up_to_date, len(again.converted)) == (0, 3, 0)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()}
    assert before == after


def test_new_sources_are_added_and_old_ones_kept(tmp_path, client):
    write_npz(tmp_path / "in" / "a" / "rec.npz", scene(1)[0])
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    # A second folder moves the common root, but a source keeps its name.
    other = scene(2)[0]
    write_npz(tmp_path / "in" / "b" / "rec.npz", other)
    result = convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    assert (result.up_to_date, len(result.converted)) == (1, 1)
    archive = open_archive(tmp_path / "a.zarr")
    assert sorted(archive) == ["b-rec", "rec"]
    np.testing.assert_array_equal(archive["b-rec"].cube[0], other)


def test_equal_names_in_different_folders_do_not_collide(tmp_path, client):
    first, second = scene(1)[0], scene(2)[0]
    write_npz(tmp_path / "in" / "a" / "rec.npz", first)
    write_npz(tmp_path / "in" / "b" / "rec.npz", second)
    write_npz(tmp_path / "in" / "a-rec.npz", scene(3)[0])
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    archive = open_archive(tmp_path / "a.zarr")
    assert len(archive) == 3
    by_source = {archive.session(n).attrs["source"]["path"]: n for n in archive}
    for path, cube in (("a/rec.npz", first), ("b/rec.npz", second)):
        name = by_source[str(tmp_path / "in" / path)]
        np.testing.assert_array_equal(archive[name].cube[0], cube)


def test_a_changed_source_is_refused_unless_replaced(tmp_path, client):
    path = write_npz(tmp_path / "s.npz", scene(1)[0])
    convert(path, tmp_path / "a.zarr", client=client)
    changed = scene(2, lines=44)[0]
    write_npz(path, changed)
    result = convert(path, tmp_path / "a.zarr", client=client)
    assert (result.changed, result.failed, result.blocks) == (("s",), 1, 0)
    np.testing.assert_array_equal(open_archive(tmp_path / "a.zarr")["s"].cube[0], scene(1)[0])
    result = convert(path, tmp_path / "a.zarr", replace=True, client=client)
    assert (result.changed, result.failed, result.blocks) == ((), 0, 1)
    np.testing.assert_array_equal(open_archive(tmp_path / "a.zarr")["s"].cube[0], changed)


def test_a_source_that_was_only_touched_is_up_to_date(tmp_path, client):
    cube, mask = scene(1)
    header = write_envi(tmp_path / "s.hdr", cube, mask=mask)
    files = sorted(p for p in tmp_path.iterdir() if p.is_file())
    assert len(files) == 3
    convert(header, tmp_path / "a.zarr", client=client)
    digest = open_archive(tmp_path / "a.zarr").session("s").attrs["digest"]
    for file in files:
        os.utime(file, ns=(0, 10**18))
        result = convert(header, tmp_path / "a.zarr", dry_run=True)
        assert (result.up_to_date, result.changed, result.failed) == (1, (), 0)
        result = convert(header, tmp_path / "a.zarr", client=client)
        assert (result.up_to_date, result.changed, result.failed) == (1, (), 0)
        # The new time is kept, so that nothing is read the next time.
        attrs = open_archive(tmp_path / "a.zarr").session("s").attrs
        assert attrs["source"]["files"][str(file)] == [file.stat().st_size, 10**18]
        assert attrs["digest"] == digest
    assert attrs["source"]["mtime"] == 1e9
    assert open_archive(tmp_path / "a.zarr").catalog["source_mtime"].tolist() == [1e9]
    # Other bytes of the same size.
    data = header.with_suffix(".raw")
    raw = bytearray(data.read_bytes())
    raw[100] ^= 1
    data.write_bytes(raw)
    result = convert(header, tmp_path / "a.zarr", client=client)
    assert (result.up_to_date, result.changed, result.failed) == (0, ("s",), 1)
    assert "1 changed since" in str(result)
    assert "failed" not in str(result)
    assert result.plan.sessions[0].why == f"{data} changed since"


def test_frames_are_tried_again_though_their_source_was_touched(tmp_path, client):
    frames = [scene(i)[0] for i in range(3)]
    path = tmp_path / "s.cu3s"
    write_cu3s(path, frames, faults=[Fault("get_mesu", frame=1)])
    assert convert(path, tmp_path / "a.zarr", client=client).failed == 1
    os.utime(path, ns=(0, 10**18))
    again = convert(path, tmp_path / "a.zarr", only_failed=True, client=client)
    assert (again.changed, again.failed, again.blocks) == ((), 1, 0)
    found = open_archive(tmp_path / "a.zarr").session("s").attrs["source"]["files"]
    assert found[str(path)][1] == 10**18


def test_labels_that_appear_later_make_the_session_stale(tmp_path, client):
    cube, mask = scene(1)
    path = write_envi(tmp_path / "s.hdr", cube)
    convert(path, tmp_path / "a.zarr", client=client)
    write_envi(path, cube, mask=mask)
    assert convert(path, tmp_path / "a.zarr", client=client).changed == ("s",)


def test_unlabelled_frames_are_not_background(tmp_path, client):
    frames = [scene(i)[0] for i in range(3)]
    masks = [scene(i)[1] for i in range(3)]
    path = write_cu3s(tmp_path / "s.cu3s", frames, masks=masks)
    content = json.loads(path.with_suffix(".json").read_text())
    content["images"] = content["images"][:2]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] < 2]
    path.with_suffix(".json").write_text(json.dumps(content))
    convert(path, tmp_path / "a.zarr", client=client)
    data = open_archive(tmp_path / "a.zarr")["s"]
    np.testing.assert_array_equal(data.label[1], masks[1])
    assert (data.label[2] == -1).all()
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")["s"]
    counts = [IntegerMoments.from_row(row).count for row in group["moments_normal"][:]]
    assert counts == [int((masks[0] == 0).sum()), int((masks[1] == 0).sum()), 0]


@pytest.mark.parametrize("annotations", ["none", "file"])
def test_where_labels_come_from(tmp_path, client, annotations):
    cube, mask = scene(1)
    path = write_envi(tmp_path / "in" / "s.hdr", cube, mask=mask)
    where = "none"
    if annotations == "file":
        where = str(path.with_name("s_mask.png").rename(tmp_path / "elsewhere.png"))
    convert(path, tmp_path / "a.zarr", annotations=where, client=client)
    session = open_archive(tmp_path / "a.zarr").session("s")
    assert session.labelled == (annotations == "file")


def test_dry_run_writes_nothing(tmp_path, client):
    write_npz(tmp_path / "in" / "s.npz", scene(1)[0])
    (tmp_path / "in" / "WHITEREF_s.hdr").write_text("ENVI\n")
    result = convert(tmp_path / "in", tmp_path / "a.zarr", dry_run=True, client=client)
    assert result.plan.counts() == {"new": 1, "skipped": 1}
    assert result.plan.blocks == 1
    assert paths_of(tmp_path) == [str(tmp_path / "in")]


def test_time_and_frame_numbers_come_from_the_recording(tmp_path, client):
    frames = [scene(i)[0] for i in range(4)]
    write_cu3s(tmp_path / "s.cu3s", frames, gaps=(2,))
    convert(tmp_path / "s.cu3s", tmp_path / "a.zarr", client=client)
    data = open_archive(tmp_path / "a.zarr")["s"]
    assert data.sizes["frame"] in (3, 4)
    assert np.all(np.diff(data.frame_id) >= 1)
    assert data.time.dims == ("frame",)
    assert (data.integration_time > 0).all()


def test_all_dtypes_arrive_as_they_are(tmp_path, client):
    for dtype in ("uint8", "int16", "int32", "float32", "float64", "uint16"):
        write_envi(tmp_path / "in" / f"{dtype}.hdr", scene(1, dtype=dtype, scale=100)[0])
    assert convert(tmp_path / "in", tmp_path / "a.zarr", client=client).failed == 0
    archive = open_archive(tmp_path / "a.zarr")
    for name in archive:
        assert archive[name].cube.dtype == name
        np.testing.assert_array_equal(archive[name].cube[0], scene(1, dtype=name, scale=100)[0])
