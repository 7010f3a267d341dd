"""Every shared class, fitted here and there alike, each loading what the other wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cases
import numpy as np
import peer
import pytest
import torch

from hsi_batch.nodes import Stage, node_classes
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.catalogue import cuvis_classes

#: Bounds relative to the largest entry.
STATISTIC, DERIVED = 1e-6, 1e-4
# The arguments that only ours have are dropped on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*of cuvis-ai has no ")
#: What comes out of statistics by a factorisation or iterations, or of chains in float32.
DERIVED_BUFFERS = {
    *("cov_inv", "_components", "L", "_tracked_center", "bias", "centroids", "means"),
    *("precisions_chol", "weights", "band_scores", "fisher_scores", "auc_scores", "mi_scores"),
    *("running_min", "running_max", "offset_buf", "gamma_buf"),
}
#: libsvm stops at 1e-3 of a coefficient, elsewhere for another order of pixels; scores agree.
COEFFICIENT = 3e-2
#: Fitted otherwise on purpose; test_single_nodes.py shows that ours fits better.
FITTED_OTHERWISE = {"NMFUnmixing"}
#: Their rows come in any order.
ORDERED = {"centroids", "means", "precisions_chol", "weights", "support_vectors", "dual_coef"}
#: Outputs that differ on purpose; test_differences.py shows why.
OTHERWISE = {
    ("TrainablePCA", "explained_variance_ratio"),
    ("PCA", "explained_variance_ratio"),
}
#: Metrics that differ on purpose.
METRICS = {
    "average_precision": "theirs bins saturated sigmoids, ours ranks all values",
    "median": "theirs is the lower of the two middle values",
}
#: Values below this are rounding: what is compared is then the difference itself.
FLOOR = 1e-2


def stage_of(name):
    """A stage in which the class runs."""
    stages = node_classes()[name].stages
    return "inference" if Stage.INFERENCE in stages else "val"


@pytest.fixture(scope="module", params=cases.cases(), ids=str)
def made(request, tmp_path_factory) -> peer.Both:
    """A graph around one class, fitted here and there."""
    case = request.param
    pipeline = cases.graph(case)
    return peer.both(case, pipeline, tmp_path_factory.mktemp("parity"))


def test_what_a_fit_finds(made, close):
    there = peer.nodes_there(made.theirs)
    made.order = made.order or peer.same_vectors(made.ours.nodes["node"], there["node"])
    for node_name, node in made.ours.nodes.items():
        expected = there[node_name].state_dict()
        assert set(node.state_dict()) == set(expected)
        for buffer, tensor in node.state_dict().items():
            want = expected[buffer]
            if made.order and buffer in ORDERED:
                want = want[made.order]
            if made.case.name in FITTED_OTHERWISE:
                assert tensor.shape == want.shape
                continue
            found, want = peer.aligned(buffer, tensor, want)
            bound = DERIVED if buffer in DERIVED_BUFFERS else STATISTIC
            bound = COEFFICIENT if buffer == "dual_coef" else bound
            close(f"{node_name}.{buffer}", found, want, bound)


def compare(made: peer.Both, here: Mapping, there: Mapping, close: Any, what: str) -> None:
    """Outputs of the node in question that both gave."""
    name = made.case.name
    compared = 0
    for (node, port), value in there.items():
        if node != "node":
            continue
        assert (node, port) in here, port
        if (name, port) in OTHERWISE:
            continue
        compared += 1
        for label, found, want in pairs(made, what, port, here[node, port], value):
            if np.asarray(want).dtype.kind == "f":
                floor = FLOOR if port in ("loss", "metrics") else 1e-300
                close(f"{what} {label}", found, want, DERIVED, floor)
            else:
                assert found.shape == want.shape
                # Equal but for values that lie on a threshold.
                assert np.mean(want != found) < 1e-3, label
    assert compared or not made.ours.nodes["node"].OUTPUT_SPECS


def pairs(made: peer.Both, what: str, port: str, found: Any, value: Any) -> Iterator[tuple]:
    """What is compared of one output, as arrays."""
    if port == "metrics":
        values = {m.name.rpartition("/")[2]: m.value for m in found}
        theirs = {m.name.rpartition("/")[2]: m.value for m in value}
        assert set(theirs) == set(values)
        for name in set(theirs) - set(METRICS):
            yield f"metric {name}", np.array(values[name]), np.array(theirs[name], float)
    elif port == "artifacts":
        # Theirs are drawn by Matplotlib: what is the same is how many there are, and of what.
        assert [a.name for a in found] == [a.name for a in value]
        for a in (*found, *value):
            assert a.value.ndim == 3
            assert a.value.shape[-1] == 3
            assert len(np.unique(a.value)) > 1
        if made.case.name != "CubeRGBVisualizer":
            # Theirs says inference whatever the stage.
            yield "stages", *(np.array([str(a.stage) for a in each]) for each in (found, value))
    elif isinstance(value, Mapping):
        yield from told(found, value)
    elif value is not None:
        if made.case.name == "SpectralObjectMask" and port == "angle":
            # Ours is that of every pixel.
            step = made.case.arguments["stride"]
            found = found[:, ::step, ::step]
        if made.order and what == "fitted each":
            value = renumbered(made.order, port, value)
        got, want = peer.aligned(port, found, value)
        floating = torch.as_tensor(value).is_floating_point()
        yield port, got, want if floating else want.astype(np.int64)


def renumbered(order: list[int], port: str, value: torch.Tensor) -> torch.Tensor:
    """Clusters of theirs by the numbers of ours."""
    if port == "class_mask":
        return torch.tensor([order.index(k) for k in range(len(order))])[value.long()]
    return value[..., order] if port == "abundances" else value


def told(found: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[tuple]:
    """Numbers of the same name in two reports of channels."""
    for key in set(found) & set(value):
        got, want = (np.asarray(v) for v in (found[key], value[key]))
        if want.dtype.kind in "if" and got.dtype.kind in "if":
            yield f"band_info {key}", got.astype(float), want.astype(float)


def test_what_they_give_on_a_frame(made, close):
    stage = stage_of(made.case.name)
    here = peer.run_here(made.ours, made.found[1], stage)
    there = peer.run_there(made.theirs, made.found[1], stage)
    if made.case.name in FITTED_OTHERWISE:
        assert {ref for ref in there if ref[0] == "node"} <= set(here)
        return
    compare(made, here, there, close, "fitted each")


def test_theirs_loaded_here(made, close):
    stage = stage_of(made.case.name)
    loaded = peer.load_here(made.theirs, made.folder)
    assert loaded.fitted
    here = peer.run_here(loaded, made.found[2], stage)
    there = peer.run_there(made.theirs, made.found[2], stage)
    compare(made, here, there, close, "theirs here")


def test_ours_loaded_there(made, close):
    stage = stage_of(made.case.name)
    loaded = peer.load_there(made.ours, made.folder)
    for node in loaded.nodes():
        assert node._statistically_initialized or not node.requires_initial_fit
    here = peer.run_here(made.ours, made.found[2], stage)
    there = peer.run_there(loaded, made.found[2], stage)
    compare(made, here, there, close, "ours there")


def test_their_loader_passes_over_our_part_of_the_weights(tmp_path):
    cube, _ = peer.scene()
    ours = peer.fit_here(cases.graph(cases.Case("RXGlobal", {})), cube)
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


def test_every_shared_class_is_compared_with_all_its_inputs():
    assert {case.name for case in cases.cases()} == set(cases.shared())
    assert len(cases.shared()) >= 111
    for case in cases.cases():
        pipeline = cases.graph(case)
        node = pipeline.nodes["node"]
        both = set(node.INPUT_SPECS) & set(cuvis_classes()[case.name].inputs)
        assert node.is_source or set(pipeline.sources_of("node")) == both
