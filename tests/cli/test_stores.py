"""ls, show, verify, rm."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from commands import chunks, command, files_below
from recordings import scene, write_envi

from hsi_batch.archive import open_archive


def test_ls(made):
    done = command("ls", made.archive)
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    assert text.startswith(f"hsi_batch.Archive {made.archive}: 2 sessions, 2 frames")
    lines = [line.split() for line in done.out.splitlines() if line.strip()]
    first = next(i for i, line in enumerate(lines) if line[:2] == ["session", "frames"])
    columns, _, *rows = lines[first:]
    assert [row[0] for row in rows] == ["a", "b"]
    assert dict(zip(columns, rows[0], strict=True))["lines"] == "40"
    found = command("ls", made.archive, "--json").json
    assert [s["session"] for s in found["sessions"]] == ["a", "b"]
    assert found["sessions"][0]["wavelength_min"] == 450
    assert found["incomplete"] == []


def test_ls_of_a_session_without_wavelengths_is_strict_json(hsi, tmp_path):
    write_envi(tmp_path / "in" / "a.hdr", scene(0)[0], wavelength=range(400, 480, 10))
    write_envi(tmp_path / "in" / "b.hdr", scene(0)[0])
    assert hsi("convert", tmp_path / "in", "--archive", tmp_path / "a.zarr").code == 0
    found = hsi("ls", tmp_path / "a.zarr", "--json").json["sessions"]
    assert [s["wavelength_min"] for s in found] == [400, None]


def test_show(hsi, made):
    done = hsi("show", made.archive)
    assert "2 sessions, 2 frames" in done.out
    assert [s["session"] for s in hsi("show", made.archive, "--json").json["sessions"]] == [
        "a",
        "b",
    ]
    done = hsi("show", made.archive / "a")
    assert done.code == 0
    assert f"session a of {made.archive}\n" in done.out
    assert "40 lines x 30 samples x 8 bands, uint16" in done.out
    assert "450 .. 590 nm" in done.out
    found = hsi("show", made.archive / "a", "--json").json
    cube = open_archive(made.archive)["a"].cube.values.reshape(-1, 8)
    assert found["source"] == str(made.recordings / "a.hdr")
    assert [row["min"] for row in found["spectra"]] == cube.min(axis=0).tolist()
    assert [row["max"] for row in found["spectra"]] == cube.max(axis=0).tolist()
    assert [row["mean"] for row in found["spectra"]] == pytest.approx(cube.mean(axis=0))
    assert [row["std"] for row in found["spectra"]] == pytest.approx(cube.std(axis=0, ddof=1))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("store", ["archive", "scores"])
def test_a_sound_store(hsi, made, store, deep):
    done = hsi("verify", getattr(made, store), *(["--deep"] if deep else []))
    assert done.code == 0
    how = "decoded and compared with their checksums" if deep else "are present"
    assert done.out.startswith(f"sound: 2 sessions, 6 blocks {how}; ")


FLIPPED = {
    "archive": ("a/cube/c.0.1.0.0", "a/label/c.0.1.0", "a/moments/c.0.0", "a/sample/c.0.0.0"),
    "scores": ("a/scores/c.0.1.0", "a/decisions/c.0.1.0"),
}


@pytest.mark.parametrize(("store", "chunk"), [(s, c) for s, cs in FLIPPED.items() for c in cs])
def test_a_flipped_byte(hsi, mine, store, chunk):
    path = getattr(mine, store)
    file = path / chunk
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    assert hsi("verify", path).code == 0  # looks for presence only
    done = hsi("verify", path, "--deep")
    assert done.code == 3
    head, damage, advice = done.out.splitlines()
    assert head.startswith("damaged: 2 sessions, 6 blocks decoded")
    assert head.endswith("1 problems")
    # Statistics of blocks this small are kept in rows over many blocks.
    assert damage.split(":")[0].strip() == "a" or "16:32" in damage
    assert chunk.split("/")[1] in damage
    assert f"hsi-batch repair {path}" in advice
    found = hsi("verify", path, "--deep", "--json")
    assert found.code == 3
    assert len(found.json["damages"]) == 1


def test_values_that_were_changed_with_a_good_checksum(hsi, mine):
    # Someone wrote through zarr: each chunk is sound, but not what was converted.
    import zarr

    cube = zarr.open_array(mine.archive, path="b/cube", mode="r+")
    cube[0, 33, 2, 1] += 1
    assert hsi("verify", mine.archive).code == 0
    done = hsi("verify", mine.archive, "--deep")
    assert done.code == 3
    assert "32:40" in done.out
    assert "the values differ from those that were converted" in done.out


@pytest.mark.parametrize(("store", "chunk"), [(s, c) for s, cs in FLIPPED.items() for c in cs[:2]])
def test_a_missing_chunk(hsi, mine, store, chunk):
    path = getattr(mine, store)
    (path / chunk).unlink()
    done = hsi("verify", path)
    assert done.code == 3
    assert "1 problems" in done.out
    assert "16:32" in done.out
    assert f"the chunk of {chunk.split('/')[1]} is missing" in done.out


def test_a_session_that_was_not_finished(hsi, mine):
    meta = mine.archive / "b" / "zarr.json"
    found = json.loads(meta.read_text())
    found["attributes"]["complete"] = False
    meta.write_text(json.dumps(found))
    done = hsi("verify", mine.archive)
    assert done.code == 3
    assert "b: was not finished; run the stage again" in done.out


def test_rm(hsi, mine):
    before = chunks(mine.archive / "b")
    done = hsi("rm", mine.archive / "a")
    assert (done.code, done.out) == (0, f"removed session a from {mine.archive}\n")
    assert not (mine.archive / "a").exists()
    assert [s["session"] for s in hsi("ls", mine.archive, "--json").json["sessions"]] == ["b"]
    assert chunks(mine.archive / "b") == before
    assert hsi("verify", mine.archive, "--deep").code == 0
    assert hsi("rm", mine.archive / "a").code == 2
    # And it can be converted again.
    convert = ["convert", mine.recordings / "a.hdr", "--archive", mine.archive]
    assert hsi(*convert, "--block-lines", "16").code == 0
    assert chunks(mine.archive / "b") == before
    assert list(open_archive(mine.archive)) == ["a", "b"]


@pytest.mark.parametrize("closed", ["a.zarr", "a.zarr.hsi-batch"])
def test_rm_where_nothing_can_be_written(hsi, mine, monkeypatch, closed):
    folder = mine.root / closed
    before = files_below(mine.root)
    # Root may write anywhere, so permissions alone would not stop these tests.
    opened = os.open

    def refusing(path, flags, *arguments, **options):
        place = Path(os.fsdecode(path))
        if flags & (os.O_WRONLY | os.O_RDWR) and folder in (place, place.parent):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    done = hsi("rm", mine.archive / "a")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith(f"hsi-batch: {mine.archive}: writing is not permitted")
    monkeypatch.undo()
    assert files_below(mine.root) == before


def test_a_store_without_its_run_state(hsi, mine):
    shutil.rmtree(mine.root / "a.zarr.hsi-batch")
    assert [s["session"] for s in hsi("ls", mine.archive, "--json").json["sessions"]] == ["a", "b"]
    assert hsi("verify", mine.archive, "--deep").code == 0
