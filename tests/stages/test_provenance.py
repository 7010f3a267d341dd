"""What made scores: every input by its digest, and a warning once the archive has moved on."""

import hashlib
import json
import shutil
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from campaign import scan
from commands import command, hsi_fixture  # noqa: F401 - a fixture
from counting import counting
from PIL import Image
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.archive.remove import remove_session
from hsi_batch.detect import detect
from hsi_batch.errors import DataWarning
from hsi_batch.nodes import CU3SDataNode, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.export import export
from hsi_batch.stages.fit import fit
from hsi_batch.stages.label import label
from hsi_batch.stages.mask import mask
from hsi_batch.stages.moved import scores_moved
from hsi_batch.stages.provenance import provenance
from hsi_batch.stages.referring import scores_of
from hsi_batch.stages.report import report
from hsi_batch.stages.score import score


@pytest.fixture(name="made")
def made_fixture(tmp_path, client):
    scans = [scan(f"scan_{i}", 40 + i, size=(70, 60), defects=("border",)) for i in range(2)]
    for one in scans:
        one.write(tmp_path / "in")
    detect([tmp_path / "in"], tmp_path / "out", pfa=0.01, client=client)
    return tmp_path


def test_inputs_pipeline_and_machine_are_told(made):
    store = made / "out" / "scores.zarr"
    found = provenance(store)
    entries = {entry["@id"]: entry for entry in found.crate["@graph"]}
    known = {k: v for k, v in entries.items() if k.endswith("-facts")}
    facts = {k[1:].removesuffix("-facts"): json.loads(v["value"]) for k, v in known.items()}
    for name in ("scan_0", "scan_1"):
        entry = entries[f"#session-{name}"]
        pixels = (made / "in" / f"{name}.raw").read_bytes()
        assert entry["identifier"] == hashlib.sha256(pixels).hexdigest()
        white = made / "in" / f"WHITEREF_{name}.raw"
        kept = facts[f"session-{name}"]["calibration"]["sha256"]
        assert kept[str(white)] == hashlib.sha256(white.read_bytes()).hexdigest()
        assert {"@id": f"#session-{name}"} in entries["#scoring"]["object"]
    fit = facts["pipeline"]["fit"]
    assert fit["values"]["quantity"] == "reflectance"
    assert facts["scored-with"]["cpu"]
    for words in ("2 recordings", "RXGlobal", "one background per session", "(raw - dark)"):
        assert words in found.paragraph
    assert "1200 nodata" in found.paragraph
    assert found.moved == ()
    done = command("provenance", store, "--json").checked()
    assert done.json["@context"].startswith("https://w3id.org/ro/crate")
    assert entries["./"]["description"] == found.paragraph
    assert facts["session-scan_0"]["frames_scored"] == "0"
    assert fit["inputs"].keys() == {"scan_0", "scan_1"}
    text = (made / "out" / "workflow.yaml").read_text()
    for role in ("convert", "fit", "score"):
        assert entries[f"#workflow-of-{role}"]["text"] == text


def test_other_tools_read_the_crate(made, tmp_path):
    from rocrate.rocrate import ROCrate

    done = command("provenance", made / "out" / "scores.zarr", "--json").checked()
    (tmp_path / "ro-crate-metadata.json").write_text(done.out)
    crate = ROCrate(tmp_path)
    assert crate.root_dataset["isBasedOn"][0]["name"] == "scan_0"
    assert [e.type for e in crate.get_entities() if e.id == "#scoring"] == ["CreateAction"]
    action = crate.get("#scoring")
    assert action["result"].id == "./"
    assert crate.get("#pipeline") in action["instrument"]


def test_an_archive_that_has_moved_on_is_told_of(made, client):
    store, archive = made / "out" / "scores.zarr", made / "out" / "archive.zarr"
    fitted, page = made / "out" / "fitted.yaml", made / "page.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(store, "coco", made / "first", client=client)
        report(store, page)
        score(fitted, archive, store, client=client)
    convert(made / "in" / "scan_1.hdr", archive, white="none",
            root=made / "in", replace=True, client=client)  # fmt: skip
    found = provenance(store)
    assert found.moved == ("scan_1",)
    assert "scan_1 was converted again with another calibration. Score again" in str(found)
    with counting(client, archive) as cubes:
        with pytest.warns(DataWarning) as told:
            export(store, "coco", made / "second", client=client)
        said = " ".join(str(warning.message) for warning in told)
        assert "since these scores were made: scan_1 was converted again" in said
        assert "since the pipeline was fitted: scan_1 was converted again" in said
        with pytest.warns(DataWarning, match=r"since the pipeline was fitted: scan_1.*Fit again"):
            score(fitted, archive, made / "s.zarr", frames="scan_0", dry_run=True, client=client)
    assert sum(cubes.values()) == 0
    with pytest.warns(DataWarning, match="the archive has moved on"):
        report(store, page, force=True)
    assert "the archive has moved on since these scores were made: scan_1" in page.read_text()
    remove_session(archive, "scan_0")
    assert "scan_0 is gone" in str(provenance(store))


