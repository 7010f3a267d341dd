"""Every shared node, fitted here and there alike, each loading what the other wrote."""

from __future__ import annotations

import numpy as np
import peer
import pytest
import torch

from hsi_batch.nodes import Stage, node_classes
from hsi_batch.pipeline import Pipeline

#: Bounds relative to the largest entry.
STATISTIC, DERIVED = 1e-6, 1e-4
# The arguments that only ours have are dropped on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*of cuvis-ai has no ")
#: What comes out of statistics by a factorisation, or of chains in float32.
DERIVED_BUFFERS = {"cov_inv", "_components", "L", "_tracked_center", "bias"}
#: Outputs that differ on purpose; test_differences.py shows why.
OTHERWISE = {
    ("TrainablePCA", "explained_variance_ratio"),
    # Theirs leaves values outside 0..1 if no pixel of the batch is in the mask.
    ("MaskOverlayNode", "rgb_with_overlay"),
    ("PCA", "explained_variance_ratio"),
}
#: Outputs of files of theirs, where a default of ours says otherwise.
DEFAULTS = {("theirs here", "SelectorDiversityRegularizer", "loss")}
#: Metrics that differ on purpose.
METRICS = {"average_precision": "theirs bins saturated sigmoids, ours ranks all values"}
#: Values below this are rounding: what is compared is then the difference itself.
FLOOR = 1e-2


def stage_of(name):
    """A stage in which the class runs."""
    stages = node_classes()[name].stages
    return "inference" if Stage.INFERENCE in stages else "val"


@pytest.fixture(scope="module", params=peer.shared())
def made(request, tmp_path_factory):
    """A graph around one class, fitted here and there."""
    folder = tmp_path_factory.mktemp("parity")
    cube, mask = peer.scene()
    found = peer.batches(cube, mask)
    ours = peer.case(request.param)
    if ours is None:
        pytest.skip("an input of it comes from no node of the library that the other side has")
    ours._resolve_batch(found[0])
    theirs = peer.load_there(ours, folder, weights=False)
    peer.alike(ours, theirs)
    peer.fit_there(theirs, found)
    peer.fit_here(ours, cube)
    return request.param, ours, theirs, found, folder


def test_what_a_fit_finds(made, close):
    _, ours, theirs, _, _ = made
    there = peer.nodes_there(theirs)
    for node_name, node in ours.nodes.items():
        expected = there[node_name].state_dict()
        assert list(node.state_dict()) == list(expected)
        for buffer, tensor in node.state_dict().items():
            found, want = peer.aligned(buffer, tensor, expected[buffer])
            bound = DERIVED if buffer in DERIVED_BUFFERS else STATISTIC
            close(f"{node_name}.{buffer}", found, want, bound)


def compare(name, here, there, close, what, bound=DERIVED):
    """Outputs of the node in question that both gave."""
    for (node, port), value in there.items():
        if node != "node" or (name, port) in OTHERWISE or (node, port) not in here:
            continue
        if (what, name, port) in DEFAULTS:
            continue
        found = here[node, port]
        if port == "metrics":
            values = {m.name.rpartition("/")[2]: m.value for m in found}
            for metric in value:
                short = metric.name.rpartition("/")[2]
                if short in values and short not in METRICS:
                    close(f"{what} metric {short}", values[short], metric.value, bound, FLOOR)
        if not isinstance(value, torch.Tensor):
            continue
        got, want = peer.aligned(port, found, value)
        if value.is_floating_point():
            floor = FLOOR if port == "loss" else 1e-300
            close(f"{what} {port}", got, want, bound, floor)
        else:
            # Equal but for values that lie on a threshold.
            assert np.mean(want != got) < 1e-3, port


def test_what_they_give_on_a_frame(made, close):
    name, ours, theirs, found, _ = made
    here = peer.run_here(ours, found[1], stage_of(name))
    there = peer.run_there(theirs, found[1], stage_of(name))
    assert {port for node, port in there if node == "node"} <= {
        port for node, port in here if node == "node"
    }
    compare(name, here, there, close, "fitted each")


def test_theirs_loaded_here(made, close):
    name, _, theirs, found, folder = made
    loaded = peer.load_here(theirs, folder)
    assert loaded.fitted
    here, there = (
        peer.run_here(loaded, found[2], stage_of(name)),
        peer.run_there(theirs, found[2], stage_of(name)),
    )
    compare(name, here, there, close, "theirs here")


def test_ours_loaded_there(made, close):
    name, ours, _, found, folder = made
    loaded = peer.load_there(ours, folder)
    for node in loaded.nodes():
        assert node._statistically_initialized or not node.requires_initial_fit
    here, there = (
        peer.run_here(ours, found[2], stage_of(name)),
        peer.run_there(loaded, found[2], stage_of(name)),
    )
    compare(name, here, there, close, "ours there")


def test_their_loader_passes_over_our_part_of_the_weights(tmp_path):
    cube, _ = peer.scene()
    ours = peer.fit_here(peer.case("RXGlobal"), cube)
    theirs = peer.load_there(ours, tmp_path)
    stored = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert set(stored) == {"state_dict", "metadata", "hsi_batch"}
    for name, node in peer.nodes_there(theirs).items():
        for buffer, tensor in node.state_dict().items():
            assert torch.equal(tensor, stored["state_dict"][name][buffer])
    # What they write after that has no such part, and is read here.
    again = peer.load_here(theirs, tmp_path)
    assert again.fitted
    assert set(torch.load(tmp_path / "theirs.pt", weights_only=True)) == {"state_dict", "metadata"}
    assert isinstance(again, Pipeline)
    assert set(again.nodes) == set(ours.nodes)


def test_every_shared_class_is_tried():
    tried = [name for name in peer.shared() if peer.case(name) is not None]
    assert {"RXGlobal", "TrainablePCA", "MinMaxNormalizer", "SoftChannelSelector"} <= set(tried)
    assert set(tried) <= set(node_classes())
