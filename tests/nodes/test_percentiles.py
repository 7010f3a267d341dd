"""Percentiles against NumPy: per frame, of all pixels, and running from frame to frame."""

import numpy as np
import pytest
import torch
from graph_helpers import Scale, chain, fit, flat, labelled, mahalanobis, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataError, NotFittedError, PipelineError, PlanError
from hsi_batch.nodes import ChannelAxis, PercentileNormalizer, RXGlobal, Scope
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.pipeline.weights import load_weights

pytestmark = pytest.mark.usefixtures("extra_nodes")

LEVELS = st.sampled_from([(0.0, 1.0), (0.005, 0.995), (0.1, 0.65), (0.3, 1.0)])


def forward(node, *cubes):
    data = torch.from_numpy(np.asarray(cubes, np.float32))
    return node(data=data)["normalized"].numpy()


def stretched(x, low, high, clamp="both", levels=None):
    scaled = (np.asarray(x, np.float64) - low) / np.maximum(high - low, 1e-8)
    top = {"both": 1.0, "floor": np.inf, "none": np.inf}[clamp]
    scaled = np.clip(scaled, -np.inf if clamp == "none" else 0.0, top)
    return scaled if levels is None else np.floor(scaled * levels) / levels


# --- per frame ----------------------------------------------------------------------------------


@given(st.integers(0, 99), st.booleans(), st.booleans(), LEVELS, st.sampled_from(["u2", "f4"]))
def test_bounds_of_every_frame(seed, quantiles, joint, levels, dtype):
    cube = scene(33, 6, 3, seed, dtype)
    node = PercentileNormalizer(
        norm_mode="per_frame", per_frame_quantiles=quantiles, joint_channels=joint,
        quantile_low=levels[0], quantile_high=levels[1], name="p",
    )  # fmt: skip
    assert node.scope is Scope.FRAME
    assert node.fitted
    axis = None if joint else (0, 1)
    low, high = np.quantile(cube.astype("f8"), levels if quantiles else (0, 1), axis=axis)
    expected = stretched(cube, low, high)
    np.testing.assert_allclose(forward(node, cube, cube * 0 + 1)[0], expected, atol=1e-6)
    by_blocks = run(chain(node), "p.normalized", cube=cube, block=1)
    np.testing.assert_allclose(by_blocks, expected, atol=1e-6)


@pytest.mark.parametrize("quantiles", [False, True])
def test_bounds_of_a_frame_behind_an_affine_node(quantiles):
    cube = scene(70, 20, 3)
    factor, shift = np.array([2.0, -1.0, 0.5]), np.array([1.0, 2.0, 3.0])
    node = PercentileNormalizer(
        norm_mode="per_frame", per_frame_quantiles=quantiles, quantize_levels=255, name="p"
    )
    x = (cube * factor + shift).astype("f4").astype("f8")
    low, high = np.quantile(x, (0.005, 0.995) if quantiles else (0, 1), axis=(0, 1))
    out = run(chain(Scale(factor, shift), node), "p.normalized", cube=cube, block=1)
    # A step of 1/255 may go either way where rounding decides.
    expected = stretched(x, low, high, levels=255)
    assert np.abs(out - expected).max() < 1.01 / 255
    assert np.mean(np.abs(out - expected) > 1e-6) < 1e-3
    np.testing.assert_allclose(out * 255, np.rint(out * 255), atol=1e-4)


# --- statistical --------------------------------------------------------------------------------


@given(
    st.integers(0, 99), LEVELS, st.sampled_from(["u1", "u2", "i2", "f4"]), st.booleans(),
    st.sampled_from(["both", "floor", "none"]), st.sampled_from([None, 8]),
)  # fmt: skip
def test_quantiles_of_all_pixels(seed, levels, dtype, invert, clamp, steps):
    cubes = [(scene(20, 6, 3, seed + i) % 199).astype(dtype) for i in range(3)]
    node = PercentileNormalizer(
        norm_mode="statistical", quantile_low=levels[0], quantile_high=levels[1], clamp=clamp,
        invert=invert, quantize_levels=steps, name="p",
    )  # fmt: skip
    pipeline = chain(node)
    assert plan_fit(pipeline).passes == 1
    assert "histogram of cube" in str(plan_fit(pipeline))
    fit(pipeline, *cubes, block=1)
    x = np.concatenate([flat(c) for c in cubes]) * (-1 if invert else 1)
    low, high = np.quantile(x, levels, axis=0)
    np.testing.assert_allclose(node.state["low"], low, rtol=1e-12)
    np.testing.assert_allclose(node.state["high"], high, rtol=1e-12)
    np.testing.assert_allclose(node.running_min, low, rtol=1e-6)
    np.testing.assert_allclose(node.running_max, high, rtol=1e-6)
    shown = cubes[1].astype("f8") * (-1 if invert else 1)
    expected = stretched(shown, low, high, clamp)
    out = run(pipeline, "p.normalized", cube=cubes[1], block=1)
    if steps is None:
        np.testing.assert_allclose(out, expected, atol=1e-6)
    else:
        # Never above, and less than a step below; a value on an edge may be rounded off it.
        assert (out <= expected + 1e-6).all()
        assert (out > expected - 1 / steps - 1e-6).all()
    np.testing.assert_allclose(forward(node, cubes[1])[0], out, atol=1e-6)


