"""Pictures of channels picked or mixed by wavelength, against numpy in float64."""

import numpy as np
import pytest
import torch
from graph_helpers import fit, run
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataError, NotFittedError, PipelineError, PlanError
from hsi_batch.nodes import (
    CameraEmulationFalseRGBSelector,
    ChannelAxis,
    CIRSelector,
    CU3SDataNode,
    FixedWavelengthSelector,
    RangeAverageFalseRGBSelector,
    TrainablePCA,
)
from hsi_batch.nodes.display import rainbow, srgb, stretch
from hsi_batch.pipeline import Pipeline

NM = np.array([420.0, 455, 490, 520, 560, 600, 640, 675, 720, 800, 862])
NODES = (
    FixedWavelengthSelector,
    CIRSelector,
    RangeAverageFalseRGBSelector,
    CameraEmulationFalseRGBSelector,
)


def cube_of(seed, height=37, width=11, dtype="uint16"):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(200, 3000, NM.size)
    return (rng.gamma(2.0, 1.0, (height, width, NM.size)) * scale).astype(dtype)


def graph(node):
    pipeline = Pipeline("picture")
    data = CU3SDataNode(name="data")
    pipeline.connect(
        (data.outputs.cube, node.inputs.cube),
        (data.outputs.wavelengths, node.inputs.wavelengths),
    )
    return pipeline


def weights(node):
    """Matrix from channels to red, green and blue, from the definition of each."""
    rows = np.zeros((3, NM.size))
    for row, k in zip(rows, range(3), strict=True):
        if isinstance(node, FixedWavelengthSelector):
            row[np.abs(NM - (650, 550, 450)[k]).argmin()] = 1
        elif isinstance(node, CIRSelector):
            row[np.abs(NM - (860, 670, 560)[k]).argmin()] = 1
        elif isinstance(node, RangeAverageFalseRGBSelector):
            low, high = ((580, 650), (500, 580), (420, 500))[k]
            row[(low <= NM) & (high >= NM)] = 1
        else:
            peak, sigma = ((610, 40), (540, 35), (460, 30))[k]
            row[:] = np.exp(-((NM - peak) ** 2) / (2 * sigma**2))
    return rows / rows.sum(axis=1, keepdims=True)


def gamma(x):
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.power(x, 1 / 2.4) - 0.055)


def shown(picture, low, high, companded=True):
    scaled = np.clip((picture - low) / (high - low), 0, 1)
    return gamma(scaled) if companded else scaled


@settings(max_examples=16)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(NODES),
    st.sampled_from([None, 1]),
    st.sampled_from(["uint16", "float32"]),
    st.booleans(),
)
def test_bounds_of_all_pixels(seed, cls, block, dtype, companded):
    node = cls(norm_mode="statistical", apply_gamma=companded, name="picture")
    pipeline = graph(node)
    cubes = [cube_of(seed, dtype=dtype), cube_of(seed + 1, height=20, dtype=dtype)]
    valid = None
    plan = fit(pipeline, *cubes, axis=ChannelAxis.of(NM), valid=valid, block=block)
    assert plan.passes == 1
    pictures = [cube.astype(np.float64) @ weights(node).T for cube in cubes]
    pixels = np.concatenate([p.reshape(-1, 3) for p in pictures])
    low, high = np.quantile(pixels, [0.005, 0.995], axis=0)
    np.testing.assert_allclose(node.state["low"], low, rtol=1e-6)
    np.testing.assert_allclose(node.state["high"], high, rtol=1e-6)
    for cube, picture in zip(cubes, pictures, strict=True):
        got = run(pipeline, "rgb_image", cube=cube, block=block)
        np.testing.assert_allclose(got, shown(picture, low, high, companded), atol=3e-5)


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from(NODES))
def test_bounds_of_each_frame(seed, cls):
    node = cls(norm_mode="per_frame", name="picture")
    pipeline = graph(node)
    cube = cube_of(seed)
    assert fit(pipeline, cube, axis=ChannelAxis.of(NM)).passes == 0
    picture = cube.astype(np.float64) @ weights(node).T
    flat = picture.reshape(-1, 3)
    expected = shown(picture, flat.min(axis=0), flat.max(axis=0))
    got = run(pipeline, "rgb_image", cube=cube, block=1)
    np.testing.assert_allclose(got, expected, atol=3e-5)
    batch = torch.from_numpy(np.stack([cube, cube * 2]).astype(np.float32))
    image = node(cube=batch, wavelengths=NM)["rgb_image"].numpy()
    np.testing.assert_allclose(image, np.stack([expected, expected]), atol=3e-5)


