"""Colours of the standard observer, against published values."""

import numpy as np
import pytest
import torch
from graph_helpers import fit, run
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes import ChannelAxis, CIETristimulusRGBSelector, CU3SDataNode
from hsi_batch.nodes.cie import BRADFORD, D65, OBSERVER, WAVELENGTHS, XYZ_TO_SRGB
from hsi_batch.pipeline import Pipeline

NM = np.arange(380.0, 781.0, 5.0)


def linear(spectrum, nm=NM, **options):
    """Linear sRGB of a spectrum."""
    node = CIETristimulusRGBSelector(normalize_output=False, **options)
    cube = torch.from_numpy(np.asarray(spectrum, np.float32)).reshape(1, 1, 1, -1)
    return node(cube=cube, wavelengths=nm)["rgb_image"].numpy().ravel()


def graph(node):
    pipeline = Pipeline("picture")
    data = CU3SDataNode(name="data")
    pipeline.connect(data.outputs.cube, node.inputs.cube)
    return pipeline


def test_tables_are_those_of_the_cie():
    # White points of illuminant E and D65, CIE 015; the observer's area is 106.857 nm.
    np.testing.assert_allclose(OBSERVER.sum(axis=1) * 5, [106.857] * 3, rtol=2e-5)
    white = (OBSERVER * D65).sum(axis=1)
    np.testing.assert_allclose(white / white.sum(), [0.3127, 0.3290, 0.3583], atol=1e-4)
    assert WAVELENGTHS[OBSERVER[1].argmax()] == 555
    assert D65[WAVELENGTHS == 560] == 100
    # sRGB: Y of white is 1; the adaptation leaves equal energies equal.
    np.testing.assert_allclose(np.linalg.inv(XYZ_TO_SRGB)[1].sum(), 1, atol=1e-4)
    np.testing.assert_allclose(BRADFORD.sum(axis=1), 1, atol=2e-4)


@settings(max_examples=15)
@given(st.floats(0.01, 2), st.sampled_from([1.0, 3.0, 10.0]))
def test_grey_is_grey(level, step):
    nm = np.arange(380.0, 781.0, step)
    np.testing.assert_allclose(linear(np.full(nm.size, level), nm), level, rtol=1e-5)


def test_order_of_channels_does_not_matter():
    spectrum = np.random.default_rng(1).uniform(0, 1, NM.size)
    np.testing.assert_allclose(linear(spectrum), linear(spectrum[::-1], NM[::-1]), rtol=1e-5)


def test_under_equal_energy_the_sum_is_plain():
    spectrum = np.random.default_rng(2).uniform(0, 1, NM.size)
    spacing = np.full(NM.size, 5.0)
    xyz = (OBSERVER * spacing * spectrum).sum(axis=1)
    np.testing.assert_allclose(linear(spectrum, illuminant="E"), XYZ_TO_SRGB @ xyz, rtol=1e-4)


@pytest.mark.parametrize(("peak", "strongest"), [(450, 2), (540, 1), (620, 0)])
def test_hues(peak, strongest):
    colour = linear(np.exp(-(((NM - peak) / 15) ** 2)))
    assert colour.argmax() == strongest
    assert colour.min() >= 0


def test_bounds_of_all_pixels_and_what_they_were_found_under():
    node = CIETristimulusRGBSelector(norm_mode="statistical", apply_gamma=False, name="cie")
    pipeline = graph(node)
    cube = np.random.default_rng(3).uniform(0, 1, (40, 9, NM.size)).astype(np.float32)
    cube[..., :40] *= np.random.default_rng(4).uniform(0, 1, (40, 9, 1)).astype(np.float32)
    fit(pipeline, cube, axis=ChannelAxis.of(NM), block=1)
    picture = np.stack([linear(s) for s in cube.reshape(-1, NM.size)])
    low, high = np.quantile(picture, [0.005, 0.995], axis=0)
    expected = np.clip((picture - low) / (high - low), 0, 1).reshape(40, 9, 3)
    np.testing.assert_allclose(run(pipeline, "rgb_image", cube=cube), expected, atol=1e-4)
    other = CIETristimulusRGBSelector("E", norm_mode="statistical", name="cie")
    other.load_state_dict(node.state_dict())
    other.mark_fitted(True)
    with pytest.raises(PipelineError, match="fitted under illuminant D65, but the node shows E"):
        other(cube=torch.from_numpy(cube)[None], wavelengths=NM)


def test_sensors_that_see_little():
    node = CIETristimulusRGBSelector(name="cie")
    with pytest.warns(DataWarning, match="of X, Y, Z of white; colours lack what is beyond"):
        node.channel_axis({"cube": ChannelAxis.of(np.arange(420.0, 700, 5))})
    with pytest.warns(DataWarning, match="grey is not neutral"):
        node.channel_axis({"cube": ChannelAxis.of(np.arange(500.0, 900, 5))})
    red = np.arange(500.0, 900.0, 5.0)
    xyz = np.linalg.solve(XYZ_TO_SRGB, linear(np.ones(red.size), red))
    assert xyz[1] == pytest.approx(1, abs=0.02)
    with pytest.raises(PipelineError, match=r"3 channels of 900..1100 nm show no colour"):
        linear(np.ones(3), np.array([900.0, 1000, 1100]))
    with pytest.raises(PipelineError, match="illuminant 'A' is not one of"):
        CIETristimulusRGBSelector("A")
