"""Frames as pictures, pixel by pixel, against NumPy and the colour table of matplotlib."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    AnomalyDataNode,
    ArtifactType,
    ChannelSelectorFalseRGBViz,
    Context,
    PipelineComparisonVisualizer,
    Stage,
)
from hsi_batch.pipeline import Pipeline

AT = Context(Stage.TRAIN, epoch=3, batch_idx=2, global_step=40)
SEEDS = st.integers(0, 2**32 - 1)


def tensor(values):
    return torch.from_numpy(np.ascontiguousarray(values))


def as_bytes(picture):
    return np.rint(255 * np.asarray(picture, dtype="f8"))


def stretch(image):
    """Between the 1st and the 99th percentile of all channels."""
    low, high = np.percentile(image.astype("f8"), [1, 99])
    return np.clip((image.astype("f8") - low) / (high - low), 0, 1)


def near(found, expected):
    """The same bytes, but for rounding of halves."""
    assert found.dtype == np.uint8
    assert found.shape == np.shape(expected)
    assert np.abs(found.astype(int) - expected).max() <= 1


def pictures(out):
    return {a.name: a.value for a in out["artifacts"]}


@settings(max_examples=15)
@given(SEEDS, st.floats(0, 1), st.sampled_from([(0.0, 1.0), (-3.0, 900.0)]))
def test_false_colours_and_the_mask_over_them(seed, alpha, ends):
    rng = np.random.default_rng(seed)
    rgb = rng.uniform(*ends, size=(3, 6, 7, 3)).astype("f4")
    mask = rng.integers(0, 3, size=(3, 6, 7)).astype("i4")
    mask[1] = 0
    out = ChannelSelectorFalseRGBViz(alpha)(rgb_output=tensor(rgb), mask=tensor(mask), context=AT)
    found = pictures(out)
    assert list(found) == [
        "false_rgb_sample_0",
        "mask_overlay_sample_0",
        "false_rgb_sample_1",
        "false_rgb_sample_2",
        "mask_overlay_sample_2",
    ]
    for i, frame in enumerate(rgb):
        expected = frame.astype("f8") if ends == (0.0, 1.0) else stretch(frame)
        near(found[f"false_rgb_sample_{i}"], as_bytes(expected))
        if i != 1:
            mixed = np.where(
                mask[i][..., None] > 0, (1 - alpha) * expected + alpha * np.eye(3)[0], expected
            )
            near(found[f"mask_overlay_sample_{i}"], as_bytes(mixed))
    first = out["artifacts"][0]
    assert (first.el_id, first.stage, first.epoch, first.batch_idx) == (0, Stage.TRAIN, 3, 2)
    assert first.type is ArtifactType.IMAGE
    assert first.desc


@settings(max_examples=15)
@given(
    SEEDS,
    st.sampled_from(
        [
            (None, 50, [0, 20, 40]),
            (None, 7, [0, 3, 6]),
            ([0, 20, 40], 7, [0, 3, 6]),
            ([4, 0, 2], 5, [4, 0, 2]),
        ]
    ),
)
def test_what_a_mixer_does_beside_labels_and_scores(seed, choice):
    channels, count, used = choice
    rng = np.random.default_rng(seed)
    cube = rng.uniform(0, 4000, size=(2, 6, 7, count)).astype("f4")
    mixed = rng.uniform(0, 1, size=(2, 6, 7, 3)).astype("f4")
    labels = rng.random((2, 6, 7, 1)) < 0.2
    scores = rng.gamma(2, size=(2, 6, 7, 1)).astype("f4")
    scores[0, 0, 0] = np.nan
    node = PipelineComparisonVisualizer(channels, max_samples=2)
    found = pictures(
        node(
            hsi_cube=tensor(cube),
            mixer_output=tensor(mixed),
            ground_truth_mask=tensor(labels),
            anomaly_scores=tensor(scores),
            context=AT,
        )
    )
    assert len(found) == 8
    for i in range(2):
        near(found[f"hsi_input_sample_{i}"], as_bytes(stretch(cube[i][..., used])))
        near(found[f"mixer_output_adaclip_input_sample_{i}"], as_bytes(mixed[i]))
        np.testing.assert_array_equal(
            found[f"ground_truth_mask_sample_{i}"], 255 * np.repeat(labels[i], 3, axis=-1)
        )
        known = scores[i, ..., 0].astype("f8")
        low, top = np.nanmin(known), np.nanquantile(known, 0.998)
        # The table has 256 colours; between two of them a float may round either way.
        place = np.clip((known - low) / (top - low), 0, 1) * 256
        table = np.array(colormaps["inferno"].colors)
        heat = found[f"anomaly_scores_heatmap_sample_{i}"]
        sure = ~np.isnan(known) & (np.abs(place - np.rint(place)) > 1e-6)
        index = np.minimum(place[sure].astype(int), 255)
        assert np.abs(heat[sure].astype(int) - as_bytes(table[index])).max() <= 1
    # What is not finite is grey.
    assert found["anomaly_scores_heatmap_sample_0"][0, 0].tolist() == [184, 190, 197]


def test_a_single_pixel_of_a_large_frame_is_seen():
    shape = (1, 2500, 1500)
    labels, scores = np.zeros((*shape, 1), bool), np.zeros((*shape, 1), "f4")
    labels[0, 1777, 333] = True
    scores[0, 1777, 333] = 1
    rgb = np.zeros((*shape, 3), "f4")
    drawn = pictures(
        PipelineComparisonVisualizer()(
            hsi_cube=tensor(rgb),
            mixer_output=tensor(rgb),
            ground_truth_mask=tensor(labels),
            anomaly_scores=tensor(scores),
        )
    )
    drawn |= pictures(
        ChannelSelectorFalseRGBViz(1.0)(
            rgb_output=tensor(rgb), mask=tensor(labels[..., 0].astype("i4"))
        )
    )
    assert {p.shape for p in drawn.values()} == {(834, 750, 3)}
    for name, colour in {
        "ground_truth_mask_sample_0": [255, 255, 255],
        "mask_overlay_sample_0": [255, 0, 0],
        "anomaly_scores_heatmap_sample_0": [252, 255, 164],
    }.items():
        assert drawn[name][1777 // 3, 333 // 2].tolist() == colour
        assert (drawn[name] == colour).all(axis=-1).sum() == 1


def test_measurements_have_their_numbers_and_not_every_batch_is_drawn():
    node = ChannelSelectorFalseRGBViz(max_samples=2, log_every_n_batches=2)
    rgb, numbers = torch.rand(3, 4, 4, 3), torch.tensor([7, 9, 11])
    names = [
        list(pictures(node(rgb_output=rgb, mesu_index=numbers, context=Context(batch_idx=i))))
        for i in range(3)
    ]
    assert names == [["false_rgb_mesu_7", "false_rgb_mesu_9"], [], names[0]]
    compare = PipelineComparisonVisualizer(log_every_n_batches=2)
    flat = torch.zeros(3, 4, 4, 1)
    late = compare(
        hsi_cube=rgb,
        mixer_output=rgb,
        ground_truth_mask=flat > 0,
        anomaly_scores=flat,
        context=Context(batch_idx=1),
    )
    assert late == {"artifacts": []}


def test_in_a_graph_saved_and_loaded(tmp_path):
    data, viz = AnomalyDataNode(name="data"), ChannelSelectorFalseRGBViz(0.3, 2, name="viz")
    compare = PipelineComparisonVisualizer([0, 1, 2], name="compare")
    pipeline = Pipeline("pictures")
    pipeline.connect(
        (data.outputs.cube, viz.rgb_output),
        (data.outputs.mesu_index, viz.mesu_index),
        (data.outputs.cube, compare.hsi_cube),
        (data.outputs.cube, compare.mixer_output),
        (data.outputs.mask, compare.ground_truth_mask),
    )
    from hsi_batch.nodes import RXPerBatch

    rx = RXPerBatch(name="rx")
    pipeline.connect((data.outputs.cube, rx.data), (rx.scores, compare.anomaly_scores))
    pipeline = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    assert pipeline.nodes["viz"].hparams["mask_overlay_alpha"] == 0.3
    assert pipeline.nodes["compare"].hparams["hsi_channels"] == [0, 1, 2]
    batch = {
        "cube": torch.rand(1, 6, 7, 3),
        "mask": torch.ones(1, 6, 7, dtype=torch.int32),
        "mesu_index": torch.tensor([5]),
    }
    for stage in Stage:
        out = pipeline.forward(batch, stage=stage)
        names = [a.name for key, value in out.items() if key[1] == "artifacts" for a in value]
        assert len(names) == (0 if stage is Stage.INFERENCE else 5)
        assert not names or "false_rgb_mesu_5" in names


FLAT = torch.zeros(1, 2, 2, 1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ChannelSelectorFalseRGBViz(-0.1), r"mask_overlay_alpha -0\.1 is not between"),
        (
            lambda: ChannelSelectorFalseRGBViz(name="v")(
                rgb_output=torch.rand(2, 2, 2, 3), mesu_index=torch.tensor([1])
            ),
            r"v\.mesu_index has 1 numbers for 2 frames",
        ),
        (lambda: ChannelSelectorFalseRGBViz()(rgb_output=FLAT), r"expected \(batch, y, x, 3\)"),
        (lambda: PipelineComparisonVisualizer([0, 1]), r"\[0, 1\] must be three channels"),
        (lambda: PipelineComparisonVisualizer([0, 1, -1]), "must be three channels"),
        (
            lambda: PipelineComparisonVisualizer([0, 1, 3], name="p")(
                hsi_cube=torch.rand(1, 2, 2, 3),
                mixer_output=torch.rand(1, 2, 2, 3),
                ground_truth_mask=FLAT > 0,
                anomaly_scores=FLAT,
            ),
            "p: channel 3 does not exist; the cube has 3 channels, 0 to 2",
        ),
    ],
)
def test_mistakes_are_told(call, text):
    with pytest.raises(PipelineError, match=text):
        call()
