"""Metrics of components and weights against NumPy and published values."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, scene
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import entropy

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    ComponentOrthogonalityMetric,
    Context,
    ExplainedVarianceMetric,
    Metric,
    SelectorDiversityMetric,
    SelectorEntropyMetric,
    SoftChannelSelector,
    Stage,
    TrainablePCA,
)

WEIGHTS = npst.arrays(np.float32, st.integers(1, 9), elements=st.floats(0, 10, width=32))


def values(node, **given):
    out = node(**{k: torch.from_numpy(v) for k, v in given.items()})["metrics"]
    assert {m.name: m.value for m in out} == node.compute()
    return node.compute()


@given(npst.arrays(np.float32, st.integers(1, 5), elements=st.floats(0, 1, width=32)))
def test_explained_variance(shares):
    found = values(ExplainedVarianceMetric(), explained_variance_ratio=shares)
    assert found.pop("total_explained_variance") == pytest.approx(shares.sum(dtype="f8"))
    for i, share in enumerate(shares, 1):
        assert found.pop(f"explained_variance_pc{i}") == share
        upto = found.pop(f"cumulative_variance_pc{i}")
        assert upto == pytest.approx(shares[:i].sum(dtype="f8"))
    assert found == {}


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_orthogonality(rows, columns, seed):
    w = np.random.default_rng(seed).normal(size=(rows, columns)).astype("f4")
    found = values(ComponentOrthogonalityMetric(), components=w)
    gram = np.array([[np.dot(a.astype("f8"), b) for a in w] for b in w])
    away = gram - np.eye(rows)
    assert found["orthogonality_error"] == pytest.approx(np.sqrt((away**2).sum()))
    assert found["avg_off_diagonal"] == pytest.approx(np.abs(away).mean())
    assert found["diagonal_mean"] == pytest.approx((w.astype("f8") ** 2).sum() / rows)
    if rows > 1:
        squares = (w.astype("f8") ** 2).sum(axis=1)
        assert found["diagonal_std"] == pytest.approx(np.std(squares, ddof=1), abs=1e-12)
    assert ("diagonal_std" in found) == (rows > 1)


@given(WEIGHTS)
def test_entropy(weights):
    exact = values(SelectorEntropyMetric(eps=0.0), weights=weights)["selector/entropy"]
    if weights.sum() > 0:
        assert exact == pytest.approx(entropy(weights.astype("f8")), abs=1e-6)
    found = values(SelectorEntropyMetric(), weights=weights)["selector/entropy"]
    p = weights.astype("f8") / (weights.sum(dtype="f8") + 1e-6)
    assert found == pytest.approx(-(p * np.log(p + 1e-6)).sum(), abs=1e-9)


@given(WEIGHTS)
def test_diversity(weights):
    found = values(SelectorDiversityMetric(), weights=weights)
    w = weights.astype("f8")
    assert found["weight_variance"] == pytest.approx(w.var())
    # Half the relative mean difference (Gini 1912).
    differences = np.abs(w[:, None] - w).mean()
    expected = differences / (2 * w.mean()) if w.sum() else 0.0
    assert found["gini_coefficient"] == pytest.approx(expected, abs=1e-9)


def test_known_distributions():
    even, one = np.ones(4, "f4"), np.eye(1, 4, dtype="f4")[0]
    assert values(SelectorEntropyMetric(), weights=even)["selector/entropy"] == pytest.approx(
        np.log(4), abs=1e-5
    )
    assert values(SelectorEntropyMetric(0.0), weights=one)["selector/entropy"] == 0.0
    assert values(SelectorDiversityMetric(), weights=even)["gini_coefficient"] == 0.0
    assert values(SelectorDiversityMetric(), weights=one)["gini_coefficient"] == 0.75


def test_the_last_batch_counts():
    node = SelectorDiversityMetric()
    values(node, weights=np.array([1, 0], "f4"))
    at = Context(Stage.TEST, epoch=2, batch_idx=5)
    out = node(weights=torch.ones(2), context=at)["metrics"]
    assert Metric("weight_variance", 0.0, Stage.TEST, 2, 5) in out
    node.reset()
    assert node.compute() == {}
    with pytest.raises(PipelineError, match=r"weights has shape \(1, 2\); expected \(channel,\)"):
        node(weights=torch.ones(1, 2))
    with pytest.raises(PipelineError, match="eps -1 must not be negative"):
        SelectorEntropyMetric(eps=-1)


def test_in_a_graph():
    cube = scene()
    pipeline = chain(
        SoftChannelSelector(2, name="select"), TrainablePCA(n_components=2, name="pca")
    )
    nodes = pipeline.nodes
    kept, right = ExplainedVarianceMetric(name="kept"), ComponentOrthogonalityMetric(name="right")
    spread, even = SelectorEntropyMetric(name="spread"), SelectorDiversityMetric(name="even")
    pipeline.connect(
        (nodes["pca"].explained_variance_ratio, kept.explained_variance_ratio),
        (nodes["pca"].components, right.components),
        (nodes["select"].weights, spread.weights),
        (nodes["select"].weights, even.weights),
    )
    fit(pipeline, cube)
    batch = {"cube": torch.from_numpy(cube.astype("f4"))[None]}
    for stage in ("inference", "train"):
        assert ("kept", "metrics") not in pipeline.forward(batch, stage=stage)
    out = pipeline.forward(batch, stage="test")
    found = {
        m.name: m.value for n in ("kept", "right", "spread", "even") for m in out[n, "metrics"]
    }
    ratios = np.linalg.eigvalsh(np.cov(cube.reshape(-1, cube.shape[-1]).T.astype("f8")))[::-1]
    assert found["total_explained_variance"] == pytest.approx(
        ratios[:2].sum() / ratios.sum(), rel=1e-5
    )
    assert found["orthogonality_error"] == pytest.approx(0, abs=1e-6)
    assert found["diagonal_mean"] == pytest.approx(1, abs=1e-6)
    assert found["selector/entropy"] == pytest.approx(np.log(5), abs=1e-4)
    assert found["gini_coefficient"] == pytest.approx(0, abs=1e-6)
