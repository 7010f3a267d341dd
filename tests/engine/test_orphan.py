"""No worker outlives the process that started it, however that one ends."""

from __future__ import annotations

import os
import signal
import time

import pytest
from archive_helpers import start_script
from cluster_helpers import descendants, gone_within_a_minute

DRIVER = """
import os, signal
from hsi_batch.cluster import connect
client = connect(workers=2)
print(*client.run(os.getpid).values(), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(how):
    driver = start_script(DRIVER)
    workers = [int(pid) for pid in driver.stdout.readline().split()]
    started = descendants(driver.pid)
    # A scheduler, and for each worker a nanny, at least.
    assert len(workers) == 2
    assert set(workers) <= started
    assert len(started) >= 5
    os.kill(driver.pid, how)
    driver.communicate()
    assert gone_within_a_minute(started) == []


EARLY = """
import threading, time
from hsi_batch.cluster import connect
threading.Thread(target=connect, kwargs={"workers": 1}, daemon=True).start()
print("started", flush=True)
time.sleep(600)
"""


def test_workers_end_if_the_process_dies_while_they_start():
    driver = start_script(EARLY)
    driver.stdout.readline()
    deadline = time.monotonic() + 60
    while not (started := descendants(driver.pid)) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert started
    assert gone_within_a_minute(started) == []


BUSY = """
import os, signal, sys, time
from pathlib import Path
from hsi_batch.cluster import connect
def writing(place):
    for number in range(10_000):
        Path(place).write_text(str(number))
        time.sleep(0.01)
client = connect(workers=1)
future = client.submit(writing, sys.argv[1])
print("started", flush=True)
signal.pause()
"""


def test_a_worker_writes_no_more_soon_after_the_process_is_gone(tmp_path):
    """The next run may be at work on the same store by then."""
    place = tmp_path / "written"
    driver = start_script(BUSY, str(place))
    driver.stdout.readline()
    deadline = time.monotonic() + 60
    while not place.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    killed = time.time()
    driver.communicate()
    deadline = time.monotonic() + 60
    while time.time() - place.stat().st_mtime < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    # Mostly 0.3 s; Dask would give it 4.5 to end its task.
    assert place.stat().st_mtime - killed < 3
