"""Killed anywhere, run again, same result; nothing that is recorded is done again."""

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr
from cluster_helpers import kill_a_worker
from commands import Marked
from graphs import rx_raw
from recordings import scene, write_cu3s, write_envi, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.archive.lock import StoreLock
from hsi_batch.archive.records import Records
from hsi_batch.cluster import connect
from hsi_batch.errors import StoreInUseError
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.score import score


def content(store):
    root = zarr.open_group(store, mode="r")
    return {
        f"{session}/{name}": array[:].tobytes()
        for session, group in root.groups()
        for name, array in group.arrays()
    }


def recordings(folder):
    for i in range(4):
        write_envi(folder / f"e{i}.hdr", scene(i, lines=160, samples=80, bands=6)[0])
    write_cu3s(folder / "c.cu3s", [scene(i, lines=48, samples=40, bands=6)[0] for i in range(6)])
    # Small blocks, whose statistics share rows.
    write_npz(folder / "n.npz", np.stack([scene(i, lines=16, samples=10)[0] for i in range(20)]))


@pytest.fixture
def kept_records(monkeypatch):
    """How often each block was recorded, per stage, before records are packed."""
    counts: dict[str, Counter] = {}
    original = Records.pack

    def pack(self, records):
        counter = counts.setdefault(self.folder.name, Counter())
        for run in self._runs():
            for file in run.glob("*.jsonl"):
                for line in file.read_text().splitlines():
                    counter[json.dumps(json.loads(line)["key"])] += 1
        original(self, records)

    monkeypatch.setattr(Records, "pack", pack)
    return counts


def test_a_killed_worker_costs_at_most_the_blocks_in_flight(tmp_path, client, kept_records):
    recordings(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "calm.zarr", block_lines=16, client=client)
    pipeline = rx_raw()
    fit(pipeline, tmp_path / "calm.zarr", frames="glob:e*", client=client)
    calm = tmp_path / "calm-scores.zarr"
    score(pipeline, tmp_path / "calm.zarr", calm, frames="glob:e*", client=client)
    kept_records.clear()
    with connect(workers=2) as other:
        kills = Counter()

        def kill(progress):
            due = (progress.done + progress.failed) * 3 // max(progress.total, 1)
            if progress.stage in ("convert", "score") and kills[progress.stage] < min(due, 2):
                kills[progress.stage] += 1
                kill_a_worker(other)

        options = {"client": other, "observer": kill, "task_bytes": 40_000}
        convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=16, **options)
        result = score(
            pipeline, tmp_path / "a.zarr", tmp_path / "s.zarr", frames="glob:e*", **options
        )
    assert result.failed == 0
    assert content(tmp_path / "a.zarr") == content(tmp_path / "calm.zarr")
    assert content(tmp_path / "s.zarr") == content(calm)
    for stage, counter in kept_records.items():
        assert kills[stage] >= 1
        twice = sum(n - 1 for n in counter.values())
        # One worker has one block in flight. Small blocks are recorded a task at a time.
        own_rows = {k: n for k, n in counter.items() if json.loads(k)["session"] != "n"}
        assert sum(n - 1 for n in own_rows.values()) <= kills[stage], (stage, twice)


DRIVER = """
import os, signal, sys
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score
sys.path.insert(0, {tests!r})
from graphs import rx_raw
folder, stage, after = sys.argv[1], sys.argv[2], int(sys.argv[3])

def die(progress):
    if progress.stage.startswith(stage) and progress.done >= after:
        os.kill(os.getpid(), signal.SIGKILL)

options = dict(workers=2, observer=die, task_bytes=30_000)
convert(folder + "/in", folder + "/a.zarr", block_lines=16, **options)
pipeline = rx_raw()
fit(pipeline, folder + "/a.zarr", frames="glob:e*", **options)
score(pipeline, folder + "/a.zarr", folder + "/s.zarr", frames="glob:e*", **options)
"""


def test_a_killed_driver_continues_and_leaves_no_process(tmp_path, client):
    recordings(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "calm.zarr", block_lines=16, client=client)
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER.format(tests=str(Path(__file__).parent.parent))))
    mark = Marked()
    for stage, after in (("convert", 9), ("convert", 20), ("score", 10)):
        done = subprocess.run(
            [sys.executable, script, tmp_path, stage, str(after)],
            env={**os.environ, **mark.env},
            capture_output=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        if stage == "convert":
            # What is not finished is not in the archive.
            written = {p: p.stat().st_mtime_ns for p in (tmp_path / "a.zarr").rglob("cube/c.*.0.0")}
            recorded = Records(tmp_path / "a.zarr.hsi-batch" / "records" / "convert").load()
            assert len(recorded) >= after
    result = convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=16, client=client)
    assert result.blocks == 0
    unchanged = [p for p, stamp in written.items() if p.stat().st_mtime_ns == stamp]
    assert len(unchanged) >= 20
    pipeline = rx_raw()
    fit(pipeline, tmp_path / "a.zarr", frames="glob:e*", client=client)
    result = score(
        pipeline, tmp_path / "a.zarr", tmp_path / "s.zarr", frames="glob:e*", client=client
    )
    assert 0 < result.blocks <= 30
    assert content(tmp_path / "a.zarr") == content(tmp_path / "calm.zarr")
    calm = tmp_path / "calm-scores.zarr"
    score(pipeline, tmp_path / "calm.zarr", calm, frames="glob:e*", client=client)
    assert content(tmp_path / "s.zarr") == content(calm)
    assert not list(tmp_path.rglob("*.partial"))
    assert mark.wait() == []


