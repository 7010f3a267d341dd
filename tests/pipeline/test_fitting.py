"""Plans of fits, and that fitting pass by pass is fitting node by node on whole arrays."""

import numpy as np
import pytest
from graph_helpers import (
    Square,
    chain,
    fit,
    flat,
    mahalanobis,
    principal,
    ref,
    run,
    scene,
)
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.errors import ConfigError, DataError
from hsi_batch.nodes import (
    BandpassByWavelength,
    ChannelAxis,
    MinMaxNormalizer,
    PerPixelUnitNorm,
    RXGlobal,
    ScoreToLogit,
    SoftChannelSelector,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit

STORED = ("moments", "extrema")


def selecting():
    return chain(
        MinMaxNormalizer(name="norm"),
        SoftChannelSelector(3, init_method="variance", name="select"),
        RXGlobal(name="rx", eps=0.0),
    )


def test_affine_nodes_cost_no_pass():
    plan = plan_fit(selecting())
    assert plan.passes == 1
    assert str(plan) == (
        "1 pass over the pixels\n"
        "  norm: extrema of cube from pass 1, carried through data\n"
        "  select: moments of cube from pass 1, carried through data, norm\n"
        "  rx: moments of cube from pass 1, carried through data, norm, select"
    )
    assert plan_fit(selecting(), STORED).passes == 0
    assert "stored statistics" in str(plan_fit(selecting(), STORED))


def test_a_pass_for_every_node_that_is_not_affine():
    pipeline = chain(
        MinMaxNormalizer(name="norm"), PerPixelUnitNorm(name="unit"), RXGlobal(name="rx"),
        ScoreToLogit(name="logit"),
    )  # fmt: skip
    readings = {node.name: node.reading for node in plan_fit(pipeline).nodes}
    assert readings == {"norm": 1, "rx": 2, "logit": 3}
    readings = {node.name: node.reading for node in plan_fit(pipeline, STORED).nodes}
    assert readings == {"norm": 0, "rx": 1, "logit": 2}


def test_extrema_do_not_pass_through_a_rotation():
    pipeline = chain(TrainablePCA(n_components=2, name="pca"), MinMaxNormalizer(name="norm"))
    readings = {node.name: (node.need.root, node.reading) for node in plan_fit(pipeline).nodes}
    assert readings["pca"][1] == 1
    assert readings["norm"] == (ref("pca.projected"), 2)


def test_a_graph_without_a_data_node_has_no_plan():
    pipeline = Pipeline("p")
    pipeline.add_node(RXGlobal(name="rx"))
    with pytest.raises(ConfigError, match="data node"):
        plan_fit(pipeline)


def test_nothing_to_fit():
    assert str(plan_fit(chain(Square(name="s")))) == "nothing to fit"


@given(st.integers(0, 99), st.sampled_from(["uint16", "int16", "float32"]), st.integers(1, 3))
def test_planned_fits_are_fits_node_by_node(seed, dtype, frames):
    cubes = [scene(33, 20, seed=seed + i, dtype=dtype) for i in range(frames)]
    x = np.concatenate([flat(cube) for cube in cubes])
    pipeline = chain(
        MinMaxNormalizer(name="norm", eps=0.0),
        ZScoreNormalizerGlobal(name="z", eps=0.0),
        TrainablePCA(n_components=3, name="pca"),
        RXGlobal(name="rx", eps=0.0),
    )
    assert fit(pipeline, *cubes, block=1).passes == 1
    scaled = (x - x.min()) / (x.max() - x.min())
    standard = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0, ddof=1)
    values, vectors = principal(standard, 3)
    np.testing.assert_allclose(pipeline.nodes["pca"].state["explained_variance"], values)
    np.testing.assert_allclose(pipeline.nodes["pca"].state["components"], vectors, atol=1e-8)
    scores = np.concatenate([run(pipeline, "rx.scores", cube=cube).ravel() for cube in cubes])
    np.testing.assert_allclose(scores, mahalanobis(standard @ vectors.T), rtol=2e-6)


@given(st.integers(0, 99), st.sampled_from([1, 2, 4, None]))
def test_bits_of_a_fit_do_not_depend_on_the_blocks(seed, block):
    cube = scene(70, 20, seed=seed, dtype="float32")

    def states(pipeline, block):
        fit(pipeline, cube, block=block)
        return {n: dict(node.state) for n, node in pipeline.nodes.items() if node.state}

    def graph():
        return chain(
            PerPixelUnitNorm(name="unit"), ZScoreNormalizerGlobal(name="z"),
            TrainablePCA(n_components=2, name="pca"), RXGlobal(name="rx", loading=1e-6),
        )  # fmt: skip

    one, other = states(graph(), None), states(graph(), block)
    assert one.keys() == other.keys() == {"z", "pca", "rx"}
    for name, state in one.items():
        for key, value in state.items():
            assert value.tobytes() == other[name][key].tobytes(), (name, key)


def test_invalid_pixels_do_not_count():
    cube = scene(40, 20)
    spoiled, valid = cube.copy(), np.ones(cube.shape[:2], bool)
    valid[3:9, 5:12] = False
    spoiled[~valid] = 65535
    pipeline = selecting()
    fit(pipeline, spoiled, valid=valid, block=1)
    scores = run(pipeline, "rx.scores", cube=spoiled, valid=valid)[..., 0]
    x = flat(cube)[valid.ravel()]
    np.testing.assert_allclose(scores[valid], mahalanobis(x), rtol=1e-5)


def test_fewer_pixels_than_channels():
    with pytest.raises(DataError, match="4 valid pixels for 5 channels"):
        fit(chain(RXGlobal(name="rx", eps=0.0)), scene(2, 2, 5))


def test_a_constant_channel_is_an_error_with_advice():
    cube = scene(30, 20)
    cube[..., 2] = 7
    with pytest.raises(DataError, match="constant") as caught:
        fit(chain(RXGlobal(name="rx", eps=0.0)), cube)
    assert "BandpassByWavelength" in str(caught.value)


def test_the_channels_that_are_left_out_do_not_count():
    wavelength = np.array([400.0, 500.0, 600.0, 700.0, 800.0])
    cube = scene(40, 20)
    cube[..., 0] = 7
    pipeline = chain(BandpassByWavelength(450, 750, name="band"), RXGlobal(name="rx", eps=0.0))
    assert fit(pipeline, cube, axis=ChannelAxis.of(wavelength)).passes == 1
    scores = run(pipeline, "rx.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, mahalanobis(flat(cube[..., 1:4])), rtol=1e-5)


def test_sums_of_two_to_the_31_pixels_and_more():
    from hsi_batch.statistics import Moments

    rng = np.random.default_rng(0)
    x = rng.integers(0, 65536, (4096, 3)).astype(np.uint16)
    once = Moments.empty(3, "uint16").update(x)
    total = once
    for _ in range(20):
        total = total.merge(total)
    assert total.count == 4096 * 2**20 > 2**31
    np.testing.assert_array_equal(total.mean, once.mean)
    scale = (total.count / (total.count - 1)) / (once.count / (once.count - 1))
    np.testing.assert_allclose(total.covariance(), once.covariance() * scale, rtol=1e-14)
