"""Fusion of maps, gates of frames and deciders in two stages, against NumPy."""

import logging

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, run, scene
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import gmean

from hsi_batch.errors import PipelineError, PlanError
from hsi_batch.nodes import (
    BinaryDecider,
    Context,
    DecisionFusion,
    FrameScoreGate,
    LADGlobal,
    MultiRangeSlicer,
    QuantileBinaryDecider,
    RXGlobal,
    Scope,
    ScoreMapFusion,
    ScoreThreshold,
    Stage,
    TwoStageBinaryDecider,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit

SEEDS = st.integers(0, 2**32 - 1)


def maps(seed, count=3, shape=(2, 4, 5, 1)):
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 5, size=shape).astype("f4") for _ in range(count)]


def tensors(arrays):
    return [torch.from_numpy(a) for a in arrays]


# --- fusion -------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 4))
def test_score_maps_are_fused_pixel_by_pixel(seed, count):
    given_maps = maps(seed, count)
    exact = np.stack(given_maps).astype("f8")
    weights = np.random.default_rng(seed).uniform(0.1, 3, size=count)
    share = (weights / weights.sum())[:, None, None, None, None]
    soft = -logsumexp(-2.0 * exact, b=share, axis=0) / 2.0
    cases = [
        (("mean",), exact.mean(axis=0)),
        (("min",), exact.min(axis=0)),
        (("max",), exact.max(axis=0)),
        (("gmean",), gmean(exact, axis=0)),
        (("wmean", weights.tolist()), (exact * share).sum(axis=0)),
        (("softmin", weights.tolist(), 2.0), soft),
    ]
    for arguments, expected in cases:
        found = ScoreMapFusion(*arguments)(scores=tensors(given_maps))["scores"].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == np.float32


def test_negative_values_and_nan():
    a, b = (torch.tensor([[[[v]]]]) for v in (-1.0, 4.0))
    assert float(ScoreMapFusion("gmean")(scores=[a, b])["scores"]) == 0
    nan = torch.full((1, 1, 1, 1), torch.nan)
    for mode in ("mean", "min", "max", "gmean"):
        assert torch.isnan(ScoreMapFusion(mode)(scores=[nan, b])["scores"]).all()


def test_the_first_live_map_of_each_frame():
    zero, one, two = torch.zeros(2, 3, 3, 1), torch.zeros(2, 3, 3, 1), torch.full((2, 3, 3, 1), 2.0)
    one[0, 1, 1] = 1
    out = ScoreMapFusion("first")(scores=[zero, one, two])["scores"]
    assert torch.equal(out[0], one[0])
    assert torch.equal(out[1], two[1])
    assert not ScoreMapFusion("first")(scores=[zero, zero])["scores"].any()
    flags = DecisionFusion("first")(decisions=[zero > 0, one > 0, two > 0])["decisions"]
    assert torch.equal(flags[0], one[0] > 0)
    assert flags[1].all()
    assert ScoreMapFusion("first").scope is DecisionFusion("first").scope is Scope.FRAME
    assert ScoreMapFusion().scope is DecisionFusion().scope is Scope.PIXEL


@given(SEEDS)
def test_decisions_are_fused_pixel_by_pixel(seed):
    flags = [m > 2.5 for m in maps(seed)]
    found = {m: DecisionFusion(m)(decisions=tensors(flags))["decisions"] for m in ("any", "all")}
    np.testing.assert_array_equal(found["any"], np.any(flags, axis=0))
    np.testing.assert_array_equal(found["all"], np.all(flags, axis=0))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("sum",), "mode 'sum' is not one of"),
        (("wmean",), "weights are needed"),
        (("mean", [1.0]), "weights belong to the modes"),
        (("wmean", [0.0, 0.0]), "must be 0 or more, and not all 0"),
        (("softmin",), "beta None belongs to the mode 'softmin', which needs it"),
        (("mean", None, 1.0), r"beta 1\.0 belongs to"),
        (("softmin", None, -1.0), r"beta -1\.0 must be above 0"),
    ],
)
def test_mistakes_of_fusion(arguments, text):
    with pytest.raises(PipelineError, match=text):
        ScoreMapFusion(*arguments)


