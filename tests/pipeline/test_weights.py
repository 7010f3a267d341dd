"""Weights on disk: bits that come back, files of cuvis-ai, and files that must be refused."""

import io
import os
import pickle
import resource

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, mahalanobis, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError, HsiBatchError, NotFittedError, PlanError
from hsi_batch.nodes import (
    ChannelAxis,
    MinMaxNormalizer,
    PercentileNormalizer,
    RXGlobal,
    RXPerBatch,
    ScoreToLogit,
    SoftChannelSelector,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.weights import load_weights

NANOMETRES = [400.25, 500.5, 600.75, 700.0, 800.125]


def everything():
    """A graph with every class that is fitted."""
    pipeline = chain(
        MinMaxNormalizer(name="norm"),
        SoftChannelSelector(2, init_method="variance", name="selector"),
        RXGlobal(name="rx", eps=1e-4),
        ScoreToLogit(name="logit"),
    )
    cube = pipeline.nodes["data"].outputs.cube
    z, pca = ZScoreNormalizerGlobal(name="z"), TrainablePCA(n_components=2, name="pca")
    pipeline.connect((cube, z.data), (z.normalized, pca.data))
    return pipeline


@pytest.fixture
def fitted():
    pipeline = everything()
    fit(pipeline, scene(), axis=ChannelAxis.of(NANOMETRES))
    pipeline.provenance = {"pixels": 960, "sessions": ["a", "b"], "nested": {"x": 1.5}}
    return pipeline


def content(weights):
    return torch.load(io.BytesIO(weights), weights_only=True)


def packed(found):
    buffer = io.BytesIO()
    torch.save(found, buffer)
    return buffer.getvalue()


def empty_copy(pipeline):
    return Pipeline.from_document(read_yaml("p.yaml", text=pipeline.to_bytes()[0]))


def changed(pipeline, change):
    """The weights of a pipeline after a change of what the file holds."""
    found = content(pipeline.to_bytes()[1])
    change(found)
    return packed(found)


# --- round trip ---------------------------------------------------------------------------------


def test_every_bit_comes_back(fitted, tmp_path):
    for other in (
        Pipeline.from_bytes(*fitted.to_bytes()),
        Pipeline.from_yaml(fitted.save(tmp_path / "p.yaml")),
    ):
        assert other.fitted
        for name, node in fitted.nodes.items():
            assert node.buffer_digest() == other.nodes[name].buffer_digest()
            state = other.nodes[name].exact_state()
            assert (state is None) == (not node.state)
            for key, value in node.state.items():
                assert state[key].dtype == value.dtype
                assert state[key].tobytes() == value.tobytes()
                assert state[key].shape == value.shape
        assert other.precision == fitted.precision
        assert other.provenance == fitted.provenance
        assert other.axis.wavelength.tolist() == NANOMETRES
        assert other.nodes["pca"].axes["data"].size == 5
        np.testing.assert_array_equal(
            other.nodes["pca"].explained_variance_ratio.numpy(),
            fitted.nodes["pca"].explained_variance_ratio.numpy(),
        )
        wanted = ("rx.scores", "logit.logits", "pca.projected")
        for a, b in zip(
            run(fitted, *wanted, cube=scene()), run(other, *wanted, cube=scene()), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_a_none_that_is_not_the_default_comes_back(tmp_path):
    pipeline = chain(PercentileNormalizer(freeze_running_bounds_after_frames=None, name="norm"))
    assert pipeline.nodes["norm"].hparams["freeze_running_bounds_after_frames"] is None
    path = pipeline.save(tmp_path / "p.yaml")
    assert "null" in path.read_text()
    again = Pipeline.from_yaml(path).nodes["norm"]
    assert again.hparams == pipeline.nodes["norm"].hparams


def test_axes_without_wavelengths(tmp_path):
    pipeline = chain(RXGlobal(name="rx"))
    fit(pipeline, scene(), sample=False)
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    assert (other.axis.size, other.axis.wavelength) == (5, None)
    assert other.precision["rx"].error is None


def test_not_fitted_stays_not_fitted(tmp_path):
    pipeline = everything()
    pipeline.resolve(ChannelAxis(5))
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    assert not other.fitted
    with pytest.raises(NotFittedError):
        other.apply(labelled(scene()))
    # The weights of a part: the rest stays as it is.
    only = chain(RXGlobal(name="rx"))
    fit(only, scene())
    only.nodes["rx"].mark_fitted(False)
    assert not Pipeline.from_bytes(*only.to_bytes()).fitted


def test_assigned_buffers_come_back_without_the_state_they_replaced(fitted):
    fitted.nodes["norm"].running_max = torch.tensor(5000.0)
    other = Pipeline.from_bytes(*fitted.to_bytes())
    assert other.nodes["norm"].exact_state() is None
    assert other.nodes["norm"].affine()(np.array([[5000.0] * 5])).tolist() == [[1.0] * 5]
    assert other.nodes["z"].exact_state() is not None


def test_buffers_that_were_changed_in_the_file_win(fitted):
    def change(found):
        found["state_dict"]["z"]["zscore_mean"] += 1

    other = empty_copy(fitted)
    load_weights(other, changed(fitted, change))
    assert other.fitted
    assert other.nodes["z"].exact_state() is None
    assert other.nodes["pca"].exact_state() is not None
    np.testing.assert_allclose(
        other.nodes["z"].zscore_mean, fitted.nodes["z"].zscore_mean + 1, rtol=1e-7
    )


def test_files_are_replaced_whole_or_not_at_all(fitted, tmp_path):
    path = fitted.save(tmp_path / "p.yaml")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    fitted.nodes["norm"].running_max = torch.tensor(5000.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as if the disk were full
    try:
        with pytest.raises(OSError, match="File too large"):
            fitted.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    fitted.save(path)
    assert path.with_suffix(".pt").read_bytes() != before["p.pt"]


def test_a_device_may_be_named(fitted, tmp_path):
    path = fitted.save(tmp_path / "p.yaml")
    other = Pipeline.load_from_file(path, path.with_suffix(".pt"), device="cpu")
    assert other.nodes["rx"].mu.device.type == "cpu"
    assert other.nodes["rx"].exact_state() is not None


# --- files of cuvis-ai --------------------------------------------------------------------------

CUVIS = """\
nodes:
- {{name: data, class_name: cuvis_ai.node.data.CU3SDataNode}}
- {{name: norm, class_name: cuvis_ai.node.normalization.MinMaxNormalizer}}
- name: rx
  class_name: cuvis_ai.node.anomaly.rx_detector.RXGlobal
  hparams: {{num_channels: {channels}}}
- {{name: logit, class_name: cuvis_ai.node.conversion.ScoreToLogit}}
connections:
- {{source: data.outputs.cube, target: norm.inputs.data}}
- {{source: norm.outputs.normalized, target: rx.inputs.data}}
- {{source: rx.outputs.scores, target: logit.inputs.scores}}
"""


def cuvis_weights(cube, fit=True):
    """What cuvis-ai saves, computed as it computes: float32 buffers, ridge and pseudo-inverse."""
    x, channels = flat(cube), cube.shape[-1]
    low, high = np.float32(x.min()), np.float32(x.max())
    scaled = ((x - low) / (high - low)).astype(np.float32).astype(np.float64)
    cov = torch.from_numpy(np.cov(scaled.T)).float() + 1e-6 * torch.eye(channels)
    rx = {
        "mu": torch.from_numpy(scaled.mean(axis=0)).float(),
        "cov": cov,
        "cov_inv": torch.linalg.pinv(cov),
    }
    if not fit:
        rx = {k: torch.zeros_like(v) for k, v in rx.items()}
        low = high = np.nan
    return {
        "data": {},
        "norm": {"running_min": torch.tensor(low), "running_max": torch.tensor(high)},
        "rx": rx,
        "logit": {"scale": torch.tensor(1.0), "bias": torch.tensor(9.5 if fit else 0.0)},
    }


def cuvis(tmp_path, state, channels=5):
    path = tmp_path / "cuvis.yaml"
    path.write_text(CUVIS.format(channels=channels))
    metadata = {"name": "x", "created": "2026-01-01", "cuvis_ai_version": "0.18.6"}
    torch.save({"state_dict": state, "metadata": metadata}, path.with_suffix(".pt"))
    return path


def test_weights_of_cuvis_ai_score_alike(tmp_path):
    cube = scene()
    pipeline = Pipeline.from_yaml(cuvis(tmp_path, cuvis_weights(cube)))
    assert pipeline.fitted
    assert pipeline.axis is None
    scores = pipeline.apply(labelled(cube)).to_numpy()
    x = flat(cube)
    expected = mahalanobis((x - x.min()) / np.ptp(x), eps=1e-6)
    np.testing.assert_allclose(scores.ravel(), expected, rtol=2e-3)
    logits = pipeline.apply(labelled(cube), "logits").to_numpy()
    np.testing.assert_allclose(logits, scores.astype(np.float64) - 9.5, atol=1e-5)
    # And once more through a file of ours.
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "ours"))
    np.testing.assert_array_equal(other.apply(labelled(cube)).to_numpy(), scores)


def test_unfitted_weights_of_cuvis_ai_do_not_count_as_fitted(tmp_path):
    # cuvis-ai itself takes them for fitted and scores zero everywhere.
    pipeline = Pipeline.from_yaml(cuvis(tmp_path, cuvis_weights(scene(), fit=False)))
    assert not any(pipeline.nodes[n].fitted for n in ("norm", "rx", "logit"))


def test_an_inverse_that_was_not_kept(tmp_path):
    # cache_inverse=False: cuvis-ai saves a (0, 0) tensor that it cannot load again.
    cube, weights = scene(), cuvis_weights(scene())
    whole = Pipeline.from_yaml(cuvis(tmp_path, weights)).apply(labelled(cube)).to_numpy()
    weights["rx"]["cov_inv"] = torch.zeros(0, 0)
    pipeline = Pipeline.from_yaml(cuvis(tmp_path, weights))
    np.testing.assert_array_equal(pipeline.apply(labelled(cube)).to_numpy(), whole)


def test_a_declared_count_that_was_never_true(tmp_path):
    # The seed pages declare 10 where 61 channels arrive; cuvis-ai fits that, and cannot load it.
    pipeline = Pipeline.from_yaml(cuvis(tmp_path, cuvis_weights(scene()), channels=10))
    with pytest.warns(UserWarning, match="declares num_channels 10, but 5 channels reach it"):
        scores = pipeline.apply(labelled(scene()))
    assert scores.to_numpy().mean() == pytest.approx(5, rel=0.01)


def test_nodes_that_the_file_lacks_stay_unfitted(tmp_path):
    weights = cuvis_weights(scene())
    del weights["rx"]
    pipeline = Pipeline.from_yaml(cuvis(tmp_path, weights))
    assert pipeline.nodes["norm"].fitted
    assert not pipeline.nodes["rx"].fitted
    with pytest.raises(NotFittedError):
        pipeline.apply(labelled(scene()))


def test_data_of_other_channels_than_the_weights(tmp_path):
    pipeline = Pipeline.from_yaml(cuvis(tmp_path, cuvis_weights(scene())))
    other = labelled(scene(channels=4))
    text = r"rx\.mu has shape \(5,\), but 4 channels reach"
    with (
        pytest.warns(UserWarning, match="declares num_channels 5, but 4"),
        pytest.raises(PlanError, match=text),
    ):
        pipeline.apply(other)
    with pytest.raises(PlanError, match=text):
        pipeline.apply(other)
    with pytest.raises(PlanError, match=text):
        pipeline.forward({"cube": torch.zeros(1, 2, 2, 4)})
    with pytest.warns(UserWarning, match="declares num_channels 4, but 5"):
        pipeline.apply(labelled(scene()))


def test_nodes_without_weights_need_none(tmp_path):
    path = chain(RXPerBatch(name="rx", eps=0.0)).save(tmp_path / "p")
    # A YAML of cuvis-ai, which names no weights.
    path.write_text(path.read_text().split("\n", 1)[1])
    torch.save({"state_dict": {"data": {}, "rx": {}}, "metadata": {}}, path.with_suffix(".pt"))
    assert Pipeline.from_yaml(path).fitted
    path.with_suffix(".pt").unlink()
    assert Pipeline.from_yaml(path).fitted


# --- refusals -----------------------------------------------------------------------------------


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_nothing_is_run_while_loading(fitted, tmp_path, form):
    trap, buffer = str(tmp_path / "trap"), io.BytesIO()
    bad = {"state_dict": {}, "metadata": Malicious(trap)}
    if form == "pickle":
        buffer.write(pickle.dumps(bad))
    else:
        torch.save(bad, buffer, _use_new_zipfile_serialization=form == "zip")
    (tmp_path / "bad.pt").write_bytes(buffer.getvalue())
    with pytest.raises(
        ConfigError, match=r"bad\.pt: this is not a weights file that can be read safely"
    ):
        load_weights(empty_copy(fitted), tmp_path / "bad.pt")
    assert not os.path.exists(trap)  # noqa: PTH110
    # The same bytes do harm where they are trusted.
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False) if form != "pickle" else None
    assert os.path.exists(trap) or form == "pickle"  # noqa: PTH110


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_are_refused_or_harmless(data):
    pipeline = chain(RXGlobal(name="rx", eps=0.0))
    fit(pipeline, scene(8, 8, 2), sample=False)
    text, raw = pipeline.to_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "noise"]))
    if kind == "cut":
        bad = raw[: data.draw(st.integers(0, len(raw) - 1))]
    elif kind == "noise":
        bad = data.draw(st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"])) + data.draw(
            st.binary(max_size=80)
        )
    else:
        position = data.draw(st.integers(0, len(raw) - 1))
        bad = bytearray(raw)
        bad[position] ^= 1 << data.draw(st.integers(0, 7))
        bad = bytes(bad)
    other = Pipeline.from_document(read_yaml("p.yaml", text=text))
    try:
        load_weights(other, bad)
    except HsiBatchError:
        return
    assert kind == "flip", "only padding of the zip may be changed without notice"
    np.testing.assert_array_equal(
        run(other, "rx.scores", cube=scene(8, 8, 2)),
        run(pipeline, "rx.scores", cube=scene(8, 8, 2)),
    )


