"""What a node must see at once is what it sees, however a frame is cut into blocks."""

import numpy as np
import pytest
from graph_helpers import (
    Box,
    Drift,
    Scale,
    Shift,
    Square,
    Untold,
    box,
    chain,
    fit,
    flat,
    mahalanobis,
    run,
    scene,
    source_of,
)
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.errors import PipelineError, PlanError
from hsi_batch.nodes import ChannelAxis, QuantileBinaryDecider, RXGlobal, RXPerBatch
from hsi_batch.pipeline.evaluate import Evaluator
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.pipeline.program import compile_program

pytestmark = pytest.mark.usefixtures("extra_nodes")
BLOCKS = st.sampled_from([None, 1, 2, 4])
HEIGHTS = st.integers(1, 70)


@given(HEIGHTS, st.integers(1, 30), BLOCKS, st.integers(1, 5))
def test_window_nodes_see_their_surroundings(height, width, block, radius):
    cube = scene(height, width)
    pipeline = chain(Box(radius, name="box"))
    pipeline.resolve(ChannelAxis(cube.shape[2]))
    found = run(pipeline, "box.smooth", cube=cube, block=block)
    np.testing.assert_allclose(found, box(cube, radius), rtol=1e-6)
    whole = run(pipeline, "box.smooth", cube=cube)
    np.testing.assert_array_equal(found, whole)


@given(HEIGHTS, BLOCKS)
def test_windows_of_windows_reach_further(height, block):
    cube = scene(height, 17)
    pipeline = chain(Box(2, name="first"), Square(name="square"), Box(3, name="second"))
    pipeline.resolve(ChannelAxis(cube.shape[2]))
    expected = box(box(cube, 2) ** 2, 3)
    found = run(pipeline, "second.smooth", cube=cube, block=block)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(HEIGHTS.filter(lambda h: h > 3), BLOCKS)
def test_a_fit_behind_a_window_counts_every_pixel_once(height, block):
    cube = scene(height, 20)
    pipeline = chain(Box(1, name="box"), RXGlobal(name="rx", eps=0.0))
    plan = fit(pipeline, cube, block=block)
    assert plan.passes == 1
    smooth = flat(box(cube, 1).astype(np.float32))
    np.testing.assert_allclose(pipeline.nodes["rx"].state["mean"], smooth.mean(axis=0), rtol=1e-7)
    scores = run(pipeline, "rx.scores", cube=cube, block=block)
    np.testing.assert_allclose(scores.ravel(), mahalanobis(smooth), rtol=1e-3)


@given(st.integers(2, 70), BLOCKS)
def test_a_background_per_frame_is_that_of_the_whole_frame(height, block):
    cube = scene(height, 20)
    pipeline = chain(RXPerBatch(eps=0.0, name="rx"), QuantileBinaryDecider(0.9, name="decide"))
    pipeline.resolve(ChannelAxis(cube.shape[2]))
    scores, decisions = run(pipeline, "rx.scores", "decide.decisions", cube=cube, block=block)
    np.testing.assert_allclose(scores.ravel(), mahalanobis(flat(cube)), rtol=1e-6)
    limit = np.quantile(scores.ravel().astype(np.float64), 0.9)
    np.testing.assert_array_equal(decisions, scores >= limit)


@given(st.integers(1, 60), BLOCKS)
def test_a_node_that_says_nothing_sees_whole_frames(height, block):
    first, second = scene(height, 20, seed=1), scene(height, 20, seed=2)
    pipeline = chain(Shift(name="plugin"))
    assert fit(pipeline, first, second, block=block).passes == 1
    mean = np.concatenate([flat(first), flat(second)]).mean(axis=0)
    for cube in (first, second):
        found = run(pipeline, "plugin.shifted", cube=cube, block=block)
        expected = flat(cube) - flat(cube).max(axis=0) + mean
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5)


def test_a_node_of_a_frame_never_runs_by_blocks():
    pipeline = chain(Scale([2, 2], [0, 0], name="scale"), Untold(name="plugin"))
    with pytest.raises(PipelineError, match="has scope frame; it cannot run block by block"):
        compile_program(pipeline, (pipeline.port("plugin.result"),))


def test_state_from_frame_to_frame_is_refused_in_a_fit():
    pipeline = chain(Drift(name="drift"), RXGlobal(name="rx"))
    with pytest.raises(PlanError, match=r"drift \(Drift\) keeps state from frame to frame"):
        plan_fit(pipeline)


def test_every_line_is_read_once_for_pixels_and_its_neighbours_again_for_windows():
    cube = scene(64, 20)
    pixel, window = chain(Square(name="node")), chain(Box(1, name="node"))
    for pipeline, output, most in ((pixel, "node.squared", 1), (window, "node.smooth", 2)):
        pipeline.resolve(ChannelAxis(cube.shape[2]))
        source = source_of(cube, block=1)
        program = compile_program(pipeline, (pipeline.port(output),))
        evaluator = Evaluator(program, source.lines, *cube.shape[:2])
        for start, stop in source.blocks:
            evaluator.block(start, stop)
        assert source.lines.times.max() <= most
        assert source.lines.times.min() == 1
