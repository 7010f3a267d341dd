"""Labels over time: versions beside each other, no pixel of a cube read, nothing else stale."""

import json

import numpy as np
import pytest
import zarr
from campaign import MAP
from commands import command
from counting import counting
from PIL import Image
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.archive.labels import label_stamp, label_versions
from hsi_batch.archive.store import archive_stamp
from hsi_batch.errors import ConfigError, DataError, DataWarning, SourceError
from hsi_batch.nodes import CU3SDataNode, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.readers.labels_border import without_borders
from hsi_batch.stages import label as label_stage
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.label import label, use_labels
from hsi_batch.stages.mask import mask
from hsi_batch.stages.repair import repair
from hsi_batch.stages.score import score
from hsi_batch.stages.verify import verify

LINES, SAMPLES, BANDS = 96, 40, 6


def image(folder, name, values):
    folder.mkdir(exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(folder / name)
    return folder / name


def marks(*boxes):
    found = np.zeros((LINES, SAMPLES), dtype=np.uint8)
    for y0, x0, y1, x1 in boxes:
        found[y0:y1, x0:x1] = 1
    return found


@pytest.fixture(name="made")
def made_fixture(tmp_path, client):
    """Three recordings: one with labels beside it, one on the ground, one with neither."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate(("first", "ground", "plain")):
        cube = np.random.default_rng(seed).integers(0, 4000, (LINES, SAMPLES, BANDS))
        extra = {"map_info": MAP} if name == "ground" else {}
        write_envi(folder, cube.astype(np.uint16), name=name, **extra)
    image(folder, "first_mask.png", marks((10, 10, 20, 20)))
    convert(folder, tmp_path / "a.zarr", client=client, block_lines=32)
    return tmp_path, tmp_path / "a.zarr"


def held(store, name="first", **options):
    return open_archive(store).session(name).labels(0, 0, LINES, **options)


def fitted(folder, store, pixels, client, frames="first"):
    pipeline = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    pipeline.connect((data.outputs.cube, rx.data))
    source = folder / "rx.yaml"
    if not source.exists():
        pipeline.save(source)
        source.with_suffix(".pt").unlink()
    out = folder / f"{pixels}.yaml"
    return fit_file(source, store, out, pixels=pixels, frames=frames, client=client), out


def test_versions_are_added_without_reading_a_cube(made, client):
    folder, store = made
    first, second = marks((10, 10, 20, 20)), marks((50, 0, 60, 30))
    file = image(folder / "later", "first.png", second)
    before = zarr.open_group(store, mode="r")["first"]["checksum"][:]
    with counting(client, store) as cubes:
        done = label(store, file, frames="first", ignore_border=2, client=client)
    assert sum(cubes.values()) == 0
    assert done.versions == {"first": 2}
    bordered = without_borders(second.astype(np.int16), 2)
    np.testing.assert_array_equal(held(store), bordered)
    np.testing.assert_array_equal(held(store, version=1), first)
    assert (done.labelled, done.anomalous) == ((bordered >= 0).sum(), (bordered == 1).sum())
    data = open_archive(store)["first"]
    np.testing.assert_array_equal(data.label[0].values, bordered)
    np.testing.assert_array_equal(data.label_v1[0].values, first)
    versions = label_versions(open_archive(store).session("first"))
    assert (versions[1]["by"], versions[2]["ignore_border"]) == ("convert", 2)
    # The same again is nothing new.
    again = label(store, file, frames="first", ignore_border=2, client=client)
    assert (again.versions, again.up_to_date) == ({}, ("first",))
    assert use_labels(store, 1, frames="first").versions == {"first": 1}
    np.testing.assert_array_equal(held(store), first)
    after = zarr.open_group(store, mode="r")["first"]["checksum"][:]
    np.testing.assert_array_equal(before, after)
    assert verify(store, deep=True, client=client).sound
    assert open_archive(store).catalog.set_index("session").labelled_frames["first"] == 1
    with pytest.raises(ConfigError, match="have no version 7 of labels; there are 1, 2"):
        use_labels(store, 7, frames="first")


def test_what_depends_on_labels_goes_stale_and_nothing_else(made, client):
    folder, store = made
    valid, out = fitted(folder, store, "valid", client)
    normal, _ = fitted(folder, store, "labelled-normal", client)
    assert (valid.passes, normal.passes) == (0, 0)
    assert normal.pixels == LINES * SAMPLES - 100
    scores = folder / "s.zarr"
    found = score(out, store, scores, frames="first", client=client)
    auc = found.metrics["auc"]
    file = image(folder / "later", "first.png", marks((50, 0, 60, 30)))
    label(store, file, frames="first", client=client)
    assert fitted(folder, store, "valid", client)[0].up_to_date
    with counting(client, store) as cubes:
        again, _ = fitted(folder, store, "labelled-normal", client)
    assert (again.up_to_date, again.pixels) == (False, LINES * SAMPLES - 300)
    # The sums that conversion kept are of its labels: each block is read once.
    assert (again.passes, sum(cubes.values())) == (1, 3)
    with counting(client, store) as cubes:
        measured = score(out, store, scores, frames="first", client=client)
    assert (measured.blocks, sum(cubes.values())) == (0, 0)
    assert measured.metrics["auc"] != auc
    use_labels(store, 1, frames="first")
    assert fitted(folder, store, "labelled-normal", client)[0].passes == 0
    back = score(out, store, scores, frames="first", client=client)
    assert (back.blocks, back.metrics["auc"]) == (0, auc)
    # Not even that, where nothing changed.
    assert score(out, store, scores, frames="first", client=client).metrics["auc"] == auc


def test_polygons_label_the_sessions_that_lie_there_and_unlabelled_is_not_normal(made, client):
    folder, store = made
    corners = [(500001, 5399999), (500004, 5399999), (500004, 5399996), (500001, 5399996)]
    geometry = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    document = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}},
        "features": [{"type": "Feature", "properties": {"class": "x"}, "geometry": geometry}],
    }
    file = folder / "ground.geojson"
    file.write_text(json.dumps(document))
    with pytest.raises(SourceError, match=r"nothing says where on the ground.*map info"):
        label(store, file, client=client)
    assert "label" not in zarr.open_group(store, mode="r")["plain"]
    done = label(store, file, frames="ground", client=client)
    found = held(store, "ground")
    assert (done.versions, set(np.unique(found))) == ({"ground": 1}, {-1, 1})
    y, x = np.nonzero(found == 1)
    assert (y.min(), y.max(), x.min(), x.max()) == (2, 7, 2, 7)
    with pytest.raises(ConfigError, match=r"mark no background.*not normal.*--rest background"):
        fitted(folder, store, "labelled-normal", client, frames="ground")
    label(store, file, frames="ground", rest="background", client=client)
    normal, _ = fitted(folder, store, "labelled-normal", client, frames="ground")
    assert normal.pixels == LINES * SAMPLES - 36


def test_frames_without_labels_are_not_normal(tmp_path, client):
    cube = np.random.default_rng(3).integers(0, 4000, (2, 48, 40, BANDS)).astype(np.uint16)
    np.savez(tmp_path / "two.npz", cube=cube)
    store = tmp_path / "a.zarr"
    convert(tmp_path / "two.npz", store, client=client, block_lines=32)
    with pytest.raises(ConfigError, match=r"what is not labelled is not normal.*label STORE"):
        fitted(tmp_path, store, "labelled-normal", client, frames="two")
    mark = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    document = {"images": [{"id": 0}], "annotations": [mark], "categories": [{"id": 1}]}
    (tmp_path / "l.json").write_text(json.dumps(document))
    done = label(store, tmp_path / "l.json", client=client)
    assert (done.labelled, done.anomalous) == (48 * 40, 81)
    normal, _ = fitted(tmp_path, store, "labelled-normal", client, frames="two")
    assert normal.pixels == 48 * 40 - 81
    with pytest.raises(DataError, match=r"0 valid pixels.*not labelled is not normal"):
        fitted(tmp_path, store, "labelled-normal", client, frames="two[1]")


def test_a_frame_whose_labels_cannot_be_read_leaves_the_session_as_it_was(tmp_path, client):
    cube = np.random.default_rng(3).integers(0, 4000, (2, 48, 40, BANDS)).astype(np.uint16)
    np.savez(tmp_path / "two.npz", cube=cube)
    store = tmp_path / "a.zarr"
    convert(tmp_path / "two.npz", store, client=client, block_lines=32)
    broken = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": "none"}
    images = [{"id": 0}, {"id": 1}]
    document = {"images": images, "annotations": [broken], "categories": [{"id": 1}]}
    (tmp_path / "l.json").write_text(json.dumps(document))
    done = label(store, tmp_path / "l.json", client=client)
    assert (done.versions, done.failed, done.failures[0].key.frame) == ({}, 1, 1)
    assert "no segmentation" in done.failures[0].reason
    session = open_archive(store).session("two")
    assert (session.labelled, label_versions(session), label_stamp(session)) == (False, {}, None)
    assert verify(store, deep=True, client=client).sound
    # Mended, it is the first version.
    document["annotations"] = []
    (tmp_path / "l.json").write_text(json.dumps(document))
    assert label(store, tmp_path / "l.json", client=client).versions == {"two": 1}


@pytest.mark.parametrize("at", ["begin_version", "enforce", "consolidate", "save_catalog"])
def test_a_run_that_is_killed_leaves_labels_that_are_whole(made, client, monkeypatch, at):
    """Whichever step is the last: one version or the other holds, and the same command ends it."""
    folder, store = made
    files = image(folder / "later", "first.png", marks((50, 0, 60, 30))).parent
    image(files, "plain.png", marks((0, 0, 5, 5)))
    real, calls = getattr(label_stage, at), []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) > (at in ("begin_version", "enforce")):
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(label_stage, at, dies)
    stamp = archive_stamp(store)
    with pytest.raises(KeyboardInterrupt):
        label(store, files, frames=["first", "plain"], client=client)
    monkeypatch.undo()
    # Workers that looked at the sessions before look again.
    assert (archive_stamp(store) != stamp) is (at != "begin_version")
    archive = open_archive(store)
    first, plain = archive.session("first"), archive.session("plain")
    old, new = marks((10, 10, 20, 20)), marks((50, 0, 60, 30))
    expected = old if at == "begin_version" else new
    np.testing.assert_array_equal(first.labels(0, 0, LINES), expected)
    late = at in ("consolidate", "save_catalog")
    assert plain.labelled is late
    assert ("label" in archive["plain"]) is late
    label(store, files, frames=["first", "plain"], client=client)
    np.testing.assert_array_equal(held(store), new)
    np.testing.assert_array_equal(held(store, "plain"), marks((0, 0, 5, 5)))
    np.testing.assert_array_equal(held(store, version=1), old)
    convert(folder / "in", store, client=client, block_lines=32, annotations="sibling")
    assert verify(store, deep=True, client=client).sound


def test_repair_of_a_block_leaves_what_was_added_later(made, client):
    folder, store = made
    second = marks((50, 0, 60, 30))
    label(store, image(folder / "later", "first.png", second), frames="first", client=client)
    label(store, image(folder / "later", "plain.png", second), frames="plain", client=client)
    mask(store, "inner", "0:9", client=client)
    for name in ("first", "plain"):
        chunk = store / name / "cube" / "c.0.1.0.0"
        raw = bytearray(chunk.read_bytes())
        raw[len(raw) // 2] ^= 1
        chunk.write_bytes(raw)
    assert not verify(store, deep=True, client=client).sound
    with pytest.warns(DataWarning, match=r"mask inner of session \w+ was taken out.*--from '0:9'"):
        repair(store, client=client)
    assert verify(store, deep=True, client=client).sound
    for name in ("first", "plain"):
        np.testing.assert_array_equal(held(store, name), second)
        # It cannot say anything of pixels that were converted after it was made.
        assert "mask_inner" not in open_archive(store)[name]
    np.testing.assert_array_equal(held(store, version=1), marks((10, 10, 20, 20)))


def test_what_is_unclear_is_refused_with_the_remedy(made, client):
    folder, store = made
    file = image(folder / "later", "other.png", marks())
    with pytest.raises(ConfigError, match=r"which of 3 sessions it labels.*--frames SESSION"):
        label(store, file, client=client)
    with pytest.raises(ConfigError, match="only a part is selected"):
        label(store, file, frames="first[0][y=0:32]", client=client)
    with pytest.raises(ConfigError, match="no such file"):
        label(store, folder / "none.png", client=client)
    with pytest.raises(ConfigError, match="no labels were found for ground and plain"):
        label(store, "sibling", frames=["ground", "plain"], client=client)
    small = image(folder / "later", "small.png", np.zeros((5, 5)))
    with pytest.raises(SourceError, match="96 x 40"):
        label(store, small, frames="first", client=client)
    # By its name it is clear.
    assert label(store, image(folder / "later", "plain_gt.png", marks()), client=client).versions
    assert label_versions(open_archive(store).session("first")).keys() == {1}


def test_the_command_line(made):
    folder, store = made
    file = image(folder / "later", "first.png", marks((50, 0, 60, 30)))
    planned = command("label", store, "--annotations", file, "--dry-run").checked()
    assert "would be added to 1 session" in planned.out
    assert f"first from {file}" in planned.out
    assert label_versions(open_archive(store).session("first")).keys() == {1}
    done = command("label", store, "--annotations", file, "--workers", "1").checked()
    assert "version 2" in done.out
    assert "no cube was read" in done.out
    listed = command("label", store, "--list", "--json").checked()
    assert [(e["session"], e["version"], e["holds"]) for e in listed.json["labels"]] == [
        ("first", 1, False),
        ("first", 2, True),
    ]
    assert command("label", store, "--version", "1", "--frames", "first").checked().code == 0
    both = command("label", store, "--list", "--version", "1")
    assert (both.code, "one of --annotations" in both.err) == (2, True)
