"""A small archive with its pipeline and scores, made once, and the commands."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from commands import cluster_file_fixture, hsi_fixture  # noqa: F401
from recordings import scene, write_envi

from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.score import score
from hsi_batch.workflow import shipped

NM = np.arange(8) * 20.0 + 450


def places(folder):
    return SimpleNamespace(
        root=folder,
        recordings=folder / "in",
        archive=folder / "a.zarr",
        pipeline=folder / "rx.yaml",
        fitted=folder / "fitted.yaml",
        scores=folder / "s.zarr",
    )


@pytest.fixture(scope="session")
def made(client, tmp_path_factory):
    """Recordings, archive, fitted pipeline and scores; not to be changed."""
    here = places(tmp_path_factory.mktemp("made"))
    for i, name in enumerate("ab"):
        cube, mask = scene(i)
        write_envi(here.recordings / f"{name}.hdr", cube, wavelength=NM, mask=mask)
    shutil.copy(shipped() / "pipelines" / "rx_statistical.yaml", here.pipeline)
    convert(here.recordings, here.archive, block_lines=16, client=client)
    fit_file(here.pipeline, here.archive, here.fitted, client=client)
    score(here.fitted, here.archive, here.scores, client=client)
    return here


@pytest.fixture
def mine(made, tmp_path):
    """A copy of it that may be changed, all but the recordings."""
    shutil.copytree(made.root, tmp_path / "mine", ignore=shutil.ignore_patterns("in"))
    here = places(tmp_path / "mine")
    here.recordings = made.recordings
    return here
