"""Which pixels are selected does not depend on how the work was cut up, or on float32 products."""

import numpy as np
import pytest
from graph_helpers import chain, fit, run, scene

from hsi_batch.nodes import (
    ArchiveQuantileDecider,
    CFARThreshold,
    GaussianMixtureClusterer,
    KMeansClusterer,
    Logarithm,
    QuantileBinaryDecider,
    RobustRX,
    RXGlobal,
    TwoStageBinaryDecider,
)
from hsi_batch.pipeline.precision import Precision

HEIGHT, WIDTH = 420, 21  # More than two leaves of 195 lines.


def frame(seed, dtype="float32"):
    """A scene with a heavy tail, so that there is something to select."""
    cube = scene(HEIGHT, WIDTH, 4, seed, "float64")
    cube += 60 * np.random.default_rng(seed).standard_t(3, cube.shape)
    return cube.clip(0, 60000).astype(dtype)


FRAMES = [frame(0), frame(1)]
VALID = np.random.default_rng(9).random((HEIGHT, WIDTH)) < 0.97


def rx(**options):
    return RXGlobal(eps=0.0, name="rx", **options)


#: Graphs, and the output that is a selection.
GRAPHS = {
    "robust": (lambda: [RobustRX(keep=0.95, rounds=2, tolerance=0.0, name="rx")], "rx.scores"),
    "robust, behind a logarithm": (
        lambda: [Logarithm(eps=1.0, name="log"), RobustRX(keep=0.9, rounds=2, name="rx")],
        "rx.scores",
    ),
    "archive quantile": (lambda: [rx(), ArchiveQuantileDecider(0.99, name="d")], "d.decisions"),
    "empirical": (lambda: [rx(), CFARThreshold(0.01, name="d")], "d.decisions"),
    "chi2": (lambda: [rx(), CFARThreshold(0.01, "chi2", name="d")], "d.decisions"),
    "gpd": (lambda: [rx(), CFARThreshold(0.002, "gpd", name="d")], "d.decisions"),
    "frame quantile": (lambda: [rx(), QuantileBinaryDecider(0.99, name="d")], "d.decisions"),
    "two stages": (
        lambda: [rx(), TwoStageBinaryDecider(5.0, 0.01, 0.99, name="d")],
        "d.decisions",
    ),
    "k-means": (
        lambda: [KMeansClusterer(3, max_fit_pixels=200, max_passes=3, tol=1e9, name="d")],
        "d.class_mask",
    ),
    "mixture": (
        lambda: [GaussianMixtureClusterer(2, max_fit_pixels=200, max_passes=2, tol=1e9, name="d")],
        "d.class_mask",
    ),
}


def outcome(name, frames, block):
    """States of all nodes, and what is selected."""
    nodes, port = GRAPHS[name]
    pipeline = chain(*nodes())
    fit(pipeline, *frames, valid=VALID, block=block)
    states = {
        f"{node}.{key}": value.tobytes()
        for node, held in pipeline.nodes.items()
        for key, value in held.state.items()
    }
    chosen = [run(pipeline, port, cube=cube, valid=VALID, block=block) for cube in frames]
    return states, chosen, pipeline


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in GRAPHS), ("robust", "uint16")]
)
def test_the_same_bits_for_any_blocks(name, dtype):
    frames = [cube.astype(dtype) for cube in FRAMES]
    states, chosen, _ = outcome(name, frames, None)
    assert any(key.startswith(("rx.", "d.")) for key in states)
    assert len(np.unique(np.concatenate(chosen)[np.tile(VALID, (2, 1))])) > 1
    again, found, _ = outcome(name, frames, 1)
    assert again == states
    for one, other in zip(chosen, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["robust", "robust, behind a logarithm"])
def test_refits_choose_by_float64_whatever_scores_are_computed_in(name, monkeypatch):
    states = []
    for dtype in ("float32", "float64"):
        monkeypatch.setattr(
            "hsi_batch.pipeline.fitting.choose", lambda *_, kind=dtype: Precision(kind)
        )
        found, _, pipeline = outcome(name, FRAMES, 1)
        assert pipeline.precision["rx"].dtype == dtype
        assert pipeline.nodes["rx"].state["kept"] < 1
        states.append(found)
    assert states[0] == states[1]


@pytest.mark.parametrize("name", ["archive quantile", "empirical", "two stages"])
def test_thresholds_hold_for_the_scores_they_are_compared_with(name, monkeypatch):
    found = {}
    for dtype in ("float32", "float64"):
        monkeypatch.setattr(
            "hsi_batch.pipeline.fitting.choose", lambda *_, kind=dtype: Precision(kind)
        )
        states, chosen, pipeline = outcome(name, FRAMES, 1)
        assert pipeline.precision["rx"].dtype == dtype
        flags = np.stack(chosen)[:, VALID, 0]
        if "d.above" in states:
            # As many are flagged as the fit counted, to the pixel.
            assert flags.sum() == pipeline.nodes["d"].state["above"]
        found[dtype] = flags
    # Scores of the two differ in their seventh digit, so a few pixels may be on the other side.
    assert (found["float32"] != found["float64"]).sum() <= 2