def test_labels_and_masks_that_changed_are_named(tmp_path, client):
    """Only where something depends on them."""
    (tmp_path / "in").mkdir()
    cube = np.random.default_rng(1).integers(0, 4000, (60, 40, 6)).astype(np.uint16)
    write_envi(tmp_path / "in", cube, name="a")
    labels = np.zeros((60, 40), dtype=np.uint8)
    labels[5:9, 5:9] = 1
    Image.fromarray(labels).save(tmp_path / "in" / "a_mask.png")
    archive = tmp_path / "a.zarr"
    convert(tmp_path / "in", archive, client=client)
    mask(archive, "inner", "5:30", client=client)
    stores = {}
    for pixels in ("valid", "labelled-normal", "mask:inner"):
        pipeline = Pipeline("rx")
        data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
        pipeline.connect((data.outputs.cube, rx.data))
        part = "a[0][y=0:40]" if pixels == "valid" else None
        fit(pipeline, archive, pixels=pixels, frames=part, client=client)
        told = pipeline.provenance["inputs"]["a"].get("frames")
        assert told == (None if part is None else "0[y=0:40]")
        stores[pixels] = tmp_path / f"{pixels[:4]}.zarr"
        score(pipeline, archive, stores[pixels], client=client)
    for store in stores.values():
        assert not scores_moved(store)
    Image.fromarray(labels[::-1].copy()).save(tmp_path / "a.png")
    label(archive, tmp_path / "a.png", client=client)
    mask(archive, "inner", "5:20", client=client)
    valid, normal, inner = (scores_moved(store) for store in stores.values())
    other = {"a": "has other labels (version 2)"}
    assert (valid.fit, valid.scores, valid.metrics) == ({}, {}, other)
    assert (normal.fit, normal.scores, normal.metrics) == (other, {}, other)
    assert inner.fit == {"a": "has another mask inner"}
    assert "nothing is scored twice" in " ".join(valid.sentences())


def test_replacing_what_scores_refer_to_asks_first(made, monkeypatch, hsi):
    archive, store = made / "out" / "archive.zarr", made / "out" / "scores.zarr"
    moved = made / "elsewhere" / "scores.zarr"
    moved.parent.mkdir()
    convert = ["convert", made / "in" / "scan_1.hdr", "--archive", archive, "--root", made / "in"]
    convert += ["--white", "none", "--replace", "--workers", "1"]
    before = sorted(p.name for p in (archive / "scan_1").iterdir())
    done = command(*convert).checked()
    assert done.code == 2
    assert f"scan_1 is scored in {store}" in done.err
    assert "--yes" in done.err
    assert sorted(p.name for p in (archive / "scan_1").iterdir()) == before
    # Known by what is noted beside the archive, too, wherever the scores lie.
    assert scores_of(archive) == [str(store)]
    store.rename(moved)
    assert scores_of(archive) == []
    moved.rename(store)
    asked = []
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("typer.confirm", lambda text, **_: asked.append(text))
    assert hsi(*convert).code == 2
    assert "scan_1 is scored in" in asked[0]
    assert sorted(p.name for p in (archive / "scan_1").iterdir()) == before
    assert command(*convert, "--yes").checked().code == 0
    assert provenance(store).moved == ("scan_1",)


def test_a_workflow_asks_about_other_scores_than_its_own(made):
    store, other = made / "out" / "scores.zarr", made / "out" / "others.zarr"
    shutil.copytree(store, other)
    run = ["run", made / "out" / "workflow.yaml", "--workers", "1", "--replace"]
    run += ["--set", "sources.white=none"]
    done = command(*run).checked()
    assert done.code == 2
    assert f"are scored in {other}" in done.err
    assert f"scored in {store}" not in done.err
    assert scores_moved(store).sessions == ()
    init = ["init", run[1], "--slices", "2", "--replace", *run[-2:]]
    done = command(*init).checked()
    assert (done.code, f"are scored in {other}" in done.err) == (2, True)
    shutil.rmtree(other)
    # Where only a part is scored again, the rest of its scores would be left behind.
    done = command(*run, "--set", "score.frames=scan_0").checked()
    assert (done.code, f"scored in {store}" in done.err) == (2, True)
    assert command(*run).checked().code == 0


def test_nothing_is_asked_where_nothing_refers_to_it(made):
    shutil.rmtree(made / "out" / "scores.zarr")
    convert = ["convert", made / "in" / "scan_1.hdr", "--archive", made / "out" / "archive.zarr"]
    convert += ["--root", made / "in", "--white", "none", "--replace", "--workers", "1"]
    assert command(*convert).checked().code == 0


def test_a_note_of_scores_that_was_left_half_written_is_removed(made, client):
    notes = made / "out" / "archive.zarr.hsi-batch" / "scores"
    (note,) = notes.iterdir()
    note.rename(left := notes / f".{note.name}._isq81m9")
    store = made / "out" / "scores.zarr"
    archive = open_archive(made / "out" / "archive.zarr")
    score(made / "out" / "fitted.yaml", archive, store, force=True, client=client)
    assert (note.exists(), left.exists()) == (True, False)
    assert str(store) in scores_of(archive.path)
