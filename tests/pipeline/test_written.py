"""Files for cuvis-ai, and what its own files mean here."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import yaml
from graph_helpers import chain, fit, labelled, scene

from hsi_batch.documents import read_yaml
from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    BandpassByWavelength,
    BinaryDecider,
    ChannelAxis,
    ClassMapToRGB,
    IntensityThresholdSegmenter,
    MinMaxNormalizer,
    RXGlobal,
    RXPerBatch,
    SavitzkyGolay,
    ScoreStatisticsMetric,
    ScoreToLogit,
    ShapeMorphology,
    SoftChannelSelector,
    SpectralDerivative,
    ZScoreNormalizerGlobal,
)
from hsi_batch.nodes.ports import PortRef, mismatch
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.catalogue import cuvis_classes
from hsi_batch.pipeline.program import compile_program


def read(text, path="p.yaml"):
    return Pipeline.from_document(read_yaml(path, text=text))


# --- what cuvis-ai means by it -------------------------------------------------------------------

#: A selector and its regularizer, by class paths or names.
LOSSES = """\
nodes:
- {name: d, class_name: CU3SDataNode}
- {name: s, class_name: SoftChannelSelector, hparams: {n_select: 2}}
- {name: even, class_name: PATHSelectorDiversityRegularizer, hparams: {weight: 2.0}}
connections:
- {source: d.outputs.cube, target: s.inputs.data}
- {source: s.outputs.weights, target: even.inputs.weights}
"""


@pytest.mark.parametrize(
    ("path", "mode"), [("", "spread"), ("cuvis_ai.node.losses.", "concentrate")]
)
def test_a_file_of_cuvis_ai_means_what_it_does(path, mode):
    assert read(LOSSES.replace("PATH", path)).nodes["even"].mode == mode


def test_what_a_file_says_wins():
    path = "cuvis_ai.node.losses.SelectorDiversityRegularizer, hparams: {mode: spread, "
    text = LOSSES.replace("PATHSelectorDiversityRegularizer, hparams: {", path)
    assert read(text).nodes["even"].mode == "spread"


def test_the_opposite_is_not_written():
    pipeline = read(LOSSES.replace("PATH", ""))
    pipeline.resolve(ChannelAxis(4))
    said = "computes what mode='concentrate' does here, not mode='spread'"
    with pytest.raises(PipelineError, match=said):
        pipeline.serialize("cuvis-ai")
    text = LOSSES.replace("PATH", "").replace("weight: 2.0", "weight: 2.0, mode: concentrate")
    pipeline = read(text)
    pipeline.resolve(ChannelAxis(4))
    written = pipeline.serialize("cuvis-ai")["nodes"][-1]
    assert written["hparams"] == {"weight": 2.0}


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (RXPerBatch(loading=0.1, name="n"), "has no loading and computes what loading=0.0 does"),
        (SavitzkyGolay(5, mode="valid", name="n"), "has mode 'constant', 'mirror', 'nearest', not"),
        (SpectralDerivative(edges="drop", name="n"), "has no edges and computes what"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_compute_something_else_there_is_not_written(node, said):
    pipeline = chain(node)
    pipeline.resolve(ChannelAxis.of(np.arange(8) * 10.0 + 500))
    with pytest.raises(PipelineError, match=said):
        pipeline.serialize("cuvis-ai")


def test_scores_of_four_axes_do_not_go_to_their_statistics():
    pipeline = chain(RXGlobal(4, name="rx"), ScoreStatisticsMetric(name="stats"))
    said = r"stats\.scores: in cuvis-ai 0\.19\.3 it takes 3 axes, and rx\.scores has 4"
    with pytest.raises(PipelineError, match=said):
        pipeline.serialize("cuvis-ai")


def test_maps_without_a_channel_axis_fit_where_one_is_taken():
    scores = ScoreStatisticsMetric(name="stats").inputs.scores
    labels = ShapeMorphology(name="shapes").outputs
    assert mismatch(labels.properties, scores) is None
    assert mismatch(labels.identity_mask, scores) is not None
    assert mismatch(labels.valid, scores) is not None


def test_a_mask_that_only_restricts_a_fit_is_kept():
    text = """\
