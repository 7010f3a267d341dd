"""Runs submitted to a real SLURM: both patterns, losses in the middle, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hsi_batch.cluster.jobs import job_status
from hsi_batch.cluster.queues import run

DRIVER = "driver: {memory: 2 GiB, cores: 1}\n"


def test_a_submitted_run_gives_what_a_local_one_does(site, reference):
    said = site.submit(f"workers: 2\nmemory: 2 GiB\nwalltime: 20m\ndashboard: true\n{DRIVER}")
    assert "submitted" in said
    assert "waits in the queue" in (told := site.hsi("status", site.workflow)) or "running" in told
    again = site.hsi("submit", site.workflow, "--cluster", site.folder / "cluster.yaml", code=1)
    assert "submitted already" in again
    end = site.wait_for_end()
    assert (end.code, end.starts) == (0, 1)
    site.assert_like(reference)
    page = (Path(end.job.folder) / "performance.html").read_text()
    assert "Dask Performance Report" in page
    told = site.hsi("status", site.workflow)
    assert "is done" in told
    assert "score: 12 blocks recorded, 0 failed" in told
    assert "12 sessions converted" in site.hsi("logs", site.workflow)
    assert "tls://" in site.hsi("logs", site.workflow, "--workers")
    assert "nothing was running" in site.hsi("cancel", site.workflow)


@pytest.mark.slow
def test_a_whole_cluster_in_one_job(site, reference):
    site.submit(f"workers: 2\nmemory: 2 GiB\nwalltime: 20m\npattern: allocation\n{DRIVER}")
    site.wait(lambda: job_status(site.workflow).state == "running", 30, "the start")
    tasks = run("squeue", "--noheader", "--format=%C|%j").stdout.split()
    assert [line.partition("|")[0] for line in tasks] == ["3"]
    site.wait_for_end()
    site.assert_like(reference)


def test_workers_and_driver_are_lost_in_the_middle(site, reference):
    site.submit(f"workers: 2\nmemory: 2 GiB\nwalltime: 20m\n{DRIVER}")
    site.wait_for_records("archive.zarr")
    found = job_status(site.workflow)
    run("scancel", found.workers[0].job)
    site.wait_for_records("scores.zarr")
    assert run("scontrol", "requeue", found.job.job).returncode == 0
    end = site.wait_for_end()
    assert end.starts == 2
    site.assert_like(reference)


@pytest.mark.slow
def test_a_cancelled_driver_is_submitted_again(site, reference):
    text = f"workers: 2\nmemory: 2 GiB\nwalltime: 20m\n{DRIVER}"
    site.submit(text)
    site.wait_for_records("archive.zarr")
    run("scancel", job_status(site.workflow).job.job)
    site.wait(lambda: not job_status(site.workflow).driver, 30, "the end of the driver")
    assert "submit it again" in site.hsi("status", site.workflow)
    site.hsi("cancel", site.workflow)
    site.submit(text)
    site.wait_for_end()
    site.assert_like(reference)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("queue: nope\n", "invalid partition specified: nope"),
        (
            "memory: 900 GB\nwalltime: 5m\n",
            "configuration is not available|more memory, cores or time",
        ),
        ("queue: down\n", "PartitionDown"),
        ("queue: short\nwalltime: 1h\n", "walltime is longer|more memory, cores or time"),
    ],
)
@pytest.mark.parametrize("command", ["submit", pytest.param("check", marks=pytest.mark.slow)])
def test_what_cannot_start_is_refused_in_seconds(site, text, says, command):
    cluster = site.cluster(text)
    arguments = {"submit": ("submit", site.workflow, "--cluster", cluster)}
    begun = time.monotonic()
    said = site.hsi(*arguments.get(command, ("cluster", "check", cluster)), code=1)
    assert time.monotonic() - begun < 40
    assert any(part in said for part in says.split("|")), said
    assert "sinfo" in said or "Change the cluster YAML" in said
    assert run("squeue", "--noheader", "--states=RUNNING").stdout == ""


def test_a_cluster_is_checked(site):
    said = site.hsi(
        "cluster", "check", site.cluster("memory: 2 GiB\nwalltime: 5m\n"), "--storage", site.folder
    )
    assert "a small frame: right" in said
    assert "storage: writes" in said


@pytest.mark.slow
def test_the_queue_is_full(site):
    text = "memory: 2 GiB\nwalltime: 5m\ntimeout: 4s\n"
    held = run(
        "sbatch", "--parsable", "--cpus-per-task=32", "--output=/dev/null", "--wrap=sleep 60"
    )
    site.wait(lambda: "RUNNING" in run("squeue", "--format=%T").stdout, 20, "the other job")
    begun = time.monotonic()
    said = site.hsi("cluster", "check", site.cluster(text), code=1)
    assert time.monotonic() - begun < 30
    run("scancel", held.stdout.strip())
    assert "no worker came up within 4 s" in said
    assert "is PENDING (Resources)" in said or "is PENDING (Priority)" in said
    assert "Raise `timeout`" in said
