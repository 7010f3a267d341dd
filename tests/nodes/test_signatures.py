"""Spectra of objects, against SciPy and plain NumPy."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, labelled, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    BBoxSpectralExtractor,
    ChannelAxis,
    IntensityThresholdSegmenter,
    MaskedMeanSpectrum,
    SignaturesToReferences,
    SpatialRotateNode,
    SpectralAngleMapper,
    SpectralSignatureExtractor,
)


def drawn(seed, height=14, width=11, channels=3):
    rng = np.random.default_rng(seed)
    cube = rng.uniform(0.1, 2.0, (height, width, channels)).astype("f4")
    return cube, rng.integers(0, 4, (height, width)).astype("i4")


def tensors(*values):
    return [torch.from_numpy(value)[None] for value in values]


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.3, 0.49]))
def test_signatures_are_trimmed_means(seed, trim):
    values, labels = drawn(seed)
    values[2, 3] = np.nan
    values[4, 5] = 0.0
    cube, mask = tensors(values, labels)
    out = SpectralSignatureExtractor(trim, min_mask_pixels=1)(cube=cube, mask=mask)
    good = np.isfinite(values).all(-1) & (values > 0).any(-1)
    for index, number in enumerate((1, 2, 3)):
        x = values[(labels == number) & good].astype(float)
        np.testing.assert_allclose(out["signatures"][0, index], trim_mean(x, trim), rtol=1e-6)
        cut = int(len(x) * trim)
        spread = np.sort(x, axis=0)[cut : len(x) - cut].std(axis=0)
        np.testing.assert_allclose(out["signatures_std"][0, index], spread, rtol=1e-5, atol=1e-7)


def test_objects_that_are_asked_for_and_those_too_small():
    cube, mask = tensors(*drawn(0))
    ids = torch.tensor([[9, 2]])
    out = SpectralSignatureExtractor(0.0)(cube=cube, mask=mask, object_ids=ids)["signatures"]
    assert out.shape == (1, 2, 3)
    assert not out[0, 0].any()
    np.testing.assert_allclose(out[0, 1], cube[mask == 2].double().mean(dim=0), rtol=1e-6)
    few = SpectralSignatureExtractor(min_mask_pixels=1000)(cube=cube, mask=mask)
    assert not few["signatures"].any()
    with pytest.raises(PipelineError, match="takes one frame at a time"):
        SpectralSignatureExtractor()(cube=cube.expand(2, -1, -1, -1), mask=mask)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_means_within_a_mask(seed):
    values, labels = drawn(seed)
    values[0, 0] = np.inf
    cube, mask = tensors(np.stack([values, values])[0], labels)
    both = torch.cat([cube, cube]), torch.cat([mask - 1, torch.zeros_like(mask)])
    out = MaskedMeanSpectrum()(cube=both[0], mask=both[1])
    expected = values[(labels > 1) & np.isfinite(values).all(-1)].astype(float).mean(axis=0)
    np.testing.assert_allclose(out["mean_spectrum"][0], expected, rtol=1e-6)
    assert out["valid"].tolist() == [1, 0]
    assert not out["mean_spectrum"][1].any()


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(-4, 18), min_size=4, max_size=4),
    st.sampled_from(["median", "mean"]),
    st.sampled_from([1.0, 0.65, 0.3]),
)
def test_spectra_of_boxes(seed, corners, how, scale):
    values, _ = drawn(seed)
    left, right = sorted(np.rint(corners[:2]).astype(int).clip(0, 11))
    top, bottom = sorted(np.rint(corners[2:]).astype(int).clip(0, 14))
    box = torch.tensor([[[min(corners[:2]), min(corners[2:]), max(corners[:2]), max(corners[2:])]]])
    node = BBoxSpectralExtractor(scale, 4, 0.0, l2_normalize=False, aggregation=how)
    out = node(cube=torch.from_numpy(values)[None], bboxes=box)
    aside, above = int((right - left) * (1 - scale) / 2), int((bottom - top) * (1 - scale) / 2)
    inner = values[top + above : bottom - above, left + aside : right - aside]
    if inner.shape[0] * inner.shape[1] < 4:
        inner = values[top:bottom, left:right]
    found = inner.reshape(-1, 3).astype(float)
    if len(found) < 4:
        assert out["spectral_valid"].item() == 0
        assert not out["spectral_signatures"].any()
        return
    expected = getattr(np, how)(found, axis=0)
    np.testing.assert_allclose(out["spectral_signatures"][0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(out["spectral_std"][0, 0], found.std(axis=0), rtol=1e-5)
    unit = BBoxSpectralExtractor(scale, 4, 0.0, aggregation=how)
    found = unit(cube=torch.from_numpy(values)[None], bboxes=box)["spectral_signatures"][0, 0]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-6)


def test_references():
    spectra = torch.tensor([[[3.0, 4.0], [-6.0, 0.0], [0.0, 0.0]]])
    unit = SignaturesToReferences("l2")(signatures=spectra)["spectral_signature"]
    assert unit.shape == (3, 1, 1, 2)
    np.testing.assert_allclose(unit[:, 0, 0], [[0.6, 0.8], [-1.0, 0.0], [0.0, 0.0]], rtol=1e-6)
    mean = SignaturesToReferences("unit_mean")(signatures=spectra)["spectral_signature"]
    np.testing.assert_allclose(mean[:2, 0, 0], [[6 / 7, 8 / 7], [-2.0, 0.0]], rtol=1e-6)


def angles_of_objects(turn=None):
    """data -> (turn) -> dark pixels -> their spectrum -> references of the mapper."""
    before = () if turn is None else (SpatialRotateNode(turn, name="turn"),)
    pipeline = chain(*before)
    first = pipeline.nodes["turn" if before else "data"]
    dark = IntensityThresholdSegmenter(0.0, 1000.0, name="dark")
    spectra = SpectralSignatureExtractor(0.1, name="spectra")
    references, mapper = SignaturesToReferences(name="refs"), SpectralAngleMapper(name="sam")
    pipeline.connect(
        (first.outputs.cube, dark.inputs.cube),
        (first.outputs.cube, spectra.inputs.cube),
        (dark.outputs.mask, spectra.inputs.mask),
        (spectra.outputs.signatures, references.inputs.signatures),
        (references.outputs.spectral_signature, mapper.inputs.spectral_signature),
        (first.outputs.cube, mapper.inputs.cube),
    )
    pipeline.resolve(ChannelAxis(3))
    return pipeline


def test_spectra_of_a_frame_are_references_of_it():
    cube = scene(30, 14, 3)
    x = cube.reshape(-1, 3).astype(float)
    reference = trim_mean(x[x.mean(axis=1) <= 1000.0], 0.1)
    cosine = x @ reference / np.linalg.norm(x, axis=1) / np.linalg.norm(reference)
    expected = np.arccos(cosine).reshape(30, 14)
    found = run(angles_of_objects(), "sam.best_scores", cube=cube, block=1)[..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    turned = angles_of_objects(90)
    with pytest.raises(PipelineError, match=r"sam\.best_scores holds every pixel, turned by 90"):
        turned.apply(labelled(cube), "sam.best_scores")
    back = SpatialRotateNode(-90, name="back")
    turned.connect((turned.nodes["sam"].outputs.best_scores, back.inputs.cube))
    found = turned.apply(labelled(cube), "back.cube").to_numpy()
    np.testing.assert_allclose(found.squeeze(), expected, atol=1e-6)


@pytest.mark.parametrize("port", ["spectra.signatures", "refs.spectral_signature"])
def test_spectra_are_no_maps(port):
    with pytest.raises(PipelineError, match=rf"{port} \(.*\) has no pixels, so it cannot"):
        angles_of_objects().apply(labelled(scene(30, 14, 3)), port)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SpectralSignatureExtractor(0.5), "trim_fraction 0.5 must be at least 0 and below"),
        (lambda: SpectralSignatureExtractor(min_mask_pixels=0), "min_mask_pixels 0 must be"),
        (lambda: BBoxSpectralExtractor(0.0), "center_crop_scale 0.0 must be above 0"),
        (lambda: BBoxSpectralExtractor(aggregation="max"), "aggregation 'max' is not"),
        (lambda: SignaturesToReferences("l1"), "normalize 'l1' is not"),
        (lambda: SpatialRotateNode(45), "rotation 45 is not 0, 90, 180 or 270"),
    ],
)
def test_arguments_that_make_no_sense(make, said):
    with pytest.raises(PipelineError, match=said):
        make()
