"""One run at a time on a store; what a dead run held is taken over."""

from __future__ import annotations

import json
import os
import signal
import socket

import psutil
import pytest
from archive_helpers import run_script, start_script

from hsi_batch.archive.lock import StoreLock
from hsi_batch.errors import StoreInUseError

HOLD = """
import sys, time
from pathlib import Path
from hsi_batch.archive.lock import StoreLock
with StoreLock(Path(sys.argv[1]), "score"):
    print("held", flush=True)
    {then}
"""


def holder(folder, then="time.sleep(600)"):
    """Another process that holds the lock."""
    process = start_script(HOLD.format(then=then), folder)
    assert process.stdout.readline() == "held\n", process.stderr.read()
    return process


def owner(folder):
    return json.loads((folder / "lock.json").read_text())


def write_owner(folder, **changes):
    folder.mkdir(exist_ok=True)
    known = {"purpose": "fit", "host": socket.gethostname(), "pid": 1, "started": 0.0, "since": "?"}
    (folder / "lock.json").write_text(json.dumps({**known, **changes}))


def dead_pid():
    process = start_script("")
    process.communicate()
    return process.pid


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    first = holder(tmp_path)
    with pytest.raises(StoreInUseError) as caught, StoreLock(tmp_path, "convert"):
        pass
    text = str(caught.value)
    assert f"score by process {first.pid} on {socket.gethostname()}" in text
    assert str(tmp_path / "lock.json") in text
    assert caught.value.exit_code == 3
    assert owner(tmp_path)["pid"] == first.pid
    first.kill()
    first.communicate()


def test_the_same_process_is_refused_too_and_may_come_again(tmp_path):
    for _ in range(2):
        with StoreLock(tmp_path / "new" / "state", "convert"):
            assert owner(tmp_path / "new" / "state")["pid"] == os.getpid()
            with (
                pytest.raises(StoreInUseError, match=f"process {os.getpid()}"),
                StoreLock(tmp_path / "new" / "state", "score"),
            ):
                pass
            assert owner(tmp_path / "new" / "state")["purpose"] == "convert"
        assert not list((tmp_path / "new" / "state").iterdir())


@pytest.mark.parametrize("then", ["pass", "sys.exit(3)", "raise ValueError", "1 / 0"])
def test_it_is_released_however_the_run_ends(tmp_path, then):
    process = holder(tmp_path, then)
    process.communicate()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_run_holds_nothing(tmp_path, reaped):
    first = holder(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    if reaped:
        first.communicate()
    else:
        # A container without an init process never reaps; the zombie is no run.
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE
    assert owner(tmp_path)["pid"] == first.pid
    with StoreLock(tmp_path, "convert"):
        assert owner(tmp_path)["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())
    first.communicate()


def test_a_stopped_run_still_holds_it(tmp_path):
    first = holder(tmp_path)
    os.kill(first.pid, signal.SIGSTOP)
    with pytest.raises(StoreInUseError), StoreLock(tmp_path, "convert"):
        pass
    first.kill()
    first.communicate()


def test_a_number_that_was_given_to_another_process_is_a_dead_run(tmp_path):
    write_owner(tmp_path, pid=os.getpid(), started=psutil.Process().create_time() - 1000)
    with StoreLock(tmp_path, "convert"):
        assert owner(tmp_path)["purpose"] == "convert"


def test_a_run_on_another_host_is_respected(tmp_path):
    write_owner(tmp_path, host="far.away", pid=dead_pid())
    with (
        pytest.raises(StoreInUseError, match=r"on far\.away.*gone for good, delete"),
        StoreLock(tmp_path, "convert"),
    ):
        pass
    assert owner(tmp_path)["host"] == "far.away"


@pytest.mark.parametrize("text", ["", '{"pid": 1', "[]", "7", "null"])
def test_a_torn_lock_names_nobody_who_could_hold_it(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with StoreLock(tmp_path, "convert"):
        assert owner(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("pid", [None, [], "x", -1, 2**70])
def test_a_number_that_is_none_is_a_dead_run(tmp_path, pid):
    write_owner(tmp_path, pid=pid)
    with StoreLock(tmp_path, "convert"):
        assert owner(tmp_path)["pid"] == os.getpid()


def test_a_lock_that_was_given_to_another_run_is_not_taken_from_it(tmp_path):
    with StoreLock(tmp_path, "convert"):
        (tmp_path / "lock.json").unlink()
        second = holder(tmp_path)
    assert owner(tmp_path)["pid"] == second.pid
    second.kill()
    second.communicate()


# Two runs find the same dead owner; one of them is slow between its look and its deed.
RACE = """
import os, select, signal, sys
from pathlib import Path
from hsi_batch.archive import lock
from hsi_batch.errors import StoreInUseError

folder, alive = Path(sys.argv[1]), lock._alive
entered, told = os.pipe()
quick = []

def slow(owner):
    found = alive(owner)
    if not quick:
        quick.append(os.fork())
        if not quick[0]:
            try:
                with lock.StoreLock(folder, "quick"):
                    os.write(told, b"x")
                    signal.pause()
            finally:
                os._exit(0)
        # Either it enters now, or it has to wait for this one: both are right.
        select.select([entered], [], [], 1.0)
    return found

lock._alive = slow
slow_entered = True
try:
    with lock.StoreLock(folder, "slow"):
        quick_entered = bool(select.select([entered], [], [], 0.2)[0])
except StoreInUseError as error:
    slow_entered, quick_entered = False, "quick by process" in str(error)
print(slow_entered, quick_entered)
os.kill(quick[0], signal.SIGKILL)
"""


CONTEND = """
import os, sys, time
from pathlib import Path
from hsi_batch.archive.lock import StoreLock
from hsi_batch.errors import StoreInUseError
folder, stale = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
won = 0
for turn in range(150):
    try:
        with StoreLock(folder, "x"):
            won += 1
            # Nobody else may be here.
            inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
            os.close(inside)
            os.unlink(folder / "inside")
            if turn % 2:
                # Die in the middle, as far as the lock can tell.
                (folder / "lock.new").write_text(stale)
                (folder / "lock.new").replace(folder / "lock.json")
    except StoreInUseError:
        pass
print(won, flush=True)
"""


def test_runs_that_find_a_dead_one_at_the_same_time_never_both_enter(tmp_path):
    write_owner(tmp_path, pid=dead_pid())
    stale = (tmp_path / "lock.json").read_text()
    runs = [start_script(CONTEND, tmp_path, stale, stdin=-1) for _ in range(3)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    outputs = []
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    for run in runs:
        output, errors = run.communicate()
        assert run.returncode == 0, errors
        outputs.append(int(output))
    assert sum(outputs) > 0


def test_a_slow_run_does_not_take_the_lock_of_a_quick_one(tmp_path):
    write_owner(tmp_path, pid=dead_pid())
    done = run_script(RACE, tmp_path)
    assert done.output in ("True False\n", "False True\n"), done.errors
