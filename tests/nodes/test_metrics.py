"""Metrics against scikit-learn, pooled over batches."""

import warnings

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, scene
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    AnomalyDataNode,
    AnomalyDetectionMetrics,
    BinaryDecider,
    Context,
    Metric,
    RXGlobal,
    ScoreToLogit,
    Stage,
)


def tensor(values):
    return torch.from_numpy(np.asarray(values))[..., None]


@st.composite
def batches(draw):
    """Batches of decisions, targets and logits of ``(B, y, x)``, some without any positive."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)), 3)
        rare = draw(st.sampled_from([0.0, 0.1, 0.5]))
        logits = np.round(rng.normal(size=shape) * draw(st.sampled_from([1, 100])), 1)
        found.append((rng.random(shape) < rare, rng.random(shape) < rare, logits.astype("f4")))
    return found


@given(batches())
def test_values_are_pooled_over_all_batches(found):
    node = AnomalyDetectionMetrics(name="m")
    for decisions, targets, logits in found:
        out = node(decisions=tensor(decisions), targets=tensor(targets), logits=tensor(logits))[
            "metrics"
        ]
    values = {metric.name: metric.value for metric in out}
    assert values == node.compute()
    said, true, ranked = (np.concatenate([b[i].ravel() for b in found]) for i in range(3))
    images_said, images_true = (
        np.concatenate([b[i].any(axis=(1, 2)) for b in found]) for i in range(2)
    )
    for prefix, y, p in (("", true, said), ("image_", images_true, images_said)):
        f1 = "image_f1" if prefix else "f1_score"
        assert values[f"{prefix}precision"] == pytest.approx(
            sk.precision_score(y, p, zero_division=0)
        )
        assert values[f"{prefix}recall"] == pytest.approx(sk.recall_score(y, p, zero_division=0))
        assert values[f1] == pytest.approx(sk.f1_score(y, p, zero_division=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of 0/0
        assert values["iou"] == pytest.approx(sk.jaccard_score(true, said, zero_division=0))
    if 0 < true.sum() < true.size:
        assert values["average_precision"] == pytest.approx(
            sk.average_precision_score(true, ranked), rel=1e-9
        )
    else:
        assert "average_precision" not in values


def test_only_what_is_given_is_reported():
    targets = tensor(np.array([[[True, False]]]))
    node = AnomalyDetectionMetrics()
    assert node(targets=targets)["metrics"] == []
    logits = tensor(np.array([[[2.0, 1.0]]], dtype="f4"))
    assert [m.name for m in node(targets=targets, logits=logits)["metrics"]] == [
        "average_precision"
    ]
    node.reset()
    assert node.compute() == {}


def test_logits_beyond_what_a_sigmoid_tells_apart_are_ranked():
    targets = tensor(np.array([[[False, True, False, True]]]))
    logits = tensor(np.array([[[100.0, 101.0, 102.0, 103.0]]], dtype="f4"))
    node = AnomalyDetectionMetrics()
    node(targets=targets, logits=logits)
    assert node.compute()["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_values_carry_where_they_come_from():
    node = AnomalyDetectionMetrics()
    targets = tensor(np.array([[[True, False]]]))
    at = Context(stage=Stage.TEST, epoch=3, batch_idx=4)
    out = node(targets=targets, decisions=targets, context=at)["metrics"]
    assert Metric("iou", 1.0, Stage.TEST, 3, 4) in out


def test_metrics_run_in_validation_and_test_only():
    cube = scene()
    pipeline = chain(
        RXGlobal(name="rx", eps=0.0),
        ScoreToLogit(name="logit"),
        BinaryDecider(name="d"),
        source=AnomalyDataNode(name="data"),
    )
    metrics = AnomalyDetectionMetrics(name="m")
    nodes = pipeline.nodes
    pipeline.connect(
        (nodes["d"].decisions, metrics.decisions),
        (nodes["logit"].logits, metrics.logits),
        (nodes["data"].outputs.mask, metrics.targets),
    )
    fit(pipeline, cube)
    mask = torch.zeros(1, *cube.shape[:2], dtype=torch.int32)
    mask[0, :3] = 1
    batch = {"cube": torch.from_numpy(cube.astype("f4"))[None], "mask": mask}
    assert ("m", "metrics") not in pipeline.forward(batch)
    assert ("m", "metrics") not in pipeline.forward(batch, stage="train")
    for stage in ("val", "test"):
        metrics.reset()
        out = pipeline.forward(batch, stage=stage)["m", "metrics"]
        assert {m.name for m in out} >= {"iou", "average_precision"}
        assert {m.stage for m in out} == {Stage(stage)}
    context = Context(stage=Stage.VAL, epoch=2)
    out = pipeline.forward(batch, context=context)["m", "metrics"]
    assert {(m.stage, m.epoch) for m in out} == {(Stage.VAL, 2)}
    del batch["mask"]
    with pytest.raises(PipelineError, match=r"m\.targets got nothing\. What feeds it does not"):
        pipeline.forward(batch, stage="val")
