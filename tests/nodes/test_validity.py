"""Which pixels can be trusted, and that fits count no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graph_helpers import run, source_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataWarning, PipelineError, PlanError
from hsi_batch.nodes import (
    BinaryAnomalyLabelMapper,
    ChannelAxis,
    CU3SDataNode,
    MinMaxNormalizer,
    PerPixelUnitNorm,
    RXGlobal,
    SaturatedPixelDetector,
    SpectralValidity,
    TrainablePCA,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.fitting import Fitting, plan_fit
from hsi_batch.pipeline.gather import finished
from hsi_batch.pipeline.passes import gather_frame
from hsi_batch.statistics import Bundle

SEEDS = st.integers(0, 2**32 - 1)


def cube_of(seed, height=40, width=14, channels=3):
    rng = np.random.default_rng(seed)
    cube = rng.uniform(1, 90, (height, width, channels)).astype(np.float32)
    cube[rng.random((height, width)) < 0.1] *= 0.01
    cube[rng.random((height, width, channels)) < 0.03] = 100
    cube[rng.random((height, width, channels)) < 0.02] = rng.choice([np.nan, np.inf, -np.inf])
    return cube


def reasons(cube, floor=5.0, saturation=100.0, margin=(0, 0)):
    """The first reason that applies, pixel by pixel."""
    height, width, _ = cube.shape
    found = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            spectrum = cube[y, x].astype(float)
            inside = margin[0] <= y < height - margin[0] and margin[1] <= x < width - margin[1]
            if not np.isfinite(spectrum).all():
                found[y, x] = 1
            elif np.sqrt((spectrum**2).sum()) < floor:
                found[y, x] = 2
            elif (spectrum >= saturation).any():
                found[y, x] = 3
            elif not inside:
                found[y, x] = 4
    return found


@settings(max_examples=10)
@given(SEEDS, st.sampled_from([0, 25, 10_000]))
def test_reasons(seed, margin):
    cube = cube_of(seed, height=20, width=15)
    node = SpectralValidity(
        norm_floor=5, saturation_value=100, roi_margin_px=margin, roi_reference_hw=(100, 150)
    )
    out = node(cube=torch.from_numpy(cube)[None])
    ends = {0: (0, 0), 25: (5, 2), 10_000: (9, 7)}[margin]
    expected = reasons(cube, margin=ends)
    np.testing.assert_array_equal(out["invalid_reason"][0, ..., 0], expected)
    np.testing.assert_array_equal(out["valid_mask"][0, ..., 0], expected == 0)
    region = (20 - 2 * ends[0]) * (15 - 2 * ends[1])
    share = (expected == 0).sum() / region
    assert out["valid_fraction"].item() == pytest.approx(share, rel=1e-6)
    assert out["frame_status"].item() == (share < 0.5)
    assert node.scope == ("frame" if margin else "pixel")


def test_other_channels_than_expected():
    node = SpectralValidity(expected_wavelengths=[500, 600, 700], name="validity")
    cube = torch.full((2, 3, 4, 3), 9.0)
    assert node(cube=cube, wavelengths=np.array([500, 601, 700]))["valid_mask"].all()
    out = node(cube=cube, wavelengths=np.array([500, 602, 700]))
    assert out["frame_status"].tolist() == [2, 2]
    assert not out["valid_mask"].any()
    assert out["invalid_reason"].unique().tolist() == [1]
    with pytest.warns(DataWarning, match="the 2 channels of the data are not those expected"):
        node.channel_axis({"cube": ChannelAxis.of([500.0, 600.0])})
    assert SpectralValidity(n_features=4)(cube=cube)["frame_status"].tolist() == [2, 2]


def graph(validity, *nodes):
    pipeline = Pipeline("valid")
    data = CU3SDataNode(name="data")
    pipeline.connect(data.outputs.cube, validity.inputs.cube)
    last = data.outputs.cube
    for node in nodes:
        pipeline.connect(last, node.inputs.data)
        last = node.outputs[node.AFFINE[1] if node.AFFINE else next(iter(node.OUTPUT_SPECS))]
    return pipeline


def fit(pipeline, *cubes, valid=None, block=None, stored=("moments", "extrema")):
    pipeline.resolve(ChannelAxis(cubes[0].shape[2]))
    plan = plan_fit(pipeline, stored)
    fitting = Fitting(pipeline, plan)
    while needs := fitting.needs():
        bundle = Bundle()
        for index, cube in enumerate(cubes):
            source = source_of(cube, valid, block)
            place = ((index, len(cubes)),)
            bundle = bundle.merge(gather_frame(pack(pipeline), needs, source, source.blocks, place))
        fitting.supply({need: finished(bundle)[str(need)] for need in needs})
    assert fitting.done
    return plan


@settings(max_examples=8)
@given(SEEDS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from([0, 100]))
def test_fits_count_valid_pixels_alone(seed, block, flagged, margin):
    cubes = [cube_of(seed), cube_of(seed + 1)]
    valid = np.random.default_rng(seed).random(cubes[0].shape[:2]) < 0.8 if flagged else None
    validity = SpectralValidity(
        norm_floor=5, saturation_value=100, roi_margin_px=margin, name="validity"
    )
    norm, pca = MinMaxNormalizer(name="norm"), TrainablePCA(n_components=2, name="pca")
    unit, last = PerPixelUnitNorm(name="unit"), TrainablePCA(n_components=2, name="last")
    pipeline = graph(validity, norm, pca, unit, last)
    plan = fit(pipeline, *cubes, valid=valid, block=block)
    # Stored statistics count other pixels.
    assert plan.passes == 2
    margins = (round(margin * 40 / 1000), round(margin * 14 / 1080))
    used = [
        cube[(reasons(cube, margin=margins) == 0) & (True if valid is None else valid)]
        for cube in cubes
    ]
    x = np.concatenate(used).astype(np.float64)
    assert norm.running_min.item() == x.min().astype(np.float32)
    assert norm.running_max.item() == x.max().astype(np.float32)
    scaled = (x - x.min()) / (x.max() - x.min())
    np.testing.assert_allclose(pca.state["mean"], scaled.mean(axis=0), rtol=1e-9)
    assert int(last.state["count"]) == len(x)


def test_scores_are_given_for_all_pixels():
    cube = cube_of(5)
    validity = SpectralValidity(norm_floor=5, saturation_value=100, name="validity")
    pipeline = graph(validity, RXGlobal(name="rx", eps=0.0))
    fit(pipeline, cube)
    scores, reason = run(pipeline, "scores", "invalid_reason", cube=cube, block=1)
    assert np.isfinite(scores[reason != 1]).all()
    np.testing.assert_array_equal(reason[..., 0], reasons(cube))


def test_it_must_come_before_what_is_fitted():
    norm, validity = MinMaxNormalizer(name="norm"), SpectralValidity(name="validity")
    pipeline = Pipeline("late")
    data = CU3SDataNode(name="data")
    pipeline.connect(data.outputs.cube, norm.inputs.data)
    pipeline.connect(norm.outputs.normalized, validity.inputs.cube)
    pipeline.resolve(ChannelAxis(3))
    with pytest.raises(PlanError, match=r"validity.valid_mask marks .* comes after norm"):
        plan_fit(pipeline)


@settings(max_examples=20)
@given(SEEDS, st.sampled_from([0.0, 0.3, 0.5]))
def test_saturation(seed, threshold):
    cube = np.random.default_rng(seed).integers(0, 12, (6, 5, 4)).astype(np.float32)
    out = SaturatedPixelDetector(10, threshold)(cube=torch.from_numpy(cube)[None])
    share = (cube >= 10).sum(axis=-1) / 4
    np.testing.assert_array_equal(out["scores"][0, ..., 0], share)
    np.testing.assert_array_equal(out["decisions"][0, ..., 0], share > threshold)


def test_class_numbers_become_anomalies():
    mask = torch.tensor([-1, 0, 1, 2, 7], dtype=torch.int32).reshape(1, 1, 5, 1)
    cube = torch.arange(5.0).reshape(1, 1, 5, 1)
    for node, expected in (
        (BinaryAnomalyLabelMapper([0, 1]), [False, False, False, True, True]),
        (BinaryAnomalyLabelMapper([0], [2]), [False, False, False, True, False]),
    ):
        out = node(cube=cube, mask=mask)
        assert out["mask"].flatten().tolist() == expected
        assert out["cube"] is cube
    with pytest.raises(PipelineError, match=r"classes \[1\] are in normal_class_ids and"):
        BinaryAnomalyLabelMapper([0, 1], [1])


def test_data_pass_a_label_mapper_without_reading():
    mapper, pca = BinaryAnomalyLabelMapper([0], name="labels"), TrainablePCA(n_components=2)
    data = CU3SDataNode(name="data")
    pipeline = Pipeline("labels")
    pipeline.connect(data.outputs.cube, mapper.inputs.cube)
    mapper.INPUT_SPECS = {**mapper.INPUT_SPECS}
    mapper.INPUT_SPECS["mask"] = replace(mapper.INPUT_SPECS["mask"], optional=True)
    pipeline.connect(mapper.outputs.cube, pca.inputs.data)
    pipeline.resolve(ChannelAxis(3))
    assert plan_fit(pipeline, ("moments",)).passes == 0


def test_what_is_refused():
    with pytest.raises(PipelineError, match="n_features 0 must be at least 1"):
        SpectralValidity(n_features=0)
    with pytest.raises(PipelineError, match=r"roi_reference_hw \[5\] is not"):
        SpectralValidity(roi_reference_hw=[5])
    with pytest.raises(PipelineError, match="norm_floor -1"):
        SpectralValidity(norm_floor=-1)
