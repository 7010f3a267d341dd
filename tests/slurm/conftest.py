"""A real SLURM on the loopback address, and what a local run makes of the same recordings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same, maps_of, state_of
from recordings import scene, write_envi

from hsi_batch.cluster.queues import run
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.workflow import run_workflow

ROOT = Path(__file__).parents[2]
TOOL = ROOT / ".ci" / "slurm"
WORKFLOW = """\
archive: archive.zarr
sources: {sources}
pipeline: {pipeline}
fit: {{out: fitted.yaml}}
score: {{out: scores.zarr}}
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A controller and a node of our own; `make slurm-test` asks for them."""
    if not os.environ.get("HSI_BATCH_SLURM"):
        pytest.skip("starts daemons as root: make slurm-test")
    folder = tmp_path_factory.mktemp("slurm")
    done = subprocess.run([TOOL, "start", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before = dict(os.environ)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    # What jobs print goes to files.
    os.environ["PYTHONUNBUFFERED"] = "1"
    yield folder
    jobs = run("squeue", "--noheader", "--format=%i").stdout.split()
    if jobs:
        run("scancel", *jobs)
        time.sleep(2)
    subprocess.run([TOOL, "stop", folder], check=True)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def nothing_left(slurm):
    """Every test ends with an empty queue."""
    yield
    jobs = run("squeue", "--noheader", "--format=%i").stdout.split()
    if jobs:
        run("scancel", *jobs)


@dataclass(frozen=True)
class Site:
    """A folder with a workflow, and commands given in it."""

    folder: Path

    @property
    def workflow(self) -> Path:
        return self.folder / "workflow.yaml"

    def cluster(self, text: str) -> Path:
        path = self.folder / "cluster.yaml"
        path.write_text(f"type: slurm\n{text}")
        return path

    def hsi(self, *arguments, code=0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hsi_batch", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        # Workers that end say a lot in their own logs.
        assert "Traceback" not in text or "--workers" in arguments, text
        return text

    def submit(self, text: str, *more) -> str:
        return self.hsi("submit", self.workflow, "--cluster", self.cluster(text), *more)

    def told(self) -> str:
        """Everything that helps to see what went wrong."""
        return self.hsi("status", self.workflow) + self.hsi("logs", self.workflow)

    def wait(self, condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen: {self.told()}"
            time.sleep(0.25)

    def wait_for_end(self, seconds=150):
        from hsi_batch.cluster.jobs import job_status

        self.wait(
            lambda: job_status(self.workflow).state not in ("queued", "running"), seconds, "the end"
        )
        found = job_status(self.workflow)
        assert found.state == "done", self.told()
        return found

    def wait_for_records(self, store, seconds=90):
        """The first block of a store is done, and not all are."""
        records = self.folder / f"{store}.hsi-batch" / "records"
        self.wait(
            lambda: any(f.stat().st_size for f in records.rglob("*.jsonl")), seconds, f"{store}"
        )

    def assert_like(self, other: Site) -> None:
        for store in ("archive.zarr", "scores.zarr"):
            assert_same(maps_of(other.folder / store), maps_of(self.folder / store))
        fitted = (Pipeline.from_yaml(s.folder / "fitted.yaml") for s in (other, self))
        assert_same(*map(state_of, fitted))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for index in range(12):
        cube, _ = scene(index, lines=120, samples=200, bands=48)
        write_envi(folder / f"s{index:02d}.hdr", cube, wavelength=np.linspace(400, 900, 48))
    return folder


def _site(folder: Path, scenes: Path) -> Site:
    pipeline = ROOT / "workflows" / "pipelines" / "rx_statistical.yaml"
    (folder / "workflow.yaml").write_text(WORKFLOW.format(sources=scenes, pipeline=pipeline))
    return Site(folder)


@pytest.fixture
def make_site(slurm):
    return _site


@pytest.fixture
def site(make_site, tmp_path, scenes) -> Site:
    return make_site(tmp_path, scenes)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, scenes, client) -> Site:
    """What two workers of this machine make of it."""
    found = _site(tmp_path_factory.mktemp("reference"), scenes)
    run_workflow(found.workflow, client=client)
    return found