def test_a_file_that_is_cut_off(fitted, tmp_path):
    path = fitted.save(tmp_path / "p.yaml")
    weights = path.with_suffix(".pt")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"p\.pt: this is not a weights file .*hsi-batch fit"):
        Pipeline.from_yaml(path)


def test_a_file_that_is_not_there(fitted, tmp_path):
    path = fitted.save(tmp_path / "p.yaml")
    with pytest.raises(ConfigError, match=r"x\.pt: there is no such weights file"):
        Pipeline.load_from_file(path, tmp_path / "x.pt")


def refuse(change, text):
    return pytest.param(change, text, id=text[:24])


def _set(node, buffer, value):
    def change(found):
        found["state_dict"][node][buffer] = value

    return change


def _ours(**values):
    return lambda found: found["hsi_batch"].update(values)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        refuse(
            lambda f: f["state_dict"].update(other={}),
            r"of another pipeline: nodes \['other'\] are not in 'test' \(data, norm, sel",
        ),
        refuse(
            lambda f: f["state_dict"]["rx"].pop("cov"),
            r"weights of rx \(RXGlobal\) are \['cov_inv', 'mu'\]; expected \['cov', 'cov_inv', 'mu",
        ),
        refuse(_set("rx", "mu", torch.zeros(5, 1)), r"rx\.mu has shape \(5, 1\); expected 1 axes"),
        refuse(_set("rx", "mu", 3.0), r"rx\.mu has shape <class 'float'>; expected 1 axes"),
        refuse(_set("rx", "mu", torch.zeros(4)), r"rx\.mu has shape \(4,\), but 5 channels reach"),
        refuse(_set("rx", "cov", torch.eye(6)), r"rx\.cov has shape \(6, 6\), .* \(5, 5\) is need"),
        refuse(lambda f: f["state_dict"].update(rx=3), "the file holds no `state_dict` per node"),
        refuse(lambda f: f.pop("state_dict"), "the file holds no `state_dict` per node"),
        refuse(_ours(format=3), "the weights are in format 3; this version reads 1 and 2"),
        refuse(lambda f: f.update(hsi_batch=[1]), "the weights are in format None"),
        refuse(lambda f: f["hsi_batch"].pop("fitted"), "the part 'hsi_batch' of the weights is d"),
        refuse(_ours(precision={"rx": {"x": 1}}), "the part 'hsi_batch' of the weights is damaged"),
        refuse(_ours(state={"rx": {"mean": 1}}), "the part 'hsi_batch' of the weights is damaged"),
        refuse(_ours(axis={"size": 5}), "the part 'hsi_batch' of the weights is damaged"),
        refuse(_ours(axis={"size": 4, "wavelength": None}), "rx.mu has shape|4 channels reach"),
    ],
)
def test_files_that_do_not_belong(fitted, change, text):
    with pytest.raises(ConfigError, match=text):
        load_weights(empty_copy(fitted), changed(fitted, change))


@pytest.mark.parametrize("found", [[1, 2], torch.ones(2), {"state_dict": [1]}])
def test_other_contents(fitted, found):
    with pytest.raises(ConfigError, match="the file holds no `state_dict` per node"):
        load_weights(empty_copy(fitted), packed(found))


def test_a_node_that_the_file_calls_fitted_needs_its_buffers(fitted):
    other = empty_copy(fitted)
    load_weights(other, changed(fitted, lambda found: found["state_dict"].pop("rx")))
    assert not other.nodes["rx"].fitted


def test_buffers_keep_their_dtype(fitted):
    other = empty_copy(fitted)
    mean = fitted.nodes["rx"].mu.double()
    load_weights(other, changed(fitted, _set("rx", "mu", mean)))
    assert other.nodes["rx"].mu.dtype == torch.float32
    assert other.nodes["rx"].exact_state() is not None
