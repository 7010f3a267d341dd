"""Unmixing, against scipy.optimize.nnls pixel by pixel."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes import ChannelAxis, NNLSUnmixing
from hsi_batch.pipeline import Pipeline
from hsi_batch.statistics.least_squares import non_negative


def expected(pixels, endmembers):
    solved = [nnls(endmembers.T, pixel) for pixel in pixels]
    return np.array([x for x, _ in solved]), np.array([left for _, left in solved])


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(0, 6),
    st.sampled_from([0.0, 1e-3]),
    st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_abundances_are_those_of_scipy(seed, count, spare, alike, scale):
    rng = np.random.default_rng(seed)
    endmembers = rng.random((count, count + spare)) * rng.uniform(0.1, 10, (count, 1))
    if alike:
        endmembers = endmembers.mean(axis=0) + alike * endmembers
    pixels = rng.normal(size=(40, count)) @ endmembers + rng.normal(size=(40, count + spare)) * 0.1
    pixels[0] = 0.0
    pixels *= scale
    found = non_negative(pixels, endmembers, 500, 0.0)
    abundances, left = expected(pixels, endmembers)
    assert found.settled
    assert (found.abundances >= 0).all()
    top = np.abs(abundances).max(initial=scale)
    np.testing.assert_allclose(found.abundances, abundances, atol=1e-7 * top, rtol=1e-6)
    np.testing.assert_allclose(found.residuals, left, atol=1e-9 * scale, rtol=1e-8)


def test_mixtures_are_taken_apart_block_by_block():
    rng = np.random.default_rng(3)
    endmembers = rng.random((3, 6)) + 0.1
    truth = rng.random((40, 9, 3)) * (rng.random((40, 9, 3)) > 0.4)
    cube = (truth @ endmembers).astype(np.float32)
    pipeline = chain(NNLSUnmixing(references=endmembers.tolist(), name="mix"))
    pipeline.resolve(ChannelAxis(6))
    got = run(pipeline, "mix.abundances", "mix.scores", "mix.class_mask", cube=cube, block=1)
    np.testing.assert_allclose(got[0], truth, atol=1e-5)
    np.testing.assert_allclose(got[1], 0, atol=1e-5)
    some = truth.sum(axis=-1) > 0
    np.testing.assert_array_equal(got[2][..., 0], np.where(some, truth.argmax(axis=-1) + 1, 0))


def test_endmembers_by_the_port_and_numbers_that_are_none():
    node = NNLSUnmixing(min_total=2.0)
    pixels = torch.tensor([[[[1.0, 0.5], [3.0, -1.0], [torch.nan, 1.0], [-1.0, -1.0]]]])
    out = node(cube=pixels, endmembers=torch.eye(2))
    assert out["abundances"][0, 0, :2].tolist() == [[1.0, 0.5], [3.0, 0.0]]
    assert torch.isnan(out["abundances"][0, 0, 2]).all()
    assert out["scores"][0, 0, 1].item() == 1.0
    assert out["class_mask"].flatten().tolist() == [0, 1, 0, 0]


def test_saved_and_loaded(tmp_path):
    pipeline = chain(NNLSUnmixing(tol=1e-8, references=[[1.0, 2.0], [3.0, 1.0]], name="mix"))
    pipeline.save(tmp_path / "mix.yaml")
    back = Pipeline.from_yaml(tmp_path / "mix.yaml")
    assert not back.nodes["mix"].state_dict()
    cube = np.random.default_rng(1).random((5, 4, 2)).astype(np.float32)
    for each in (back, pipeline):
        each.resolve(ChannelAxis(2))
    np.testing.assert_array_equal(
        run(back, "mix.abundances", cube=cube), run(pipeline, "mix.abundances", cube=cube)
    )


def test_what_is_refused_and_warned_about():
    for arguments, text in (
        ({"max_iter": 0}, "max_iter 0"),
        ({"tol": -1.0}, "tol -1.0"),
        ({"references": [[1.0, 2.0], [2.0, 4.0]]}, "one is a mixture of others"),
        ({"references": [[1.0], [2.0]]}, "2 endmembers in 1 channels"),
        ({"references": [[0.0, 0.0]]}, "zeros"),
    ):
        with pytest.raises(PipelineError, match=text):
            NNLSUnmixing(**arguments)
    with pytest.raises(PipelineError, match="no endmembers"):
        NNLSUnmixing()(cube=torch.zeros(1, 1, 1, 3))
    with pytest.raises(PipelineError, match="2 channels, its input 3"):
        chain(NNLSUnmixing(references=[[1.0, 2.0]])).resolve(ChannelAxis(3))
    rng = np.random.default_rng(0)
    hasty = NNLSUnmixing(max_iter=1, references=rng.random((4, 6)).tolist())
    with pytest.warns(DataWarning, match="raise max_iter"):
        hasty(cube=torch.from_numpy(rng.random((1, 9, 9, 6), dtype=np.float32)))
