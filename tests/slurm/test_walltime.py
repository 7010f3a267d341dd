"""A run that takes longer than its walltime."""

from __future__ import annotations

import os

import numpy as np
import pytest
from recordings import scene, write_envi

from hsi_batch.workflow import run_workflow


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_goes_on_over_several_jobs(make_site, tmp_path, client):
    scenes = tmp_path / "scenes"
    for index in range(4):
        cube, _ = scene(index, lines=3000, samples=300, bands=48)
        write_envi(scenes / f"s{index}.hdr", cube, wavelength=np.linspace(400, 900, 48))
        for more in range(12):
            for file in scenes.glob(f"s{index}.*"):
                os.link(file, scenes / f"s{index}_{more}{file.suffix}")
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    reference, site = (make_site(tmp_path / name, scenes) for name in ("here", "there"))
    for each in (reference, site):
        # Compressed with patience, so that three quarters of a minute do not suffice.
        text = each.workflow.read_text()
        sources = f"sources: {{paths: [{scenes}], preset: small}}"
        each.workflow.write_text(text.replace(f"sources: {scenes}", sources))
    run_workflow(reference.workflow, client=client)
    site.submit(
        "workers: 1\nmemory: 2 GiB\nwalltime: 1m\ndriver: {memory: 2 GiB, cores: 1, walltime: 1m}\n"
    )
    end = site.wait_for_end(900)
    assert end.starts > 1
    assert "goes on in the next one" in site.hsi("logs", site.workflow)
    site.assert_like(reference)
