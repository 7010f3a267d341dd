"""Indices against their published formulas in plain numpy."""

import colorsys
import warnings

import numpy as np
import pytest
import torch
from graph_helpers import fit, run
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch import nodes
from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes import BandpassByWavelength, ChannelAxis, CU3SDataNode, NDVISelector
from hsi_batch.pipeline import Pipeline

NM = np.arange(450.0, 2300.0, 37.0)


def ratio(a, b):
    return (a - b) / (a + b)


#: Wavelengths of the arguments, and the index as its paper writes it.
INDICES = {
    "NDVISelector": ((827, 668), ratio),
    "NDWISelector": ((560, 860), ratio),
    "NBRSelector": ((850, 2200), ratio),
    "GNDVISelector": ((800, 550), ratio),
    "NDRESelector": ((800, 720), ratio),
    "PRISelector": ((531, 570), ratio),
    "EVISelector": ((460, 660, 800), lambda b, r, n: 2.5 * (n - r) / (n + 6 * r - 7.5 * b + 1)),
    "EVI2Selector": ((660, 800), lambda r, n: 2.5 * (n - r) / (n + 2.4 * r + 1)),
    "SAVISelector": ((660, 800), lambda r, n: 1.5 * (n - r) / (n + r + 0.5)),
    "MSAVISelector": (
        (660, 800),
        lambda r, n: (2 * n + 1 - np.sqrt((2 * n + 1) ** 2 - 8 * (n - r))) / 2,
    ),
    "CIRedEdgeSelector": ((720, 800), lambda e, n: n / e - 1),
    "MCARISelector": ((550, 670, 700), lambda g, r, e: (e - r - 0.2 * (e - g)) * e / r),
}


def channel(target):
    return int(np.argmin(np.abs(NM - target)))


def reflectance(seed, height=20, width=9):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.05, 0.5, (height, width, NM.size)).astype(np.float32)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(INDICES)))
def test_indices_are_those_of_the_papers(seed, name):
    targets, formula = INDICES[name]
    node = getattr(nodes, name)()
    cube = reflectance(seed)
    bands = [cube[..., channel(t)].astype(np.float64) for t in targets]
    out = node(cube=torch.from_numpy(cube)[None], wavelengths=NM)
    expected = formula(*bands)
    np.testing.assert_allclose(out["index_image"][0, ..., 0], expected, rtol=1e-5, atol=1e-6)
    low, high = node.colormap_min, node.colormap_max
    hue = np.clip((expected - low) / (high - low), 0, 1)
    colours = np.array([colorsys.hsv_to_rgb(h, 1, 1) for h in hue.ravel()])
    np.testing.assert_allclose(out["rgb_image"][0].reshape(-1, 3), colours, atol=1e-5)
    assert out["band_info"]["band_indices"] == [channel(t) for t in targets]
    assert out["band_info"]["requested_wavelengths_nm"] == list(targets)


@pytest.mark.parametrize("name", sorted(INDICES))
def test_by_blocks_behind_another_node(name):
    node = getattr(nodes, name)(name="index")
    pipeline = Pipeline("index")
    data, band = CU3SDataNode(name="data"), BandpassByWavelength(480, name="band")
    pipeline.connect(
        (data.outputs.cube, band.inputs.data),
        (band.outputs.filtered, node.inputs.cube),
        # All wavelengths of the recording, as cuvis-ai wires them.
        (data.outputs.wavelengths, node.inputs.wavelengths),
    )
    cube = reflectance(2, height=40)
    assert fit(pipeline, cube, axis=ChannelAxis.of(NM)).passes == 0
    targets, formula = INDICES[name]
    kept = np.where(NM >= 480, NM, np.inf)
    bands = [cube[..., int(np.argmin(np.abs(kept - t)))].astype(np.float64) for t in targets]
    got = run(pipeline, "index_image", cube=cube, block=1)
    np.testing.assert_allclose(got[..., 0], formula(*bands), rtol=1e-5, atol=1e-6)
    assert run(pipeline, "rgb_image", cube=cube, block=1).shape == (40, 9, 3)
    assert set(node.state_dict()) == {"running_min", "running_max", "_norm_frame_count"}


def test_empty_pixels_and_those_that_are_no_numbers():
    cube = torch.zeros(1, 1, 2, NM.size)
    cube[0, 0, 1] = torch.nan
    out = NDVISelector()(cube=cube, wavelengths=NM)
    assert out["index_image"][0, 0, 0].item() == 0
    assert torch.isnan(out["index_image"][0, 0, 1]).all()
    assert torch.isnan(out["rgb_image"][0, 0, 1]).all()
    guarded = nodes.CIRedEdgeSelector(eps=0.5)
    cube = torch.full((1, 1, 1, NM.size), 0.25)
    assert guarded(cube=cube, wavelengths=NM)["index_image"].item() == 0.25 / 0.5 - 1


def test_channels_that_are_far_away_are_warned_about():
    short = ChannelAxis.of(NM[NM < 1000])
    with pytest.warns(DataWarning, match="swir is asked for at 2200 nm, but the nearest .* 968"):
        nodes.NBRSelector(name="nbr").channel_axis({"cube": short})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nodes.NBRSelector(band_tolerance_nm=0).channel_axis({"cube": short})


def test_what_is_refused():
    with pytest.raises(PipelineError, match=r"colormap_max 0 must be above colormap_min 0\.5"):
        NDVISelector(colormap_min=0.5, colormap_max=0)
    with pytest.raises(PipelineError, match="eps -1"):
        nodes.EVISelector(eps=-1)
    with pytest.raises(PipelineError, match="needs wavelengths"):
        NDVISelector()(cube=torch.zeros(1, 1, 1, 4))


def test_files_of_cuvis_ai(tmp_path):
    text = """
nodes:
  - {name: data, class_name: cuvis_ai.node.data.CU3SDataNode}
  - name: savi
    class_name: cuvis_ai.node.channel_selector.SAVISelector
    hparams: {red_nm: 650.0, soil_factor: 0.25}
connections:
  - {source: data.outputs.cube, target: savi.inputs.cube}
  - {source: data.outputs.wavelengths, target: savi.inputs.wavelengths}
"""
    path = tmp_path / "savi.yaml"
    path.write_text(text)
    pipeline = Pipeline.from_yaml(path)
    node = pipeline.nodes["savi"]
    assert node.hparams["soil_factor"] == node.soil_factor == 0.25
    cube = torch.from_numpy(reflectance(4))[None]
    wavelengths = torch.from_numpy(NM.astype(np.int32))[None]
    out = pipeline.forward({"cube": cube, "wavelengths": wavelengths})
    red, nir = cube[..., channel(650)].double(), cube[..., channel(800)].double()
    expected = 1.25 * (nir - red) / (nir + red + 0.25)
    found = out[pipeline.port("index_image")][..., 0].double()
    assert torch.allclose(found, expected, atol=1e-6)
