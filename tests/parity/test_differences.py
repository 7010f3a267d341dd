"""Where we differ on purpose: why, and that ours is closer to the truth in float64."""

from __future__ import annotations

import numpy as np
import peer
import pytest
import torch
from cases import CHANNELS

from hsi_batch.nodes import (
    AnomalyDataNode,
    MinMaxNormalizer,
    QuantileBinaryDecider,
    RXGlobal,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.forward import resolve_batch


def chain(*nodes):
    """Nodes one behind the other."""
    pipeline = Pipeline("chain")
    last = AnomalyDataNode((0,), name="data").outputs.cube
    for node in nodes:
        pipeline.connect((last, node.inputs[next(iter(node.INPUT_SPECS))]))
        last = node.outputs[next(iter(node.OUTPUT_SPECS))]
    return pipeline


def both(cube, mask, folder, *nodes):
    """A graph fitted here and there."""
    ours = chain(*nodes)
    resolve_batch(ours, peer.batches(cube, mask)[0])
    theirs = peer.load_there(ours, folder, weights=False)
    peer.fit_there(theirs, peer.batches(cube, mask))
    return peer.fit_here(ours, cube), theirs


def test_rx_keeps_the_directions_of_small_variance(tmp_path, capsys):
    # Their pseudo-inverse in float32 drops every direction below C * 2^-23 of the largest one; a
    # sensor with little noise loses all but its few materials, and the scores with them.
    rng = np.random.default_rng(3)
    spectra = rng.uniform(0.1, 0.9, (3, CHANNELS))
    shares = rng.dirichlet(np.ones(3), (3, 40, 40))
    cube = shares @ spectra + 2e-4 * rng.standard_normal((3, 40, 40, CHANNELS))
    cube = cube.astype(np.float32)
    mask = np.zeros(cube.shape[:3], np.int32)
    nodes = MinMaxNormalizer(name="norm"), RXGlobal(eps=0.0, name="rx")
    ours, theirs = both(cube, mask, tmp_path, *nodes)

    x = cube.reshape(-1, CHANNELS).astype(np.float64)
    x = (x - x.min()) / (x.max() - x.min())
    centred = x - x.mean(axis=0)
    truth = np.einsum("ij,ij->i", centred, np.linalg.solve(np.cov(x.T), centred.T).T)
    truth = truth.reshape(cube.shape[:3])
    found = {"ours": [], "theirs": []}
    for batch in peer.batches(cube, mask):
        found["ours"].append(peer.run_here(ours, batch)["rx", "scores"][0, ..., 0].numpy())
        found["theirs"].append(peer.run_there(theirs, batch)["rx", "scores"][0, ..., 0].numpy())
    errors = {k: float(np.abs(np.stack(v) - truth).max() / truth.max()) for k, v in found.items()}
    kept = torch.linalg.matrix_rank(peer.nodes_there(theirs)["rx"].cov_inv)
    with capsys.disabled():
        print(
            f"\nRX, small noise: error of ours {errors['ours']:.1e}, of theirs"
            f" {errors['theirs']:.1e} ({int(kept)} of {CHANNELS} directions kept)"
        )
    assert errors["ours"] < 1e-3
    assert errors["theirs"] > 100 * errors["ours"]
    # Means: C (n - 1) / n by mathematics.
    assert np.mean(found["ours"]) == pytest.approx(CHANNELS, rel=1e-3)
    # And there our weights, with the inverse that we computed, give far better scores than theirs.
    fixed = peer.load_there(ours, tmp_path)
    scores = [
        peer.run_there(fixed, b)["rx", "scores"][0, ..., 0].numpy()
        for b in peer.batches(cube, mask)
    ]
    assert float(np.abs(np.stack(scores) - truth).max() / truth.max()) < errors["theirs"] / 10


def test_foreign_weights_whose_inverse_left_much_out_are_told(tmp_path):
    cube, mask = peer.scene()
    rng = np.random.default_rng(4)
    flat = cube[..., :1] + 0.01 * rng.standard_normal(cube.shape)
    nodes = MinMaxNormalizer(name="norm"), RXGlobal(eps=1e-7, name="rx")
    _, theirs = both(flat.astype(np.float32), mask, tmp_path, *nodes)
    with pytest.warns(UserWarning, match=r"keeps \d+ of 12 directions.*Set inverse: pinv32"):
        peer.load_here(theirs, tmp_path)
    # With the parameter, scores are theirs.
    path = tmp_path / "theirs.yaml"
    path.write_text(path.read_text().replace("eps: 1.0e-07", "eps: 1.0e-07\n    inverse: pinv32"))
    again = Pipeline.from_yaml(path)
    batch = peer.batches(flat.astype(np.float32), mask)[0]
    found, want = (
        run["rx", "scores"] for run in (peer.run_here(again, batch), peer.run_there(theirs, batch))
    )
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4 * float(want.max()))


