"""What is damaged on object storage is found and redone; versions are left as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_storage import contents, files_of

import hsi_batch as hb
from hsi_batch.errors import StorageError, StoreError
from hsi_batch.places import place
from hsi_batch.stages import verify as verify_stage
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.repair import repair
from hsi_batch.stages.verify import verify

PIPELINE = Path(__file__).parents[2] / "workflows" / "pipelines" / "rx_statistical.yaml"


def flip(file, at=0.5):
    raw = bytearray(file.read_bytes())
    raw[int(at * len(raw))] ^= 4
    file.write_bytes(bytes(raw))


def state(store):
    return place(f"{store}.hsi-batch")


def blocks_and_strangers(store):
    flip(store / "r0/cube/c.0.1.0.0")
    (store / "r0/cube/c.0.2.0.0").unlink()
    flip(store / "r0/label/c.0.0.0")
    (store / "r0/notes.txt").write_bytes(b"x")
    (store / "r1/cube/c.7.0.0.0").write_bytes(b"x")


def metadata(store):
    flip(store / "r0/zarr.json")
    flip(store / "r1/cube/zarr.json")


def a_session_and_the_run_state(store):
    (store / "r1").rmtree()
    flip(state(store) / "catalog.parquet")
    flip(state(store) / "records/convert/packed.jsonl")


HARM = {
    blocks_and_strangers: 3,
    metadata: 0,
    a_session_and_the_run_state: 3,
    lambda store: flip(store / "zarr.json", 0.9): 0,
    lambda store: (store / "zarr.json").write_bytes(b"{"): 0,
}


def test_an_archive_is_mended(workers, s3, made_recordings):
    store = f"{s3}/a.zarr"
    hb.convert(made_recordings, store, block_lines=16, client=workers)
    expected = contents(store)
    for harm, blocks in HARM.items():
        harm(place(store))
        if harm is blocks_and_strangers:
            before = files_of(s3)
            plan = repair(store, dry_run=True, client=workers)
            assert {damage.kind for damage in plan.found} >= {"block", "foreign"}
            assert (plan.sound, files_of(s3)) == (False, before)
        result = repair(store, client=workers)
        assert result.sound, str(result)
        assert (result.blocks, result.hopeless) == (blocks, ()), str(result)
        assert result.actions
        assert contents(store) == expected
    removed = {file.key.removeprefix("removed/") for file in (state(store) / "removed").files()}
    assert removed == {"r0/notes.txt", "r1/cube/c.7.0.0.0"}
    assert "lock.json" not in files_of(state(store))


def test_scores_are_mended(hsi, workers, s3, made_recordings, tmp_path):
    archive, store, fitted = f"{s3}/a.zarr", f"{s3}/s.zarr", tmp_path / "f.yaml"
    hb.convert(made_recordings, archive, block_lines=16, client=workers)
    fit_file(PIPELINE, archive, fitted, client=workers)
    metrics = hb.score(fitted, archive, store, client=workers).metrics
    expected = contents(store)
    flip(place(store) / "r0/scores/c.0.1.0")
    (place(store) / "r1/decisions/c.0.0.0").unlink()
    flip(state(store) / "metrics.json")
    done = hsi("repair", store, "--json")
    assert done.code == 0, done.err
    assert done.json["blocks"] == 2
    assert contents(store) == expected
    assert verify(store, deep=True, client=workers).sound
    again = hb.score(fitted, archive, store, client=workers)
    assert (again.blocks, again.metrics) == (0, metrics)


def test_a_source_that_is_gone_is_named(workers, s3, made_recordings):
    store = f"{s3}/a.zarr"
    hb.convert(made_recordings, store, client=workers)
    flip(place(store) / "r1/cube/c.0.0.0.0")
    for file in made_recordings.glob("r1*"):
        file.unlink()
    before = contents(store)
    result = repair(store, client=workers)
    assert not result.sound
    assert "is gone; put it back" in result.hopeless[0]
    assert contents(store) == before


def test_repositories_are_converted_again_instead(hsi, client, made_recordings, tmp_path):
    url = f"icechunk+file://{tmp_path}/a"
    hb.convert(made_recordings, url, client=client)
    before = hb.open_archive(url)["r0"].cube.load()
    largest = max((tmp_path / "a" / "chunks").iterdir(), key=lambda file: file.stat().st_size)
    flip(largest)
    assert not verify(url, deep=True, client=client).sound
    with pytest.raises(StoreError, match="versions stay as they are"):
        repair(url, client=client)
    done = hsi("repair", url)
    assert (done.code, "--force" in done.err, "@v1" in done.err) == (3, True, True)
    hb.convert(made_recordings, url, force=True, client=client)
    assert verify(url, deep=True, client=client).sound
    assert hb.open_archive(url)["r0"].cube.load().equals(before)


def test_workers_that_read_a_repository_before_see_what_became_of_it(
    client, made_recordings, tmp_path
):
    """Icechunk keeps manifests in memory, in which small chunks lie; a check must not."""
    url = f"icechunk+file://{tmp_path}/a"
    hb.convert(made_recordings, url, client=client)
    session = hb.open_archive(url).session("r0")
    keys = [(key, 0) for key in session.geometry.keys("r0")]
    worker = list(client.nthreads())[:1]

    def checked(check):
        arguments = (verify_stage._check_items, keys, "", url, check)
        return client.submit(*arguments, workers=worker, pure=False).result()

    assert checked("first") == []
    for file in (tmp_path / "a/manifests").iterdir():
        file.write_bytes(b"")
    assert checked("first") == [], "nothing is kept: this test has nothing to show"
    with pytest.raises(StorageError):
        checked("second")


def test_a_flipped_byte_of_a_repository_never_goes_unnoticed(client, made_recordings, tmp_path):
    """In data, manifests, snapshots, or the name of the newest one."""
    from hsi_batch.places import versioned

    url = f"icechunk+file://{tmp_path}/a"
    hb.convert(made_recordings, url, client=client)
    before = {name: hb.open_archive(url)[name].load() for name in ("r0", "r1")}
    found = []
    folders = ("chunks", "manifests", "snapshots", "refs/branch.main")
    for file in [
        file for name in folders for file in sorted((tmp_path / "a" / name).iterdir())[:3]
    ]:
        raw = file.read_bytes()
        for at in (0.4, 0.8):
            flip(file, at)
            versioned.repository.cache_clear()
            try:
                sound = verify(url, deep=True, client=client).sound
                same = sound and all(
                    hb.open_archive(url)[name].load().equals(data) for name, data in before.items()
                )
                found.append("same" if same else "different" if sound else "damage")
            except hb.errors.HsiBatchError:
                found.append("refused")
            file.write_bytes(raw)
    versioned.repository.cache_clear()
    assert "different" not in found
    assert {"damage", "refused"} <= set(found)
    assert verify(url, deep=True, client=client).sound
