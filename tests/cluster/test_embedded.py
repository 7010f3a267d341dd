"""Workers on this machine: started by command, one thread each, and all gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from archive_helpers import run_script
from cluster_helpers import descendants, gone_within_a_minute

from hsi_batch.cluster import LocalConfig, connect, current_client
from hsi_batch.errors import ConfigError
from hsi_batch.stages.run import Run

# No guard: what is here would run again in every worker that multiprocessing spawned from it.
UNGUARDED = """
import os, sys
from pathlib import Path
from hsi_batch.cluster import connect, current_client
(Path(sys.argv[1]) / str(os.getpid())).touch()
assert current_client() is None
with connect(sys.argv[2]) as client:
    assert current_client() is client
    print(client.submit(sum, [1, 2, 3]).result(), *client.nthreads().values())
assert current_client() is None
"""


def test_an_unguarded_script_runs_once_and_leaves_nothing(tmp_path):
    script, scratch, runs = tmp_path / "script.py", tmp_path / "scratch", tmp_path / "runs"
    script.write_text(textwrap.dedent(UNGUARDED))
    scratch.mkdir()
    runs.mkdir()
    (tmp_path / "local.yaml").write_text(
        f"type: local\nworkers: 2\nmemory: 1 GiB\nscratch: {scratch}\n"
    )
    before = descendants()
    done = subprocess.run(
        [sys.executable, script, runs, tmp_path / "local.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["6", "1", "1"], done.stderr
    assert done.stderr == ""
    assert len(list(runs.iterdir())) == 1
    assert list(scratch.iterdir()) == []
    assert descendants() == before


def test_workers_are_commands_with_one_thread_and_closing_ends_them(client, tmp_path):
    before = descendants()
    config = LocalConfig(workers=1, memory="777 MiB", scratch=str(tmp_path))
    with connect(config) as own:
        (worker,) = own.scheduler_info()["workers"].values()
        assert worker["nthreads"] == 1
        assert worker["memory_limit"] == 777 * 2**20
        assert worker["host"] == "127.0.0.1"
        started = descendants() - before
        # Only what was started by command is ours; the nanny's worker is its child.
        direct = {p.pid for p in psutil.Process().children()} - before
        assert len(direct) == 2
        for pid in direct:
            command = psutil.Process(pid).cmdline()
            assert command[:4] == [sys.executable, "-m", "dask", "spec"]
        (pid,) = own.run(os.getpid).values()
        assert pid in started - direct
        assert len(list(tmp_path.iterdir())) == 1
    assert gone_within_a_minute(started) == []
    assert list(tmp_path.iterdir()) == []
    # The client that was there before is there again.
    assert client.submit(sum, [1, 2]).result() == 3


def test_an_error_inside_closes_everything(client, tmp_path):
    before = descendants()
    started = set()

    def fail():
        with connect(LocalConfig(workers=1, scratch=str(tmp_path))):
            started.update(descendants() - before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(started) >= 3
    assert gone_within_a_minute(started) == []
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_is_there_is_used_and_left_open(client):
    before = descendants()
    assert current_client() is client
    with Run() as run:
        assert run.client is client
        assert run.threads == 2
    with Run(client, workers=7) as run:
        assert run.client is client
    assert descendants() == before
    assert client.status == "running"
    assert client.submit(sum, [1, 2]).result() == 3


def test_the_number_of_workers_that_is_asked_for_wins_over_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text("workers: 3\n")
    with connect(tmp_path / "c.yaml", workers=1) as own:
        assert len(own.nthreads()) == 1


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_refused(workers):
    before = descendants()
    with pytest.raises(ConfigError, match=f"{workers} workers"):
        connect(workers=workers)
    assert descendants() == before


def test_a_scratch_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"scratch.*no/such"):
        connect(LocalConfig(workers=1, scratch=str(tmp_path / "no" / "such")))


# Every Python process that is started from here ends at once.
BROKEN = """
import os, sys
from hsi_batch.cluster import LocalConfig, connect
from hsi_batch.errors import ClusterError
import psutil
os.environ["PYTHONPATH"] = sys.argv[1]
try:
    connect(LocalConfig(workers=1, scratch=sys.argv[2]))
except ClusterError as error:
    print(error)
print("left", len(psutil.Process().children(recursive=True)))
"""


def test_a_cluster_that_does_not_start_is_one_clear_error_and_leaves_nothing(tmp_path):
    (tmp_path / "path").mkdir()
    (tmp_path / "scratch").mkdir()
    Path(tmp_path / "path" / "sitecustomize.py").write_text(
        "import os\nos.write(2, b'broken on purpose')\nos._exit(3)\n"
    )
    done = run_script(BROKEN, tmp_path / "path", tmp_path / "scratch")
    assert "the workers on this machine did not start" in done.output, done.errors
    assert "broken on purpose" in done.output
    assert "Check memory" in done.output
    assert done.output.endswith("left 0\n")
    assert list((tmp_path / "scratch").iterdir()) == []