def test_the_share_of_variance_is_of_all_variance(tmp_path):
    # Theirs is relative to the variance of the components that are kept, so it always sums to 1.
    cube, mask = peer.scene()
    ours, theirs = both(cube, mask, tmp_path, TrainablePCA(n_components=2, name="pca"))
    values = np.linalg.eigvalsh(np.cov(cube.reshape(-1, CHANNELS).astype(np.float64).T))[::-1]
    truth = values[:2] / values.sum()
    batch = peer.batches(cube, mask)[0]
    port = ("pca", "explained_variance_ratio")
    here, there = (
        np.asarray(run[port]) for run in (peer.run_here(ours, batch), peer.run_there(theirs, batch))
    )
    np.testing.assert_allclose(here, truth, rtol=1e-5)
    assert there.sum() == pytest.approx(1.0, abs=1e-4)
    assert np.abs(there - truth).max() > 1000 * np.abs(here - truth).max()


def test_a_constant_channel_is_not_blown_up(tmp_path):
    # Theirs divides by 1e-8 there: the first deviation becomes 1e5. Ours only centres it.
    cube, mask = peer.scene()
    cube[..., 4] = 100.0
    node = ZScoreNormalizerGlobal(name="z")
    ours, theirs = both(cube, mask, tmp_path, node)
    batch = peer.batches(cube, mask)[0]
    batch["cube"] = batch["cube"].clone()
    batch["cube"][..., 4] += 0.001
    here = peer.run_here(ours, batch)["z", "normalized"]
    there = peer.run_there(theirs, batch)["z", "normalized"]
    assert float(here[..., 4].abs().max()) < 0.01
    assert float(there[..., 4].abs().max()) > 1e4
    rest = [c for c in range(CHANNELS) if c != 4]
    torch.testing.assert_close(here[..., rest], there[..., rest], rtol=1e-5, atol=1e-5)


def test_one_bad_pixel_does_not_undecide_a_frame():
    # With one NaN, their quantile is NaN and nothing is flagged; ours is that of the valid pixels.
    from cuvis_ai.node.deciders.binary_decider import QuantileBinaryDecider as Theirs

    scores = torch.rand(1, 50, 50, 1, generator=torch.Generator().manual_seed(0))
    scores[0, 3, 3] = torch.nan
    here = QuantileBinaryDecider(0.9)(logits=scores)["decisions"]
    there = Theirs(quantile=0.9).forward(logits=scores)["decisions"]
    valid = scores[~scores.isnan()].double().numpy()
    truth = scores.double().numpy() >= np.quantile(valid, 0.9)
    assert (here.numpy() == truth).all()
    assert not there.any()


def test_an_unfitted_pipeline_does_not_count_as_fitted(tmp_path):
    # Loaded there, an RX that was never fitted scores zero everywhere.
    cube, mask = peer.scene()
    ours = chain(RXGlobal(CHANNELS, name="rx"))
    resolve_batch(ours, peer.batches(cube, mask)[0])
    theirs = peer.load_there(ours, tmp_path)
    batch = peer.batches(cube, mask)[0]
    assert float(peer.run_there(theirs, batch)["rx", "scores"].abs().max()) == 0.0
    assert not peer.load_here(theirs, tmp_path).fitted
