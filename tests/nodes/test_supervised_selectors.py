"""Channels chosen from labels, against scikit-learn and numpy on the whole data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graph_helpers import run, source_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hsi_batch.errors import DataError, NotFittedError, PipelineError
from hsi_batch.nodes import (
    AnomalyDataNode,
    ChannelAxis,
    MinMaxNormalizer,
    SupervisedCIRSelector,
    SupervisedFullSpectrumSelector,
    SupervisedWindowedSelector,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.fitting import Fitting, plan_fit
from hsi_batch.pipeline.gather import finished
from hsi_batch.pipeline.passes import gather_frame
from hsi_batch.statistics import Bundle

NM = np.linspace(430, 930, 12)
CLASSES = (SupervisedCIRSelector, SupervisedWindowedSelector, SupervisedFullSpectrumSelector)


def scene(seed, height=40, width=15, channels=12, dtype="uint16"):
    """A cube, and class numbers: -1 unlabelled, 0 and 1 normal, 2 anomalous."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1, 0, 1, 2], (height, width), p=[0.2, 0.4, 0.3, 0.1]).astype(np.int16)
    mixing = rng.normal(size=(channels, channels)) * 15 + 60 * np.eye(channels)
    cube = rng.normal(size=(height, width, channels)) @ mixing + 1000
    cube[labels == 2] += rng.normal(size=channels) * 60
    return np.rint(cube).astype(dtype), labels


def graph(node, normalizer=None):
    pipeline = Pipeline("supervised")
    data = AnomalyDataNode([0, 1], name="data")
    last = data.outputs.cube
    if normalizer is not None:
        pipeline.connect(last, normalizer.inputs.data)
        last = normalizer.outputs.normalized
    pipeline.connect(
        (last, node.inputs.cube),
        (data.outputs.wavelengths, node.inputs.wavelengths),
        (data.outputs.mask, node.inputs.mask),
    )
    return pipeline


def fit(pipeline, *scenes, block=None):
    pipeline.resolve(ChannelAxis.of(NM))
    plan = plan_fit(pipeline, ("moments", "extrema"))
    fitting = Fitting(pipeline, plan)
    needs = fitting.stored()
    while needs or not fitting.done:
        bundle = Bundle()
        for index, (cube, labels) in enumerate(scenes):
            source = replace(
                source_of(cube, None, block), labels=lambda a, b, labels=labels: labels[a:b]
            )
            part = gather_frame(
                pack(pipeline), needs, source, source.blocks, ((index, len(scenes)),)
            )
            bundle = bundle.merge(part)
        fitting.supply({need: finished(bundle)[str(need)] for need in needs})
        needs = fitting.needs()
    return plan


def information(column, target):
    edges = np.linspace(column.min(), column.max(), 10)
    table = np.full((10, 2), 1e-10)
    np.add.at(table, (np.digitize(column, edges) - 1, target), 1)
    p = table / table.sum()
    return (p * np.log2(p / np.outer(p.sum(axis=1), p.sum(axis=0)))).sum()


def reference(scenes, weights):
    """Scores per channel and the correlation, by holding all labelled pixels."""
    x = np.concatenate([cube[labels >= 0] for cube, labels in scenes]).astype(np.float64)
    y = np.concatenate([labels[labels >= 0] == 2 for _, labels in scenes]).astype(int)
    fisher = (x[y == 1].mean(0) - x[y == 0].mean(0)) ** 2 / (x[y == 1].var(0) + x[y == 0].var(0))
    auc = np.array([roc_auc_score(y, column) for column in x.T])
    mi = np.array([information(column, y) for column in x.T])
    combined = sum(
        w * (s - s.mean()) / s.std() for w, s in zip(weights, (fisher, auc, mi), strict=True)
    )
    return combined, (fisher, auc, mi), np.abs(np.corrcoef(x.T)), x


def greedy(scores, correlation, penalty, candidates):
    """One channel of each list of candidates."""
    chosen = []
    for group in candidates:
        best = max(
            (c for c in group if candidates[0] is not candidates[-1] or c not in chosen),
            key=lambda c: scores[c] - penalty * max((correlation[c, s] for s in chosen), default=0),
        )
        chosen.append(best)
    return chosen


def candidates(node):
    if isinstance(node, SupervisedFullSpectrumSelector):
        return [range(len(NM))] * 3
    found = []
    for low, high in node.windows:
        inside = [i for i, nm in enumerate(NM) if low <= nm <= high]
        found.append(inside or [int(np.argmin(np.abs(NM - (low + high) / 2)))])
    return found


@settings(max_examples=12)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(CLASSES),
    st.tuples(*[st.sampled_from([0.5, 1.0, 2.0])] * 3),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from(["uint16", "float32"]),
)
def test_channels_are_those_of_the_whole_data(seed, cls, weights, penalty, block, dtype):
    scenes = [scene(seed, dtype=dtype), scene(seed + 1, height=23, dtype=dtype)]
    node = cls(score_weights=weights, lambda_penalty=penalty, norm_mode="statistical", name="bands")
    plan = fit(graph(node), *scenes, block=block)
    assert plan.passes == 1
    combined, scores, correlation, x = reference(scenes, weights)
    for buffer, expected in zip(("fisher_scores", "auc_scores", "mi_scores"), scores, strict=True):
        np.testing.assert_allclose(node.state[buffer], expected, rtol=1e-9)
        np.testing.assert_array_equal(getattr(node, buffer), np.float32(node.state[buffer]))
    np.testing.assert_allclose(node.state["band_scores"], combined, rtol=1e-6, atol=1e-8)
    chosen = greedy(combined, correlation, penalty, candidates(node))
    assert node.selected_indices.tolist() == chosen
    assert node.selected_indices.dtype == torch.int64
    bounds = np.quantile(x[:, chosen], [0.005, 0.995], axis=0)
    np.testing.assert_allclose(node.state["low"], bounds[0], rtol=1e-12)
    np.testing.assert_allclose(node.running_max, bounds[1], rtol=1e-6)


