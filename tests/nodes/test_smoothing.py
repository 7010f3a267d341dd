"""Smoothed maps and segmented foregrounds, against plain numpy."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, run
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import ChannelAxis, IntensityThresholdSegmenter, ScoreMapSmoothing

SEEDS = st.integers(0, 2**32 - 1)


def mirrored(length, radius):
    """Indices of a line that is mirrored at its first and last pixel, again and again."""
    period = max(2 * (length - 1), 1)
    index = np.abs(np.arange(-radius, length + radius)) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)


def smooth(image, sigma):
    radius = round(4 * sigma)
    r = np.arange(-radius, radius + 1)
    kernel = np.exp(-(r**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        lines = np.moveaxis(image, axis, 0)
        padded = lines[mirrored(len(lines), radius)]
        lines = sum(w * padded[k : k + len(lines)] for k, w in enumerate(kernel))
        image = np.moveaxis(lines, 0, axis)
    return image


@settings(max_examples=12)
@given(SEEDS, st.sampled_from([0.1, 0.5, 1.0, 3.0, 8.0]), st.sampled_from([None, 1, 2]))
def test_smoothing_by_blocks(seed, sigma, block):
    cube = np.random.default_rng(seed).normal(size=(50, 17, 2)).astype(np.float32)
    node = ScoreMapSmoothing(sigma, name="smooth")
    pipeline = chain(node)
    pipeline.resolve(ChannelAxis(2))
    expected = smooth(cube.astype(np.float64), sigma) if sigma > 0.1 else cube
    got = run(pipeline, "smooth.scores", cube=cube, block=block)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    whole = node(scores=torch.from_numpy(cube)[None])["scores"][0]
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    assert node.halo == round(4 * sigma)
    assert node.scope == ("window" if sigma > 0.1 else "pixel")


@settings(max_examples=12)
@given(SEEDS, st.sampled_from(["mean", "max", "band"]), st.integers(-3, 2))
def test_foreground(seed, reduction, channel):
    cube = np.random.default_rng(seed).integers(0, 9, (37, 8, 3)).astype(np.uint16)
    node = IntensityThresholdSegmenter(3, 6, reduction, channel, name="bright")
    pipeline = chain(node)
    pipeline.resolve(ChannelAxis(3))
    bright = {
        "mean": cube.mean(axis=-1),
        "max": cube.max(axis=-1),
        "band": cube[..., channel],
    }[reduction]
    got = run(pipeline, "bright.mask", cube=cube, block=1)
    np.testing.assert_array_equal(got[..., 0], (bright >= 3) & (bright <= 6))


def test_what_is_no_number_is_background():
    cube = torch.tensor([[[[torch.nan, 0.5], [0.5, 0.5]]]])
    assert IntensityThresholdSegmenter()(cube=cube)["mask"].flatten().tolist() == [0, 1]


def test_what_is_refused():
    with pytest.raises(PipelineError, match="sigma_px -1"):
        ScoreMapSmoothing(-1.0)
    with pytest.raises(PipelineError, match="low 2 must not be above high 1"):
        IntensityThresholdSegmenter(2, 1)
    with pytest.raises(PipelineError, match="reduction 'sum' is not one of"):
        IntensityThresholdSegmenter(reduction="sum")
    node = IntensityThresholdSegmenter(reduction="band", band_index=3, name="bright")
    with pytest.raises(PipelineError, match="band_index 3 is not among the 3 channels"):
        chain(node).resolve(ChannelAxis(3))