@pytest.mark.parametrize("cls", NODES)
def test_without_scaling_it_is_affine(cls):
    node = cls(normalize_output=False, name="picture")
    pipeline = graph(node)
    pca = TrainablePCA(n_components=2, name="pca")
    pipeline.connect(node.outputs.rgb_image, pca.inputs.data)
    cube = cube_of(3)
    plan = fit(pipeline, cube, axis=ChannelAxis.of(NM), stored=("moments",))
    assert plan.passes == 0
    picture = cube.astype(np.float64) @ weights(node).T
    np.testing.assert_allclose(
        run(pipeline, "rgb_image", cube=cube, block=1), picture, rtol=1e-6, atol=1e-3
    )
    np.testing.assert_allclose(pca.state["mean"], picture.reshape(-1, 3).mean(axis=0), rtol=1e-9)
    image = node(cube=torch.from_numpy(cube[None].astype(np.float32)), wavelengths=NM)
    np.testing.assert_allclose(image["rgb_image"][0], picture, rtol=1e-6, atol=1e-3)
    assert image["band_info"]["normalized_output"] is False


def test_running_bounds_follow_the_frames():
    node = CIRSelector(
        freeze_running_bounds_after_frames=3, running_warmup_frames=2, apply_gamma=False
    )
    frames = [cube_of(seed).astype(np.float32) * (1 + seed) for seed in range(5)]
    lows, highs = [], []
    for count, frame in enumerate(frames, 1):
        picture = frame.astype(np.float64) @ weights(node).T
        low, high = np.quantile(picture.reshape(-1, 3), [0.005, 0.995], axis=0)
        if count <= 3:
            lows.append(low)
            highs.append(high)
        if count > 2:
            low, high = np.min(lows, axis=0), np.max(highs, axis=0)
        assert node.scope == ("pixel" if count > 3 else "sequence")
        got = node(cube=torch.from_numpy(frame)[None], wavelengths=NM)["rgb_image"][0]
        np.testing.assert_allclose(got, shown(picture, low, high, companded=False), atol=1e-5)


def test_an_archive_is_refused_until_the_bounds_are_frozen():
    node = CIRSelector(name="picture")
    pipeline = graph(node)
    cube = cube_of(4)
    with pytest.raises(PlanError, match=r"picture .* keeps state from frame to frame"):
        fit(pipeline, cube, axis=ChannelAxis.of(NM))
    with pytest.raises(DataError, match="no bounds to freeze"):
        node.freeze_bounds()
    node(cube=torch.from_numpy(cube.astype(np.float32))[None], wavelengths=NM)
    node.freeze_bounds()
    fit(pipeline, cube, axis=ChannelAxis.of(NM))
    picture = cube.astype(np.float64) @ weights(node).T
    low, high = np.quantile(picture.reshape(-1, 3), [0.005, 0.995], axis=0)
    got = run(pipeline, "rgb_image", cube=cube, block=1)
    np.testing.assert_allclose(got, shown(picture, low, high), atol=3e-5)


