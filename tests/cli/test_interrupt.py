"""Ctrl-C, and two runs on one store."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import zarr
from commands import Done, Marked, chunks, command, start
from recordings import scene, write_envi

from hsi_batch.archive.records import Records

BLOCKS = 250


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory):
    """Many small blocks, so that there is a middle."""
    path = tmp_path_factory.mktemp("long") / "s.hdr"
    cube = scene(1, lines=BLOCKS * 32, samples=30, bands=8)[0]
    write_envi(path, cube)
    return path, cube


def begin(path, archive, *arguments, env=None):
    """Start a conversion and come back in the middle of it."""
    run = start("convert", path, "--archive", archive, "--block-lines", "32", *arguments, env=env)
    records = Records(archive.with_name(archive.name + ".hsi-batch") / "records" / "convert")
    while run.poll() is None and len(records.load()) < 5:
        time.sleep(0.01)
    assert run.poll() is None, run.communicate()
    return run, records


def ended(run) -> Done:
    out, err = run.communicate(timeout=120)
    return Done(run.returncode, out, err)


def test_interrupted_and_resumed(hsi, long_recording, tmp_path):
    path, cube = long_recording
    archive, marked = tmp_path / "a.zarr", Marked()
    # Workers of its own, as most runs have.
    run, records = begin(path, archive, "--workers", "2", env=marked.env)
    run.send_signal(signal.SIGINT)
    done = ended(run).checked()
    assert (done.code, done.out) == (130, "")
    assert "interrupted; what is written stays. Run the same command again" in done.err
    assert not marked.wait()
    recorded = [k for k, r in records.load().items() if r.outcome == "done"]
    assert 5 <= len(recorded) < BLOCKS
    before = chunks(archive / "s" / "cube")
    # Nobody holds the store, and it does not claim to be complete.
    listed = hsi("ls", archive)
    assert listed.code == 0
    assert "not finished: s" in listed.err
    assert hsi("verify", archive).code == 3
    convert = ["convert", path, "--archive", archive, "--block-lines", "32"]
    plan = hsi(*convert, "--dry-run", "--json").json
    assert plan["counts"] == {"resume": 1}
    assert plan["blocks"] == BLOCKS - len(recorded)
    again = hsi(*convert, "--json")
    assert again.code == 0
    assert again.json["blocks"] == BLOCKS - len(recorded)
    after = chunks(archive / "s" / "cube")
    kept = [archive / "s" / f"cube/c.0.{key.start // 32}.0.0" for key in recorded]
    assert all(after[chunk] == before[chunk] for chunk in kept)
    np.testing.assert_array_equal(zarr.open_array(archive, path="s/cube", mode="r")[0], cube)
    assert hsi("verify", archive, "--json").json["damages"] == []


def test_the_second_run_is_refused(long_recording, tmp_path, cluster_file):
    path, _ = long_recording
    archive = tmp_path / "a.zarr"
    run, _ = begin(path, archive, "--cluster", cluster_file)
    os.kill(run.pid, signal.SIGSTOP)
    second = command("convert", path, "--archive", archive, "--cluster", cluster_file)
    removing = command("rm", archive / "s")
    os.kill(run.pid, signal.SIGCONT)
    for refused in (second, removing):
        assert (refused.code, refused.out) == (3, "")
        assert re.search(
            rf"another run uses this store: convert by process {run.pid} on ", refused.err
        )
    done = ended(run).checked()
    assert done.code == 0
    assert f"{BLOCKS} blocks" in done.out
    assert command("convert", path, "--archive", archive, "--block-lines", "32").code == 0


def test_ctrl_c_in_a_terminal(long_recording, tmp_path):
    # A terminal sends the signal to all processes of the group.
    path, _ = long_recording
    marked = Marked()
    run, _ = begin(path, tmp_path / "a.zarr", "--workers", "2", env=marked.env)
    os.killpg(run.pid, signal.SIGINT)
    done = ended(run).checked()
    assert (done.code, done.out) == (130, "")
    assert "interrupted; what is written stays" in done.err
    assert not marked.wait()


def test_twice_is_at_once(hsi, long_recording, tmp_path):
    path, _ = long_recording
    archive, marked = tmp_path / "a.zarr", Marked()
    run, records = begin(path, archive, "--workers", "2", env=marked.env)
    # Both are there before it can end because of the first.
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        run.send_signal(number)
    done = ended(run)
    assert (done.code, done.out) == (130, "")
    assert "stopped at once" in done.err
    assert not marked.wait()
    status = hsi("status", archive)
    assert (status.code, "the last one died: convert by process" in status.out) == (0, True)
    left = BLOCKS - len([r for r in records.load().values() if r.outcome == "done"])
    again = hsi("convert", path, "--archive", archive, "--block-lines", "32", "--json")
    assert (again.code, again.json["blocks"]) == (0, left)


def test_the_status_of_a_run_and_of_a_dead_one_from_another_terminal(hsi, long_recording, tmp_path):
    path, _ = long_recording
    archive = tmp_path / "a.zarr"
    assert hsi("status", archive).code == 3
    run, _ = begin(path, archive, "--workers", "1")
    os.kill(run.pid, signal.SIGSTOP)
    found = hsi("status", archive, "--json").json
    assert (found["state"], found["owner"]["pid"]) == ("running", run.pid)
    assert found["records"]["convert"]["done"] >= 5
    assert found["progress"]["total"] == BLOCKS
    told = hsi("status", archive).out
    assert f"convert by process {run.pid} on " in told
    assert f"/{BLOCKS} blocks" in told
    run.kill()
    ended(run)
    found = hsi("status", archive, "--json").json
    assert found["state"] == "died"
    assert str(path) in found["owner"]["command"]
    assert hsi("convert", path, "--archive", archive, "--block-lines", "32").code == 0
    found = hsi("status", archive, "--json").json
    assert (found["state"], found["owner"], found["progress"]) == ("idle", {}, {})
    assert found["records"]["convert"] == {"done": BLOCKS, "failed": 0}
    names = {entry.name for entry in (tmp_path / "a.zarr.hsi-batch").iterdir()}
    assert not names & {"lock.json", "status.json"}


def test_the_scheduler_dies(hsi, long_recording, tmp_path):
    path, _ = long_recording
    archive, marked = tmp_path / "a.zarr", Marked()
    run, records = begin(path, archive, "--workers", "1", env=marked.env)
    for process in psutil.Process(run.pid).children(recursive=True):
        if "distributed.Scheduler" in " ".join(process.cmdline()):
            process.kill()
    done = ended(run).checked()
    assert (done.code, done.out) == (1, "")
    assert "the connection to the cluster was lost" in done.err
    assert not marked.wait()
    left = BLOCKS - len([r for r in records.load().values() if r.outcome == "done"])
    assert left < BLOCKS
    again = hsi("convert", path, "--archive", archive, "--block-lines", "32", "--json")
    assert (again.code, again.json["blocks"]) == (0, left)


SWALLOWED = """
import os, signal, sys, time
from hsi_batch.cli.signals import interruptible

class Told:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        for _ in range(1000):
            pass

with interruptible():
    try:
        Told()
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_while_a_finalizer_runs_is_not_lost(name):
    """Python shows what a finalizer raises, and drops it."""
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, name],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 130
    told = "hsi-batch: finishing what is in flight; Ctrl-C again to stop at once.\n"
    assert done.stderr == told
