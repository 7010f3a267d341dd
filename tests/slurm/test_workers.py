"""Workers as SLURM jobs of several kinds and numbers, that end and are sent again."""

from __future__ import annotations

import time

import pytest

from hsi_batch.cluster import connect
from hsi_batch.cluster.queues import run

pytestmark = pytest.mark.slow


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.25)


def jobs(fields="%i"):
    return run("squeue", "--noheader", "--states=RUNNING", f"--format={fields}").stdout.split()


def test_workers_of_several_kinds(site):
    text = (
        "workers: 2\nworkers_per_job: 2\nmemory: 1 GiB\nwalltime: 10m\n"
        "groups: {big: {workers: 1, memory: 3 GiB, walltime: 5m, resources: {TRAIN: 1}}}\n"
    )
    with connect(site.cluster(text)) as client:
        client.wait_for_workers(3, timeout=60)
        assert sorted(jobs("%C|%m|%l")) == ["1|3G|5:00", "2|2G|10:00"]
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        limits = {round(w["memory_limit"] / 2**30): w["resources"] for w in workers}
        assert limits == {1: {}, 3: {"TRAIN": 1.0}}
        assert client.submit(int, 7, resources={"TRAIN": 1}).result(timeout=30) == 7
    until(lambda: jobs() == [])


def test_workers_come_and_go_with_the_work(site):
    text = "adaptive: {minimum: 1, maximum: 3}\nmemory: 1 GiB\nwalltime: 10m\n"
    with connect(site.cluster(text)) as client:
        assert len(client.nthreads()) == 1
        sleeping = client.map(time.sleep, [2.0 + i / 1e6 for i in range(40)])
        until(lambda: len(client.nthreads()) == 3)
        client.gather(sleeping)
        del sleeping
        until(lambda: len(client.nthreads()) == 1, 90)
    until(lambda: jobs() == [])


@pytest.mark.timeout(400)
def test_workers_that_end_with_their_walltime_or_are_lost_are_sent_again(site):
    with connect(site.cluster("workers: 1\nmemory: 1 GiB\nwalltime: 1m\n")) as client:
        (first,) = jobs()
        until(lambda: jobs() not in ([], [first]), 120)
        second = jobs()[-1]
        client.wait_for_workers(1, timeout=60)
        assert client.submit(int, 1).result(timeout=30) == 1
        run("scancel", second)
        until(lambda: jobs() not in ([], [first], [second], [first, second]), 60)
        client.wait_for_workers(1, timeout=60)
        assert client.submit(int, 2).result(timeout=60) == 2


def test_another_environment_is_told(site, tmp_path):
    # The same Python, in which another version of a package says that it is there.
    other = tmp_path / "other" / "xarray-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: xarray\nVersion: 0.1\n")
    text = (
        "workers: 1\nmemory: 1 GiB\nwalltime: 5m\n"
        f"setup: ['export PYTHONPATH={other.parent}:$PYTHONPATH']\n"
    )
    with (
        pytest.warns(UserWarning, match=r"(?s)other software.*xarray +\S+ +0\.1 \(1 of 1"),
        connect(site.cluster(text)),
    ):
        pass
