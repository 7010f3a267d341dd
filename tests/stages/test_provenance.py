"""What made scores: every input by its digest, and a warning once the archive has moved on."""

import hashlib
import warnings

import pytest
from campaign import scan
from commands import command

from hsi_batch.detect import detect
from hsi_batch.stages.convert import convert
from hsi_batch.stages.export import export
from hsi_batch.stages.provenance import provenance


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
    for name in ("scan_0", "scan_1"):
        entry = entries[f"#session-{name}"]
        pixels = (made / "in" / f"{name}.raw").read_bytes()
        assert entry["identifier"] == hashlib.sha256(pixels).hexdigest()
        white = made / "in" / f"WHITEREF_{name}.raw"
        kept = entry["hsi_batch"]["calibration"]["sha256"]
        assert kept[str(white)] == hashlib.sha256(white.read_bytes()).hexdigest()
        assert {"@id": f"#session-{name}"} in entries["#scoring"]["object"]
    fit = entries["#pipeline"]["hsi_batch"]["fit"]
    assert fit["values"]["quantity"] == "reflectance"
    assert entries["#scored-with"]["hsi_batch"]["cpu"]
    for words in ("2 recordings", "RXGlobal", "one background per session", "(raw - dark)"):
        assert words in found.paragraph
    assert "1200 nodata" in found.paragraph
    assert found.moved == ()
    done = command("provenance", store, "--json").checked()
    assert done.json["@context"].startswith("https://w3id.org/ro/crate")


def test_an_archive_that_has_moved_on_is_told_of(made, client):
    store = made / "out" / "scores.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(store, "coco", made / "first", client=client)
    convert(made / "in" / "scan_1.hdr", made / "out" / "archive.zarr", white="none",
            root=made / "in", replace=True, client=client)  # fmt: skip
    found = provenance(store)
    assert found.moved == ("scan_1",)
    assert "Score them again" in str(found)
    with pytest.warns(UserWarning, match="scan_1 changed since"):
        export(store, "coco", made / "second", client=client)
