"""Masks, numbers and classes as colours, against NumPy, colorsys and the table of matplotlib."""

import colorsys

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    ClassMapToRGB,
    IntensityThresholdSegmenter,
    KMeansClusterer,
    MaskOverlayNode,
    RXGlobal,
    ScalarHSVColormapNode,
    Scope,
)
from hsi_batch.pipeline import Pipeline

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=30)
@given(SEEDS, st.floats(0, 1), st.tuples(*[st.floats(0, 1)] * 3))
def test_a_mask_is_mixed_in_where_it_is(seed, alpha, colour):
    rng = np.random.default_rng(seed)
    picture = rng.uniform(-0.2, 1.2, size=(2, 4, 5, 3)).astype("f4")
    mask = rng.integers(-1, 3, size=(2, 4, 5)).astype("i4")
    mask[1] = 0
    found = MaskOverlayNode(alpha, colour)(
        rgb_image=torch.from_numpy(picture), mask=torch.from_numpy(mask)
    )["rgb_with_overlay"].numpy()
    expected = picture.astype("f8")
    expected[mask > 0] = (1 - alpha) * expected[mask > 0] + alpha * np.array(colour)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-6)
    # A frame is the same whatever else is in its batch, and without a mask it is the picture.
    alone = MaskOverlayNode(alpha, colour)(rgb_image=torch.from_numpy(picture[1:]))
    np.testing.assert_array_equal(alone["rgb_with_overlay"].numpy()[0], found[1])


def test_what_is_not_known_stays_so():
    picture = torch.full((1, 1, 2, 3), torch.nan)
    mask = torch.tensor([[[0, 1]]], dtype=torch.int32)
    assert MaskOverlayNode()(rgb_image=picture, mask=mask)["rgb_with_overlay"].isnan().all()
    assert ScalarHSVColormapNode()(data=picture[..., :1])["rgb_image"].isnan().all()


@settings(max_examples=30)
@given(SEEDS, st.floats(-5, 5), st.floats(0.1, 10))
def test_numbers_are_hues(seed, low, span):
    data = np.random.default_rng(seed).uniform(low - span, low + 2 * span, 20).astype("f4")
    node = ScalarHSVColormapNode(low, low + span)
    found = node(data=torch.from_numpy(data).reshape(1, 4, 5, 1))["rgb_image"].numpy()
    hues = np.clip((data.astype("f8") - low) / span, 0, 1)
    expected = [colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in hues]
    np.testing.assert_allclose(found.reshape(-1, 3), expected, atol=1e-5)


@settings(max_examples=20)
@given(
    SEEDS,
    st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=5),
    st.integers(-2, 3),
)
def test_classes_are_colours_of_the_palette(seed, palette, background):
    rng = np.random.default_rng(seed)
    classes = rng.integers(-2, 9, size=(2, 3, 4)).astype("i4")
    mask = rng.integers(0, 2, size=classes.shape).astype("i4")
    node = ClassMapToRGB(palette, background)
    found = node(class_map=torch.from_numpy(classes), mask=torch.from_numpy(mask))
    expected = np.array(palette)[np.maximum(classes, 0) % len(palette)] / 255
    expected[(classes == background) | (mask == 0)] = 0
    np.testing.assert_allclose(found["label_rgb"].numpy(), expected, atol=1e-7)


def test_the_default_palette_is_that_of_matplotlib():
    classes = torch.arange(-1, 25, dtype=torch.int32).reshape(1, 1, -1)
    found = ClassMapToRGB()(class_map=classes)["label_rgb"][0, 0].numpy()
    table = np.array(colormaps["tab20"].colors)
    np.testing.assert_allclose(found, [(0, 0, 0), *table, *table[:5]], atol=1e-7)


def test_pictures_are_scored_block_by_block_and_come_back_from_a_file(tmp_path):
    cube = scene(channels=3)
    pipeline = chain(KMeansClusterer(3, name="clusters"), ClassMapToRGB(name="colours"))
    mask = IntensityThresholdSegmenter(1000.0, 1e6, name="bright")
    laid = MaskOverlayNode(0.25, (0, 0, 1), name="laid")
    rx, hues = RXGlobal(name="rx"), ScalarHSVColormapNode(0.0, 20.0, name="hues")
    pipeline.connect(
        (pipeline.nodes["data"].outputs.cube, mask.cube),
        (pipeline.nodes["colours"].label_rgb, laid.rgb_image),
        (mask.outputs.mask, laid.inputs.mask),
        (pipeline.nodes["data"].outputs.cube, rx.data),
        (rx.scores, hues.data),
    )
    fit(pipeline, cube)
    pipeline = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    pipeline.resolve(pipeline.axis)
    assert pipeline.nodes["laid"].hparams == {"alpha": 0.25, "overlay_color": [0.0, 0.0, 1.0]}
    assert {pipeline.nodes[n].scope for n in ("colours", "laid", "hues")} == {Scope.PIXEL}
    wanted = ("laid.rgb_with_overlay", "clusters.class_mask", "hues.rgb_image", "rx.scores")
    picture, classes, rainbow, scores = run(pipeline, *wanted, cube=cube, block=1)
    table = np.array(colormaps["tab20"].colors)[classes[..., 0]]
    here = cube.mean(axis=-1) >= 1000
    assert 0 < here.mean() < 1
    table[here] = 0.75 * table[here] + 0.25 * np.array([0, 0, 1])
    np.testing.assert_allclose(picture, table, atol=1e-6)
    hue = np.clip(scores[..., 0].astype("f8") / 20, 0, 1).ravel()
    expected = np.array([colorsys.hsv_to_rgb(h, 1.0, 1.0) for h in hue]).reshape(rainbow.shape)
    np.testing.assert_allclose(rainbow, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: MaskOverlayNode(1.5), r"alpha 1\.5 is not between 0 and 1"),
        (lambda: MaskOverlayNode(overlay_color=(255, 0, 0)), r"overlay_color \[?\(?255"),
        (lambda: MaskOverlayNode(overlay_color=(1.0, 0.0)), "must be red, green and blue"),
        (lambda: ScalarHSVColormapNode(1.0, 1.0), r"value_max 1\.0 must be above value_min 1\.0"),
        (lambda: ClassMapToRGB([]), "palette must hold at least one colour"),
        (lambda: ClassMapToRGB([(1, 2, 300)]), r"colour \[1, 2, 300\] of the palette"),
        (
            lambda: MaskOverlayNode(name="m")(
                rgb_image=torch.zeros(1, 2, 2, 3), mask=torch.zeros(1, 2, 3, dtype=torch.int32)
            ),
            r"m\.mask has shape .* same batch, y and x",
        ),
        (lambda: ClassMapToRGB(name="c")(class_map=torch.zeros(1, 2, 2)), r"c\.class_map is"),
    ],
)
def test_mistakes_are_told(call, text):
    with pytest.raises(PipelineError, match=text):
        call()
