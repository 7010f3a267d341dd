"""Detectors of known spectra against plain NumPy, and where their spectra come from."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, labelled, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError, DataError, NotFittedError, PipelineError
from hsi_batch.nodes import (
    ACE,
    CEM,
    OSP,
    SID,
    BandpassByWavelength,
    BinaryDecider,
    ChannelAxis,
    MatchedFilter,
    MinMaxNormalizer,
    ScoreToLogit,
)
from hsi_batch.nodes.spectral_library import SpectralLibrary
from hsi_batch.pipeline import Pipeline

SEEDS = st.integers(0, 2**32 - 1)
WAVELENGTH = [450.0, 500.0, 600.0, 700.0, 800.0]


def spectra(seed, count=2, channels=5):
    return np.random.default_rng(seed + 7).normal(size=(count, channels)) * 100 + 1000


def case(cls, seed, **options):
    """A node behind a scene that is fitted if it wants, its scores, pixels and targets."""
    cube, targets = scene(20, 13, seed=seed), spectra(seed)
    pipeline = chain(cls(targets=targets.tolist(), name="node", **options))
    fit(pipeline, cube, stored=("moments",))
    scores = run(pipeline, "node.scores", cube=cube, block=1)
    node = pipeline.nodes["node"]
    direct = node(data=torch.from_numpy(cube.astype("f4"))[None])["scores"][0].numpy()
    np.testing.assert_allclose(scores, direct, rtol=1e-5, atol=1e-7)
    return scores.reshape(-1, len(targets)), flat(cube), targets


def ridge(matrix, loading):
    return matrix + loading * np.trace(matrix) / len(matrix) * np.eye(len(matrix))


@settings(max_examples=12)
@given(SEEDS, st.sampled_from([0.0, 0.1]))
def test_matched_filter(seed, loading):
    scores, x, targets = case(MatchedFilter, seed, loading=loading)
    inverse = np.linalg.inv(ridge(np.cov(x.T), loading))
    for k, target in enumerate(targets - x.mean(axis=0)):
        expected = (x - x.mean(axis=0)) @ inverse @ target / (target @ inverse @ target)
        np.testing.assert_allclose(scores[:, k], expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=12)
@given(SEEDS, st.sampled_from([0.0, 0.1]), st.booleans())
def test_ace(seed, loading, signed):
    scores, x, targets = case(ACE, seed, loading=loading, signed=signed)
    inverse = np.linalg.inv(ridge(np.cov(x.T), loading))
    away = x - x.mean(axis=0)
    length = np.einsum("ij,jk,ik->i", away, inverse, away)
    for k, target in enumerate(targets - x.mean(axis=0)):
        along = away @ inverse @ target
        expected = along**2 / (length * (target @ inverse @ target))
        expected *= np.sign(along) if signed else 1
        np.testing.assert_allclose(scores[:, k], expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=12)
@given(SEEDS, st.sampled_from([0.0, 0.1]))
def test_cem(seed, loading):
    scores, x, targets = case(CEM, seed, loading=loading)
    inverse = np.linalg.inv(ridge(x.T @ x / len(x), loading))
    for k, target in enumerate(targets):
        expected = x @ inverse @ target / (target @ inverse @ target)
        np.testing.assert_allclose(scores[:, k], expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=12)
@given(SEEDS, st.integers(0, 2))
def test_osp(seed, components):
    scores, x, targets = case(OSP, seed, background_components=components)
    _, vectors = np.linalg.eigh(x.T @ x / len(x))
    for k, target in enumerate(targets):
        undesired = np.vstack([np.delete(targets, k, axis=0), vectors.T[::-1][:components]]).T
        project = np.eye(5) - undesired @ np.linalg.pinv(undesired)
        expected = x @ project @ target / (target @ project @ target)
        np.testing.assert_allclose(scores[:, k], expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=12)
@given(SEEDS)
def test_sid(seed):
    scores, x, targets = case(SID, seed)
    p = x / x.sum(axis=1, keepdims=True)
    for k, target in enumerate(targets):
        q = target / target.sum()
        expected = (p * np.log(p / q)).sum(axis=1) + (q * np.log(q / p)).sum(axis=1)
        np.testing.assert_allclose(scores[:, k], expected, rtol=1e-5, atol=1e-9)


def test_sid_of_values_that_are_not_positive():
    node = SID([[1.0, 3.0]], eps=1e-6)
    data = torch.tensor([[[[0.0, 0.0], [-1.0, 5.0], [10.0, 30.0]]]])
    found = node(data=data)
    assert torch.isfinite(found["scores"]).all()
    assert found["scores"][0, 0, 2, 0] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_array_equal(found["best_scores"], found["scores"])


def test_points_of_reference():
    cube, targets = scene(30, 20), spectra(0, 3)
    mean = flat(cube).mean(axis=0)
    probe = torch.tensor(np.vstack([mean, targets]), dtype=torch.float32)[None, None]
    scores = {}
    for cls in (MatchedFilter, ACE, CEM, OSP):
        pipeline = chain(cls(targets=targets.tolist(), name="node"))
        fit(pipeline, cube)
        scores[cls] = pipeline.nodes["node"](data=probe)["scores"][0, 0].numpy()
    for cls in (MatchedFilter, ACE, CEM, OSP):
        np.testing.assert_allclose(np.diag(scores[cls][1:]), 1.0, atol=1e-4)
    np.testing.assert_allclose(scores[MatchedFilter][0], 0.0, atol=1e-5)
    np.testing.assert_allclose(scores[OSP][1:] - np.eye(3), 0.0, atol=1e-4)


def test_linear_filters_fold_and_ratios_do_not():
    # Behind an affine node and in front of one: no pass but that for the scores.
    cube = scene(30, 20)
    scaled = (spectra(1, 1) - float(cube.min())) / np.ptp(cube.astype(float))
    for cls, passes in ((MatchedFilter, 0), (CEM, 0), (ACE, 1)):
        pipeline = chain(
            MinMaxNormalizer(eps=0.0, name="scale"),
            cls(targets={"paint": scaled[0].tolist()}, name="node"),
            ScoreToLogit(name="logit"),
            BinaryDecider(name="decide"),
        )
        plan = fit(pipeline, cube, stored=("moments", "extrema"))
        assert plan.passes == passes, cls
    # An affine map of pixels and target changes no matched filter.
    plain = chain(MatchedFilter(targets=spectra(1, 1).tolist(), name="node"))
    fit(plain, cube)
    folded = chain(
        MinMaxNormalizer(eps=0.0, name="scale"), MatchedFilter(scaled.tolist(), name="node")
    )
    fit(folded, cube, stored=("moments", "extrema"))
    np.testing.assert_allclose(
        folded.apply(labelled(cube)), plain.apply(labelled(cube)), rtol=1e-4, atol=1e-5
    )


# --- where the spectra come from ------------------------------------------------------------------

VALUES = {"oil": [1.0, 2, 3, 4, 5], "grass": [9.0, 7, 5, 3, 1], "sand": [1.0, 1, 2, 2, 3]}


def write_library(path, wavelength=WAVELENGTH):
    if path.suffix == ".npz":
        more = {} if wavelength is None else {"wavelength": wavelength}
        np.savez(path, spectra=np.array(list(VALUES.values())), names=list(VALUES), **more)
    elif path.suffix == ".csv":
        head = ["wavelength"] * (wavelength is not None) + list(VALUES)
        rows = zip(*([wavelength] * (wavelength is not None)), *VALUES.values(), strict=True)
        lines = [",".join(head), *(",".join(map(str, row)) for row in rows), ""]
        path.write_text("\n".join(lines))
    else:
        known = "" if wavelength is None else f"wavelength: {list(wavelength)}\n"
        path.write_text(f"{known}spectra: {VALUES}\n")
    return str(path)


@pytest.mark.parametrize("kind", [".yaml", ".csv", ".npz"])
@pytest.mark.parametrize("wavelength", [None, WAVELENGTH])
def test_libraries(tmp_path, kind, wavelength):
    library = SpectralLibrary.read(write_library(tmp_path / f"lib{kind}", wavelength))
    assert library.names == ("oil", "grass", "sand")
    np.testing.assert_array_equal(library.spectra, list(VALUES.values()))
    if wavelength is None:
        assert library.wavelength is None
    else:
        np.testing.assert_array_equal(library.wavelength, wavelength)


def test_a_library_is_brought_to_the_channels_of_the_data(tmp_path):
    node = MatchedFilter(library=write_library(tmp_path / "lib.csv"), names=["sand", "oil"])
    assert node.n_targets == 2
    node.channel_axis({"data": ChannelAxis.of([475.0, 800.0])})
    np.testing.assert_array_equal(node.spectra(), [[1.0, 3.0], [1.5, 5.0]])
    # Behind a selection of channels as well; and again on another grid.
    node.channel_axis({"data": ChannelAxis.of([500.0, 600.0])})
    np.testing.assert_array_equal(node.spectra(), [[1.0, 2.0], [2.0, 3.0]])
    pipeline = chain(
        BandpassByWavelength(480, 720, name="band"),
        SID(targets=VALUES, wavelengths=WAVELENGTH, name="sid"),
    )
    pipeline.resolve(ChannelAxis.of(WAVELENGTH))
    np.testing.assert_array_equal(pipeline.nodes["sid"].spectra()[1], [7.0, 5, 3])


def test_spectra_travel_with_the_weights(tmp_path):
    path = tmp_path / "lib.npz"
    write_library(path)
    text = (
        "nodes:\n"
        "  data: CU3SDataNode\n"
        "  node: {type: ACE, config: {library: lib.npz, names: [grass]}}\n"
        "connections:\n  - [data.cube, node.data]\n"
    )
    (tmp_path / "pipe.yaml").write_text(text)
    pipeline = Pipeline.from_yaml(tmp_path / "pipe.yaml")
    cube = scene(30, 20)
    fit(pipeline, cube, axis=ChannelAxis.of(WAVELENGTH))
    known = labelled(cube, WAVELENGTH)
    expected = pipeline.apply(known).to_numpy()
    (tmp_path / "out").mkdir()
    saved = pipeline.save(tmp_path / "out" / "fitted.yaml")
    path.unlink()
    loaded = Pipeline.from_yaml(saved)
    assert loaded.fitted
    np.testing.assert_array_equal(loaded.apply(known).to_numpy(), expected)
    # A refit on other channels needs the file again, and says where it looked.
    with pytest.raises(ConfigError, match=r"node: library .*lib\.npz does not exist"):
        loaded.resolve(ChannelAxis.of(WAVELENGTH[:4]))


def test_undesired_spectra_give_no_score():
    node = OSP(targets=VALUES, undesired=["oil"], name="osp")
    assert node.n_targets == 2
    assert node.channel_axis({"data": ChannelAxis(5)})["scores"].size == 2
    found = node(data=torch.tensor(list(VALUES.values()))[None, None])["scores"][0, 0].numpy()
    np.testing.assert_allclose(found, [[0, 0], [1, 0], [0, 1]], atol=1e-5)


def test_assigned_buffers_win():
    cube = scene(30, 20)
    pipeline = chain(MatchedFilter(spectra(3, 1).tolist(), name="node"))
    fit(pipeline, cube)
    node = pipeline.nodes["node"]
    node.targets = torch.tensor(spectra(4, 1), dtype=torch.float32)
    node.cov = torch.eye(5)
    mean = flat(cube).mean(axis=0).astype(np.float32).astype(float)
    away = node.spectra()[0] - mean
    expected = (flat(cube) - mean) @ away / (away @ away)
    np.testing.assert_allclose(
        run(pipeline, "node.scores", cube=cube).ravel(), expected, rtol=1e-4, atol=1e-4
    )
    node.cov = -torch.eye(5)
    with pytest.raises(DataError, match="node: the covariance that was assigned is not positive"):
        node.affine()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [MatchedFilter, ACE, CEM, OSP, SID])
def test_arguments(cls):
    for options in ({}, {"targets": [[1.0]], "library": "lib.csv"}):
        with pytest.raises(PipelineError, match="targets or library must be given, and not both"):
            cls(**options)
    with pytest.raises(PipelineError, match="wavelengths belong to targets"):
        cls(library="lib.csv", wavelengths=[1.0])
    with pytest.raises(PipelineError, match=r"no spectrum 'gras'.*Did you mean 'grass'"):
        cls(targets=VALUES, names=["gras"])
    with pytest.raises(PipelineError, match="targets holds no spectrum"):
        cls(targets=[])
    with pytest.raises(PipelineError, match=r"targets holds spectra of \[1, 2\] channels"):
        cls(targets=[[1.0], [1.0, 2.0]])
    with pytest.raises(PipelineError, match="no finite numbers"):
        cls(targets=[[1.0, float("nan")]])
    with pytest.raises(
        PipelineError, match=r"targets has 2 wavelengths for 2 channels; .*ascending"
    ):
        cls(targets=[[1.0, 2.0]], wavelengths=[600.0, 500.0])
    node = cls(targets=VALUES, wavelengths=WAVELENGTH, name="node")
    with pytest.raises(PipelineError, match="known from 450 to 800 nm, the data have 400 to 500"):
        node.channel_axis({"data": ChannelAxis.of([400.0, 500.0])})
    with pytest.raises(PipelineError, match="5 values for 4 channels, and the data have no wave"):
        node.channel_axis({"data": ChannelAxis(4)})
    with pytest.raises(PipelineError, match=r"node: library .*none\.csv does not exist"):
        cls(library="none.csv", name="node").channel_axis({"data": ChannelAxis(4)})


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("lib.txt", "", "is not a .yaml, .csv, .npz or .sli file"),
        ("lib.yaml", "spectra: [1]", "needs a mapping `spectra`"),
        ("lib.yaml", "spectra: {a: [1]}\nwave: 1", r"unknown keys \['wave'\]"),
        ("lib.yaml", "spectra: {a: [1, b]}", "values that are no numbers"),
        ("lib.yaml", "spectra: {a: [1, [], 2]}", "values that are no numbers"),
        ("lib.yaml", "spectra: {a: []}", "values that are no finite numbers"),
        ("lib.csv", "", "it is empty"),
        ("lib.csv", "a,b\n1\n", "a row does not have the 2 columns"),
        ("lib.csv", "a,a\n1,2\n", "two columns have the same name"),
        ("lib.csv", "a,b\n1,x\n", "could not convert"),
        ("lib.npz", "nothing", "cannot be read"),
    ],
)
def test_damaged_libraries(tmp_path, name, content, text):
    (tmp_path / name).write_text(content)
    with pytest.raises(PipelineError, match=text):
        SpectralLibrary.read(tmp_path / name)


def test_what_cannot_be_told_apart():
    cube = scene(30, 20)
    mean = flat(cube).mean(axis=0)
    with pytest.raises(DataError, match="node: target 0 is the mean of the background"):
        fit(chain(MatchedFilter([mean.tolist()], name="node")), cube)
    both = [[1.0, 2, 3, 4, 5], [2.0, 4, 6, 8, 10]]
    with pytest.raises(ConfigError, match="node: target 0 is a mixture of what is projected out"):
        chain(OSP(both, name="node")).resolve(ChannelAxis(5))
    with pytest.raises(ConfigError, match="background_components 5 leaves nothing of 5 channels"):
        chain(OSP(both[:1], background_components=5, name="node")).resolve(ChannelAxis(5))
    with pytest.raises(PipelineError, match="background_components -1 must not be negative"):
        OSP(both, background_components=-1)
    with pytest.raises(PipelineError, match="eps 0 must be above 0"):
        SID(both, eps=0)
    with pytest.raises(NotFittedError):
        MatchedFilter(both)(data=torch.zeros(1, 1, 1, 5))


def test_mistakes_in_a_file_are_told_with_their_line():
    text = (
        "nodes:\n"
        "  - {name: data, class_name: CU3SDataNode}\n"
        "  - name: mf\n"
        "    class_name: MatchedFilter\n"
        "    hparams: {targets: {a: [1, 2], b: x}, loadin: 0}\n"
        "connections:\n"
        "  - {source: data.outputs.cube, target: mf.inputs.data}\n"
    )
    with pytest.raises(ConfigError, match=r"MatchedFilter has no parameter 'loadin'"):
        Pipeline.from_document(read_yaml("pipeline.yaml", text=text))


def test_several_targets_do_not_fit_a_node_of_one_score():
    pipeline = chain(MatchedFilter(spectra(0).tolist(), name="mf"))
    with pytest.raises(PipelineError, match=r"size 2, logit\.scores takes 1"):
        pipeline.connect(
            pipeline.nodes["mf"].outputs.scores, ScoreToLogit(name="logit").inputs.scores
        )