def test_maps_must_agree():
    with pytest.raises(PipelineError, match="f takes maps of one shape; it got"):
        ScoreMapFusion(name="f")(scores=[torch.zeros(1, 2, 2, 1), torch.zeros(1, 2, 3, 1)])
    with pytest.raises(PipelineError, match="2 maps came for 1 weights"):
        ScoreMapFusion("wmean", [1.0])(scores=[torch.zeros(1, 1, 1, 1)] * 2)
    with pytest.raises(PipelineError, match="mode 'none' is not one of any, all, first"):
        DecisionFusion("none")


def test_two_detectors_in_a_graph(tmp_path):
    cube = scene(40, 30)
    pipeline = chain(RXGlobal(name="rx", eps=0.0))
    lad, fusion = LADGlobal(name="lad"), ScoreMapFusion("wmean", [1.0, 3.0], name="f")
    cube_port = pipeline.nodes["data"].outputs.cube
    pipeline.connect(
        (cube_port, lad.data),
        (pipeline.nodes["rx"].scores, fusion.inputs.scores),
        (lad.scores, fusion.inputs.scores),
    )
    fit(pipeline, cube)
    pipeline = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    rx, lad_scores, fused = run(pipeline, "rx.scores", "lad.scores", "f.scores", cube=cube, block=1)
    expected = rx.astype("f8") / 4 + lad_scores.astype("f8") * 3 / 4
    np.testing.assert_allclose(fused, expected, rtol=1e-6)


# --- two stages ---------------------------------------------------------------------------------


def top(values, fraction):
    values = np.sort(values[~np.isnan(values)].astype("f8"))
    return values[-max(1, int(np.ceil(np.float32(values.size * fraction)))) :].mean()


@given(SEEDS, st.sampled_from([0.001, 0.1, 1.0]), st.sampled_from([None, 3.0]), st.integers(1, 2))
def test_two_stages(seed, fraction, pixel, channels):
    scores = maps(seed, 1, (3, 6, 5, channels))[0]
    scores[0, 2, 2] = np.nan
    gate = float(np.median([top(image.max(axis=-1), fraction) for image in scores]))
    node = TwoStageBinaryDecider(gate, fraction, 0.9, pixel)
    out = node(logits=torch.from_numpy(scores))
    for i, image in enumerate(scores):
        best = image.max(axis=-1)
        own = top(best, fraction)
        limit = np.nanquantile(image.astype("f8"), 0.9) if pixel is None else pixel
        expected = (best >= limit) & (own >= gate)
        np.testing.assert_array_equal(out["decisions"][i, ..., 0], expected)
        assert float(out["image_threshold_score"][i]) == pytest.approx(own, rel=1e-6)
        assert float(out["pixel_threshold_value"][i]) == pytest.approx(limit, rel=1e-6)
        span = [np.nanmin(best), np.nanmax(best)]
        np.testing.assert_allclose(out["pixel_threshold_range"][i], span, rtol=1e-6)
        np.testing.assert_allclose(out["image_threshold_range"][i], [0, span[1]], rtol=1e-6)


@given(SEEDS)
def test_without_thresholds_it_is_a_quantile_decider(seed):
    scores = torch.from_numpy(maps(seed, 1, (2, 9, 8, 1))[0])
    one = TwoStageBinaryDecider(quantile=0.8)(logits=scores)
    other = QuantileBinaryDecider(0.8)(logits=scores)
    assert torch.equal(one["decisions"], other["decisions"])
    assert torch.isnan(one["image_threshold_value"]).all()


