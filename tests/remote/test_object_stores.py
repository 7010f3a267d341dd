"""Archives and scores on S3: the same bytes as on a disk, whatever goes wrong on the way."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from commands import command, start
from object_storage import SECRET, TOKEN, Flaky, Gone, files_of, tell

import hsi_batch as hb
from hsi_batch.archive import BlockKey
from hsi_batch.archive.lock_object import ObjectLock
from hsi_batch.archive.record_objects import record_writer
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.errors import StorageError, StoreInUseError
from hsi_batch.places import place, stores
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.repair import repair
from hsi_batch.stages.report import report
from hsi_batch.stages.verify import verify

PIPELINE = Path(__file__).parents[2] / "workflows" / "pipelines" / "rx_statistical.yaml"


def same_content(one, other, apart=()):
    """Chunks byte for byte; metadata but for attributes that name the run."""
    one, other = files_of(one), files_of(other)
    assert sorted(one) == sorted(other)
    for name, raw in one.items():
        if name.endswith("zarr.json") and apart:
            assert stripped(json.loads(raw), apart) == stripped(json.loads(other[name]), apart)
        else:
            assert raw == other[name], name


def stripped(value, names):
    if isinstance(value, dict):
        return {k: stripped(v, names) for k, v in value.items() if k not in names}
    return [stripped(v, names) for v in value] if isinstance(value, list) else value


def test_an_archive_and_its_scores_are_those_of_a_disk(workers, s3, made_recordings, tmp_path):
    for target in (f"{s3}/a.zarr", tmp_path / "a.zarr"):
        result = hb.convert(made_recordings, target, client=workers)
        assert (result.failed, result.blocks) == (0, 2)
    same_content(f"{s3}/a.zarr", tmp_path / "a.zarr")
    assert hb.convert(made_recordings, f"{s3}/a.zarr", client=workers).up_to_date == 2

    archive = hb.open_archive(f"{s3}/a.zarr")
    local = hb.open_archive(tmp_path / "a.zarr")
    assert archive["r0"].equals(local["r0"].load())
    for here, name in ((archive, "remote"), (local, "local")):
        fit_file(PIPELINE, here, tmp_path / f"{name}.yaml", client=workers)
    fitted = [hb.Pipeline.from_yaml(tmp_path / f"{name}.yaml") for name in ("remote", "local")]
    for store, source in ((f"{s3}/s.zarr", archive), (tmp_path / "s.zarr", local)):
        scored = hb.score(tmp_path / "local.yaml", source, store, client=workers)
        assert (scored.failed, scored.blocks) == (0, 2)
        assert scored.metrics["auc"] == pytest.approx(0.5, abs=0.2)
    same_content(f"{s3}/s.zarr", tmp_path / "s.zarr", apart=("archive", "scored", "seal"))
    digests = [{n: node.buffer_digest() for n, node in p.nodes.items()} for p in fitted]
    assert digests[0] == digests[1]

    for store in (f"{s3}/a.zarr", f"{s3}/s.zarr"):
        assert verify(store, deep=True, client=workers).sound
    page = tmp_path / "r.html"
    report(f"{s3}/s.zarr", page)
    assert "r0" in page.read_text()
    assert report(f"{s3}/s.zarr", page).up_to_date
    left = {name for name in files_of(f"{s3}/a.zarr.hsi-batch") if "packed" not in name}
    assert left == {"catalog.json", "catalog.parquet"}


def test_commands_take_urls_and_tell_no_secret(
    hsi, workers, server, s3, made_recordings, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "numba")
    archive, scores, fitted = f"{s3}/a.zarr", f"{s3}/s.zarr", tmp_path / "f.yaml"
    said = []

    def run(*arguments, code=0):
        # In this process, but for one.
        alone = arguments[0] == "convert"
        done = command(*arguments, env=server.environment()) if alone else hsi(*arguments)
        assert done.code == code, done.err
        said.append(done.out + done.err)
        return done.out

    run("convert", made_recordings, "--archive", archive, "--workers", 1)
    assert "r1" in run("ls", archive)
    assert "40 lines x 30 samples x 8 bands" in run("show", f"{archive}/r1")
    run("fit", PIPELINE, "--archive", archive, "--out", fitted)
    run("score", fitted, "--archive", archive, "--out", scores)
    run("verify", scores)
    run("report", scores, "--out", tmp_path / "r.html")
    run("rm", f"{archive}/r1")
    assert "r1" not in run("ls", archive)
    run("show", f"{archive}/r1", code=2)
    assert "there is no session 'r1'" in said[-1]
    kept = b"".join(files_of(s3).values())
    kept += b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert len(kept) > 1000
    said += [caplog.text, str(workers.get_worker_logs()), str(workers.get_scheduler_logs())]
    for secret in (SECRET, TOKEN):
        assert secret.encode() not in kept
        assert secret not in "".join(said)


def test_a_damaged_and_a_missing_object_are_found(workers, s3, made_recordings):
    store = f"{s3}/a.zarr"
    hb.convert(made_recordings, store, client=workers)
    chunk = place(store) / "r0" / "cube" / "c.0.0.0.0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 4
    chunk.write_bytes(bytes(raw))
    (place(store) / "r1" / "cube" / "c.0.0.0.0").unlink()
    found = verify(store, deep=True, client=workers)
    assert {d.place for d in found.damages} == {"r0[0][y=0:40]", "r1[0][y=0:40]"}
    archive = hb.open_archive(store)
    with pytest.raises(hb.errors.SourceError, match="is missing"):
        archive.session("r1").read(0, 0, 40)
    # The one whose chunk is not as its record says is converted again, the other too.
    hb.convert(made_recordings, store, force=True, client=workers)
    assert verify(store, deep=True, client=workers).sound


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12))]
)
def test_flaky_storage_changes_nothing(workers, server, s3, made_recordings, tmp_path, seed):
    hb.convert(made_recordings, tmp_path / "a.zarr", client=workers)
    with Flaky(server.url, seed) as flaky:
        tell(workers, {"AWS_ENDPOINT_URL": flaky.url})
        try:
            result = hb.convert(made_recordings, f"{s3}/a.zarr", client=workers)
            assert verify(f"{s3}/a.zarr", deep=True, client=workers).sound
        finally:
            tell(workers, server.environment())
        assert set(flaky.met) == {"passed", *Flaky.FATES}, flaky.met
    assert (result.failed, result.blocks) == (0, 2)
    same_content(f"{s3}/a.zarr", tmp_path / "a.zarr")
    assert "lock.json" not in files_of(f"{s3}/a.zarr.hsi-batch")


@pytest.mark.parametrize("writes", [1, 12, 30])
def test_storage_that_goes_away_ends_a_run_which_goes_on_later(
    workers, server, s3, made_recordings, tmp_path, impatient, writes
):
    store = f"{s3}/a.zarr"
    hb.convert(made_recordings, tmp_path / "a.zarr", client=workers)
    with Gone(server.url, writes) as gone:
        tell(workers, {"AWS_ENDPOINT_URL": gone.url})
        try:
            with pytest.raises(StorageError, match="does not answer as it should") as caught:
                hb.convert(made_recordings, store, client=workers)
            whole = "".join(traceback.format_exception(caught.value))
            assert SECRET not in whole
            assert TOKEN not in whole
            assert gone.left < 0
            with pytest.raises(StorageError):
                verify(store, deep=True, client=workers)
        finally:
            tell(workers, server.environment())
    # The lock that could not be given back is ours no more.
    assert hb.convert(made_recordings, store, client=workers).failed == 0
    same_content(store, tmp_path / "a.zarr")
    assert "lock.json" not in files_of(f"{store}.hsi-batch")


def test_storage_that_denies_access_is_one_clear_error(hsi, server, s3, monkeypatch):
    with Flaky(server.url, 1, share=1.0, fates=("refused",), status=403) as closed:
        monkeypatch.setenv("AWS_ENDPOINT_URL", closed.url)
        stores._plain.cache_clear()
        done = hsi("ls", f"{s3}/a.zarr")
        assert done.code == 3
        assert "access is denied" in done.err
        assert "AWS_PROFILE" in done.err
        assert SECRET not in done.err


def test_a_killed_run_is_resumed(hsi, workers, server, s3, made_recordings, tmp_path):
    hb.convert(made_recordings, tmp_path / "a.zarr", client=workers)
    store = f"{s3}/a.zarr"
    records = place(f"{store}.hsi-batch") / "records"
    # Slow enough to be killed in the middle.
    with Flaky(server.url, 1, share=1.0, delay=0.15, fates=("slow",)) as slow:
        arguments = ("convert", made_recordings, "--archive", store, "--workers", 1)
        run = start(*arguments, env=server.environment(slow.url))
        limit = time.monotonic() + 100
        while not any(f.name.endswith(".jsonl") for f in records.files()):
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < limit
            time.sleep(0.1)
        told = hsi("status", store, "--json").json
        assert (told["state"], told["owner"]["pid"]) == ("running", run.pid)
        assert told["records"]["convert"]["done"] >= 1
        assert SECRET not in hsi("status", store).out
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    died = hsi("status", store).out
    assert "the last one died" in died
    assert f"convert {made_recordings}" in died
    assert "lock.json" in files_of(f"{store}.hsi-batch")
    result = hb.convert(made_recordings, store, client=workers)
    assert result.failed == 0
    assert hsi("status", store, "--json").json["state"] == "idle"
    same_content(store, tmp_path / "a.zarr")
    assert "lock.json" not in files_of(f"{store}.hsi-batch")


@pytest.mark.parametrize("scheme", ["", "icechunk+"])
def test_progress_is_told_to_other_terminals(
    hsi, workers, s3, made_recordings, monkeypatch, scheme
):
    monkeypatch.setattr("hsi_batch.stages.status._REMOTE_SECONDS", 0.05)
    store, found = f"{scheme}{s3}/a.zarr", []

    def observe(progress):
        limit = time.monotonic() + 60
        while progress.done and not found:
            assert time.monotonic() < limit
            told = hsi("status", store, "--json").json
            found.extend([told["progress"]] * bool(told["progress"]))

    hb.convert(made_recordings, store, client=workers, observer=observe)
    assert (found[0]["stage"], found[0]["total"]) == ("convert", 2)
    told = hsi("status", store, "--json").json
    assert (told["state"], told["progress"]) == ("idle", {})
    assert "status.json" not in files_of(f"{s3}/a.zarr.hsi-batch")


@pytest.mark.parametrize("scheme", ["", "icechunk+"])
def test_the_sharded_preset(workers, s3, made_recordings, tmp_path, scheme):
    """Shards of several blocks, on a disk and elsewhere: the same bytes."""
    local, store = tmp_path / "a.zarr", f"{scheme}{s3}/a.zarr"
    options = {"preset": "sharded", "block_lines": 16, "client": workers}
    hb.convert(made_recordings, local, **options)
    result = hb.convert(made_recordings, store, **options)
    assert (result.failed, result.blocks) == (0, 6)
    cube = hb.open_archive(store)["r0"].cube
    assert cube.encoding["shards"][1] > cube.encoding["chunks"][1] == 16
    fitted = tmp_path / "f.yaml"
    fit_file(PIPELINE, store, fitted, client=workers)
    for archive, scores in ((local, tmp_path / "s.zarr"), (store, f"{scheme}{s3}/s.zarr")):
        assert hb.score(fitted, archive, scores, client=workers).blocks == 6
        assert verify(archive, deep=True, client=workers).sound
        assert verify(scores, deep=True, client=workers).sound
    if not scheme:
        same_content(store, local)
        same_content(f"{s3}/s.zarr", tmp_path / "s.zarr", apart=("archive", "scored", "seal"))
        # Damage of one block of a shard, in its middle.
        expected = files_of(store)
        shard = place(store) / "r0/cube/c.0.0.0.0"
        raw = bytearray(shard.read_bytes())
        raw[len(raw) // 3] ^= 4
        shard.write_bytes(bytes(raw))
        assert repair(store, client=workers).sound
        assert {n: r for n, r in files_of(store).items() if "zarr.json" not in n} == {
            n: r for n, r in expected.items() if "zarr.json" not in n
        }
        return
    for name in ("r0", "r1"):
        one, other = hb.open_archive(store)[name], hb.open_archive(local)[name]
        assert one.load().equals(other.load())


def test_one_of_many_gets_the_lock(s3):
    folder = place(f"{s3}/a.zarr.hsi-batch")
    got, refused, gate, done = [], [], threading.Barrier(6), threading.Event()

    def contend():
        gate.wait()
        try:
            with ObjectLock(folder, "convert"):
                got.append(1)
                done.wait(20)
        except StoreInUseError as error:
            refused.append(str(error))
        if len(refused) == 5:
            done.set()

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    assert f"process {os.getpid()}" in refused[0]
    assert not list(folder.files())


def test_the_lock_of_another_host_is_respected_and_of_a_dead_process_is_not(s3):
    folder = place(f"{s3}/a.zarr.hsi-batch")
    lock = ObjectLock(folder, "convert")
    told = json.loads(lock._told())
    (folder / "lock.json").write_bytes(json.dumps({**told, "host": "elsewhere"}).encode())
    with pytest.raises(StoreInUseError, match="on elsewhere"), ObjectLock(folder, "score"):
        pass
    dead = {**told, "pid": 2**22 + 1}
    (folder / "lock.json").write_bytes(json.dumps(dead).encode())
    with ObjectLock(folder, "score"):
        assert json.loads((folder / "lock.json").read_bytes())["purpose"] == "score"
    assert not list(folder.files())


def test_records_are_objects_that_never_change(s3):
    folder = place(f"{s3}/records")
    records = Records(folder)
    run = records.new_run()
    key = [BlockKey("s", 0, y, y + 8) for y in range(0, 32, 8)]
    with record_writer(run, "task-1") as writer:
        writer.write(BlockRecord(key[0], "done", "d", tail="aa"))
        time.sleep(1.5)
        first = {f.name: f.read_bytes() for f in run.iterdir()}
        assert len(first) == 1, "within a second"
        writer.write(BlockRecord(key[1], "failed", "d", reason="because"))
    with record_writer(run, "task-1") as again:
        assert set(again.earlier) == set(key[:2])
        again.write(BlockRecord(key[1], "done", "d", tail="bb"))
    names = {f.name for f in run.iterdir()}
    assert len(names) == 3
    assert {n: (run / n).read_bytes() for n in first} == first
    assert [records.load()[k].outcome for k in key[:2]] == ["done", "done"]
    records.pack(records.load().values())
    assert [f.name for f in folder.iterdir()] == ["packed.jsonl"]
    assert np.all([records.load()[k].tail for k in key[:2]] == ["aa", "bb"])


def test_credentials_of_a_profile(server, s3, tmp_path, monkeypatch):
    from hsi_batch.places import objects as module
    from hsi_batch.places.credentials import aws_settings

    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = KEYOFLAB\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = {server.url}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    settings = aws_settings()
    assert settings["credential_provider"]()["access_key_id"] == "KEYOFLAB"
    assert SECRET not in repr(settings)
    store = module.ObjectsAt(f"{s3}/x")
    assert SECRET not in repr(store) + repr(store.store) + str(store.__reduce__())
    (place(f"{s3}/x") / "here").write_bytes(b"1")
    assert (place(f"{s3}/x") / "here").read_bytes() == b"1"


def test_a_bucket_that_is_not_there(s3):
    with pytest.raises(StorageError, match="bucket"):
        (place("s3://no-such-bucket/a.zarr") / "x").write_bytes(b"")