@settings(max_examples=15)
@given(st.permutations(range(4)), st.sampled_from([1, 2, None]), st.sampled_from(["u2", "f4"]))
def test_bounds_do_not_depend_on_order_or_grouping(order, block, dtype):
    cubes = [scene(70, 20, 2, i, dtype) for i in range(4)]
    found = []
    for frames, height in ((cubes, None), ([cubes[i] for i in order], block)):
        pipeline = chain(PercentileNormalizer(norm_mode="statistical", name="p"))
        fit(pipeline, *frames, block=height)
        found.append(pipeline.nodes["p"].state)
    for key in ("low", "high"):
        assert found[0][key].tobytes() == found[1][key].tobytes()


def test_names_of_approximate_fits_are_read_and_fit_exactly():
    cube = scene(40, 20)
    nodes = [
        PercentileNormalizer(norm_mode="statistical"),
        PercentileNormalizer(
            norm_mode="statistical", statistical_fit="pooled", fit_subsample=2, max_fit_values=10
        ),
    ]
    for node in nodes:
        fit(chain(node), cube)
    np.testing.assert_array_equal(nodes[0].running_min, nodes[1].running_min)


def test_without_clamping_it_is_affine():
    cube = scene(40, 20)
    node = PercentileNormalizer(norm_mode="statistical", clamp="none", invert=True, name="p")
    pipeline = chain(node, RXGlobal(name="rx", eps=0.1))
    assert plan_fit(pipeline, ("moments",)).passes == 1
    assert {n.name: str(n.need) for n in plan_fit(pipeline, ("moments",)).nodes} == {
        "p": "histogram of cube",
        "rx": "moments of cube",
    }
    fit(pipeline, cube, stored=("moments",))
    x = -flat(cube)
    low, high = np.quantile(x, (0.005, 0.995), axis=0)
    scores = run(pipeline, "rx.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, mahalanobis((x - low) / (high - low), eps=0.1), rtol=1e-5)
    clamped = PercentileNormalizer(norm_mode="statistical", name="p")
    with pytest.raises(TypeError, match="not affine"):
        clamped.affine()
    # RX waits for the bounds.
    assert plan_fit(chain(clamped, RXGlobal(name="rx")), ("moments",)).passes == 2


def test_invalid_pixels_do_not_count():
    cube, valid = scene(40, 20), np.ones((40, 20), bool)
    valid[2:9] = False
    spoiled = cube.copy()
    spoiled[~valid] = 65535
    pipeline = chain(PercentileNormalizer(norm_mode="statistical", name="p"))
    fit(pipeline, spoiled, valid=valid)
    expected = np.quantile(cube[valid], (0.005, 0.995), axis=0)
    state = pipeline.nodes["p"].state
    np.testing.assert_allclose([state["low"], state["high"]], expected)


def test_saved_and_loaded(tmp_path):
    cube = scene(40, 20)
    pipeline = chain(PercentileNormalizer(norm_mode="statistical", name="p"))
    with pytest.raises(NotFittedError):
        run(pipeline, "p.normalized", cube=cube)
    fit(pipeline, cube)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    assert again.nodes["p"].hparams["n_channels"] == 5
    np.testing.assert_array_equal(
        run(again, "p.normalized", cube=cube), run(pipeline, "p.normalized", cube=cube)
    )


# --- running ------------------------------------------------------------------------------------


def running(cubes, warmup, freeze, levels=(0.005, 0.995)):
    """Frame by frame, as the timeline of the docstring says."""
    low, high, out = np.inf, -np.inf, []
    for count, cube in enumerate(cubes, 1):
        own = np.quantile(cube.astype("f8"), levels, axis=(0, 1))
        if freeze is None or count <= freeze:
            low, high = np.minimum(low, own[0]), np.maximum(high, own[1])
        bounds = own if count <= warmup else (low, high)
        out.append(stretched(cube, *bounds))
    return np.array(out), low, high


@given(st.integers(0, 6), st.sampled_from([1, 2, 4, None]), st.integers(1, 3))
def test_running_bounds(warmup, freeze, batch):
    cubes = [scene(9, 5, 2, i) + 40 * i for i in range(6)]
    node = PercentileNormalizer(
        2, running_warmup_frames=warmup, freeze_running_bounds_after_frames=freeze
    )
    parts = [forward(node, *cubes[i : i + batch]) for i in range(0, 6, batch)]
    expected, low, high = running(cubes, warmup, freeze)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=2e-5)
    np.testing.assert_allclose(node.running_min, low, rtol=1e-6)
    np.testing.assert_allclose(node.running_max, high, rtol=1e-6)
    assert node.frozen == (freeze is not None)
    assert node.scope is (Scope.SEQUENCE if freeze is None else Scope.PIXEL)
    if node.frozen:
        before = node.buffer_digest()
        forward(node, cubes[0] * 0)
        assert node.buffer_digest() == before


