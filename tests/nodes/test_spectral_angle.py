"""Spectral angles against high-precision arithmetic and the spectral library."""

import decimal

import numpy as np
import pytest
import spectral
import torch
from graph_helpers import chain, fit, labelled, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import ChannelAxis, DecisionToMask, Scope, ScoreThreshold, SpectralAngleMapper
from hsi_batch.pipeline import Pipeline

REFERENCES = [[1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 1.0, 1.0, 1.0, 9.0], [900.0, 1e3, 1e3, 1e3, 1e3]]


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(1, 4))
def test_angles_are_those_of_the_spectral_library(seed, channels, count):
    rng = np.random.default_rng(seed)
    cube = rng.uniform(1, 9, size=(6, 7, channels)).astype("f4")
    references = rng.uniform(1, 9, size=(count, channels))
    expected = spectral.spectral_angles(cube.astype("f8"), references)
    out = SpectralAngleMapper(references=references.tolist())(cube=torch.from_numpy(cube)[None])
    np.testing.assert_allclose(out["scores"][0].numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(out["best_scores"][0, ..., 0], out["scores"][0].amin(dim=-1))
    np.testing.assert_array_equal(out["identity_mask"][0], expected.argmin(axis=-1) + 1)
    port = torch.from_numpy(references.astype("f4"))[:, None, None, :]
    fed = SpectralAngleMapper()(cube=torch.from_numpy(cube)[None], spectral_signature=port)
    np.testing.assert_allclose(fed["scores"], out["scores"], atol=1e-6)


@pytest.mark.parametrize("tiny", [1e-3, 1e-6])
def test_small_angles_keep_their_digits(tiny):
    # The arc cosine of a float64 product gives 0 or 2e-8 for the smaller one, at random.
    a, b = np.float32(1.0), np.float32(tiny)
    decimal.getcontext().prec = 40
    exact = float(decimal.Decimal(float(b)) / decimal.Decimal(float(a)))
    node = SpectralAngleMapper(references=[[1.0, 0.0]])
    angle = float(node(cube=torch.tensor([[[[a, b]]]]))["scores"])
    assert angle == pytest.approx(np.arctan(exact), rel=1e-6)


def test_angles_of_special_spectra():
    node = SpectralAngleMapper(references=[[1.0, 1.0]])
    cube = torch.tensor([[[[2.0, 2.0], [-3.0, -3.0], [0.0, 0.0], [1.0, -1.0]]]])
    np.testing.assert_allclose(
        node(cube=cube)["scores"].flatten(), [0, np.pi, np.pi / 2, np.pi / 2], atol=1e-7
    )


def graph():
    pipeline = chain(SpectralAngleMapper(references=REFERENCES, name="sam"))
    sam = pipeline.nodes["sam"]
    near, mask = ScoreThreshold(0.05, name="near"), DecisionToMask(name="mask")
    pipeline.connect(
        (sam.best_scores, near.scores),
        (near.decisions, mask.decisions),
        (sam.identity_mask, mask.identity_mask),
    )
    return pipeline


def test_class_maps_come_out_of_programs(tmp_path):
    cube = scene(40, 30)
    pipeline = graph()
    fit(pipeline, cube)
    scores, best, nearest, mask = run(
        pipeline,
        "sam.scores",
        "sam.best_scores",
        "sam.identity_mask",
        "mask.mask",
        cube=cube,
        block=1,
    )
    expected = spectral.spectral_angles(cube.astype("f8"), np.array(REFERENCES))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_array_equal(nearest[..., 0], expected.argmin(axis=-1) + 1)
    np.testing.assert_array_equal(mask, np.where(best <= 0.05, nearest, 0))
    assert 0 < (mask > 0).sum() < mask.size
    pipeline = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    valid = np.ones(cube.shape[:2], bool)
    valid[3, 4] = False
    maps = pipeline.apply(
        labelled(cube),
        ("mask.mask", "sam.identity_mask"),
        valid=labelled(valid[..., None])[..., 0],
    ).compute()
    assert maps["mask.mask"].dtype == np.int32
    assert maps["mask.mask"].dims == ("y", "x")
    assert maps["mask.mask"].to_numpy()[3, 4] == -1
    np.testing.assert_array_equal(maps["mask.mask"].to_numpy()[valid], mask[..., 0][valid])


def test_the_graph_in_memory():
    cube = scene(8, 9)
    out = graph().forward({"cube": torch.from_numpy(cube.astype("f4"))[None]})
    assert out["mask", "mask"].shape == (1, 8, 9)


def test_references_and_their_mistakes():
    assert SpectralAngleMapper(references=[[1.0]]).scope is Scope.PIXEL
    assert SpectralAngleMapper().scope is Scope.FRAME
    with pytest.raises(PipelineError, match="s has nothing to compare with"):
        SpectralAngleMapper(name="s")(cube=torch.zeros(1, 1, 1, 2))
    with pytest.raises(PipelineError, match="references have 2 channels, its input 3"):
        SpectralAngleMapper(references=[[1.0, 2.0]])(cube=torch.zeros(1, 1, 1, 3))
    with pytest.raises(ConfigError, match="sam: references have 5 channels, its input 4"):
        graph().resolve(ChannelAxis(4))
    for wrong, text in (
        ([[1.0], [1.0, 2.0]], "differ in their number"),
        ([1.0, 2.0], r"have shape \(2,\)"),
        ([[0.0, 0.0]], "a spectrum of zeros"),
        ([[1.0, float("nan")]], "not finite"),
    ):
        with pytest.raises(PipelineError, match=f"references .*{text}"):
            SpectralAngleMapper(references=wrong)
