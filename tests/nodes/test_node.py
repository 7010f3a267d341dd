"""What all nodes share: float64 state beside float32 buffers, threads, the library of classes."""

import inspect
import re
import threading

import numpy as np
import pytest
import torch
from graph_helpers import Untold, flat, scene
from threadpoolctl import threadpool_info

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    MinMaxNormalizer,
    Node,
    RXGlobal,
    Scope,
    SoftChannelSelector,
    Stage,
    TrainablePCA,
    ZScoreNormalizerGlobal,
    node_class,
    node_classes,
)
from hsi_batch.nodes.described import described
from hsi_batch.nodes.gaussian import (
    covariance_rank,
    eigh,
    least_squares,
    qr_triangle,
    single_thread,
    whitening,
)
from hsi_batch.nodes.registry import is_foreign
from hsi_batch.statistics import Extrema, Moments

X = flat(scene(channels=4))
MOMENTS = Moments.empty(4, X.dtype).update(X)

FITTED = {
    "minmax": (MinMaxNormalizer, {}, "running_max", Extrema.empty(4, X.dtype).update(X)),
    "zscore": (ZScoreNormalizerGlobal, {}, "zscore_mean", MOMENTS),
    "pca": (TrainablePCA, {"n_components": 2}, "_mean", MOMENTS),
    "selector": (SoftChannelSelector, {"n_select": 2}, "channel_logits", MOMENTS),
    "rx": (RXGlobal, {}, "mu", MOMENTS),
}


@pytest.fixture(params=FITTED)
def fitted(request):
    """A fitted node and the name of one of its buffers."""
    cls, options, buffer, statistic = FITTED[request.param]
    node = cls(name="n", **options)
    assert not node.fitted
    node.fit(statistic)
    return node, buffer


def test_the_float64_state_counts_until_a_buffer_is_assigned(fitted):
    node, buffer = fitted
    assert node.fitted
    assert node.exact_state() is node.state
    assert node.assigned() == set()
    before = getattr(node, buffer).clone()
    setattr(node, buffer, before + 1)
    assert node.exact_state() is None
    assert node.assigned() == {buffer}
    setattr(node, buffer, before)
    assert node.exact_state() is node.state
    # In place, too.
    getattr(node, buffer).add_(1)
    assert node.assigned() == {buffer}


def test_digests_tell_buffers_apart(fitted):
    node, buffer = fitted
    digest = node.buffer_digest()
    assert digest == node.buffer_digest()
    setattr(node, buffer, getattr(node, buffer) + 1)
    assert node.buffer_digest() != digest
    setattr(node, buffer, getattr(node, buffer)[None])
    with_axis = node.buffer_digest()
    setattr(node, buffer, getattr(node, buffer)[0])
    assert node.buffer_digest() != with_axis


def test_a_state_that_is_restored_belongs_to_the_buffers_of_that_moment(fitted):
    node, buffer = fitted
    state = dict(node.state)
    setattr(node, buffer, getattr(node, buffer) + 1)
    node.restore_state(state)
    assert node.exact_state() == state


def test_a_new_node_has_no_state():
    node = RXGlobal(2)
    assert node.exact_state() is None
    assert node.assigned() == {"mu", "cov", "cov_inv"}


def test_the_base_class_refuses_what_it_does_not_know():
    node = Untold(name="u")
    for use in (node.affine, node.quadratic):
        with pytest.raises(TypeError, match="Untold is not"):
            use()
    with pytest.raises(TypeError, match="Untold is not fitted from float"):
        node.fit(1.0)
    with pytest.raises(TypeError, match="Untold has no frame fit from float"):
        node.frame_fit(1.0)
    assert node.request() is None
    assert node.fitted
    assert node.scope is Scope.FRAME
    assert node.stages == frozenset(Stage)
    assert Node.INPUT_SPECS == {}


def test_scopes_of_the_library():
    arguments = {
        "SoftChannelSelector": [1],
        "BandpassByWavelength": [1],
        "BinaryAnomalyLabelMapper": [[0]],
        "FixedPCAProjection": ["none.npz"],
        "FrameScoreGate": [1],
        "PCA": [1],
        "SpectralResample": [[500.0, 510.0]],
        "TopKIndices": [1],
    }
    arguments |= {n: [[[1.0]]] for n in ("ACE", "CEM", "MatchedFilter", "OSP", "SID")}
    # Those that only look on (losses, metrics, pictures) never run on blocks.
    running = {n: c for n, c in node_classes().items() if Stage.INFERENCE in c.stages}
    scopes = {n: c(*arguments.get(n, [])).scope for n, c in running.items()}
    assert {n for n, s in scopes.items() if s is Scope.FRAME} == {
        "BBoxSpectralExtractor",
        "BlobDetector",
        "DistinctLabelCount",
        "FastRGBSelector",
        "FixedPCAProjection",
        "FrameScoreGate",
        "GridSubsample",
        "MaskedMeanSpectrum",
        "NNLSUnmixing",
        "PCA",
        "QuantileBinaryDecider",
        "RXPerBatch",
        "ScoreUpsample",
        "ShapeMorphology",
        "SigmoidNormalizer",
        "SignaturesToReferences",
        "SpatialRotateNode",
        "SpectralAngleMapper",
        "SpectralObjectMask",
        "SpectralSignatureExtractor",
        "TwoStageBinaryDecider",
        "ZScoreNormalizer",
    }
    # As in cuvis-ai, the bounds of pictures move from frame to frame unless told otherwise.
    assert {n for n, s in scopes.items() if s is Scope.SEQUENCE} == {
        "CIETristimulusRGBSelector",
        "CIRSelector",
        "CameraEmulationFalseRGBSelector",
        "FixedWavelengthSelector",
        "HighContrastSelector",
        "PercentileNormalizer",
        "RangeAverageFalseRGBSelector",
        "SupervisedCIRSelector",
        "SupervisedFullSpectrumSelector",
        "SupervisedWindowedSelector",
    }
    window = {n for n, s in scopes.items() if s is Scope.WINDOW}
    assert window == {"Destripe", "LocalRX", "ScoreMapSmoothing"}
    assert set(scopes.values()) == set(Scope)


