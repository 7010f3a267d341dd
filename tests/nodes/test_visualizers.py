"""What pictures show: colours that are there, sizes, names; never single pixels of a font."""

import sys

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, scene
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    AnomalyDataNode,
    AnomalyMask,
    Artifact,
    ArtifactType,
    BinaryDecider,
    ChannelAxis,
    ChannelWeightsViz,
    Context,
    CubeRGBVisualizer,
    PCAVisualization,
    RGBAnomalyMask,
    RXGlobal,
    ScoreHeatmapVisualizer,
    ScoreToLogit,
    SoftChannelSelector,
    Stage,
    TrainablePCA,
    node_classes,
)
from hsi_batch.nodes.canvas import reduced, stretched
from hsi_batch.pipeline import Pipeline

AT = Context(Stage.VAL, epoch=3, batch_idx=2, global_step=40)
GREEN, RED, YELLOW, CYAN = (44, 160, 44), (232, 38, 43), (255, 213, 0), (0, 213, 232)


def tensor(values):
    return torch.from_numpy(np.ascontiguousarray(values))


def flags(*where, shape=(20, 30)):
    values = np.zeros((1, *shape, 1), bool)
    for y, x in where:
        values[0, y, x] = True
    return tensor(values)


def holds(picture, colour):
    """Whether a colour, or it mixed into a dark frame as overlays are, is in the panels.

    The legend below the panels has the colours, too, and is cut off.
    """
    part = picture[: int(picture.shape[0] * 0.84)].astype(int)
    wanted = np.array(colour) * 0.8
    return bool((np.abs(part - wanted) <= 30).all(axis=-1).any())


def only(out):
    (found,) = out["artifacts"]
    assert isinstance(found, Artifact)
    assert found.value.dtype == np.uint8
    assert found.value.shape[2] == 3
    assert found.value.flags.owndata
    assert found.type is ArtifactType.IMAGE
    assert found.desc
    # It is no empty canvas.
    assert np.ptp(found.value) > 200
    return found


DARK = torch.zeros(1, 20, 30, 4)


def test_kinds_of_pixels_have_their_colours():
    node = AnomalyMask(2)
    both = node(
        cube=DARK, decisions=flags((3, 4), (9, 9)), mask=flags((3, 4), (15, 20)), context=AT
    )
    found = only(both)
    assert found[:1] + found[2:3] == ("anomaly_mask_img00", 0)
    assert (found.stage, found.epoch, found.batch_idx) == (Stage.VAL, 3, 2)
    assert all(holds(found.value, colour) for colour in (GREEN, RED, YELLOW))
    right = only(node(cube=DARK, decisions=flags((3, 4)), mask=flags((3, 4)))).value
    assert [holds(right, c) for c in (GREEN, RED, YELLOW, CYAN)] == [True, False, False, False]
    unlabelled = only(node(cube=DARK, decisions=flags((3, 4)))).value
    assert [holds(unlabelled, c) for c in (GREEN, RED, YELLOW, CYAN)] == [False] * 3 + [True]
    undecided = only(node(cube=DARK, mask=flags((3, 4)))).value
    assert [holds(undecided, c) for c in (GREEN, RED, YELLOW, CYAN)] == [False, False, True, False]
    plain = only(node(cube=DARK)).value
    scored = only(node(cube=DARK, scores=torch.rand(1, 20, 30, 1))).value
    assert plain.shape[1] < scored.shape[1] <= right.shape[1] + 100


