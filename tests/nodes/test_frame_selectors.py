"""Pictures that look at the frame first, against numpy and SciPy."""

import numpy as np
import pytest
import torch
from graph_helpers import fit, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import ChannelAxis, CU3SDataNode, FastRGBSelector, HighContrastSelector
from hsi_batch.pipeline import Pipeline

NM = np.linspace(420, 720, 16)
SEEDS = st.integers(0, 2**32 - 1)


def cube_of(seed, height=40, width=13):
    return np.random.default_rng(seed).integers(50, 4000, (height, width, NM.size), dtype=np.uint16)


def graph(node):
    pipeline = Pipeline("picture")
    data = CU3SDataNode(name="data")
    pipeline.connect(data.outputs.cube, node.inputs.cube)
    pipeline.resolve(ChannelAxis.of(NM))
    return pipeline


def averages(cube, ranges=((580, 650), (500, 580), (420, 500))):
    parts = [
        cube[..., (low <= NM) & (high >= NM)].mean(axis=-1, dtype=float) for low, high in ranges
    ]
    return np.stack(parts, axis=-1)


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([0.0, 0.5, 0.75, 1.5]), st.sampled_from([None, 1]))
def test_fast_rgb(seed, strength, block):
    node = FastRGBSelector(normalization_strength=strength, name="rgb")
    pipeline = graph(node)
    cube = cube_of(seed)
    picture = averages(cube)
    factor = 128 * strength / picture.mean() if strength else 255 / 10000
    exact = np.clip(picture * factor, 0, 255)
    assert node.scope == ("frame" if strength else "pixel")
    assert fit(pipeline, cube, axis=ChannelAxis.of(NM)).passes == 0
    for got in (
        run(pipeline, "rgb_image", cube=cube, block=block),
        node(cube=torch.from_numpy(cube.astype(np.float32))[None], wavelengths=NM)["rgb_image"][0],
    ):
        steps = np.asarray(got, float) * 255
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
        np.testing.assert_allclose(steps, exact, atol=0.5001)


def test_fast_rgb_by_the_valid_pixels_of_each_frame():
    node = FastRGBSelector(name="rgb")
    pipeline = graph(node)
    cube = cube_of(1)
    valid = np.ones(cube.shape[:2], bool)
    valid[:10] = False
    cube[:10] = 65535
    got = run(pipeline, "rgb_image", cube=cube, valid=valid, block=1)[10:]
    picture = averages(cube[10:])
    exact = np.clip(picture * 96 / picture.mean(), 0, 255)
    np.testing.assert_allclose(got * 255, exact, atol=0.5001)
    dark = node(cube=torch.zeros(1, 2, 2, 16), wavelengths=NM)
    assert dark["rgb_image"].max() == 0
    assert dark["band_info"]["applied_scale_factor"] == 0
    shapes = {name: tuple(t.shape) for name, t in node.state_dict().items()}
    assert shapes["_ranges"] == (3, 2)


def test_fast_rgb_without_channels_in_a_range():
    node = FastRGBSelector(blue_range=(300, 310))
    out = node(cube=torch.ones(1, 2, 2, 16), wavelengths=NM)
    assert out["band_info"]["missing_channels"] == ["blue"]
    assert out["rgb_image"][..., 2].max() == 0
    with pytest.raises(PipelineError, match="no channel lies in"):
        FastRGBSelector((1, 2), (1, 2), (1, 2))(cube=torch.ones(1, 1, 1, 16), wavelengths=NM)
    with pytest.raises(PipelineError, match="normalization_strength -1"):
        FastRGBSelector(normalization_strength=-1)


def best(cube, alpha, windows=((440, 500), (500, 580), (610, 700))):
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], float)
    chosen = []
    for low, high in windows:
        inside = np.flatnonzero((low <= NM) & (high >= NM))
        worth = []
        for channel in inside:
            band = cube[..., channel].astype(float)
            worth.append(band.var() + alpha * np.abs(convolve(band, kernel, mode="reflect")).mean())
        chosen.append(int(inside[np.argmax(worth)]))
    return chosen


@settings(max_examples=10)
@given(SEEDS, st.sampled_from([0.0, 0.1, 5000.0]))
def test_high_contrast(seed, alpha):
    node = HighContrastSelector(alpha=alpha, norm_mode="per_frame", apply_gamma=False, name="rgb")
    pipeline = graph(node)
    cube = cube_of(seed)
    chosen = best(cube, alpha)
    picked = cube[..., chosen].astype(float)
    low, high = picked.min(axis=(0, 1)), picked.max(axis=(0, 1))
    got = run(pipeline, "rgb_image", cube=cube, block=1)
    np.testing.assert_allclose(got, (picked - low) / (high - low), atol=1e-6)
    batch = torch.from_numpy(np.stack([cube, cube[::-1]]).astype(np.float32))
    raw = HighContrastSelector(alpha=alpha, normalize_output=False)
    out = raw(cube=batch, wavelengths=NM)
    assert out["band_info"]["band_indices"] == [chosen, chosen]
    np.testing.assert_array_equal(out["rgb_image"][0], picked)


def test_high_contrast_leaves_out_what_is_no_number():
    node = HighContrastSelector(normalize_output=False)
    cube = torch.from_numpy(cube_of(3).astype(np.float32))[None]
    cube[0, 0] = torch.nan
    assert len(node(cube=cube, wavelengths=NM)["band_info"]["band_indices"]) == 3
    assert node(cube=cube * torch.nan, wavelengths=NM)["rgb_image"].isnan().all()


def test_what_is_refused():
    with pytest.raises(PipelineError, match="'statistical' is not for channels that are chosen"):
        HighContrastSelector(norm_mode="statistical")
    with pytest.raises(PipelineError, match="1 windows were given; 3 are needed"):
        HighContrastSelector(((1, 2),))
    assert HighContrastSelector().scope == "sequence"
    assert HighContrastSelector(normalize_output=False).scope == "frame"
