"""Objects by spectral angle, against arc cosines and loops over cells in plain NumPy."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, run
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import ChannelAxis, SpectralObjectMask
from hsi_batch.pipeline import Pipeline

BACK, THING = np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 2.0, 3.0, 1.0])
#: Between the two spectra.
ANGLE = np.degrees(np.arccos(BACK @ THING / (BACK @ BACK)))


def frame_of(seed, height=24, width=32):
    rng = np.random.default_rng(seed)
    inside = np.zeros((height, width), bool)
    inside[8:16, 12:24] = True
    cube = np.where(inside[..., None], THING, BACK) * rng.uniform(0.5, 2, (height, width, 1))
    return (cube + rng.normal(0, 0.01, cube.shape)).astype(np.float32), inside


def angles_of(cube, step):
    sample = cube[::step, ::step].reshape(-1, cube.shape[-1]).astype(float)
    middle = np.sort(sample, axis=0)
    middle = (middle[(len(sample) - 1) // 2] + middle[len(sample) // 2]) / 2
    cosine = cube.astype(float) @ middle
    cosine /= np.linalg.norm(cube.astype(float), axis=-1) * np.linalg.norm(middle)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(0, 3),
    st.floats(1, 60),
)
def test_objects_are_cells_of_large_angles(seed, stride, median_stride, grown, least):
    cube = np.random.default_rng(seed).random((13, 17, 3)).astype(np.float32) + 0.2
    node = SpectralObjectMask(least, stride, median_stride, dilate_px=grown)
    out = node(cube=torch.from_numpy(cube[None]))
    angles = angles_of(cube, median_stride)
    np.testing.assert_allclose(out["angle"][0, ..., 0], angles, rtol=1e-5, atol=1e-4)
    expected = np.zeros((13, 17), bool)
    for y, x in np.ndindex(13, 17):
        if angles[y // stride * stride, x // stride * stride] > least:
            expected[max(y - grown, 0) : y + grown + 1, max(x - grown, 0) : x + grown + 1] = True
    np.testing.assert_array_equal(out["decisions"][0, ..., 0], expected)


def test_brightness_does_not_matter_and_blocks_do_not():
    cube, inside = frame_of(1)
    pipeline = chain(SpectralObjectMask(name="objects"))
    pipeline.resolve(ChannelAxis(4))
    got, angle = run(pipeline, "objects.decisions", "objects.angle", cube=cube, block=1)
    np.testing.assert_array_equal(got[..., 0], inside)
    np.testing.assert_allclose(angle[inside], ANGLE, atol=3)


def test_otsu_adapts_to_the_frame():
    # Background up to 10 degrees from its median, objects at the double and more.
    cube, inside = frame_of(2)
    tilt = np.random.default_rng(0).random((*inside.shape, 1))
    cube = np.where(inside[..., None], cube, cube + np.float32([0.8, 0, 0, 0]) * tilt)
    cube = cube.astype(np.float32)
    angles = angles_of(cube, 8)
    between = angles[~inside].max()
    assert 7 < between < 15
    frames = torch.from_numpy(cube[None])
    for arguments, least in (
        ({"otsu_ceiling_deg": 60.0}, between),
        ({"otsu_ceiling_deg": 4.0}, 4.0),
        ({"otsu_floor_deg": 70.0, "otsu_ceiling_deg": 80.0}, 70.0),
    ):
        node = SpectralObjectMask(stride=1, threshold="otsu", **arguments)
        got = node(cube=frames)["decisions"][0, ..., 0].numpy()
        np.testing.assert_array_equal(got, angles > least, err_msg=str(arguments))


def test_holes_and_gaps_are_filled():
    cube, inside = frame_of(3)
    cube[8:16, 16:17] = BACK
    cube[11:13, 20:22] = BACK
    bare = SpectralObjectMask(stride=1)(cube=torch.from_numpy(cube[None]))["decisions"]
    assert int(bare.sum()) == inside.sum() - 8 - 4
    full = SpectralObjectMask(stride=1, fill=True)(cube=torch.from_numpy(cube[None]))["decisions"]
    np.testing.assert_array_equal(full[0, ..., 0], inside)


def test_numbers_that_are_none_and_zeros():
    cube, inside = frame_of(4)
    cube[0, 0] = np.nan
    cube[9, 13] = np.nan
    cube[20, 4] = 0.0
    out = SpectralObjectMask(stride=1)(cube=torch.from_numpy(cube[None]))
    assert torch.isnan(out["angle"][0, [0, 9], [0, 13]]).all()
    assert out["angle"][0, 20, 4].item() == pytest.approx(90.0)
    inside[9, 13], inside[20, 4] = False, True
    np.testing.assert_array_equal(out["decisions"][0, ..., 0], inside)
    nothing = SpectralObjectMask()(cube=torch.full((1, 5, 5, 2), torch.nan))
    assert not nothing["decisions"].any()


def test_saved_and_refused(tmp_path):
    cube, _ = frame_of(5)
    pipeline = chain(SpectralObjectMask(9.0, fill=True, dilate_px=2, name="objects"))
    pipeline.save(tmp_path / "objects.yaml")
    back = Pipeline.from_yaml(tmp_path / "objects.yaml")
    for each in (pipeline, back):
        each.resolve(ChannelAxis(4))
    np.testing.assert_array_equal(
        run(back, "objects.decisions", cube=cube), run(pipeline, "objects.decisions", cube=cube)
    )
    for arguments, text in (
        ({"min_angle_deg": 190.0}, "min_angle_deg 190.0"),
        ({"otsu_floor_deg": 20.0}, "must not be above otsu_ceiling_deg 12.0"),
        ({"stride": 0}, "stride 0 must be at least 1"),
        ({"dilate_px": -1}, "dilate_px -1"),
        ({"threshold": "best"}, "threshold 'best'"),
    ):
        with pytest.raises(PipelineError, match=text):
            SpectralObjectMask(**arguments)
