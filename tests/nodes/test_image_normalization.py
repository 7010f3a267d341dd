"""Normalisers of single images against scikit-learn and NumPy, whole and by blocks."""

import numpy as np
import pytest
import torch
from graph_helpers import Scale, chain, fit, flat, run, scene
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.preprocessing import StandardScaler

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes import (
    ChannelAxis,
    MinMaxNormalizer,
    Scope,
    SigmoidNormalizer,
    ZScoreNormalizer,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.statistics import Histogram, Moments

pytestmark = pytest.mark.usefixtures("extra_nodes")

DIMS = [[1, 2], [1, 2, 3], [1], [2], [3], [1, 3], [2, 3], [-3, -2]]


def forward(node, cube):
    data = torch.from_numpy(np.asarray(cube, np.float32))[None]
    return node(data=data)["normalized"][0].numpy()


def zscore(cube, dims, eps=1e-6):
    axes = tuple(d % 4 - 1 for d in dims)
    x = np.asarray(cube, np.float64)
    return (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + eps)


def sigmoid(cube, floor=1e-6, clean=None):
    """With the lower median, as sorting gives it."""
    x = np.asarray(cube, np.float64)
    pixels = x.reshape(-1, x.shape[-1]) if clean is None else x[clean]
    median = np.sort(pixels, axis=0)[(len(pixels) - 1) // 2]
    return expit((x - median) / np.maximum(pixels.std(axis=0), floor))


@given(st.integers(0, 99), st.sampled_from(DIMS), st.sampled_from(["uint16", "float32"]))
def test_z_scores_of_an_image(seed, dims, dtype):
    cube = scene(23, 7, 4, seed, dtype)
    node = ZScoreNormalizer(dims, name="z")
    expected = zscore(cube, dims)
    if dims == [1, 2]:
        np.testing.assert_allclose(
            expected.reshape(-1, 4), StandardScaler().fit_transform(flat(cube)), atol=1e-6
        )
    np.testing.assert_allclose(forward(node, cube), expected, rtol=1e-5, atol=1e-6)
    assert node.scope is (Scope.PIXEL if dims == [3] else Scope.FRAME)
    assert node.fitted
    np.testing.assert_allclose(
        run(chain(node), "z.normalized", cube=cube, block=1), expected, rtol=1e-5, atol=1e-6
    )


@given(st.integers(0, 99), st.integers(1, 12), st.sampled_from(["uint8", "uint16", "float32"]))
def test_sigmoid_of_an_image(seed, height, dtype):
    cube = scene(height, 3, 4, seed)
    cube = (cube % 251).astype(dtype)  # ties, and odd and even counts
    node = SigmoidNormalizer(name="s")
    expected = sigmoid(cube)
    np.testing.assert_allclose(forward(node, cube), expected, atol=1e-6)
    np.testing.assert_allclose(
        run(chain(node), "s.normalized", cube=cube, block=1), expected, atol=1e-6
    )


@pytest.mark.parametrize("node", [ZScoreNormalizer(name="n"), SigmoidNormalizer(name="n")])
def test_statistics_are_those_of_every_frame_behind_other_nodes(node):
    # Affine nodes before it are folded; a histogram is not carried through them.
    cube = scene(70, 20)
    pipeline = chain(Scale([2.0, -1, 0.5, 3, 1], [1.0, 2, 3, 4, 5], name="scale"), node)
    pipeline.resolve(ChannelAxis(5))
    scaled = (cube * np.array([2.0, -1, 0.5, 3, 1]) + [1, 2, 3, 4, 5]).astype("f4")
    reference = zscore if isinstance(node, ZScoreNormalizer) else lambda c, _: sigmoid(c)
    out = run(pipeline, "n.normalized", cube=cube, block=1)
    np.testing.assert_allclose(out, reference(scaled, [1, 2]), rtol=1e-4, atol=1e-5)
    whole = pipeline.forward({"cube": torch.from_numpy(cube.astype("f4"))[None]})
    np.testing.assert_allclose(out, whole["n", "normalized"][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [[1, 2], [1, 2, 3], [1]])
def test_pixels_that_are_not_finite_do_not_count(dims):
    cube = scene(20, 6, dtype="float32")
    clean = np.ones(cube.shape[:2], bool)
    clean[3, 4] = clean[5, 1] = False
    cube[3, 4, 0], cube[5, 1, 2], cube[5, 1, 1] = np.nan, np.inf, -1e9
    x = np.where(clean[..., None], cube.astype("f8"), np.nan)
    axes = tuple(d - 1 for d in dims)
    expected = (x - np.nanmean(x, axes, keepdims=True)) / (np.nanstd(x, axes, keepdims=True) + 1e-6)
    for out in (
        forward(ZScoreNormalizer(dims), cube),
        run(chain(ZScoreNormalizer(dims, name="z")), "z.normalized", cube=cube, valid=clean),
    ):
        np.testing.assert_allclose(out[clean], expected[clean], rtol=1e-5, atol=1e-5)
    expected = sigmoid(np.where(clean[..., None], cube, 0), clean=clean)
    for out in (
        forward(SigmoidNormalizer(), cube),
        run(chain(SigmoidNormalizer(name="s")), "s.normalized", cube=cube, valid=clean),
    ):
        np.testing.assert_allclose(out[clean], expected[clean], atol=1e-6)


def test_images_of_no_valid_pixel():
    nothing = np.full((2, 3, 4), np.nan, np.float32)
    assert np.isnan(forward(ZScoreNormalizer(), nothing)).all()
    assert np.isnan(forward(SigmoidNormalizer(), nothing)).all()
    with pytest.raises(DataError, match="0 valid pixels were counted"):
        ZScoreNormalizer().frame_fit(Moments.empty(2, "uint8"))
    with pytest.raises(DataError, match="no valid pixel was counted, so there is no median"):
        SigmoidNormalizer().frame_fit(Histogram.empty(2, "uint8"))


def test_constant_channels():
    cube = scene(dtype="float32")
    cube[..., 2] = 4.0
    assert (forward(ZScoreNormalizer(), cube)[..., 2] == 0).all()
    assert (forward(SigmoidNormalizer(), cube)[..., 2] == 0.5).all()
    strict = ZScoreNormalizer(eps=0.0, name="z")
    with pytest.raises(DataError, match="z: values are constant over y, x in a frame, and eps is"):
        forward(strict, cube)
    with pytest.raises(DataError, match="z: values are constant over y, x in a frame, and eps is"):
        run(chain(strict), "z.normalized", cube=cube)


@pytest.mark.parametrize("dims", [[], [0, 1], [4], [1, 1], [1, -3]])
def test_frames_are_not_mixed(dims):
    with pytest.raises(PipelineError, match=r"dims .* must be one or more of 1 .y., 2 .x., 3"):
        ZScoreNormalizer(dims)


def test_other_arguments(tmp_path):
    with pytest.raises(PipelineError, match=r"std_floor 0\.0 must be above 0"):
        SigmoidNormalizer(0.0)
    pipeline = chain(
        MinMaxNormalizer(name="mm"), ZScoreNormalizer([1, 2, 3], keepdim=False, name="z"),
        SigmoidNormalizer(0.5, name="s"),
    )  # fmt: skip
    cube = scene()
    fit(pipeline, cube)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    np.testing.assert_array_equal(
        run(again, "s.normalized", cube=cube), run(pipeline, "s.normalized", cube=cube)
    )
    scaled = (cube - cube.min().astype(float)) / np.ptp(cube)
    np.testing.assert_allclose(
        run(again, "s.normalized", cube=cube), sigmoid(zscore(scaled, [1, 2, 3]), 0.5), atol=1e-5
    )
