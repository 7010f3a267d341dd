"""k-means over all pixels, against scikit-learn on the whole data."""

import warnings

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, run
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from hsi_batch.errors import DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import (
    CU3SDataNode,
    GridSubsample,
    IntensityThresholdSegmenter,
    KMeansClusterer,
    MinMaxNormalizer,
    SpatialRotateNode,
)
from hsi_batch.pipeline import Pipeline

CENTRES = np.array([[100, 900, 400], [800, 200, 300], [500, 500, 950], [900, 900, 100]], float)


def cube_of(seed, height=40, width=16, spread=25.0, dtype="uint16"):
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(CENTRES), (height, width))
    return (CENTRES[which] + rng.normal(0, spread, (height, width, 3))).astype(dtype)


def flat(*cubes):
    return np.concatenate([cube.reshape(-1, cube.shape[-1]) for cube in cubes]).astype(np.float64)


@settings(max_examples=8)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["uint16", "float32"]),
    st.sampled_from(["k-means++", "random"]),
    st.sampled_from([None, 1]),
)
def test_centres_are_those_of_the_whole_data(seed, dtype, init, block):
    cubes = [cube_of(seed, dtype=dtype), cube_of(seed + 1, height=25, dtype=dtype)]
    # The sample is a tenth of the pixels; the passes over all see the rest.
    node = KMeansClusterer(4, init=init, max_fit_pixels=100, tol=0.0, max_passes=30, name="km")
    plan = fit(chain(node), *cubes, block=block)
    assert plan.passes == 31
    x = flat(*cubes)
    theirs = KMeans(4, n_init=10, tol=0, random_state=0).fit(x)
    order = np.lexsort(theirs.cluster_centers_.T[::-1])
    np.testing.assert_allclose(node.state["centroids"], theirs.cluster_centers_[order], rtol=1e-6)
    assert float(node.state["inertia"]) == pytest.approx(theirs.inertia_, rel=1e-6)
    counts = np.bincount(theirs.labels_, minlength=4)[order]
    np.testing.assert_array_equal(node.state["counts"], counts)


@settings(max_examples=6)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_every_pass_is_a_step_over_all_pixels(seed, clusters):
    cube = cube_of(seed, spread=400.0, dtype="float32")
    start = KMeansClusterer(clusters, max_fit_pixels=60, max_passes=0, name="km")
    fit(chain(start), cube)
    first = start.state["centroids"]
    stepped = KMeansClusterer(clusters, max_fit_pixels=60, max_passes=2, tol=0.0, name="km")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        fit(chain(stepped), cube)
    expected, x = first, flat(cube)
    for _ in range(2):
        nearest = ((x[:, None] - expected) ** 2).sum(axis=-1).argmin(axis=1)
        expected = np.array([x[nearest == k].mean(axis=0) for k in range(clusters)])
    got = stepped.state["centroids"]
    order = np.lexsort(expected.T[::-1])
    np.testing.assert_allclose(got, expected[order], rtol=1e-9)


def test_grouping_and_order_change_no_bit():
    cubes = [cube_of(seed, dtype="float32") for seed in (1, 2)]
    states = []
    for block in (None, 1):
        node = KMeansClusterer(3, max_fit_pixels=50, name="km")
        fit(chain(node), *cubes, block=block)
        states.append(node.state["centroids"])
    assert np.array_equal(*states)


def test_labels_and_distances_by_blocks():
    node = KMeansClusterer(4, name="km")
    pipeline = chain(MinMaxNormalizer(name="norm"), node)
    cube = cube_of(3)
    fit(pipeline, cube)
    labels, scores = run(pipeline, "km.class_mask", "km.scores", cube=cube, block=1)
    x = (flat(cube) - cube.min()) / (float(cube.max()) - cube.min())
    apart = np.sqrt(((x[:, None] - node.state["centroids"]) ** 2).sum(axis=-1))
    np.testing.assert_array_equal(labels.ravel(), apart.argmin(axis=1))
    np.testing.assert_allclose(scores.ravel(), apart.min(axis=1), rtol=1e-4, atol=1e-6)
    whole = pipeline.forward({"cube": torch.from_numpy(cube.astype(np.float32))[None]})
    assert whole[pipeline.port("class_mask")].shape == (1, *cube.shape[:2])
    np.testing.assert_array_equal(whole[pipeline.port("class_mask")][0], labels[..., 0])


def test_pixels_that_are_no_numbers():
    node = KMeansClusterer(2, name="km")
    fit(chain(node), cube_of(4))
    out = node(cube=torch.tensor([[[[torch.nan, 1.0, 2.0], [1.0, 2.0, 3.0]]]]))
    assert out["class_mask"].flatten().tolist()[0] == -1
    assert torch.isnan(out["scores"].flatten()[0])
    assert torch.isfinite(out["scores"].flatten()[1])


