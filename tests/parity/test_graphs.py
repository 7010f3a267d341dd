"""The shipped graphs, fitted here and there, each loading what the other wrote."""

from __future__ import annotations

from pathlib import Path

import peer
import pytest
import yaml
from cases import NM

from hsi_batch.nodes import node_classes
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.catalogue import cuvis_classes
from hsi_batch.pipeline.forward import resolve_batch
from hsi_batch.workflow import shipped

FOLDER = shipped() / "pipelines"
#: Global RX without a decider: the shipped graph ends in one that only we have.
RAW = Path(__file__).parents[1] / "rx_raw.yaml"
#: Graphs that have a counterpart there, and what of them is compared.
GRAPHS = {
    "rx_statistical": ("rx.scores", "logit.logits"),
    "channel_selector": ("selector.selected", "rx.scores", "logit.logits"),
    "pca": ("pca.projected",),
    "rx_raw": ("rx.scores",),
    "deep_svdd": (),
}


def graph(name):
    """A shipped graph with the inverse that cuvis-ai computes."""
    path = RAW if name == RAW.stem else FOLDER / f"{name}.yaml"
    missing = {
        node["class_name"].rpartition(".")[2] for node in yaml.safe_load(path.read_text())["nodes"]
    } - (set(node_classes()) & set(cuvis_classes()))
    assert not missing
    pipeline = Pipeline.from_yaml(path)
    for node in pipeline.nodes.values():
        if "inverse" in node.hparams:
            node.hparams["inverse"] = node.inverse = "pinv32"
    return pipeline


def wanted(name, pipeline):
    """Outputs to compare: those named, else every one with scores."""
    named = tuple(tuple(port.split(".")) for port in GRAPHS[name])
    found = [(n, p) for n, node in pipeline.nodes.items() for p in node.OUTPUT_SPECS]
    return named or tuple(ref for ref in found if ref[1] in ("scores", "normalized", "center"))


@pytest.fixture(params=GRAPHS)
def made(request, tmp_path):
    cube, mask = peer.scene(frames=4, height=40)
    found = peer.batches(cube, mask)
    ours = graph(request.param)
    resolve_batch(ours, found[0])
    theirs = peer.load_there(ours, tmp_path, weights=False)
    peer.alike(ours, theirs)
    peer.fit_there(theirs, found)
    peer.fit_here(ours, cube)
    return request.param, ours, theirs, found, tmp_path


# Parameters that only ours have are dropped on purpose.
@pytest.mark.filterwarnings("ignore:.*of cuvis-ai has no ")
def test_a_graph_is_the_same_here_and_there(made, close):
    name, ours, theirs, found, folder = made
    there = peer.nodes_there(theirs)
    for node_name, node in ours.nodes.items():
        for buffer, tensor in node.state_dict().items():
            got, want = peer.aligned(buffer, tensor, there[node_name].state_dict()[buffer])
            derived = buffer in ("cov_inv", "bias", "_components", "_tracked_center")
            close(f"{node_name}.{buffer}", got, want, 1e-4 if derived else 1e-6)
    here_loaded = peer.load_here(theirs, folder)
    there_loaded = peer.load_there(ours, folder)
    for batch in found[:2]:
        runs = {
            "each": (peer.run_here(ours, batch), peer.run_there(theirs, batch)),
            "theirs here": (peer.run_here(here_loaded, batch), peer.run_there(theirs, batch)),
            "ours there": (peer.run_here(ours, batch), peer.run_there(there_loaded, batch)),
        }
        for what, (here, other) in runs.items():
            for ref in wanted(name, ours):
                got, want = peer.aligned(ref[1], here[ref], other[ref])
                close(f"{what} {'.'.join(ref)}", got, want, 1e-4)
            if ("decider", "decisions") in here:
                differ = here["decider", "decisions"] != other["decider", "decisions"]
                assert differ.double().mean() < 1e-3


def test_the_blocked_and_folded_scores_are_theirs(close, tmp_path):
    # What runs at archive scale: folded, by blocks, not the modules one after the other.
    import xarray as xr

    cube, mask = peer.scene(frames=2)
    ours = peer.fit_here(graph("channel_selector"), cube)
    theirs = peer.load_there(ours, tmp_path)
    lazy = xr.DataArray(
        cube,
        dims=("frame", "y", "x", "channel"),
        coords={"wavelength": ("channel", NM * 1.0)},
    )
    scores = ours.apply(lazy, "rx.scores").to_numpy()
    for i, batch in enumerate(peer.batches(cube, mask)):
        want = peer.run_there(theirs, batch)["rx", "scores"].numpy()
        close("apply", scores[i].reshape(want.shape[1:]), want[0], 1e-4)