nodes:
- {name: d, class_name: cuvis_ai.node.data.CU3SDataNode}
- {name: m, class_name: cuvis_ai.node.segmentation.intensity.IntensityThresholdSegmenter}
- {name: k, class_name: cuvis_ai.node.clustering.kmeans.KMeansClusterer}
connections:
- {source: d.outputs.cube, target: m.inputs.cube}
- {source: d.outputs.cube, target: k.inputs.cube}
- {source: m.outputs.mask, target: k.inputs.mask}
"""
    pipeline = read(text)
    assert len(pipeline.edges) == 3
    written = pipeline.serialize("cuvis-ai")["connections"]
    assert {"source": "m.outputs.mask", "target": "k.inputs.mask"} in written
    # Nothing of it is computed to label pixels.
    pipeline.nodes["k"].mark_fitted(True)
    steps = compile_program(pipeline, (PortRef("k", "class_mask"),)).steps
    assert {ref.node for step in steps for ref in step.outputs} == {"d", "k"}


def test_weights_of_cuvis_ai_that_leave_directions_out_are_told(tmp_path):
    pipeline = chain(RXGlobal(4, eps=0.0, name="rx"))
    path = pipeline.save(tmp_path / "p.yaml")
    inverse = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    # A YAML of cuvis-ai, which names no weights.
    path.write_text(path.read_text().split("\n", 1)[1])
    stored = {"mu": torch.zeros(4), "cov": torch.eye(4), "cov_inv": inverse}
    state = {name: {} for name in pipeline.nodes} | {"rx": stored}
    torch.save({"state_dict": state, "metadata": {}}, path.with_suffix(".pt"))
    with pytest.warns(UserWarning, match="rx: the inverse in these weights keeps 2 of 4"):
        exact = Pipeline.from_yaml(path)
    cube = torch.ones(1, 1, 1, 4)
    assert float(exact.nodes["rx"](data=cube)["scores"]) == pytest.approx(4.0)
    path.write_text(path.read_text().replace("inverse: cholesky64", "inverse: pinv32"))
    repeated = Pipeline.from_yaml(path)
    assert float(repeated.nodes["rx"](data=cube)["scores"]) == pytest.approx(2.0)


# --- writing for cuvis-ai -------------------------------------------------------------------------


def whole():
    return chain(
        MinMaxNormalizer(name="norm"),
        SoftChannelSelector(3, init_method="variance", name="selector"),
        RXGlobal(name="rx", eps=1e-6),
        ScoreToLogit(name="logit"),
        BinaryDecider(name="decider"),
        name="demo",
    )


def test_what_is_written_for_cuvis_ai(tmp_path):
    pipeline = whole()
    fit(pipeline, scene())
    path = pipeline.save(tmp_path / "p.yaml", dialect="cuvis-ai")
    content = yaml.safe_load(path.read_text())
    assert list(content) == ["plugins", "nodes", "connections", "metadata"]
    assert content["plugins"] == ["cuvis_ai_builtin"]
    nodes = {node["name"]: node for node in content["nodes"]}
    for node in nodes.values():
        known = cuvis_classes()[node["class_name"].rpartition(".")[2]]
        assert node["class_name"] == known.path
        assert set(node["hparams"]) <= set(known.arguments)
        assert all(
            node["hparams"].get(a) is not None for a, need in known.arguments.items() if need
        )
    assert nodes["rx"]["hparams"] == {"num_channels": 5, "eps": 1e-6, "cache_inverse": True}
    assert nodes["selector"]["hparams"]["input_channels"] == 5
    assert set(content["metadata"]) == {
        *("name", "description", "created", "tags", "author", "cuvis_ai_version")
    }
    stored = torch.load(io.BytesIO(path.with_suffix(".pt").read_bytes()), weights_only=True)
    assert set(stored["state_dict"]) == set(nodes)
    assert {k: v.dtype for k, v in stored["state_dict"]["rx"].items()} == {
        "mu": torch.float32,
        "cov": torch.float32,
        "cov_inv": torch.float32,
    }
    # We read it back with every bit.
    other = Pipeline.from_yaml(path)
    assert other.fitted
    assert other.lenient
    cube = labelled(scene())
    for port in ("rx.scores", "logits"):
        np.testing.assert_array_equal(other.apply(cube, port), pipeline.apply(cube, port))


def test_channels_must_be_known_there():
    pipeline = chain(ZScoreNormalizerGlobal(name="z"), RXGlobal(name="rx"))
    with pytest.raises(PipelineError) as caught:
        pipeline.serialize("cuvis-ai")
    assert [p.message for p in caught.value.problems] == [
        f"{name}: {cls} of cuvis-ai needs num_channels; set it, or fit the pipeline first."
        for name, cls in (("z", "ZScoreNormalizerGlobal"), ("rx", "RXGlobal"))
    ]
    pipeline.resolve(ChannelAxis(7))
    assert pipeline.serialize("cuvis-ai")["nodes"][1]["hparams"]["num_channels"] == 7


def test_wavelengths_are_wired_where_cuvis_ai_needs_them():
    pipeline = chain(BandpassByWavelength(500, name="bp"), MinMaxNormalizer(name="n"))
    written = pipeline.serialize("cuvis-ai")["connections"]
    assert {"source": "data.outputs.wavelengths", "target": "bp.inputs.wavelengths"} in written
    # Behind a bandpass there are no wavelengths in cuvis-ai.
    pipeline = chain(BandpassByWavelength(500, name="a"), BandpassByWavelength(600, name="b"))
    pipeline.resolve(ChannelAxis.of([450, 550, 650]))
    with pytest.raises(PipelineError, match=r"b\.wavelengths: cuvis-ai needs a connection to it"):
        pipeline.serialize("cuvis-ai")


def test_what_cuvis_ai_does_not_have_is_named_at_once(monkeypatch, tmp_path):
    known = dict(cuvis_classes())
    rx = known["RXGlobal"]
    known["RXGlobal"] = rx._replace(outputs={"score": False})
    del known["SoftChannelSelector"]
    monkeypatch.setattr("hsi_batch.pipeline.written.cuvis_classes", lambda: known)
    pipeline = whole()
    fit(pipeline, scene())
    with pytest.raises(PipelineError) as caught:
        pipeline.save(tmp_path / "p.yaml", dialect="cuvis-ai")
    assert [p.message for p in caught.value.problems] == [
        "selector: cuvis-ai 0.19.3 has no node SoftChannelSelector.",
        "rx.scores: RXGlobal of cuvis-ai 0.19.3 has no output scores.",
    ]
    assert not list(tmp_path.iterdir())
    with pytest.raises(PipelineError, match="dialect 'cuvis' is not one of"):
        pipeline.save(tmp_path / "p.yaml", dialect="cuvis")


def test_arguments_that_cuvis_ai_does_not_have_are_dropped_with_a_warning():
    # A fit there computes the pseudo-inverse anyway.
    pipeline = chain(RXGlobal(4, loading=0.1, inverse="pinv32", name="rx"))
    with pytest.warns(UserWarning, match=r"rx: RXGlobal of cuvis-ai has no loading=0\.1; the"):
        written = pipeline.serialize("cuvis-ai")
    assert set(written["nodes"][1]["hparams"]) == {"num_channels", "eps", "cache_inverse"}


def test_a_port_that_takes_int64_there_is_named():
    # No class map is int64, there or here, so nothing could be connected to it there.
    pipeline = chain(IntensityThresholdSegmenter(name="mask"), ClassMapToRGB(name="colours"))
    with pytest.raises(PipelineError, match=r"colours\.class_map: in cuvis-ai .* takes int64"):
        pipeline.serialize("cuvis-ai")