def test_thresholds_on_the_ports_and_before_calibration():
    scores = torch.arange(12.0).reshape(1, 3, 4, 1)
    node = TwoStageBinaryDecider(name="t")
    for stage in (Stage.TRAIN, Stage.VAL, Stage.TEST):
        assert node(logits=scores, context=Context(stage)) == {}
    out = node(logits=scores, pixel_threshold=torch.tensor([9.0]))
    assert out["decisions"].sum() == 3
    out = node(logits=scores, image_threshold=torch.tensor([11.5]))
    assert not out["decisions"].any()
    full = TwoStageBinaryDecider(1.0, pixel_threshold=10.0)
    assert full(logits=scores, context=Context(Stage.VAL))["decisions"].sum() == 2
    with pytest.raises(PipelineError, match=r"t\.pixel_threshold got .*it takes one finite number"):
        node(logits=scores, pixel_threshold=torch.tensor([1.0, 2.0]))
    for options, text in (
        ({"quantile": 2.0}, r"quantile 2\.0 is not between"),
        ({"top_k_fraction": 0.0}, r"top_k_fraction 0\.0 must be above 0"),
        ({"image_threshold": float("inf")}, "image_threshold inf must be a finite"),
    ):
        with pytest.raises(PipelineError, match=text):
            TwoStageBinaryDecider(**options)


# --- gates --------------------------------------------------------------------------------------


def test_frames_below_the_gate_are_blank():
    scores = torch.from_numpy(np.stack(maps(0, 1, (2, 6, 5, 1))))[0].clone()
    scores[0] += 10
    scores[1, 0, 0] = torch.nan
    node = FrameScoreGate(8.0, topk_frac=0.2, mask_threshold=12.0, core_ratio=1.1)
    out = node(scores=scores)
    assert torch.equal(out["scores"][0], scores[0])
    assert not out["scores"][1].any()
    assert out["passed"].tolist() == [1, 0]
    own = [top(image.numpy().ravel(), 0.2) for image in scores]
    np.testing.assert_allclose(out["frame_score"], own, rtol=1e-6)
    np.testing.assert_array_equal(out["decisions"][0], scores[0] > 12)
    np.testing.assert_array_equal(out["core"][0], scores[0] > 13.2)
    assert not out["decisions"][1].any()
    mask = FrameScoreGate(8.0, mode="mask", mask_threshold=12.0)(scores=scores)["scores"]
    np.testing.assert_array_equal(mask[0], (scores[0] > 12).float())
    swapped = FrameScoreGate(8.0)(scores=scores, alarm_scores=scores.flip(0))
    assert swapped["passed"].tolist() == [0, 1]
    with pytest.raises(PipelineError, match="1 alarm maps came with 2 score maps"):
        node(scores=scores, alarm_scores=scores[:1])


def test_the_median_of_the_last_frames(caplog):
    node = FrameScoreGate(5.0, smooth_k=3, log_scores=True, name="gate")
    passed = []
    with caplog.at_level(logging.INFO):
        for level in (1.0, 9.0, 1.0, 9.0, 9.0):
            passed += node(scores=torch.full((1, 2, 2, 1), level))["passed"].tolist()
    # The upper median of two.
    assert passed == [0, 1, 0, 1, 1]
    assert "gate: frame score 9, passed: True" in caplog.text
    node.reset()
    assert node(scores=torch.ones(1, 2, 2, 1))["passed"].tolist() == [0]
    with pytest.raises(PipelineError, match="smooth_k 3 takes one frame at a time, got 2"):
        node(scores=torch.ones(2, 2, 2, 1))
    with pytest.raises(PlanError, match=r"gate .FrameScoreGate. keeps state from frame to frame"):
        plan_fit(chain(RXGlobal(), node))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "x"}, "mode 'x' is not"),
        ({"topk_frac": 2.0}, r"topk_frac 2\.0 must be"),
        ({"smooth_k": 0}, "smooth_k 0 must be at least 1"),
        ({"core_ratio": 0.5}, r"core_ratio 0\.5 must be at least 1"),
        ({"core_ratio": 2.0, "mask_threshold": -1.0}, r"core_ratio 2\.0 must be"),
    ],
)
def test_mistakes_of_the_gate(options, text):
    with pytest.raises(PipelineError, match=text):
        FrameScoreGate(1.0, **options)


