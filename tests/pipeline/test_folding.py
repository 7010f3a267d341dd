"""Folding: one map on stored pixels gives what the nodes give one by one, in float64."""

from itertools import pairwise

import numpy as np
import pytest
from graph_helpers import Mix, Scale, chain, fit, flat, mahalanobis, principal, ref, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.nodes import (
    BandpassByWavelength,
    ChannelAxis,
    MinMaxNormalizer,
    PerPixelUnitNorm,
    PortRef,
    Quadratic,
    RXGlobal,
    SoftChannelSelector,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline.fold import CUBE, fold, root_of
from hsi_batch.pipeline.quadratic import QuadraticMap
from hsi_batch.statistics import Affine, Moments

pytestmark = pytest.mark.usefixtures("extra_nodes")

SEEDS = st.integers(0, 2**32 - 1)


def softmax(logits):
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


# Each kind: a node, and what it does to all pixels of the fit at once.


def minmax(_draw, _x, wavelength):
    return (
        MinMaxNormalizer(eps=0.0),
        lambda v: (v - v.min()) / np.ptp(v),
        wavelength,
    )


def zscore(_draw, _x, wavelength):
    return (
        ZScoreNormalizerGlobal(eps=1e-8),
        lambda v: (v - v.mean(axis=0)) / (v.std(axis=0, ddof=1) + 1e-8),
        wavelength,
    )


def pca(draw, x, _wavelength):
    values = principal(x, x.shape[1])[0]
    if np.min(values[:-1] / values[1:], initial=np.inf) < 1.01 or values[-1] < 1e-9 * values[0]:
        return None  # the components are not unique
    count = draw(st.integers(1, x.shape[1]))
    whiten = draw(st.booleans())

    def reference(v):
        values, vectors = principal(v, count)
        projected = (v - v.mean(axis=0)) @ vectors.T
        return projected / np.sqrt(values + 1e-3) if whiten else projected

    return TrainablePCA(n_components=count, whiten=whiten, eps=1e-3), reference, None


def selector(draw, x, wavelength):
    count = draw(st.integers(1, x.shape[1]))
    method = draw(st.sampled_from(["uniform", "variance"]))

    def reference(v):
        logits = np.zeros(v.shape[1])
        if method == "variance":
            logits = np.log(v.var(axis=0, ddof=1) + 1e-6)
        return v * count * softmax(logits / 5.0)

    return SoftChannelSelector(count, init_method=method), reference, wavelength


def bandpass(draw, _x, wavelength):
    if wavelength is None:
        return None
    low = draw(st.sampled_from(sorted(wavelength)))
    kept = wavelength >= low
    return BandpassByWavelength(low), lambda v: v[:, kept], wavelength[kept]


def scale(draw, x, wavelength):
    rng = np.random.default_rng(draw(SEEDS))
    factor = rng.choice([-1, 1], x.shape[1]) * rng.uniform(0.5, 2, x.shape[1])
    shift = rng.normal(size=x.shape[1])
    return Scale(factor.tolist(), shift.tolist()), lambda v: v * factor + shift, None or wavelength


def mix(draw, x, _wavelength):
    rows = draw(st.integers(1, x.shape[1] + 2))
    rng = np.random.default_rng(draw(SEEDS))
    matrix, shift = rng.normal(size=(rows, x.shape[1])), rng.normal(size=rows)
    if rows <= x.shape[1]:
        matrix[:, :rows] += 3 * np.eye(rows)
    return Mix(matrix.tolist(), shift.tolist()), lambda v: v @ matrix.T + shift, None


@st.composite
def affine_chains(draw, kinds=(minmax, zscore, pca, selector, bandpass, scale, mix)):
    """A cube, affine nodes, and the values behind each of them by the reference."""
    channels = draw(st.integers(2, 6))
    cube = scene(8, 24, channels, draw(SEEDS), draw(st.sampled_from(["uint16", "float64"])))
    wavelength = np.linspace(400.0, 900.0, channels)
    known, x, nodes, values = wavelength, flat(cube), [], []
    for _ in range(draw(st.integers(0, 4))):
        made = draw(st.sampled_from(kinds))(draw, x, known)
        if made is None:
            continue
        node, reference, known = made
        node.name = f"n{len(nodes)}"
        x = reference(x)
        nodes.append(node)
        values.append(x)
    return cube, wavelength, nodes, values


def unmixed_extrema(nodes):
    """Whether no extrema are taken behind a node that mixes channels (they are float32 there)."""
    mixed = False
    for node in nodes:
        if mixed and isinstance(node, MinMaxNormalizer):
            return False
        mixed = mixed or node.mixes_channels
    return True


@settings(max_examples=40)
@given(affine_chains(), st.sampled_from([(0.1, 0.0), (0.0, 0.05), (1e-3, 1e-3)]))
def test_a_folded_score_is_that_of_the_nodes_one_by_one(found, ridge):
    # A ridge is there because RX without one forgets every invertible map in front of it.
    cube, wavelength, nodes, values = found
    eps, loading = ridge
    rx = RXGlobal(name="rx", eps=eps, loading=loading)
    pipeline = chain(*nodes, rx)
    fit(pipeline, cube, axis=ChannelAxis.of(wavelength))
    x = values[-1] if values else flat(cube)
    expected = mahalanobis(x, eps=eps, loading=loading)
    folded = fold(pipeline, pipeline.writer(PortRef("rx", "data")))
    assert folded.root == CUBE
    assert folded.via == ("data", *(n.name for n in nodes))
    tolerance = 1e-9 if unmixed_extrema(nodes) else 1e-4
    pixels = cube.reshape(-1, cube.shape[2])
    score = QuadraticMap.fold(rx.quadratic(), folded.map, "float64")
    np.testing.assert_allclose(score.scores(pixels), expected, rtol=tolerance, atol=1e-9)
    # Every port on the way, and the moments of its values.
    moments = Moments.empty(cube.shape[2], cube.dtype).update(pixels)
    for node, value in zip(nodes, values, strict=True):
        way = fold(pipeline, PortRef(node.name, node.AFFINE[1]))
        size = np.abs(value).max()
        np.testing.assert_allclose(way.map(pixels), value, rtol=tolerance, atol=tolerance * size)
        carried = way.map.moments(moments)
        np.testing.assert_allclose(
            carried.mean, value.mean(axis=0), rtol=tolerance, atol=tolerance * size
        )
        np.testing.assert_allclose(
            carried.covariance(),
            np.atleast_2d(np.cov(value.T)),
            rtol=tolerance,
            atol=tolerance * np.trace(np.atleast_2d(np.cov(value.T))),
        )
    np.testing.assert_allclose(
        run(pipeline, "rx.scores", cube=cube).ravel(),
        expected,
        rtol=2 * tolerance + 2e-7,
        atol=1e-6,
    )


@pytest.mark.parametrize("count", [1, 3, 5])
def test_components_in_front_of_rx(count):
    cube = scene()
    pipeline = chain(TrainablePCA(n_components=count, name="pca"), RXGlobal(name="rx", eps=0.0))
    fit(pipeline, cube)
    x = flat(cube)
    values, vectors = principal(x, count)
    expected = np.square((x - x.mean(axis=0)) @ vectors.T / np.sqrt(values)).sum(axis=1)
    np.testing.assert_allclose(run(pipeline, "scores", cube=cube).ravel(), expected, rtol=1e-6)


def test_dropped_channels_do_not_count():
    cube = scene()
    axis = ChannelAxis.of([400, 500, 600, 700, 800])
    pipeline = chain(BandpassByWavelength(450, 750, name="bp"), RXGlobal(name="rx", eps=0.0))
    fit(pipeline, cube, axis=axis)
    expected = mahalanobis(flat(cube)[:, 1:4])
    np.testing.assert_allclose(run(pipeline, "scores", cube=cube).ravel(), expected, rtol=1e-6)
    other = cube.copy()
    other[..., [0, 4]] = 0
    np.testing.assert_array_equal(
        run(pipeline, "scores", cube=cube), run(pipeline, "scores", cube=other)
    )


# --- quadratic maps -----------------------------------------------------------------------------


@st.composite
def quadratic_maps(draw):
    """A form and a map in front of it, of any rank and shape."""
    rng = np.random.default_rng(draw(SEEDS))
    channels, middle, rows = (draw(st.integers(1, 6)) for _ in range(3))
    rank = draw(st.integers(0, min(channels, middle)))
    matrix = rng.normal(size=(middle, rank)) @ rng.normal(size=(rank, channels))
    shape = draw(st.sampled_from(["any", "lower", "diagonal"]))
    factor = rng.normal(size=(rows, middle))
    if shape != "any":
        factor = np.tril(rng.normal(size=(middle, middle)))
        factor = factor if shape == "lower" else np.diag(np.diag(factor))
    form = Quadratic(factor, rng.normal(size=len(factor)) * draw(st.sampled_from([0, 1, 100])))
    inner = Affine(matrix, rng.normal(size=middle) * draw(st.sampled_from([0, 1, 100])))
    pixels = np.rint(rng.normal(size=(draw(st.integers(1, 50)), channels)) * 30)
    return form, draw(st.sampled_from([None, inner])), pixels


@settings(max_examples=200)
@given(quadratic_maps())
def test_maps_of_any_rank_and_shape(found):
    # More rows than columns, or a lower rank: what lies outside the range of the map is a constant.
    form, inner, pixels = found
    if inner is None:
        inner_values = pixels = np.resize(pixels, (len(pixels), form.factor.shape[1]))
    else:
        inner_values = pixels @ inner.matrix.T + inner.offset
    expected = np.square(inner_values @ form.factor.T + form.offset).sum(axis=1)
    score = QuadraticMap.fold(form, inner, "float64")
    largest = np.square(np.abs(inner_values) @ np.abs(form.factor.T) + np.abs(form.offset)).sum(1)
    np.testing.assert_allclose(
        score.scores(pixels), expected, atol=1e-12 * largest.max(), rtol=1e-9
    )
    assert score.constant >= 0
    rounded = score.with_dtype("float32")
    assert rounded.dtype == "float32"
    np.testing.assert_allclose(
        rounded.scores(pixels), expected, atol=1e-4 * largest.max(), rtol=1e-3
    )


def test_the_constant_is_what_the_map_cannot_reach():
    # |(x, 3)|^2 of one channel: the second row never vanishes.
    form = Quadratic(np.array([[1.0], [0.0]]), np.array([0.0, 3.0]))
    score = QuadraticMap.fold(form, None, "float64")
    assert score.constant == pytest.approx(9.0)
    np.testing.assert_allclose(score.scores(np.array([[0], [4]])), [9.0, 25.0])


def test_the_centre_is_of_whole_numbers_near_the_mean():
    cube = scene()
    x = flat(cube)
    pipeline = chain(MinMaxNormalizer(name="n"), RXGlobal(name="rx", eps=0.0))
    fit(pipeline, cube)
    folded = fold(pipeline, ref("n.normalized"))
    score = QuadraticMap.fold(pipeline.nodes["rx"].quadratic(), folded.map, "float64")
    np.testing.assert_array_equal(score.centre, np.rint(x.mean(axis=0)))
    assert score.constant == 0.0
    assert not np.triu(score.triangle, 1).any() or not np.tril(score.triangle, -1).any()


@settings(max_examples=80)
@given(
    SEEDS,
    st.integers(1, 40),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(["uint16", "float32", "float64"]),
    st.lists(st.integers(0, 600), max_size=5).map(sorted),
)
def test_a_score_does_not_depend_on_the_pixels_beside_it(seed, channels, dtype, kind, cuts):
    rng = np.random.default_rng(seed)
    pixels = (rng.normal(size=(600, channels)) * 100 + 1000).astype(kind)
    lower = np.tril(rng.normal(size=(channels, channels)))
    mixing = rng.normal(size=(channels, channels))
    for inner in (None, Affine(mixing, np.zeros(channels))):
        score = QuadraticMap.fold(Quadratic(lower, rng.normal(size=channels)), inner, dtype)
        whole = score.scores(pixels)
        edges = [0, *cuts, 600]
        parts = [score.scores(pixels[a:b]) for a, b in pairwise(edges)]
        # What rounding can do: the sums of magnitudes, however much of them cancels.
        large = np.abs(pixels - score.centre) @ np.abs(score.triangle).T + np.abs(score.offset)
        bound = 100 * np.finfo(dtype).eps * np.square(large).sum(axis=1)
        assert np.all(np.abs(np.concatenate(parts) - whole) <= bound)
    assert score.scores(pixels[:0]).shape == (0,)


# --- roots --------------------------------------------------------------------------------------


def test_where_statistics_can_be_taken():
    pipeline = chain(
        MinMaxNormalizer(name="mm"), TrainablePCA(name="pca"), ZScoreNormalizerGlobal(name="z"),
        PerPixelUnitNorm(name="unit"), MinMaxNormalizer(name="m2"),
    )  # fmt: skip
    z = ref("z.normalized")
    assert root_of(pipeline, z) == (CUBE, ("data", "mm", "pca", "z"))
    assert root_of(pipeline, z, "extrema") == (ref("pca.projected"), ("z",))
    assert root_of(pipeline, z, "histogram") == (z, ())
    assert root_of(pipeline, ref("data.cube"), "histogram") == (CUBE, ("data",))
    assert root_of(pipeline, ref("unit.normalized")) == (ref("unit.normalized"), ())
    assert root_of(pipeline, ref("m2.normalized")) == (ref("unit.normalized"), ("m2",))


def test_folding_stops_where_it_is_told():
    pipeline = chain(
        Scale([2, 2], [0, 0], name="a"),
        Scale([3, 3], [1, 1], name="b"),
        Scale([5, 5], [0, 0], name="c"),
    )
    pipeline.resolve(ChannelAxis(2))
    whole = fold(pipeline, ref("c.scaled"))
    assert (whole.root, whole.via) == (CUBE, ("data", "a", "b", "c"))
    assert whole.map(np.array([[1.0, 0.0]])).tolist() == [[35.0, 5.0]]
    part = fold(pipeline, ref("c.scaled"), stop=ref("a.scaled"))
    assert (part.root, part.via) == (ref("a.scaled"), ("b", "c"))
    assert part.map(np.array([[1.0, 0.0]])).tolist() == [[20.0, 5.0]]
    same = fold(pipeline, ref("c.scaled"), stop=ref("c.scaled"))
    assert (same.root, same.map, same.via) == (ref("c.scaled"), None, ())
    assert fold(pipeline, CUBE) == (CUBE, None, ())
