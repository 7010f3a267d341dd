"""Four small labelled scenes as an archive, and a pipeline that is fitted to two of them."""

import pytest
from gradient_helpers import scenes, selection_pipeline, write_scenes

import hsi_batch as hb
from hsi_batch.training import StatisticalTrainer


@pytest.fixture(scope="package")
def archive(tmp_path_factory, client):
    """Sessions s0 to s3, of one labelled frame each; tests leave it as it is."""
    here = tmp_path_factory.mktemp("scenes")
    hb.convert([write_scenes(here / "in")], here / "a.zarr", annotations="sibling", client=client)
    return here / "a.zarr"


@pytest.fixture(scope="package")
def fitted(archive, client, tmp_path_factory):
    """A file of the channel selection, fitted to s0 and s1."""
    pipeline = selection_pipeline()
    StatisticalTrainer(pipeline, scenes(archive), client=client).fit()
    return pipeline.save(tmp_path_factory.mktemp("fitted") / "p.yaml")