@pytest.mark.parametrize("shape", [(3000, 300), (300, 3000), (1200, 1000), (1, 2000)])
def test_a_single_pixel_of_a_large_frame_is_seen(shape):
    cube = torch.zeros(1, *shape, 1)
    at = (shape[0] * 2 // 3, shape[1] // 3)
    found = only(AnomalyMask(0)(cube=cube, decisions=flags(at, shape=shape)))
    assert holds(found.value, CYAN)
    assert max(found.value.shape) < 1600
    wrong = AnomalyMask(0)(
        cube=cube, decisions=flags(at, shape=shape), mask=flags((0, 0), shape=shape)
    )
    assert holds(only(wrong).value, RED)
    assert holds(only(wrong).value, YELLOW)


@given(
    st.tuples(st.integers(1, 1500), st.integers(1, 1500)),
    st.integers(0, 2**32 - 1),
)
def test_reduced_frames_keep_their_largest_values(shape, seed):
    values = np.random.default_rng(seed).random(shape)
    small = reduced(values, np.max)
    assert small.shape[0] <= min(shape[0], 700)
    assert small.shape[1] <= min(shape[1], 400)
    assert small.max() == values.max()
    if shape[0] <= 100 and shape[1] <= 300:
        assert small.shape == shape


@given(st.integers(0, 2**32 - 1))
def test_brightness_is_between_percentiles(seed):
    values = np.random.default_rng(seed).normal(size=(20, 30)).astype("f4")
    values[0, :3] = np.nan, np.inf, -np.inf
    known = values[np.isfinite(values)].astype("f8")
    low, high = np.percentile(known, [1, 99])
    found = stretched(values)
    inside = np.isfinite(values) & (values > low) & (values < high)
    expected = (values[inside].astype("f8") - low) / (high - low)
    np.testing.assert_allclose(found[inside], expected, atol=1e-5)
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert (found[0, :3] == 0.7).all()
    assert (stretched(np.full((2, 2), 3.0)) == 0.5).all()
    assert (stretched(np.full((2, 2), np.nan)) == 0.7).all()


def test_a_picture_under_the_masks():
    rgb = torch.zeros(2, 20, 30, 3)
    rgb[..., 0] = 1.0
    two = RGBAnomalyMask()(rgb_image=rgb, decisions=flags((3, 4)).expand(2, -1, -1, -1))
    assert [a.name for a in two["artifacts"]] == [f"rgb_anomaly_mask_img{i:02d}" for i in (0, 1)]
    assert (two["artifacts"][0].value == (255, 0, 0)).all(axis=-1).mean() > 0.2
    one = RGBAnomalyMask(up_to=1)(rgb_image=300 * torch.rand(2, 20, 30, 3) - 20)
    assert len(only(one).value)


@pytest.mark.parametrize("normalize", [True, False])
def test_score_map(normalize):
    scores = torch.arange(600.0).reshape(1, 20, 30, 1)
    scores[0, 0, 0] = np.nan
    node = ScoreHeatmapVisualizer(normalize, cmap="gray")
    found = only(node(scores=scores, context=AT))
    assert found.name == "score_heatmap_img00"
    # NaN has a colour of its own.
    assert (found.value == (184, 190, 197)).all(axis=-1).any()
    # Constant, empty and infinite maps are drawn, too.
    for value in (5.0, np.nan, np.inf):
        assert node(scores=torch.full((1, 4, 4, 1), value))["artifacts"]


def test_an_outlier_does_not_hide_the_rest():
    scores = torch.rand(1, 40, 40, 1, generator=torch.Generator().manual_seed(0))
    plain = only(ScoreHeatmapVisualizer(cmap="gray")(scores=scores)).value
    scores[0, 5, 5] = 1e6
    spoiled = only(ScoreHeatmapVisualizer(cmap="gray")(scores=scores)).value
    inside = np.s_[100:400, 100:400]
    assert abs(plain[inside].mean() - spoiled[inside].mean()) < 10


def test_channels_of_largest_weight_are_red_green_and_blue():
    cube = torch.zeros(1, 20, 20, 4)
    cube[:, :, :10, 3] = 1.0  # largest weight: red on the left
    cube[:, 10:, 10:, 0] = 1.0  # second: green
    weights = torch.tensor([0.5, 0.1, 0.2, 0.9])
    found = only(CubeRGBVisualizer()(cube=cube, weights=weights, context=AT))
    assert found.name == "viz_rgb_sample_0"
    share = {
        colour: (found.value == colour).all(axis=-1).mean()
        for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    }
    assert share[255, 0, 0] == pytest.approx(2 * share[0, 255, 0], rel=0.1)
    assert share[0, 0, 255] == 0
    wavelengths = np.array([400, 500, 600, 700], dtype=np.int32)
    named = only(CubeRGBVisualizer()(cube=cube, weights=weights, wavelengths=wavelengths))
    assert not np.array_equal(named.value, found.value)
    assert only(CubeRGBVisualizer()(cube=cube[..., :1], weights=weights[:1]))
    many = CubeRGBVisualizer(up_to=2)(cube=cube.expand(3, -1, -1, -1), weights=weights)
    assert [a.el_id for a in many["artifacts"]] == [0, 1]


def test_components():
    data = torch.randn(1, 30, 200, 4, generator=torch.Generator().manual_seed(1))
    found = only(PCAVisualization()(data=data, context=AT))
    assert found.name == "pca_projection_img00"
    assert only(PCAVisualization()(data=data[..., :2])).value.shape == found.value.shape
    assert only(PCAVisualization()(data=torch.rand(1, 1, 1, 3)))
    assert PCAVisualization.stages == {Stage.VAL}
    assert len(PCAVisualization()(data=data.expand(3, -1, -1, -1))["artifacts"]) == 3


def test_matrix_of_weights():
    weights = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    node = ChannelWeightsViz(cell_height=50, cell_width=100)
    found = only(node(weights=weights, wavelengths=np.array([400, 500, 600]), context=AT))
    assert found.name == "mixing_matrix"
    red, blue = (103, 0, 31), (5, 48, 97)
    cells = [(np.abs(found.value.astype(int) - c) <= 2).all(axis=-1).sum() for c in (red, blue)]
    # Two cells are +1 and one is -1; the scale at the side has both colours, too.
    assert 2 * 50 * 100 * 0.95 <= cells[0] <= 2 * 50 * 100 * 1.05
    assert 50 * 100 * 0.95 <= cells[1] <= 50 * 100 * 1.1
    assert only(node(weights=torch.rand(7))).value.shape[0] < found.value.shape[0]
    assert only(ChannelWeightsViz()(weights=torch.rand(2, 3000))).value.shape[1] < 4400
    assert only(node(weights=torch.zeros(2, 3)))


def test_not_every_batch_is_drawn():
    node = ChannelWeightsViz(log_every_n_batches=3)
    drawn = [
        bool(node(weights=torch.rand(3, 4), context=Context(batch_idx=i))["artifacts"])
        for i in range(7)
    ]
    assert drawn == [True, False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: AnomalyMask(-1), "channel -1 must not be negative"),
        (lambda: AnomalyMask(4, name="m")(cube=DARK), r"m: channel 4 does not exist.*0 to 3"),
        (lambda: AnomalyMask(0, up_to=-1), "up_to -1 must not be negative"),
        (lambda: ScoreHeatmapVisualizer(cmap="infern"), "Did you mean 'inferno'"),
        (lambda: ChannelWeightsViz(cell_width=0), "cell_width 0 must be 1 or more"),
        (lambda: ChannelWeightsViz(log_every_n_batches=0), "log_every_n_batches 0 must be 1"),
        (lambda: PCAVisualization()(data=torch.rand(1, 2, 2, 1)), "at least 2 are needed"),
        (
            lambda: CubeRGBVisualizer(name="v")(cube=DARK, weights=torch.ones(3)),
            r"v\.cube has 4 channels, v\.weights has 3",
        ),
        (
            lambda: CubeRGBVisualizer()(cube=DARK, weights=torch.ones(4), wavelengths=[1, 2]),
            "4 channels came with wavelengths of shape",
        ),
        (
            lambda: AnomalyMask(0, name="m")(cube=DARK, decisions=flags((0, 0), shape=(20, 29))),
            r"m\.decisions has shape .* same batch, y and x",
        ),
        (lambda: ChannelWeightsViz()(weights=torch.rand(1, 2, 3)), r"expected \(row, channel\)"),
    ],
)
def test_mistakes_are_told(call, text):
    with pytest.raises(PipelineError, match=text):
        call()