def test_a_lost_chunk_is_converted_again_and_nothing_else(tmp_path, client):
    recordings(tmp_path / "in")
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER.format(tests=str(Path(__file__).parent.parent))))
    subprocess.run([sys.executable, script, tmp_path, "convert", "30"], check=False)
    records = Records(tmp_path / "a.zarr.hsi-batch" / "records" / "convert").load()
    done = [k for k, r in records.items() if r.outcome == "done" and k.session.startswith("e")]
    victim = done[0]
    chunk = tmp_path / "a.zarr" / victim.session / f"cube/c.0.{victim.start // 16}.0.0"
    raw = bytearray(chunk.read_bytes())
    raw[-1] ^= 1
    chunk.write_bytes(raw)
    plan = convert(
        tmp_path / "in", tmp_path / "a.zarr", block_lines=16, client=client, dry_run=True
    ).plan
    todo = {key for session in plan.sessions for key in session.todo}
    assert victim in todo
    assert not todo & set(done[1:])


def test_two_runs_on_one_store(tmp_path, client):
    write_npz(tmp_path / "s.npz", scene(1)[0])
    with StoreLock(tmp_path / "a.zarr.hsi-batch", "convert"):
        with pytest.raises(StoreInUseError, match=rf"convert by process {os.getpid()}") as caught:
            convert(tmp_path / "s.npz", tmp_path / "a.zarr", client=client)
        assert caught.value.exit_code == 3
    assert convert(tmp_path / "s.npz", tmp_path / "a.zarr", client=client).failed == 0
    assert len(open_archive(tmp_path / "a.zarr")) == 1


def test_what_a_killed_fit_left_half_written_is_removed(tmp_path, client):
    write_npz(tmp_path / "s.npz", scene(1)[0])
    convert(tmp_path / "s.npz", tmp_path / "a.zarr", client=client)
    source = rx_raw().save(tmp_path / "p.yaml")
    others = [tmp_path / ".g.yaml.ab3_x9zz", tmp_path / ".f.yaml.mine"]
    for attempt in ("first", "up to date"):
        left = [tmp_path / ".f.yaml.ab3_x9zz", tmp_path / ".f.pt.ab3_x9zz"]
        # A killed run leaves its run state as well.
        (tmp_path / "f.yaml.hsi-batch").mkdir()
        for path in (*left, *others):
            path.write_text("metadata:")
        fitted = fit_file(source, tmp_path / "a.zarr", tmp_path / "f.yaml", client=client)
        assert fitted.up_to_date == (attempt == "up to date")
        assert [path for path in (*left, *others) if path.exists()] == others


class Stopped(Exception):
    """Stands for a death."""


@pytest.mark.parametrize("number", [1, 3, 5, 7])
def test_a_session_that_died_while_it_was_made_is_made_again(tmp_path, client, monkeypatch, number):
    cube, mask = scene(1, lines=48, samples=40, bands=6)
    write_envi(tmp_path / "in" / "e.hdr", cube, mask=mask)
    options = {"block_lines": 16, "client": client}
    convert(tmp_path / "in", tmp_path / "calm.zarr", **options)
    stop_at(monkeypatch, "hsi_batch.archive.writer.create_array", number)
    with pytest.raises(Stopped):
        convert(tmp_path / "in", tmp_path / "a.zarr", **options)
    monkeypatch.undo()
    assert convert(tmp_path / "in", tmp_path / "a.zarr", **options).blocks == 3
    assert content(tmp_path / "a.zarr") == content(tmp_path / "calm.zarr")


def test_scores_that_died_while_they_were_made_are_made_again(tmp_path, client, monkeypatch):
    cube = scene(1, lines=48, samples=40, bands=6)[0]
    write_npz(tmp_path / "in" / "n.npz", np.stack([cube, cube + 1]))
    convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=16, client=client)
    pipeline = rx_raw()
    fit(pipeline, tmp_path / "a.zarr", client=client)
    score(pipeline, tmp_path / "a.zarr", tmp_path / "calm.zarr", client=client)
    stop_at(monkeypatch, "hsi_batch.stages.score_commit.create_array", 1)
    with pytest.raises(Stopped):
        score(pipeline, tmp_path / "a.zarr", tmp_path / "s.zarr", client=client)
    monkeypatch.undo()
    assert score(pipeline, tmp_path / "a.zarr", tmp_path / "s.zarr", client=client).blocks == 6
    assert content(tmp_path / "s.zarr") == content(tmp_path / "calm.zarr")


def stop_at(monkeypatch, name, number):
    """Die at the n-th call of a function."""
    module, _, attribute = name.rpartition(".")
    real, left = getattr(importlib.import_module(module), attribute), [number]

    def stopping(*given, **options):
        left[0] -= 1
        if left[0] == 0:
            raise Stopped
        return real(*given, **options)

    monkeypatch.setattr(name, stopping)