def test_the_grouping_of_lines_changes_no_bit():
    scenes = [scene(3, dtype="float32"), scene(4, dtype="float32")]
    states = []
    for block in (None, 1):
        node = SupervisedFullSpectrumSelector(norm_mode="statistical", name="bands")
        fit(graph(node), *scenes, block=block)
        states.append(node.state)
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])


@pytest.mark.parametrize("mode", ["statistical", "per_frame", "raw"])
def test_what_is_scored_block_by_block_is_what_forward_shows(mode):
    options = {"normalize_output": False} if mode == "raw" else {"norm_mode": mode}
    node = SupervisedCIRSelector(name="bands", apply_gamma=False, **options)
    pipeline = graph(node, MinMaxNormalizer(name="norm"))
    cube, labels = scene(5)
    plan = fit(pipeline, (cube, labels))
    # The scaled cube is no affine map of counts, so it waits for the range; that is stored.
    assert plan.passes == 1
    got = run(pipeline, "rgb_image", cube=cube, block=1)
    x = cube.astype(np.float64)
    scaled = (x - x.min()) / (x.max() - x.min())
    picked = scaled[..., node.selected_indices.tolist()]
    used = picked[labels >= 0] if mode == "statistical" else picked.reshape(-1, 3)
    levels = [0.005, 0.995] if mode == "statistical" else [0, 1]
    low, high = np.quantile(used, levels, axis=0)
    expected = picked if mode == "raw" else np.clip((picked - low) / (high - low), 0, 1)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    shown = pipeline.forward({"cube": torch.from_numpy(cube.astype(np.float32))[None]})
    image = shown[pipeline.port("rgb_image")][0].numpy()
    np.testing.assert_allclose(image, expected, atol=2e-6)
    info = shown[pipeline.port("band_info")]
    assert info["band_indices"] == node.selected_indices.tolist()
    assert info["band_wavelengths_nm"] == NM[node.selected_indices.tolist()].tolist()


def test_saved_and_loaded(tmp_path):
    node = SupervisedWindowedSelector(name="bands", norm_mode="statistical")
    pipeline = graph(node)
    cube, labels = scene(6)
    fit(pipeline, (cube, labels))
    pipeline.save(tmp_path / "bands.yaml")
    back = Pipeline.from_yaml(tmp_path / "bands.yaml")
    copy = back.nodes["bands"]
    assert copy.fitted
    assert copy.hparams == node.hparams
    for name, tensor in node.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor), name
    np.testing.assert_array_equal(
        run(back, "rgb_image", cube=cube), run(pipeline, "rgb_image", cube=cube)
    )


def test_buffers_are_those_of_cuvis_ai():
    node = SupervisedCIRSelector(num_spectral_bands=12)
    shapes = {name: tuple(t.shape) for name, t in node.state_dict().items()}
    assert shapes == {
        "running_min": (3,),
        "running_max": (3,),
        "_norm_frame_count": (),
        "selected_indices": (3,),
        "band_scores": (12,),
        "fisher_scores": (12,),
        "auc_scores": (12,),
        "mi_scores": (12,),
    }


def test_what_is_refused():
    with pytest.raises(PipelineError, match="2 windows were given; 3 are needed"):
        SupervisedCIRSelector(windows=((1, 2), (3, 4)))
    with pytest.raises(PipelineError, match=r"windows \[5, 4\] is not \(lowest nm, highest nm\)"):
        SupervisedCIRSelector(windows=((1, 2), (3, 4), (5, 4)))
    with pytest.raises(PipelineError, match=r"score_weights .* must be three"):
        SupervisedFullSpectrumSelector(score_weights=(1.0, 2.0))
    with pytest.raises(PipelineError, match="norm_mode 'own' is not one of"):
        SupervisedFullSpectrumSelector(norm_mode="own")
    node = SupervisedFullSpectrumSelector(name="bands", norm_mode="per_frame")
    pipeline = graph(node)
    with pytest.raises(PipelineError, match="bands chooses 3 channels; 2 reach it"):
        pipeline.resolve(ChannelAxis.of([500.0, 600.0]))
    with pytest.raises(PipelineError, match="bands needs wavelengths"):
        pipeline.resolve(ChannelAxis(12))
    cube, labels = scene(7)
    with pytest.raises(DataError, match="0 anomalous labelled pixels"):
        fit(pipeline, (cube, np.minimum(labels, 1)))
    pipeline.resolve(ChannelAxis.of(NM))
    with pytest.raises(NotFittedError, match="bands"):
        run(pipeline, "rgb_image", cube=cube)