def test_fitted_again_it_starts_anew():
    node = KMeansClusterer(3, max_fit_pixels=50, name="km")
    pipeline = chain(node)
    fit(pipeline, cube_of(5))
    fit(pipeline, cube_of(6))
    again = KMeansClusterer(3, max_fit_pixels=50, name="km")
    fit(chain(again), cube_of(6))
    assert np.array_equal(node.state["centroids"], again.state["centroids"])


def test_saved_and_loaded(tmp_path):
    node = KMeansClusterer(3, name="km")
    pipeline = chain(node)
    cube = cube_of(7)
    fit(pipeline, cube)
    pipeline.save(tmp_path / "km.yaml")
    back = Pipeline.from_yaml(tmp_path / "km.yaml")
    copy = back.nodes["km"]
    assert {k: tuple(t.shape) for k, t in copy.state_dict().items()} == {
        "centroids": (3, 3),
        "_initialized": (1,),
    }
    assert bool(copy._initialized)
    np.testing.assert_array_equal(
        run(back, "scores", cube=cube), run(pipeline, "scores", cube=cube)
    )


def test_what_is_refused_and_warned_about():
    for arguments, text in (
        ({"n_clusters": 0}, "n_clusters 0 must be at least 1"),
        ({"init": "best"}, "init 'best' is not"),
        ({"max_passes": -1}, "max_passes -1"),
    ):
        with pytest.raises(PipelineError, match=text):
            KMeansClusterer(**arguments)
    node = KMeansClusterer(4, name="km")
    with pytest.raises(NotFittedError, match="km"):
        node(cube=torch.zeros(1, 1, 1, 3))
    with pytest.raises(DataError, match="4 clusters are asked for, but there are 1 different"):
        fit(chain(node), np.full((5, 5, 3), 7, np.uint16))
    hasty = KMeansClusterer(4, max_fit_pixels=30, max_passes=1, tol=0.0, name="km")
    with pytest.warns(DataWarning, match="still move after 1 passes"):
        fit(chain(hasty), cube_of(8, spread=300.0, dtype="float32"))


@settings(max_examples=4)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 1]))
def test_a_mask_restricts_the_fit_to_its_pixels(seed, block):
    cubes = [cube_of(seed), cube_of(seed + 1, height=25)]
    node = KMeansClusterer(2, max_fit_pixels=100, tol=0.0, max_passes=30, name="km")
    pipeline = chain(node)
    first = IntensityThresholdSegmenter(0.0, 560.0, name="first")
    data = pipeline.nodes["data"].outputs.cube
    pipeline.connect((data, first.inputs.cube))
    pipeline.connect((first.outputs.mask, node.inputs.mask))
    fit(pipeline, *cubes, block=block)
    x = flat(*cubes)
    inside = x[x.mean(axis=1) <= 560.0]
    assert 0.2 * len(x) < len(inside) < 0.9 * len(x)
    theirs = KMeans(2, n_init=10, tol=0, random_state=0).fit(inside)
    want = theirs.cluster_centers_[np.lexsort(theirs.cluster_centers_.T[::-1])]
    np.testing.assert_allclose(node.state["centroids"], want, rtol=1e-6)
    assert node.state["counts"].sum() == len(inside)
    # Labels are given to all pixels.
    labels = run(pipeline, "km.class_mask", cube=cubes[0], block=block)
    apart = ((flat(cubes[0])[:, None] - want) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(labels.ravel(), apart.argmin(axis=1))


@pytest.mark.parametrize("elsewhere", [GridSubsample(2), SpatialRotateNode(90)])
def test_a_mask_elsewhere(elsewhere):
    cube = cube_of(7)
    pipeline = Pipeline("coarse")
    data, grid = CU3SDataNode(name="data"), elsewhere
    first = IntensityThresholdSegmenter(0.0, 560.0, name="first")
    node = KMeansClusterer(2, tol=0.0, max_passes=20, name="km")
    pipeline.connect(
        (data.outputs.cube, grid.inputs.cube),
        (grid.outputs.cube, first.inputs.cube),
        (grid.outputs.cube, node.inputs.cube),
        (first.outputs.mask, node.inputs.mask),
    )
    fit(pipeline, cube, block=1)
    step = 2 if isinstance(grid, GridSubsample) else 1
    thin = flat(cube[::step, ::step])
    assert node.state["counts"].sum() == (thin.mean(axis=1) <= 560.0).sum()


def test_an_empty_mask_is_told():
    pipeline = chain(KMeansClusterer(2, name="km"))
    none = IntensityThresholdSegmenter(1e6, 2e6, name="none")
    pipeline.connect(
        (pipeline.nodes["data"].outputs.cube, none.inputs.cube),
        (none.outputs.mask, pipeline.nodes["km"].inputs.mask),
    )
    with pytest.raises(DataError, match="2 clusters are asked for, but there are 0 different"):
        fit(pipeline, cube_of(7))
