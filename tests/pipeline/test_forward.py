"""Forward in memory: what is kept, and what nodes are fed with; what a saved fit says of itself."""

import pytest
import torch
import xarray as xr
from graphs import rx_statistical

from hsi_batch.nodes import ScoreToLogit
from hsi_batch.pipeline import Pipeline
from hsi_batch.stages.fit import fit

BATCH = {
    "cube": torch.rand(1, 12, 5, 4, generator=torch.Generator().manual_seed(1)),
    "mask": torch.zeros(1, 12, 5, dtype=torch.int32),
}
CUBE = xr.DataArray(BATCH["cube"][0].numpy(), dims=("y", "x", "channel"))


@pytest.fixture
def pipeline():
    graph = rx_statistical()
    fit(graph, CUBE)
    return graph


def test_only_what_is_kept_is_returned(pipeline):
    everything = pipeline.forward(BATCH)
    kept = pipeline.forward(BATCH, keep=("logits",))
    assert list(kept) == [("logit", "logits")]
    assert torch.equal(kept["logit", "logits"], everything["logit", "logits"])
    assert not pipeline.forward(BATCH, keep=())


def test_nodes_may_be_fed_otherwise_or_left_out(pipeline):
    def feed(node, given):
        if isinstance(node, ScoreToLogit):
            return {"scores": given["scores"] * 0}
        return None if node.name == "decider" else given

    values = pipeline.forward(BATCH, feed=feed)
    assert len(values["logit", "logits"].unique()) == 1
    assert ("decider", "decisions") not in values


def test_a_key_that_bears_the_name_of_a_port_feeds_nothing(pipeline):
    expected = pipeline.forward(BATCH)["rx", "scores"]
    values = pipeline.forward({**BATCH, "scores": expected * 0, "data": BATCH["cube"] * 0})
    assert torch.equal(values["rx", "scores"], expected)
    assert values["logit", "logits"].std() > 0


def test_a_saved_fit_says_when_and_from_what(pipeline, tmp_path):
    pipeline.metadata.tags = ["mine"]
    for _ in range(2):
        pipeline.save(tmp_path / "f.yaml")
    tags = Pipeline.from_yaml(tmp_path / "f.yaml").metadata.tags
    assert [tag.split(":")[0] for tag in tags] == ["mine", "fitted", "fitted-with"]
    reference = Pipeline.from_yaml(tmp_path / "f.yaml").reference
    assert reference.count == 60
    assert reference.mean == pytest.approx(BATCH["cube"].double().mean((0, 1, 2)).numpy())
    unfitted = rx_statistical()
    unfitted.save(tmp_path / "u.yaml")
    assert unfitted.metadata.tags == []