def test_archives_are_refused_until_the_bounds_are_frozen(tmp_path):
    cubes = [scene(40, 20, seed=i) for i in range(3)]
    node = PercentileNormalizer(name="p")
    pipeline = chain(node, RXGlobal(name="rx", eps=0.1))
    text = r"p \(PercentileNormalizer\) keeps state from frame to frame.*Freeze it"
    with pytest.raises(PlanError, match=text):
        plan_fit(pipeline)
    alone = chain(PercentileNormalizer(name="p"))
    alone.resolve(ChannelAxis(5))
    with pytest.raises(PipelineError, match=r"p \(PercentileNormalizer\) has scope sequence"):
        alone.apply(labelled(cubes[0]), "p.normalized")
    with pytest.raises(DataError, match="p: there are no bounds to freeze yet"):
        node.freeze_bounds()
    forward(node, *cubes)
    with pytest.raises(PlanError):
        plan_fit(pipeline)
    node.freeze_bounds()
    _, low, high = running(cubes, 0, None)
    assert plan_fit(pipeline).passes == 1
    fit(pipeline, *cubes)
    expected = stretched(cubes[1], low.astype("f4"), high.astype("f4"))
    np.testing.assert_allclose(run(pipeline, "p.normalized", cube=cubes[1]), expected, atol=1e-6)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    assert again.nodes["p"].scope is Scope.PIXEL
    np.testing.assert_allclose(
        again.apply(labelled(cubes[1]), "p.normalized").to_numpy(), expected, atol=1e-6
    )


def test_buffers_are_those_of_cuvis_ai(tmp_path):
    node = PercentileNormalizer(3, name="p")
    kinds = {k: (tuple(v.shape), v.dtype) for k, v in node.state_dict().items()}
    assert kinds == {
        "running_min": ((3,), torch.float32),
        "running_max": ((3,), torch.float32),
        "_norm_frame_count": ((), torch.int64),
    }
    assert torch.isnan(node.running_min).all()
    # Not told, the size is that of the data, before there are bounds too.
    untold = PercentileNormalizer(name="p")
    chain(untold).resolve(ChannelAxis(3))
    assert untold.running_max.shape == (3,)
    state = {
        "running_min": torch.tensor([1.0, 2, 3]),
        "running_max": torch.tensor([2.0, 4, 6]),
        "_norm_frame_count": torch.tensor(25),
    }
    torch.save({"state_dict": {"data": {}, "p": state}}, tmp_path / "w.pt")
    pipeline = chain(PercentileNormalizer(3, name="p"))
    load_weights(pipeline, tmp_path / "w.pt")
    assert pipeline.nodes["p"].frozen
    cube = np.full((2, 2, 3), 3, np.uint8)
    pipeline.resolve(ChannelAxis(3))
    np.testing.assert_allclose(run(pipeline, "p.normalized", cube=cube), [[[1, 0.5, 0]] * 2] * 2)


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "node",
    [
        PercentileNormalizer(norm_mode="per_frame"),
        PercentileNormalizer(norm_mode="per_frame", per_frame_quantiles=True),
        PercentileNormalizer(),
    ],
)
def test_pixels_that_are_not_finite_do_not_count_in_memory(node):
    cube = scene(20, 6, dtype="float32")
    expected = forward(node, np.delete(cube, 7, axis=0))[0]
    node = PercentileNormalizer(**node.hparams)
    cube[7] = np.nan
    cube[7, 2, 1] = -1e9
    out = forward(node, cube)[0]
    np.testing.assert_array_equal(np.delete(out, 7, axis=0), expected)
    assert np.isnan(forward(node, cube * np.nan)).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"norm_mode": "frame"}, "norm_mode 'frame' is not one of running, per_frame, stat"),
        ({"clamp": "none"}, "clamp applies to norm_mode 'statistical' only, not to 'running'"),
        ({"joint_channels": True}, "joint_channels applies to norm_mode 'per_frame' only"),
        ({"quantile_low": 0.9, "quantile_high": 0.1}, r"quantile_low 0.9 and .* 0 <= low < high"),
        ({"quantize_levels": 0}, "quantize_levels 0 must be at least 1"),
        ({"freeze_running_bounds_after_frames": 0}, "freeze_.* 0 must be at least 1"),
        ({"eps": -1.0}, "eps -1.0 must not be negative"),
    ],
)
def test_arguments_that_make_no_sense(arguments, text):
    with pytest.raises(PipelineError, match=text):
        PercentileNormalizer(**arguments)


def test_no_range_to_divide_by():
    cube = scene(20, 6, dtype="float32")
    cube[..., 1] = 3.0
    text = r"p: the low and the high bound of channels \[1\] are equal, and eps is 0"
    with pytest.raises(DataError, match=text):
        forward(PercentileNormalizer(norm_mode="per_frame", eps=0.0, name="p"), cube)
    with pytest.raises(DataError, match=text):
        fit(chain(PercentileNormalizer(norm_mode="statistical", eps=0.0, name="p")), cube)
    assert (forward(PercentileNormalizer(norm_mode="per_frame"), cube)[..., 1] == 0).all()
