"""Thresholds from the scores of a fit, against SciPy and by counting false alarms."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, labelled, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats

from hsi_batch.errors import DataError, DataWarning, NotFittedError, PipelineError
from hsi_batch.nodes import (
    ArchiveQuantileDecider,
    CFARThreshold,
    ChannelAxis,
    MinMaxNormalizer,
    PerPixelUnitNorm,
    RXGlobal,
    Scope,
    ScoreThreshold,
)
from hsi_batch.nodes.tails import Counts, hotelling_threshold, pareto_tail, pareto_threshold
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.statistics import Histogram


def fitted(node, scores):
    values = np.asarray(scores, "f4").reshape(-1, 1)
    node.fit(Histogram.empty(1, "float32").update(values))
    return node


def decide(node, scores):
    port = next(iter(node.INPUT_SPECS))
    image = torch.from_numpy(np.asarray(scores, "f4")).reshape(1, -1, 1, 1)
    return node(**{port: image})["decisions"].numpy().ravel()


def counted(values):
    return Counts(*(np.unique(np.asarray(values, float), return_counts=True)))


# --- a quantile ---------------------------------------------------------------------------------


@given(
    npst.arrays(np.float32, st.integers(1, 60), elements=st.floats(-9, 9, width=32)),
    st.floats(0, 1),
)
def test_decisions_are_those_of_numpys_quantile(scores, quantile):
    node = fitted(ArchiveQuantileDecider(quantile), scores)
    exact = np.quantile(scores.astype("f8"), quantile)
    assert node.state["threshold"] == exact
    np.testing.assert_array_equal(decide(node, scores), scores.astype("f8") >= exact)
    assert node.state["count"] == scores.size
    assert node.state["above"] == (scores.astype("f8") >= exact).sum()
    assert not decide(node, [np.nan]).any()


def test_a_clean_frame_has_no_flags(tmp_path):
    clean, dirty = scene(40, 30, dtype="float32"), scene(40, 30, seed=1, dtype="float32")
    dirty[5:8, 5:8] += 3000
    pipeline = chain(RXGlobal(name="rx", eps=0.0), ArchiveQuantileDecider(0.997, name="decider"))
    plan = fit(pipeline, clean, dirty, block=1)
    assert {n.name: n.reading for n in plan.nodes} == {"rx": 1, "decider": 2}
    assert plan_fit(pipeline, ("moments",)).passes == 1
    scores = [run(pipeline, "rx.scores", cube=cube) for cube in (clean, dirty)]
    flags = [run(pipeline, "decider.decisions", cube=cube, block=1) for cube in (clean, dirty)]
    exact = np.quantile(np.concatenate(scores).astype("f8"), 0.997)
    for score, flag in zip(scores, flags, strict=True):
        np.testing.assert_array_equal(flag, score.astype("f8") >= exact)
    assert flags[0].sum() == 0
    assert flags[1].sum() == 8
    saved = pipeline.save(tmp_path / "p")
    assert f"threshold: {pipeline.nodes['decider'].hparams['threshold']}" in saved.read_text()
    other = Pipeline.from_yaml(saved)
    assert other.nodes["decider"].exact_state()["count"] == 2400
    lazy = other.apply(labelled(dirty), "decisions").compute().to_numpy()
    np.testing.assert_array_equal(lazy, flags[1][..., 0])


def test_bits_do_not_depend_on_the_blocks():
    cubes = [scene(70, 20, seed=s, dtype="float32") for s in range(3)]

    def state(block):
        pipeline = chain(
            PerPixelUnitNorm(name="u"), RXGlobal(name="rx", loading=1e-6),
            CFARThreshold(0.05, name="t"),
        )  # fmt: skip
        fit(pipeline, *cubes, block=block)
        return pipeline.nodes["t"].state

    one, other = state(None), state(1)
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in other.items()}


def test_a_threshold_that_is_given_runs_and_a_fit_replaces_it(tmp_path):
    node = ArchiveQuantileDecider(0.5, threshold=2.0, name="d")
    assert node.fitted
    assert decide(node, [1, 2, 3]).tolist() == [False, True, True]
    fitted(node, [7.0])
    assert node.hparams["threshold"] == 7.0
    assert decide(node, [6, 7]).tolist() == [False, True]
    node.threshold = torch.tensor([1.0])
    assert decide(node, [0, 1]).tolist() == [False, True]
    with pytest.raises(NotFittedError, match="ArchiveQuantileDecider 'd' is not fitted"):
        decide(ArchiveQuantileDecider(name="d"), [1.0])
    assert node.scope is Scope.PIXEL


def test_the_threshold_feeds_other_nodes():
    cube = scene(40, 30)
    pipeline = chain(RXGlobal(name="rx", eps=0.0), ArchiveQuantileDecider(0.9, name="d"))
    other = ScoreThreshold(0.0, keep="above", name="other")
    pipeline.connect(
        (pipeline.nodes["rx"].scores, other.scores),
        (pipeline.nodes["d"].outputs.threshold_value, other.inputs.threshold),
    )
    fit(pipeline, cube)
    one, two = run(pipeline, "d.decisions", "other.decisions", cube=cube)
    np.testing.assert_array_equal(one, two)
    assert pipeline.nodes["d"].outputs.threshold_value.shape == (1,)


# --- false alarms -------------------------------------------------------------------------------


@given(
    npst.arrays(np.float32, st.integers(200, 600), elements=st.integers(0, 99).map(float)),
    st.floats(0.51, 0.9),
)
def test_no_more_than_the_share_is_at_or_above(scores, pfa):
    node = fitted(CFARThreshold(pfa), scores)
    flagged = decide(node, scores)
    assert flagged.mean() <= pfa
    # The next smaller score would flag more than allowed.
    lower = scores[scores < float(node.threshold)]
    assert (scores >= lower.max()).mean() > pfa
    assert node.state["expected"] == pytest.approx(pfa * scores.size)
    assert node.state["above"] == flagged.sum()


@pytest.mark.parametrize("options", [{}, {"dof": 8}])
def test_chi2(options):
    scores = stats.chi2.rvs(8, size=20_000, random_state=1)
    node = fitted(CFARThreshold(1e-4, "chi2", **options), scores)
    expected = stats.chi2.isf(1e-4, 8)
    assert float(node.threshold) == pytest.approx(expected, rel=0.03 if not options else 1e-6)
    values = np.asarray(scores, "f4").astype("f8")
    dof = 2 * values.mean() ** 2 / values.var(ddof=1)
    if not options:
        assert node.state["dof"] == pytest.approx(dof, rel=1e-9)
        exact = values.var(ddof=1) / (2 * values.mean()) * stats.chi2.isf(1e-4, dof)
        assert node.state["threshold"] == pytest.approx(exact, rel=1e-9)


@given(st.integers(1, 60), st.integers(1, 500), st.floats(1e-9, 0.5))
def test_hotellings_law(channels, more, pfa):
    n, c = channels + more, channels
    variable = hotelling_threshold(pfa, c, n) * (n * (n - c)) / (c * (n + 1) * (n - 1))
    # Not stats.f.isf, which loses its digits in far tails.
    assert stats.f.sf(variable, c, n - c) == pytest.approx(pfa, rel=1e-7)


def test_the_law_of_new_pixels_holds():
    # A background of few pixels: chi-square would give four times the false alarms.
    rng = np.random.default_rng(0)
    rate = {"f": 0, "chi2": 0}
    for _ in range(40):
        x, new = rng.normal(size=(60, 10)), rng.normal(size=(500, 10))
        inverse = np.linalg.inv(np.cov(x.T))
        apart = new - x.mean(axis=0)
        scores = np.einsum("ni,ij,nj->n", apart, inverse, apart)
        for method in rate:
            node = fitted(CFARThreshold(0.02, method, dof=10, background_pixels=60), scores)
            rate[method] += decide(node, scores).sum()
    assert rate["f"] / 20_000 == pytest.approx(0.02, abs=0.005)
    assert rate["chi2"] / 20_000 > 0.05


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(-0.3, 0.3), st.floats(0.5, 9))
def test_generalised_pareto_tails(seed, shape, scale):
    excess = stats.genpareto.rvs(shape, scale=scale, size=20_000, random_state=seed)
    found = pareto_tail(counted(excess))
    np.testing.assert_allclose(found, [shape, scale], atol=0.06 * max(1, scale))
    x = np.sort(excess)
    weight = (len(x) - np.arange(1, len(x) + 1)) / (len(x) - 1)
    a, b = x.mean(), (x * weight).mean()
    np.testing.assert_allclose(found, [2 - a / (a - 2 * b), 2 * a * b / (a - 2 * b)], rtol=1e-6)
    threshold = pareto_threshold(1e-5, 3.0, 0.02, shape, scale)
    expected = 3 + stats.genpareto.isf(1e-5 / 0.02, shape, scale=scale)
    assert threshold == pytest.approx(expected, rel=1e-9)


def test_equal_values_share_their_weights():
    values = np.repeat([1.0, 2.0, 5.0], [70, 20, 10])
    spread = values + np.random.default_rng(0).uniform(0, 1e-9, values.size)
    np.testing.assert_allclose(
        pareto_tail(counted(values)), pareto_tail(counted(spread)), rtol=1e-6
    )
    assert pareto_threshold(1e-3, 0.0, 0.1, 0.0, 2.0) == pytest.approx(2 * np.log(100))


@pytest.mark.parametrize("law", [stats.chi2(6), stats.norm(50, 3), stats.t(8)])
def test_tails_extrapolate(law):
    scores = law.rvs(size=50_000, random_state=2)
    node = fitted(CFARThreshold(1e-4, "gpd"), scores)
    share = law.sf(float(node.threshold))
    assert 2e-5 < share < 4e-4
    assert node.state["tail"] == pytest.approx(1000, abs=2)
    assert node.state["expected"] == pytest.approx(5)


def test_laws_from_moments_read_no_scores(tmp_path):
    """The threshold of Hotelling's law from what RX was fitted to: no pass, and SciPy's value."""
    rng = np.random.default_rng(5)
    cube = rng.normal(size=(50, 40, 6)).astype("f4") @ rng.normal(size=(6, 6)).astype("f4")

    def made(**options):
        pipeline = chain(MinMaxNormalizer(name="norm"), RXGlobal(name="rx", eps=0.0))
        decider = CFARThreshold(0.01, name="t", **options)
        pipeline.connect(
            (pipeline.nodes["rx"].scores, decider.scores),
            (pipeline.nodes["norm"].normalized, decider.background),
        )
        return pipeline

    pipeline = made(method="f")
    pipeline.resolve(ChannelAxis(6))
    assert plan_fit(pipeline, ("moments", "extrema")).passes == 0
    fit(pipeline, cube)
    node, n, c = pipeline.nodes["t"], cube.shape[0] * cube.shape[1], 6
    exact = c * (n + 1) * (n - 1) / (n * (n - c)) * stats.f.isf(0.01, c, n - c)
    assert float(node.threshold) == pytest.approx(exact, rel=1e-6)
    assert (node.state["count"], node.state["dof"], node.state["pixels"]) == (n, c, n)
    assert "above" not in node.state
    assert node.in_words() == (
        f"threshold {exact:.6g}, pfa 0.01 by Hotelling's law of 6 degrees of freedom, not compared"
        " with scores"
    )
    # Gaussian pixels keep the promise.
    flags = run(pipeline, "t.decisions", cube=cube, block=1)
    assert flags.sum() == pytest.approx(0.01 * n, abs=4 * np.sqrt(0.01 * n))
    chi2 = made(method="chi2")
    fit(chi2, cube)
    assert float(chi2.nodes["t"].threshold) == pytest.approx(stats.chi2.isf(0.01, 6), rel=1e-6)
    # Other methods look at the scores all the same.
    counting = made(method="gpd", tail=0.1)
    counting.resolve(ChannelAxis(6))
    assert plan_fit(counting, ("moments", "extrema")).passes == 1
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    assert other.nodes["t"].in_words() == node.in_words()


def test_what_a_law_needs_is_told():
    pipeline = chain(RXGlobal(name="rx", eps=0.0), CFARThreshold(method="f", name="t"))
    with pytest.raises(PipelineError, match=r"t: the method 'f' needs .* Connect the input `backg"):
        pipeline.resolve(ChannelAxis(5))
    with pytest.raises(PipelineError, match="t: the method 'f' needs the channels"):
        fitted(CFARThreshold(method="f", name="t"), np.arange(9.0))


def test_a_law_that_does_not_hold_is_told():
    scores = np.random.default_rng(3).exponential(8.0, size=50_000)
    with pytest.warns(DataWarning, match=r"t: \d+ of 50000 .* 0.01 expects 500: a chi-square law"):
        fitted(CFARThreshold(0.01, "chi2", dof=8, name="t"), scores)
    words = fitted(CFARThreshold(0.01, name="t"), scores).in_words()
    assert words.endswith(
        "pfa 0.01 by counting (500 scores expected); 500 of 50000 scores of the fit reach it"
    )
    assert CFARThreshold(threshold=3.0).in_words() == "threshold 3, as given"
    assert CFARThreshold().in_words() == ""
    words = fitted(ArchiveQuantileDecider(0.5), [1.0, 2.0, 3.0]).in_words()
    assert words == "threshold 2, the quantile 0.5; 2 of 3 scores of the fit reach it"


# --- refusals -----------------------------------------------------------------------------------


def test_too_few_scores_in_the_tail():
    scores = np.random.default_rng(0).normal(size=50_000)
    text = "t: 50000 scores with pfa 0.001 leave 50 in the tail, too few"
    with pytest.raises(DataError, match=rf"{text}.*at least 100000 pixels, pfa 0\.002.*gpd"):
        fitted(CFARThreshold(name="t"), scores)
    assert fitted(CFARThreshold(2e-3), scores).state["expected"] == 100
    text = r"t: 9 scores .* lie above the upper 0\.02 of 500.* at least 5050 pixels, or tail 0\.21"
    with pytest.raises(DataError, match=text):
        fitted(CFARThreshold(method="gpd", name="t"), scores[:500])
    # What is advised suffices.
    fitted(CFARThreshold(method="gpd", tail=0.21, name="t"), scores[:500])
    fitted(CFARThreshold(method="gpd", name="t"), scores[:5050])
    with pytest.raises(DataError, match=r"at least 100000 pixels, or method: gpd"):
        fitted(CFARThreshold(name="t"), scores[:60])
    with pytest.raises(DataError, match="t: no valid score was counted"):
        fitted(CFARThreshold(name="t"), [np.nan])
    with pytest.raises(DataError, match="t: 5 background pixels for 5 channels"):
        fitted(CFARThreshold(method="f", dof=5, name="t"), scores[:5])
    with pytest.raises(DataError, match=r"t: scores with mean .* follow no chi-square"):
        fitted(CFARThreshold(method="chi2", name="t"), -np.abs(scores))
    with pytest.raises(
        DataError, match="t: the threshold is inf: scores of the fit are not finite"
    ):
        fitted(ArchiveQuantileDecider(1.0, name="t"), [1.0, np.inf])


def test_a_heavy_tail_warns():
    scores = stats.genpareto.rvs(0.9, size=20_000, random_state=0)
    with pytest.warns(DataWarning, match="t: the tail of the scores is very heavy"):
        fitted(CFARThreshold(1e-4, "gpd", name="t"), scores)
    # Not where it can be seen that the law holds all the same.
    node = fitted(CFARThreshold(0.01, "gpd", tail=0.05, name="t"), scores)
    assert node.state["above"] == pytest.approx(200, rel=0.2)


def test_scores_that_are_all_equal_are_not_flagged():
    node = fitted(CFARThreshold(0.5), np.ones(1000))
    assert not decide(node, [1.0]).any()
    assert decide(node, [1.001]).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pfa": 0.0}, r"pfa 0\.0 must be between 0 and 1"),
        ({"method": "x"}, "method 'x' is not one of empirical, chi2, f, gpd"),
        ({"background_pixels": 0}, "background_pixels 0 must be at least 1"),
        ({"dof": -1.0}, r"dof -1\.0 must be above 0"),
        ({"method": "gpd", "tail": 1e-4}, "tail 0.0001 must be above pfa"),
        ({"threshold": float("nan")}, "threshold nan must be a finite number"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(PipelineError, match=text):
        CFARThreshold(**options)
    with pytest.raises(PipelineError, match="quantile 2 is not between 0 and 1"):
        ArchiveQuantileDecider(2)
