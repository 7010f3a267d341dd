"""Components of each frame, and projections from a file."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, mahalanobis, principal, run, scene

from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import (
    PCA,
    ChannelAxis,
    FixedPCAProjection,
    MinMaxNormalizer,
    RXGlobal,
    RXPerBatch,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.program import compile_program


def batch(*cubes):
    return torch.from_numpy(np.stack(cubes).astype("f4"))


# --- components of each frame -------------------------------------------------------------------


def test_every_frame_has_its_own_components():
    cubes = scene(40, 30, seed=1), scene(40, 30, seed=2)
    pipeline = chain(PCA(2, name="pca"))
    assert plan_fit(pipeline).passes == 0
    pipeline.resolve(ChannelAxis(5))
    for cube in cubes:
        x = flat(cube)
        _, vectors = principal(x, 2)
        found = run(pipeline, "pca.projected", cube=cube, block=1)
        np.testing.assert_allclose(
            found.reshape(-1, 2), (x - x.mean(axis=0)) @ vectors.T, atol=1e-3
        )
        lazy = pipeline.apply(labelled(cube), "pca.projected").compute().to_numpy()
        np.testing.assert_array_equal(lazy, found)
    out = pipeline.nodes["pca"](data=batch(*cubes))
    np.testing.assert_allclose(out["projected"][1], found, atol=2e-2)
    np.testing.assert_allclose(out["components"], vectors, atol=1e-6)
    values, _ = principal(x, 2)
    share = values / np.cov(x.T).trace()
    np.testing.assert_allclose(out["explained_variance_ratio"], share, rtol=1e-5)


def test_components_behind_a_scaling_and_in_front_of_a_detector():
    cube = scene(40, 30)
    pipeline = chain(
        MinMaxNormalizer(name="norm", eps=0.0), PCA(3, name="pca"), RXPerBatch(0.0, name="rx")
    )
    fit(pipeline, cube)
    x = flat(cube)
    x = (x - x.min()) / (x.max() - x.min())
    values, vectors = principal(x, 3)
    projected = (x - x.mean(axis=0)) @ vectors.T
    scores = run(pipeline, "rx.scores", cube=cube, block=1).ravel()
    np.testing.assert_allclose(scores, np.square(projected / np.sqrt(values)).sum(axis=1), 1e-4)


def test_mistakes_of_components():
    with pytest.raises(PipelineError, match="n_components 0 must be at least 1"):
        PCA(0)
    with pytest.raises(ConfigError, match="pca: n_components 6 is more than the 5 channels"):
        chain(PCA(6, name="pca")).resolve(ChannelAxis(5))


# --- a projection from a file -------------------------------------------------------------------


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    return {
        "mean": rng.uniform(size=5),
        "comps": rng.normal(size=(3, 5)),
        "lo": np.array([-0.4, -0.2, 0.1]),
        "hi": np.array([0.3, 0.5, 0.1]),
        "explained": np.array([0.5, 0.3, 0.1]),
    }


@pytest.fixture
def file(made, tmp_path):
    np.savez(tmp_path / "projection.npz", **made)
    return tmp_path / "projection.npz"


def expected_of(cube, made, *, scale=True, clamp=True, minmax=True, whiten=False):
    x = flat(cube)
    if minmax:
        x = (x - x.min()) / (x.max() - x.min())
    out = (x - made["mean"]) @ made["comps"].T
    if whiten:
        out = out / np.sqrt(made["explained"] + 1e-6)
    if scale:
        span = made["hi"] - made["lo"]
        out = (out - made["lo"]) / np.where(span == 0, 1, span)
    return np.clip(out, 0, 1) if clamp else out


@pytest.mark.parametrize("minmax", [True, False])
@pytest.mark.parametrize(
    ("scale", "clamp", "whiten"), [(True, True, False), (False, False, True), (True, False, False)]
)
def test_the_projection_of_the_file(file, made, scale, clamp, whiten, minmax):
    cube = scene(40, 30) if minmax else scene(40, 30, dtype="float32") / 1000
    expected = expected_of(
        cube, made, scale=scale, clamp=clamp, minmax=minmax, whiten=whiten
    ).reshape(40, 30, 3)
    node = FixedPCAProjection(
        str(file), scale, clamp, input_global_minmax=minmax, whiten=whiten, name="p"
    )
    pipeline = chain(node)
    assert plan_fit(pipeline).passes == 0
    pipeline.resolve(ChannelAxis(5))
    np.testing.assert_allclose(
        run(pipeline, "p.projected", cube=cube, block=1), expected, atol=1e-5
    )
    out = node(data=batch(cube, cube))["projected"]
    np.testing.assert_allclose(out[1], expected, atol=1e-4)


def test_without_a_limit_it_is_affine_and_folds(file, made):
    cube = scene(60, 30, dtype="uint16")
    x = expected_of(cube, made, clamp=False, minmax=False)
    for clamp, passes in ((False, 0), (True, 1)):
        node = FixedPCAProjection(str(file), clamp01=clamp, input_global_minmax=False, name="p")
        pipeline = chain(node, RXGlobal(eps=0.0, loading=1e-3, name="rx"))
        pipeline.resolve(ChannelAxis(5))
        assert plan_fit(pipeline, ("moments", "extrema")).passes == passes
        assert (node.AFFINE is None) == clamp
        if clamp:
            with pytest.raises(TypeError, match="not affine"):
                node.affine()
            continue
        fit(pipeline, cube)
        program = compile_program(pipeline, (pipeline.port("rx.scores"),))
        assert [step.inputs for step in program.steps] == [(CUBE,)]
        scores = run(pipeline, "rx.scores", cube=cube, block=1).ravel()
        np.testing.assert_allclose(scores, mahalanobis(x, loading=1e-3), rtol=1e-5)
    ranged = chain(
        FixedPCAProjection(str(file), clamp01=False, name="p"), RXPerBatch(1e-9, name="rx")
    )
    ranged.resolve(ChannelAxis(5))
    x = expected_of(cube, made, clamp=False)
    scores = run(ranged, "rx.scores", cube=cube, block=1).ravel()
    np.testing.assert_allclose(scores, mahalanobis(x, eps=1e-9), rtol=1e-5)


def test_the_file_is_needed_once(file, made, tmp_path):
    cube = scene(40, 30)
    pipeline = chain(FixedPCAProjection(str(file), name="p"))
    pipeline.resolve(ChannelAxis(5))
    saved = pipeline.save(tmp_path / "saved")
    file.unlink()
    other = Pipeline.from_yaml(saved)
    found = other.apply(labelled(cube), "p.projected").compute().to_numpy()
    np.testing.assert_allclose(found.reshape(-1, 3), expected_of(cube, made), atol=1e-6)
    other.nodes["p"]._lo = other.nodes["p"]._lo - 1
    moved = run(other, "p.projected", cube=cube).reshape(-1, 3)
    changed = {**made, "lo": made["lo"] - 1}
    np.testing.assert_allclose(moved, expected_of(cube, changed), atol=1e-5)


def test_mistakes_of_the_file(file, made, tmp_path):
    with pytest.raises(ConfigError, match=r"p: there is no file none\.npz, and no weights"):
        chain(FixedPCAProjection("none.npz", name="p")).resolve(ChannelAxis(5))
    with pytest.raises(ConfigError, match="takes 5 channels, 4 reach it"):
        chain(FixedPCAProjection(str(file), name="p")).resolve(ChannelAxis(4))
    other = tmp_path / "o.npz"
    np.savez(other, mean=made["mean"], comps=made["comps"])
    with pytest.raises(PipelineError, match="lacks lo, hi; it has comps, mean"):
        FixedPCAProjection(str(other))
    np.savez(other, **{**made, "mean": np.zeros(4)})
    with pytest.raises(PipelineError, match=r"holds mean \(4,\), comps \(3, 5\)"):
        FixedPCAProjection(str(other))
    other.write_text("text")
    with pytest.raises(PipelineError, match=r"o\.npz is not a \.npz file"):
        FixedPCAProjection(str(other))
