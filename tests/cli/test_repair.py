"""What is damaged is redone, what is not is left alone, and nothing is different afterwards."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from recordings import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.archive.seals import SEAL
from hsi_batch.archive.store import state_folder
from hsi_batch.stages.convert import convert
from hsi_batch.stages.repair import repair
from hsi_batch.stages.verify import verify


def contents(store):
    """Every chunk, by name."""
    return {
        str(f.relative_to(store)): f.read_bytes()
        for f in sorted(store.rglob("*"))
        if f.is_file() and f.name != "zarr.json"
    }


def inodes(store):
    return {str(f.relative_to(store)): f.stat().st_ino for f in store.rglob("*") if f.is_file()}


def flip(file, at=0.5):
    raw = bytearray(file.read_bytes())
    raw[int(at * len(raw))] ^= 4
    file.write_bytes(raw)


def unseal(store):
    """As an earlier version wrote it: no seal, no checksum in the run state."""
    for meta in [store / "zarr.json", *store.glob("*/zarr.json")]:
        content = json.loads(meta.read_text())
        content["attributes"].pop(SEAL)
        for entry in content.get("consolidated_metadata", {}).get("metadata", {}).values():
            entry["attributes"].pop(SEAL, None)
        meta.write_text(json.dumps(content, indent=2))
    state = state_folder(store)
    for file in state.glob("records/*/packed.jsonl"):
        lines = [line.rpartition(',"crc"')[0] + "}\n" for line in file.read_text().splitlines()]
        file.write_text("".join(lines))
    if (state / "catalog.json").exists():
        (state / "catalog.json").write_text(json.dumps("1-2"))
    if (state / "metrics.json").exists():
        content = json.loads((state / "metrics.json").read_text())
        del content["sha256"], content["files"]
        (state / "metrics.json").write_text(json.dumps(content, indent=2))


CUBE, LABEL = "a/cube/c.0.1.0.0", "b/label/c.0.0.0"
HARM = {
    "a flipped chunk": (lambda s: flip(s / CUBE), {"a/cube/c.0.1.0.0"}),
    "a lost chunk": (lambda s: (s / CUBE).unlink(), {CUBE}),
    "a torn chunk": (lambda s: (s / CUBE).write_bytes((s / CUBE).read_bytes()[:-100]), {CUBE}),
    "a flipped label": (lambda s: flip(s / LABEL), {LABEL}),
    "a flipped row of statistics": (lambda s: flip(s / "a/moments/c.0.0"), {"a/moments/c.0.0"}),
    "a flipped spectrum": (lambda s: flip(s / "a/wavelength/c.0"), {"a/wavelength/c.0"}),
    "flipped checksums": (lambda s: flip(s / "b/checksum/c.0"), {"b/checksum/c.0"}),
    "a foreign file": (lambda s: (s / "a/notes.txt").write_text("x"), set()),
    "a foreign folder": (lambda s: shutil.copytree(s / "a/label", s / "a/cube/c"), set()),
    "a link": (lambda s: (s / "a/link").symlink_to("/etc"), set()),
    "metadata of a session": (lambda s: flip(s / "a/zarr.json"), set()),
    "metadata of an array": (lambda s: flip(s / "a/cube/zarr.json"), set()),
    "metadata of the root": (lambda s: flip(s / "zarr.json", 0.9), set()),
    "a root that cannot be read": (lambda s: (s / "zarr.json").write_text("{"), set()),
    "a lost session": (lambda s: shutil.rmtree(s / "b"), {"b/"}),
    "a flipped catalog": (lambda s: flip(state_folder(s) / "catalog.parquet"), set()),
    "flipped records": (lambda s: flip(state_folder(s) / "records/convert/packed.jsonl"), set()),
}


@pytest.mark.parametrize("harm", HARM)
def test_an_archive_is_mended(client, mine, harm):
    expected, before = contents(mine.archive), inodes(mine.archive)
    catalog = open_archive(mine.archive).catalog
    do, touched = HARM[harm]
    do(mine.archive)
    result = repair(mine.archive, client=client)
    assert result.sound, str(result)
    assert not result.hopeless
    assert contents(mine.archive) == expected
    assert (
        open_archive(mine.archive)
        .catalog.drop(columns="source_mtime")
        .equals(catalog.drop(columns="source_mtime"))
    )
    # Chunks that were good are the very files that they were.
    after = inodes(mine.archive)
    if not touched:
        assert {f: before[f] for f in expected} == {f: after[f] for f in expected}
    if "foreign" in harm or harm == "a link":
        assert any((state_folder(mine.archive) / "removed").rglob("*"))


@pytest.mark.parametrize(("part", "blocks"), [("cube/c.0.1.0.0", [1]), ("moments/c.0.0", range(4))])
def test_only_what_is_damaged_is_converted_again(client, tmp_path, part, blocks):
    rng = np.random.default_rng(0)
    write_envi(tmp_path / "in" / "a.hdr", rng.integers(0, 4000, (64, 64, 8), dtype="u2"))
    store = tmp_path / "a.zarr"
    convert(tmp_path / "in", store, block_lines=16, client=client)
    expected, before = contents(store), inodes(store)
    flip(store / "a" / part)
    result = repair(store, client=client)
    assert result.sound, str(result)
    assert result.blocks == len(blocks)
    assert contents(store) == expected
    after = inodes(store)
    touched = tuple(f"/c.0.{block}.0.0" for block in blocks)
    kept = {f for f in expected if "/cube/c." in f and not f.endswith(touched)}
    assert len(kept) == 4 - len(blocks)
    assert {f: before[f] for f in kept} == {f: after[f] for f in kept}


def test_a_dry_run_touches_nothing(client, mine):
    assert repair(mine.archive, dry_run=True, client=client).actions == ()
    for do in ("a flipped chunk", "metadata of an array", "flipped records"):
        HARM[do][0](mine.archive)
    (mine.archive / "b/notes.txt").write_text("x")
    before = {f: f.read_bytes() for f in mine.root.rglob("*") if f.is_file()}
    plan = repair(mine.archive, dry_run=True, client=client)
    assert not plan.sound
    assert [a.split()[0] for a in plan.actions] == ["move", "write", "make"]
    assert before == {f: f.read_bytes() for f in mine.root.rglob("*") if f.is_file()}


SCORED = "a/scores/c.0.1.0"
HARM_SCORES = {
    "a flipped chunk": lambda s: flip(s / SCORED),
    "a lost chunk": lambda s: (s / SCORED).unlink(),
    "a torn chunk": lambda s: (s / SCORED).write_bytes((s / SCORED).read_bytes()[:-9]),
    "a foreign file": lambda s: (s / "a/notes.txt").write_text("x"),
    "metadata of a session": lambda s: flip(s / "a/zarr.json"),
    "metadata of the root": lambda s: flip(s / "zarr.json", 0.9),
    "a lost session": lambda s: shutil.rmtree(s / "b"),
    "flipped metrics": lambda s: flip(state_folder(s) / "metrics.json"),
    "a flipped summary": lambda s: flip(state_folder(s) / "summary.parquet"),
    "flipped records": lambda s: flip(state_folder(s) / "records/score/packed.jsonl"),
}


@pytest.mark.parametrize("harm", HARM_SCORES)
def test_scores_are_mended(client, mine, harm):
    expected = contents(mine.scores)
    metrics = json.loads((state_folder(mine.scores) / "metrics.json").read_text())["metrics"]
    HARM_SCORES[harm](mine.scores)
    result = repair(mine.scores, pipeline=mine.fitted, archive=mine.archive, client=client)
    assert result.sound, str(result)
    assert not result.hopeless
    assert contents(mine.scores) == expected
    found = json.loads((state_folder(mine.scores) / "metrics.json").read_text())["metrics"]
    assert found == metrics


def test_what_it_was_made_of_may_be_gone(client, mine, hsi):
    (mine.archive / CUBE).unlink()
    (mine.scores / SCORED).unlink()
    root = zarr.open_group(str(mine.archive / "a"), mode="r")
    source = Path(root.attrs["source"]["path"])
    held = source.with_suffix(".hidden")
    source.rename(held)
    try:
        done = hsi("repair", mine.archive)
    finally:
        held.rename(source)
    assert done.code == 3
    assert f"its source {source} is gone" in done.out
    mine.fitted.unlink()
    done = hsi("repair", mine.scores, "--pipeline", mine.fitted)
    assert done.code == 3
    assert f"{mine.fitted} is gone: name it with --pipeline" in done.out
    # Nothing was taken away on the way.
    assert len(verify(mine.scores, deep=True, client=client).damages) <= 2


def test_another_pipeline_does_not_mend_scores(client, mine):
    from hsi_batch.pipeline import Pipeline

    (mine.scores / SCORED).unlink()
    before = contents(mine.scores)
    pipeline = Pipeline.from_yaml(mine.fitted)
    pipeline.nodes["rx"].mu += 1
    pipeline.save(mine.root / "other.yaml")
    result = repair(mine.scores, pipeline=mine.root / "other.yaml", client=client)
    assert not result.sound
    assert "scored with another pipeline" in result.hopeless[0]
    assert contents(mine.scores) == before


def test_stores_of_earlier_versions_are_not_damaged(client, mine, hsi):
    for store in (mine.archive, mine.scores):
        unseal(store)
        done = hsi("verify", store, "--deep")
        assert done.code == 0, done.out
        assert "not sealed (written by an earlier version)" in done.out
    assert list(open_archive(mine.archive)) == ["a", "b"]
    done = hsi("report", mine.scores, "--out", mine.root / "r.html")
    assert done.code == 0
    # Damage of chunks is still found.
    whole = (mine.archive / CUBE).read_bytes()
    flip(mine.archive / CUBE)
    assert hsi("verify", mine.archive, "--deep").code == 3
    (mine.archive / CUBE).write_bytes(whole)
    done = hsi("repair", mine.archive)
    assert done.code == 0
    assert "seal the metadata" in done.out
    result = verify(mine.archive, deep=True, client=client)
    assert result.sound
    assert not result.notes


def test_a_damaged_name_of_the_seal_is_no_earlier_version(client, mine):
    meta = mine.archive / "zarr.json"
    meta.write_text(meta.read_text().replace('"seal"', '"seam"'))
    assert not verify(mine.archive, deep=True, client=client).sound
