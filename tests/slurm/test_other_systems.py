"""SLURM reads directives of PBS, too: its parser looks at the job scripts for it."""

from __future__ import annotations

import pytest

from hsi_batch.cluster import read_cluster
from hsi_batch.cluster.driver import driver_script
from hsi_batch.cluster.queues import run
from hsi_batch.cluster.scripts import script_of
from hsi_batch.documents import read_yaml


@pytest.mark.parametrize("kind", ["worker", "driver"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("queue: main\nmemory: 2 GiB\nwalltime: 20m\n", ""),
        ("queue: nope\n", "Invalid partition"),
        ("queue: main\nmemory: 2 GiB\nworkers_per_job: 64\ndriver: {cores: 64}\n", "configuration"),
    ],
)
def test_scripts_for_pbs_are_understood(slurm, tmp_path, kind, text, says):
    config = read_cluster(read_yaml("c.yaml", text=f"type: pbs\n{text}"))
    worker = kind == "worker"
    script = script_of(config) if worker else driver_script(config, "hsi-1", tmp_path, ["run"])
    done = run("sbatch", "--test-only", text=script)
    assert (done.returncode == 0) == (says == ""), done.stderr
    assert says in done.stderr