def test_matplotlib_keeps_no_figures():
    only(AnomalyMask(0)(cube=DARK))
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_in_a_graph_saved_and_loaded(tmp_path):
    cube = scene(channels=4)
    pipeline = chain(
        SoftChannelSelector(2, name="select"),
        RXGlobal(name="rx", eps=0.0),
        ScoreToLogit(name="logit"),
        BinaryDecider(name="decide"),
        source=AnomalyDataNode(name="data"),
    )
    nodes = pipeline.nodes
    pca, viz_pca = TrainablePCA(n_components=2, name="pca"), PCAVisualization(1, name="viz_pca")
    mask, rgb = AnomalyMask(3, up_to=5, name="mask"), CubeRGBVisualizer(name="rgb")
    heat = ScoreHeatmapVisualizer(False, "magma", None, name="heat")
    data = nodes["data"].outputs
    pipeline.connect(
        (nodes["decide"].decisions, mask.decisions),
        (data.mask, mask.mask),
        (data.cube, mask.cube),
        (nodes["rx"].scores, mask.scores),
        (data.cube, rgb.cube),
        (nodes["select"].weights, rgb.weights),
        (data.wavelengths, rgb.wavelengths),
        (nodes["rx"].scores, heat.scores),
        (data.cube, pca.data),
        (pca.projected, viz_pca.data),
    )
    fit(pipeline, cube, axis=ChannelAxis.of([450.0, 550.0, 650.0, 750.0]))
    pipeline = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    assert pipeline.nodes["mask"].hparams == {"channel": 3, "up_to": 5}
    batch = {
        "cube": torch.from_numpy(cube.astype("f4"))[None],
        "mask": torch.ones(1, *cube.shape[:2], dtype=torch.int32),
        "wavelengths": torch.tensor([[450, 550, 650, 750]], dtype=torch.int32),
    }
    drawn = {
        stage: {name for name, port in pipeline.forward(batch, stage=stage) if port == "artifacts"}
        for stage in Stage
    }
    assert drawn == {
        Stage.TRAIN: set(),
        Stage.INFERENCE: set(),
        Stage.VAL: {"mask", "rgb", "heat", "viz_pca"},
        Stage.TEST: {"mask", "rgb", "heat"},
    }
    assert "ImageArtifactVizBase" not in node_classes()