# --- the library --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "RXGlobal",
        "cuvis_ai.node.anomaly.rx_detector.RXGlobal",
        "cuvis_ai.anomaly.rx_detector.RXGlobal",
        "cuvis_ai_core.RXGlobal",
        "hsi_batch.nodes.rx.RXGlobal",
    ],
)
def test_classes_are_found_by_name_and_path(name):
    assert node_class(name) is RXGlobal
    assert is_foreign(name) == name.startswith("cuvis_ai")


@pytest.mark.parametrize("name", ["os.system", "builtins.RXGlobal", "RXGlobl", "cuvis_ai.Nothing"])
def test_other_classes_are_not(name):
    with pytest.raises(PipelineError, match=f"there is no node class {name!r}"):
        node_class(name)


def test_the_message_names_the_nearest_or_where_to_look():
    with pytest.raises(PipelineError, match=r"Did you mean 'RXGlobal'\?$"):
        node_class("RXGlobl")
    with pytest.raises(PipelineError, match=r"With 'rx' in their names: LocalRX, RXGlobal, RXPer"):
        node_class("rx")
    with pytest.raises(PipelineError, match=r"'qqqqqq'\. hsi-batch nodes lists all of them"):
        node_class("qqqqqq")


def _named(cls):
    """The arguments that a docstring lists."""
    section = re.search(r"Parameters\n-+\n(.*?)(\n\n\S+\n-+\n|\Z)", inspect.getdoc(cls), re.DOTALL)
    heads = re.findall(r"^(\w.*?)(?: :.*)?$", section[1], re.MULTILINE) if section else []
    return {name.strip() for head in heads for name in head.split(",")}


@pytest.mark.parametrize("name", node_classes())
def test_everything_is_described_with_an_example(name):
    # `hsi-batch nodes NAME` prints these; what a base says of an argument holds for its classes.
    cls, found = node_classes()[name], described(name)
    assert [p.name for p in found.parameters if not p.description] == []
    assert [p.name for p in (*found.inputs, *found.outputs) if not p.description] == []
    assert _named(cls) <= {p.name for p in found.parameters}
    assert found.summary.endswith(".")
    assert ">>> " in cls.__doc__


# --- factorisations -----------------------------------------------------------------------------


def test_factorisations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix = root @ root.T
    values, vectors = eigh(matrix)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], rtol=1e-9)
    np.testing.assert_allclose(vectors.T * values @ vectors, matrix, atol=1e-9)
    assert (vectors[np.arange(6), np.abs(vectors).argmax(axis=1)] > 0).all()
    factor = whitening(matrix)
    np.testing.assert_allclose(factor, np.linalg.inv(np.linalg.cholesky(matrix)), atol=1e-12)
    assert not np.triu(factor, 1).any()
    assert whitening(-matrix) is None
    tall = rng.normal(size=(8, 5))
    orthogonal, triangle = qr_triangle(tall)
    np.testing.assert_allclose(orthogonal @ triangle, tall, atol=1e-12)
    assert not np.tril(triangle, -1).any()
    target = rng.normal(size=8)
    for m in (tall, tall.T, tall[:, [0, 0, 1]]):
        expected = np.linalg.lstsq(m, target[: len(m)], rcond=None)[0]
        np.testing.assert_allclose(least_squares(m, target[: len(m)]), expected, atol=1e-10)


def test_rank_counts_what_is_more_than_rounding():
    assert covariance_rank(np.array([1e8, 1.0, 1e-3])) == 3
    assert covariance_rank(np.array([1e8, 1.0, 1e-9, -1e-9])) == 2
    assert covariance_rank(np.array([0.0, 0.0])) == 0


# --- threads ------------------------------------------------------------------------------------


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_inside_and_as_before_outside():
    outside, torch_outside = blas_threads(), torch.get_num_threads()
    with single_thread():
        assert blas_threads() == {1}
        assert torch.get_num_threads() == 1
        with single_thread():
            pass
        assert blas_threads() == {1}
        assert torch.get_num_threads() == 1
    assert blas_threads() == outside
    assert torch.get_num_threads() == torch_outside
    with pytest.raises(ZeroDivisionError), single_thread():
        _ = 1 / 0
    assert blas_threads() == outside


def test_a_thread_that_leaves_does_not_lift_the_limit_of_another():
    # Dask's threaded scheduler runs many blocks in one process.
    outside = blas_threads()
    both_in, first_out, seen = threading.Event(), threading.Event(), []

    def second():
        with single_thread():
            both_in.set()
            first_out.wait(10)
            seen.append(blas_threads())

    thread = threading.Thread(target=second)
    with single_thread():
        thread.start()
        assert both_in.wait(10)
    first_out.set()
    thread.join(10)
    assert seen == [{1}]
    assert blas_threads() == outside
