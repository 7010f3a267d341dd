"""Arrays of independent jobs, without Dask between machines."""

from __future__ import annotations

import pytest

from hsi_batch.cluster.queues import run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_arrays_of_jobs_give_what_a_local_run_does(site, reference):
    said = site.submit(
        "memory: 2 GiB\nwalltime: 10m\ndriver: {memory: 2 GiB, cores: 1}\n", "--slices", 3
    )
    assert "submitted" in said
    listed = run("squeue", "--noheader", "--array", "--format=%j|%r").stdout.splitlines()
    assert len(listed) >= 10
    found = site.wait_for_end(400)
    assert found.code == 0
    assert "then finalise" in site.hsi("logs", site.workflow)
    site.assert_like(reference)


@pytest.mark.slow
def test_a_chain_that_breaks_ends(site):
    (site.folder / "workflow.yaml").write_text(
        site.workflow.read_text().replace("sources: ", "sources: /nowhere/at/all # ")
    )
    site.submit("memory: 2 GiB\nwalltime: 10m\n", "--slices", 2)
    site.wait(lambda: not run("squeue", "--noheader").stdout.strip(), 60, "the end")
    assert "exit code 2" in site.hsi("status", site.workflow)
    assert "no recordings were found" in site.hsi("logs", site.workflow)