def test_gates_and_deciders_in_a_graph(tmp_path):
    cube = scene(40, 30)
    pipeline = chain(
        RXGlobal(name="rx", eps=0.0), FrameScoreGate(4.0, name="gate"),
    )  # fmt: skip
    two, slices = (
        TwoStageBinaryDecider(pixel_threshold=9.0, name="two"),
        MultiRangeSlicer([2, 6, 9]),
    )
    gate = pipeline.nodes["gate"]
    both = DecisionFusion("all", name="both")
    pipeline.connect(
        (gate.outputs.scores, two.logits),
        (gate.outputs.scores, slices.scores),
        (gate.outputs.decisions, both.inputs.decisions),
        (two.outputs.decisions, both.inputs.decisions),
    )
    fit(pipeline, cube)
    pipeline = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    rx, flagged, classes = run(
        pipeline, "rx.scores", "both.decisions", "class_mask", cube=cube, block=1
    )
    np.testing.assert_array_equal(flagged, rx >= 9)
    np.testing.assert_array_equal(classes, np.digitize(rx, [2, 6, 9], right=True))


# --- thresholds ---------------------------------------------------------------------------------


@given(SEEDS, st.floats(0, 5))
def test_score_thresholds(seed, threshold):
    scores = maps(seed, 1)[0]
    scores[0, 0, 0] = np.nan
    exact = scores.astype("f8")
    below = ScoreThreshold(threshold)(scores=torch.from_numpy(scores))["decisions"]
    above = ScoreThreshold(threshold, "above")(scores=torch.from_numpy(scores))["decisions"]
    np.testing.assert_array_equal(below, exact <= threshold)
    np.testing.assert_array_equal(above, exact > threshold)
    port = torch.tensor([2.0])
    fed = ScoreThreshold(threshold)(scores=torch.from_numpy(scores), threshold=port)["decisions"]
    np.testing.assert_array_equal(fed, exact <= 2.0)


@given(SEEDS, st.booleans())
def test_ranges(seed, right):
    scores = np.round(maps(seed, 1)[0])
    found = MultiRangeSlicer([1.0, 2.5, 4.0], right)(scores=torch.from_numpy(scores))["class_mask"]
    np.testing.assert_array_equal(found, np.digitize(scores[..., 0], [1, 2.5, 4], right=not right))
    assert found.dtype == torch.int32
    assert MultiRangeSlicer()(scores=torch.full((1, 1, 1, 1), torch.nan))["class_mask"].item() == -1


def test_a_quantile_for_every_line():
    scores = maps(3, 1, (2, 5, 40, 1))[0]
    scores[1, 2] = np.nan
    found = QuantileBinaryDecider(0.9, [2, 3])(logits=torch.from_numpy(scores))["decisions"]
    assert found.sum(dim=(2, 3)).tolist() == [[4] * 5, [4, 4, 0, 4, 4]]
    whole = QuantileBinaryDecider(0.9, [1, -2])(logits=torch.from_numpy(scores))["decisions"]
    assert torch.equal(
        whole, QuantileBinaryDecider(0.9)(logits=torch.from_numpy(scores))["decisions"]
    )
    with pytest.raises(PipelineError, match=r"reduce_dims \[0, 1\] must be axes"):
        QuantileBinaryDecider(0.9, [0, 1])


def test_mistakes_of_thresholds():
    with pytest.raises(PipelineError, match="keep 'x' is not 'below' or 'above'"):
        ScoreThreshold(keep="x")
    with pytest.raises(PipelineError, match="threshold nan must be a finite number"):
        ScoreThreshold(float("nan"))
    with pytest.raises(PipelineError, match=r"edges \[2\.0, 1\.0\] must be finite and ascending"):
        MultiRangeSlicer([2, 1])
    assert BinaryDecider().scope is ScoreThreshold().scope is MultiRangeSlicer().scope
