"""Statistics of scores, decisions and label maps against NumPy on all batches at once."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, scene
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    AnomalyDetectionMetrics,
    AnomalyPixelStatisticsMetric,
    BinaryDecider,
    Context,
    DistinctLabelCount,
    Metric,
    RXGlobal,
    ScoreStatisticsMetric,
    ScoreToLogit,
    Stage,
)

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
FLOATS = st.floats(-1e3, 1e3, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 1.0])


def maps(dtype, elements):
    return st.lists(npst.arrays(dtype, SHAPES, elements=elements), min_size=1, max_size=4)


@given(maps(np.float32, FLOATS))
def test_statistics_are_of_all_scores_not_means_of_batches(batches):
    node = ScoreStatisticsMetric()
    for batch in batches:
        out = node(scores=torch.from_numpy(batch)[..., None])["metrics"]
    values = {metric.name: metric.value for metric in out}
    assert values == node.compute()
    pooled = np.concatenate([b.ravel() for b in batches]).astype("f8")
    pooled = pooled[np.isfinite(pooled)]
    if not pooled.size:
        assert values == {}
        return
    quantiles = {"q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}
    expected = {
        "mean": pooled.mean(),
        "min": pooled.min(),
        "max": pooled.max(),
        **{name: np.quantile(pooled, q) for name, q in quantiles.items()},
    }
    if pooled.size > 1:
        expected["std"] = pooled.std(ddof=1)
    assert set(values) == {f"scores/{name}" for name in expected}
    for name, value in expected.items():
        assert values[f"scores/{name}"] == pytest.approx(value, rel=1e-9, abs=1e-9), name


@given(maps(np.float32, st.floats(-10, 10, width=32)), st.randoms())
def test_the_order_of_batches_does_not_matter(batches, random):
    nodes = ScoreStatisticsMetric(), ScoreStatisticsMetric()
    for batch in batches:
        nodes[0](scores=torch.from_numpy(batch))  # also without the channel axis
    random.shuffle(batches)
    for batch in batches:
        nodes[1](scores=torch.from_numpy(batch))
    first, second = (node.compute() for node in nodes)
    assert first == pytest.approx(second, rel=1e-9, abs=1e-9)
    nodes[0].reset()
    assert nodes[0].compute() == {}


@given(maps(np.bool_, st.booleans()))
def test_flagged_pixels_are_counted(batches):
    node = AnomalyPixelStatisticsMetric()
    assert node() == {"metrics": []}
    for batch in batches:
        node(decisions=torch.from_numpy(batch)[..., None])
    node(decisions=None)
    pooled = np.concatenate([b.ravel() for b in batches])
    assert node.compute() == {
        "anomaly/total_pixels": pooled.size,
        "anomaly/anomalous_pixels": pooled.sum(),
        "anomaly/anomaly_percentage": pytest.approx(100 * pooled.mean()),
    }
    node.reset()
    assert node.compute() == {}


@given(maps(np.int32, st.integers(-1, 3)))
def test_labels_are_counted_by_frame(batches):
    node, each = DistinctLabelCount(name="count"), []
    for index, batch in enumerate(batches):
        at = Context(Stage.TEST, epoch=1, batch_idx=index)
        out = node(mask=torch.from_numpy(batch), context=at)
        expected = [len(np.setdiff1d(frame, [0])) for frame in batch]
        assert out["count"].dtype == torch.int64
        assert out["count"].tolist() == expected
        assert out["metrics"] == [
            Metric("num_distinct_labels", n, Stage.TEST, 1, index) for n in expected
        ]
        each += expected
    assert node.compute() == {"num_distinct_labels": pytest.approx(np.mean(each))}
    node.reset()
    assert node.compute() == {}


@given(
    st.integers(1, 3),
    SHAPES,
    st.integers(0, 2**32 - 1),
)
def test_a_stride_counts_some_pixels_but_judges_whole_frames(stride, shape, seed):
    rng = np.random.default_rng(seed)
    said, true = rng.random(shape) < 0.3, rng.random(shape) < 0.3
    logits = rng.normal(size=shape).astype("f4")
    thin = np.s_[:, ::stride, ::stride]

    def tensors(cut=np.s_[:]):
        arrays = {"decisions": said, "targets": true, "logits": logits}
        return {k: torch.from_numpy(v[cut].copy())[..., None] for k, v in arrays.items()}

    node, dense, whole = (AnomalyDetectionMetrics(pixel_stride=s) for s in (stride, 1, 1))
    node(**tensors())
    dense(**tensors(thin))
    whole(**tensors())
    for name, value in node.compute().items():
        of = whole if name.startswith("image_") else dense
        assert value == of.compute()[name], name
    assert set(node.compute()) == set(dense.compute())


def test_arguments_of_the_detection_metrics():
    node = AnomalyDetectionMetrics(ap_thresholds=50, pixel_stride=4)
    assert node.hparams == {"ap_thresholds": 50, "pixel_stride": 4}
    assert node.state_dict() == {}
    with pytest.raises(PipelineError, match="pixel_stride 0 must be at least 1"):
        AnomalyDetectionMetrics(pixel_stride=0)
    with pytest.raises(PipelineError, match=r"m\.targets has shape \(1, 2\)"):
        AnomalyDetectionMetrics(name="m")(targets=torch.ones(1, 2, dtype=torch.bool))


def test_wrong_shapes_are_told():
    with pytest.raises(PipelineError, match=r"s\.scores has shape \(4,\); expected \(batch, y"):
        ScoreStatisticsMetric(name="s")(scores=torch.ones(4))
    with pytest.raises(PipelineError, match=r"decisions is torch\.float32; expected torch\.bool"):
        AnomalyPixelStatisticsMetric()(decisions=torch.ones(1, 1, 1, 1))


def test_in_a_graph():
    cube = scene()
    pipeline = chain(RXGlobal(name="rx", eps=0.0), ScoreToLogit(name="l"), BinaryDecider(name="d"))
    scores, pixels = ScoreStatisticsMetric(name="scores"), AnomalyPixelStatisticsMetric(name="n")
    nodes = pipeline.nodes
    pipeline.connect((nodes["rx"].scores, scores.scores), (nodes["d"].decisions, pixels.decisions))
    fit(pipeline, cube)
    batch = {"cube": torch.from_numpy(cube.astype("f4"))[None]}
    assert ("scores", "metrics") not in pipeline.forward(batch, stage="train")
    assert ("n", "metrics") not in pipeline.forward(batch)
    out = pipeline.forward(batch, stage="val")
    found = {m.name: m.value for m in out["scores", "metrics"]}
    # The mean squared distance of the pixels of the fit is C (n - 1) / n.
    n = cube[..., 0].size
    assert found["scores/mean"] == pytest.approx(cube.shape[-1] * (n - 1) / n, rel=1e-4)
    flagged = int(out["d", "decisions"].sum())
    assert Metric("anomaly/anomalous_pixels", flagged, Stage.VAL) in out["n", "metrics"]