def test_pixels_that_are_no_numbers_move_no_bound():
    node = FixedWavelengthSelector(norm_mode="per_frame")
    frame = cube_of(5).astype(np.float32)
    clean = node(cube=torch.from_numpy(frame[1:])[None], wavelengths=NM)["rgb_image"]
    frame[0] = np.nan
    dirty = node(cube=torch.from_numpy(frame)[None], wavelengths=NM)["rgb_image"]
    assert torch.isnan(dirty[:, 0]).all()
    assert torch.equal(dirty[:, 1:], clean)
    assert torch.isnan(
        node(cube=torch.full((1, 2, 2, 11), torch.nan), wavelengths=NM)["rgb_image"]
    ).all()


def test_stacks_of_other_than_three_are_handed_on():
    node = FixedWavelengthSelector((800, 420, 455, 600, 862), name="stack")
    pipeline = graph(node)
    cube = cube_of(6)
    fit(pipeline, cube, axis=ChannelAxis.of(NM))
    got = run(pipeline, "rgb_image", cube=cube)
    np.testing.assert_array_equal(got, cube[..., [9, 0, 1, 5, 10]])
    axis = node.channel_axis({"cube": ChannelAxis.of(NM)})["rgb_image"]
    np.testing.assert_array_equal(axis.wavelength, [800, 420, 455, 600, 862])


def test_saved_and_loaded(tmp_path):
    node = RangeAverageFalseRGBSelector(norm_mode="statistical", name="picture")
    pipeline = graph(node)
    cube = cube_of(7)
    fit(pipeline, cube, axis=ChannelAxis.of(NM))
    pipeline.save(tmp_path / "picture.yaml")
    back = Pipeline.from_yaml(tmp_path / "picture.yaml")
    assert back.nodes["picture"].hparams == node.hparams
    np.testing.assert_array_equal(
        run(back, "rgb_image", cube=cube), run(pipeline, "rgb_image", cube=cube)
    )
    # Files of cuvis-ai hold the float32 bounds alone.
    back.nodes["picture"].state = {}
    got = run(back, "rgb_image", cube=cube)
    np.testing.assert_allclose(got, run(pipeline, "rgb_image", cube=cube), atol=1e-5)


def test_what_is_refused():
    with pytest.raises(PipelineError, match="target_wavelengths is empty"):
        FixedWavelengthSelector(())
    with pytest.raises(PipelineError, match=r"blue_range \[500, 420\] is not"):
        RangeAverageFalseRGBSelector(blue_range=(500, 420))
    with pytest.raises(PipelineError, match="g_sigma 0 must be above 0 nm"):
        CameraEmulationFalseRGBSelector(g_sigma=0)
    with pytest.raises(PipelineError, match="freeze_running_bounds_after_frames 0"):
        CIRSelector(freeze_running_bounds_after_frames=0)
    far = RangeAverageFalseRGBSelector((1, 2), (3, 4), (5, 6), norm_mode="per_frame", name="far")
    with pytest.raises(PipelineError, match=r"no channel lies in 1..2, 3..4, 5..6 nm; the data"):
        graph(far).resolve(ChannelAxis.of(NM))
    node = CIRSelector(norm_mode="statistical", name="cir")
    with pytest.raises(NotFittedError, match="cir"):
        node(cube=torch.zeros(1, 1, 1, 11), wavelengths=NM)
    with pytest.raises(PipelineError, match="11 channels came with 2 wavelengths"):
        CIRSelector(norm_mode="per_frame")(cube=torch.zeros(1, 1, 1, 11), wavelengths=NM[:2])


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_display(values):
    x = torch.tensor(values)
    np.testing.assert_allclose(srgb(x), gamma(np.array(values)), rtol=1e-5, atol=1e-7)
    import colorsys

    expected = [colorsys.hsv_to_rgb(v, 1.0, 1.0) for v in values]
    np.testing.assert_allclose(rainbow(x[:, None]), expected, atol=2e-6)


def test_equal_bounds_show_black():
    image = torch.tensor([[1.0, 3.0]])
    assert stretch(image, np.array([1.0, 1.0]), np.array([1.0, 2.0])).tolist() == [[0.0, 1.0]]
