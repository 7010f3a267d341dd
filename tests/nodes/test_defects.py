"""Right answers where cuvis-ai 0.19.3 is wrong, as far as no test of a single node shows them."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, mahalanobis, run, scene

from hsi_batch.nodes import (
    BinaryDecider,
    CFARThreshold,
    DeepSVDDCenterTracker,
    LADGlobal,
    LearnableChannelMixer,
    LocalRX,
    MeanCenter,
    MinMaxNormalizer,
    PercentileNormalizer,
    PerPixelUnitNorm,
    RXGlobal,
    ScoreToLogit,
    SNVCorrection,
    SoftChannelSelector,
    TrainablePCA,
    UnitVarianceScaling,
    ZScoreNormalizerGlobal,
    node_classes,
)
from hsi_batch.stages.fit import fit as fit_stage


def test_frames_of_one_pixel_count():
    # There, batches of one pixel or one score are dropped without a word.
    cube = scene(8, 6, 3)
    frames = [cube[y : y + 1, x : x + 1] for y in range(8) for x in range(6)]
    pipeline = chain(RXGlobal(eps=0.0, name="rx"), ScoreToLogit(name="logit"))
    fit(pipeline, *frames, sample=False)
    assert pipeline.nodes["rx"].state["count"] == 48
    scores = mahalanobis(flat(cube), flat(cube))
    bias = scores.mean() + 2 * scores.std(ddof=1)
    assert pipeline.nodes["logit"].state["bias"] == pytest.approx(bias, rel=1e-6)


#: Buffers of fitted nodes, from the pixels that count.
FROM_PIXELS = {
    "minimum": (lambda: MinMaxNormalizer(name="n"), "running_min", lambda x: x.min()),
    "mean": (lambda: ZScoreNormalizerGlobal(name="n"), "zscore_mean", lambda x: x.mean(axis=0)),
    "centre": (lambda: MeanCenter(name="n"), "mean_c", lambda x: x.mean(axis=0)),
    "deviation": (lambda: UnitVarianceScaling(name="n"), "std_c", lambda x: x.std(axis=0, ddof=1)),
    "variance": (
        lambda: SoftChannelSelector(2, init_method="variance", name="n"),
        "channel_logits",
        lambda x: np.log(x.var(axis=0, ddof=1) + 1e-6),
    ),
    "components": (lambda: TrainablePCA(n_components=2, name="n"), "_mean", lambda x: x.mean(0)),
    "covariance": (lambda: RXGlobal(eps=0.0, name="n"), "cov", lambda x: np.cov(x.T)),
    "graph": (lambda: LADGlobal(name="n"), "M", lambda x: x.mean(axis=0)),
    "quantiles": (
        lambda: PercentileNormalizer(norm_mode="statistical", name="n"),
        "running_max",
        lambda x: np.quantile(x, 0.995, axis=0),
    ),
    "embeddings": (
        lambda: DeepSVDDCenterTracker(name="n"),
        "_tracked_center",
        lambda x: x.mean(axis=0),
    ),
}


@pytest.mark.parametrize("name", FROM_PIXELS)
def test_one_bad_pixel_does_not_spoil_a_fit(name):
    # There, one NaN turns a channel or all of them into NaN, and the fit may even call itself done.
    make, buffer, reference = FROM_PIXELS[name]
    cube = scene(24, 20, 4, dtype="float32")
    cube[3, 4, 1], cube[5, 6, 2] = np.nan, np.inf
    node = make()
    fit_stage(chain(node), labelled(cube))
    pixels = flat(cube)[np.isfinite(flat(cube)).all(axis=1)]
    assert len(pixels) == 24 * 20 - 2
    np.testing.assert_allclose(getattr(node, buffer).numpy(), reference(pixels), rtol=1e-5)


def test_pixels_for_which_a_node_has_no_value_do_not_count_behind_it():
    cube = scene(48, 20, 3)
    cube[:24, :12] = 1000  # No background to compare with: the score is NaN.
    makes = [lambda: ScoreToLogit(name="d"), lambda: MinMaxNormalizer(name="d")]
    makes += [lambda: CFARThreshold(0.2, name="d"), lambda: UnitVarianceScaling(name="d")]
    states = []
    for make in makes:
        pipeline = chain(LocalRX(3, 7, name="rx"), make())
        fit(pipeline, cube, block=1)
        scores = run(pipeline, "rx.scores", cube=cube).astype(np.float64)
        states.append(pipeline.nodes["d"].state)
    known = scores[~np.isnan(scores)]
    assert 0 < known.size < scores.size
    logit, scaled, threshold, deviation = states
    assert logit["bias"] == pytest.approx(known.mean() + 2 * known.std(ddof=1), rel=1e-6)
    assert (scaled["minimum"], scaled["maximum"]) == (known.min(), known.max())
    assert threshold["count"] == known.size
    assert deviation["std"] == pytest.approx(known.std(ddof=1), rel=1e-6)


def test_views_are_scored_like_copies():
    # There, RX refuses tensors that are not contiguous.
    cube = torch.from_numpy(scene(9, 7, 4, dtype="float32"))[None]
    view = cube.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not view.is_contiguous()
    for node in (RXGlobal(name="n"), LADGlobal(name="n"), MinMaxNormalizer(name="n")):
        fit(chain(node), cube[0].numpy())
        one, other = (next(iter(node(x).values())) for x in (cube, view))
        assert torch.equal(one, other)
    for node in (PerPixelUnitNorm(), SNVCorrection()):
        one, other = (next(iter(node(x).values())) for x in (cube, view))
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_new_fit_forgets_the_old_bounds():
    # There, the bounds of the last fit stay as wide as they were.
    wide, narrow = scene(), scene()
    narrow[:] = 1000 + (narrow - 1000) // 10
    node = PercentileNormalizer(norm_mode="statistical", name="p")
    pipeline = chain(node)
    fit(pipeline, wide)
    fit(pipeline, narrow)
    expected = np.quantile(flat(narrow), [0.005, 0.995], axis=0)
    np.testing.assert_allclose(node.running_min.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(node.running_max.numpy(), expected[1], rtol=1e-6)


def test_reset_forgets_a_run_and_never_a_fit():
    # There, the predictor resets every node, and a fitted RX scores nothing any more.
    resettable = {n: c for n, c in node_classes().items() if hasattr(c, "reset")}
    assert "FrameScoreGate" in resettable
    assert "AnomalyDetectionMetrics" in resettable
    assert not {"RXGlobal", "LADGlobal", "ScoreToLogit"} & resettable.keys()


def test_thresholds_near_one_tell_logits_apart():
    # There, the sigmoid is float32, which is 1 for all logits above 17.
    logits = torch.tensor([16.0, 18.0, 22.0]).reshape(1, 3, 1, 1)
    threshold = 1 / (1 + np.exp(-20.0))
    assert BinaryDecider(threshold)(logits=logits)["decisions"].ravel().tolist() == [
        False,
        False,
        True,
    ]


def test_a_fit_leaves_the_nodes_before_it_alone():
    # There, the averages of a mixer move while something behind it is fitted.
    mixer = LearnableChannelMixer(4, 3, seed=0, name="mixer")
    before = {k: v.clone() for k, v in mixer.state_dict().items()}
    fit(chain(mixer.train(), RXGlobal(loading=1e-3, name="rx")), scene(channels=4) / 1000)
    assert all(torch.equal(v, before[k]) for k, v in mixer.state_dict().items())
