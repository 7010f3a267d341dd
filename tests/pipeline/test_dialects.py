"""Files of cuvis-ai 0.1 to 0.19 and of the seed pages, and files written for cuvis-ai."""

from __future__ import annotations

import sys

import pytest
import torch
from graph_helpers import chain

from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import (
    RXGlobal,
    node_class,
    node_classes,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.catalogue import cuvis_classes


def read(text, path="p.yaml"):
    return Pipeline.from_document(read_yaml(path, text=text))


# --- class paths ----------------------------------------------------------------------------------

#: Paths of the seed pages (those of nodes among the eleven that fail in the release) and of the
#: wheels of 0.3, 0.5, 0.8, 0.12 and 0.16, where they are not those of 0.19.3.
PATHS = [
    "cuvis_ai.node.pca.TrainablePCA",
    *(f"cuvis_ai.anomaly.rx_detector.{name}" for name in ("RXGlobal", "RXPerBatch")),
    "cuvis_ai.anomaly.lad_detector.LADGlobal",
    *(
        f"cuvis_ai.anomaly.deep_svdd.{name}"
        for name in (
            "DeepSVDDCenterTracker",
            "DeepSVDDProjection",
            "DeepSVDDScores",
            "ZScoreNormalizerGlobal",
        )
    ),
    "cuvis_ai.deciders.binary_decider.BinaryDecider",
    "cuvis_ai.deciders.binary_decider.QuantileBinaryDecider",
    "cuvis_ai.deciders.two_stage_decider.TwoStageBinaryDecider",
    "cuvis_ai.node.selector.SoftChannelSelector",
    "cuvis_ai.node.selector.TopKIndices",
    *(
        f"cuvis_ai.node.visualizations.{name}"
        for name in (
            "AnomalyMask",
            "CubeRGBVisualizer",
            "PCAVisualization",
            "RGBAnomalyMask",
            "ScoreHeatmapVisualizer",
        )
    ),
]


@pytest.mark.parametrize("path", PATHS)
def test_old_and_new_class_paths(path):
    assert node_class(path).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cuvis_ai.node.concrete_selector.ConcreteBandSelector", "ConcreteChannelMixer"),
        ("cuvis_ai.anomaly.rx_logit_head.RXLogitHead", "ScoreToLogit"),
        ("cuvis_ai.node.band_selection.BaselineFalseRGBSelector", "FixedWavelengthSelector"),
        ("cuvis_ai.node.band_selection.CIRFalseColorSelector", "CIRSelector"),
        ("cuvis_ai.node.band_selection.HighContrastBandSelector", "HighContrastSelector"),
        ("cuvis_ai.node.band_selection.SupervisedCIRBandSelector", "SupervisedCIRSelector"),
        (
            "cuvis_ai.node.band_selection.SupervisedWindowedFalseRGBSelector",
            "SupervisedWindowedSelector",
        ),
        (
            "cuvis_ai.node.band_selection.SupervisedFullSpectrumBandSelector",
            "SupervisedFullSpectrumSelector",
        ),
        (
            "cuvis_ai.node.channel_selector.CIETristimulusFalseRGBSelector",
            "CIETristimulusRGBSelector",
        ),
    ],
)
def test_classes_that_were_renamed(old, new):
    assert node_class(old) is node_classes()[new]


@pytest.mark.parametrize("name", sorted(set(node_classes()) & set(cuvis_classes())))
def test_every_shared_class_is_found_under_its_path(name):
    assert node_class(cuvis_classes()[name].path) is node_classes()[name]


# --- forms ----------------------------------------------------------------------------------------

#: As cuvis-ai 0.1.5 wrote it.
FIRST = """\
name: ''
nodes:
- name: LentilsAnomalyDataNode
  class: cuvis_ai.node.data.LentilsAnomalyDataNode
  params:
    normal_class_ids: [0, 1]
- name: MinMaxNormalizer
  class: cuvis_ai.node.normalization.MinMaxNormalizer
  params:
    eps: 1.0e-06
    use_running_stats: true
- name: RXGlobal
  class: cuvis_ai.anomaly.rx_detector.RXGlobal
  params: {eps: 1.0e-06, num_channels: 61, cache_inverse: true}
- name: metrics_anomaly
  class: cuvis_ai.node.metrics.AnomalyDetectionMetrics
  params:
    execution_stages: null
    name: null
- name: movie
  class: cuvis_ai.node.video.ToVideoNode
  params: {output_video_path: x.mp4}
connections:
- from: LentilsAnomalyDataNode.outputs.cube
  to: MinMaxNormalizer.inputs.data
- from: MinMaxNormalizer.outputs.normalized
  to: RXGlobal.inputs.data
- from: RXGlobal.outputs.scores
  to: metrics_anomaly.inputs.logits
- from: LentilsAnomalyDataNode.outputs.mask
  to: metrics_anomaly.inputs.targets
- from: LentilsAnomalyDataNode.outputs.mesu_index
  to: movie.inputs.frame_id
metadata:
  name: RX
  cuvis_ai_version: 0.1.5
"""


def test_the_first_form_of_cuvis_ai():
    with pytest.warns(UserWarning, match="movie") as caught:
        pipeline = read(FIRST)
    # A node that only writes a film is left out; a null means nothing, so nothing is said of it.
    said = (
        "p.yaml:21: movie (cuvis_ai.node.video.ToVideoNode) only shows or writes what others"
        " compute; hsi_batch does not have it, and leaves it out."
    )
    assert [str(w.message) for w in caught] == [said]
    assert pipeline.name == "RX"
    assert pipeline.lenient
    assert pipeline.nodes["RXGlobal"].num_channels == 61
    assert [str(edge) for edge in pipeline.edges] == [
        "LentilsAnomalyDataNode.cube -> MinMaxNormalizer.data",
        "MinMaxNormalizer.normalized -> RXGlobal.data",
        "RXGlobal.scores -> metrics_anomaly.logits",
        "LentilsAnomalyDataNode.mask -> metrics_anomaly.targets",
    ]


@pytest.mark.filterwarnings("ignore:p.yaml")
@pytest.mark.parametrize(
    ("top", "below", "expected"),
    [("a", None, "a"), ("a", "b", "b"), ("", "b", "b"), ("", None, "Pipeline")],
)
def test_the_name_may_stand_at_the_top(top, below, expected):
    text = FIRST.split("metadata:", maxsplit=1)[0].replace("name: ''", f"name: '{top}'")
    text += f"metadata: {{name: {below}}}\n" if below else ""
    assert read(text).name == expected


def test_defaults_of_arguments_that_ours_lack_are_no_news(recwarn):
    text = """\
nodes:
- {name: d, class_name: cuvis_ai.node.data.CU3SDataNode}
- name: n
  class_name: cuvis_ai.node.normalization.MinMaxNormalizer
  hparams: {eps: 1.0e-06, use_running_stats: true, max_initialization_frames: null}
connections:
- {source: d.outputs.cube, target: n.inputs.data}
"""
    read(text)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="has no parameter 'max_initialization_frames'"):
        read(text.replace("null", "3"))


@pytest.mark.filterwarnings("ignore:p.yaml")
def test_mistakes_of_the_first_form_have_their_lines():
    text = FIRST.replace("AnomalyDetectionMetrics", "AnomalyDetectionMetric").replace(
        "to: RXGlobal.inputs.data", "to: RXGlobal.inputs.dta"
    )
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert [(p.line, p.message.split(".")[0]) for p in caught.value.problems] == [
        (16, "there is no node class 'cuvis_ai"),
        (26, "RXGlobal 'RXGlobal' has no input 'dta'; it has data"),
    ]


def test_ours_is_not_read_in_the_first_form():
    text = "nodes:\n- {name: data, class: CU3SDataNode}\n"
    with pytest.raises(ConfigError, match=r"unknown key 'nodes\.0\.class'"):
        read(text)


def test_a_name_that_stands_twice_gets_a_counter_as_in_cuvis_ai():
    text = """\
nodes:
- {name: d, class_name: cuvis_ai.node.data.CU3SDataNode}
- {name: n, class_name: cuvis_ai.node.normalization.MinMaxNormalizer}
- {name: n, class_name: cuvis_ai.node.normalization.MinMaxNormalizer, hparams: {eps: 0.5}}
connections:
- {source: d.outputs.cube, target: n.inputs.data}
- {source: n.outputs.normalized, target: n-1.inputs.data}
"""
    pipeline = read(text)
    assert list(pipeline.nodes) == ["d", "n", "n-1"]
    assert pipeline.nodes["n-1"].eps == 0.5
    assert str(pipeline.edges[1]) == "n.normalized -> n-1.data"
    with pytest.raises(PipelineError, match="there are two nodes 'n'"):
        read(text.replace("cuvis_ai.node.data.", "").replace("cuvis_ai.node.normalization.", ""))


def test_ports_of_the_seed_pages():
    pipeline = read("""\
nodes:
  data: CU3SDataNode
  bandpass: {type: BandpassByWavelength, config: {min_wavelength_nm: 500}}
  normalizer: PerPixelUnitNorm
  scorer: {type: RXGlobal, config: {num_channels: 61}}
  decider: QuantileBinaryDecider
connections:
  - [data.output, bandpass.input]
  - [bandpass.output, normalizer.data]
  - [normalizer.output, scorer.data]
  - [scorer.scores, decider.scores]
""")
    assert [str(edge) for edge in pipeline.edges] == [
        "data.cube -> bandpass.data",
        "bandpass.filtered -> normalizer.data",
        "normalizer.normalized -> scorer.data",
        "scorer.scores -> decider.logits",
    ]


# --- nothing is imported --------------------------------------------------------------------------


@pytest.mark.parametrize("plugins", ["", "plugins: [other]\n", "plugins: [cuvis_ai_builtin]\n"])
@pytest.mark.parametrize(
    "name", ["hsi_trap.Node", "hsi_trap.deep.Node", "cuvis_ai.hsi_trap.Node", "hsi_trap:Node"]
)
def test_a_file_makes_nothing_be_imported(tmp_path, monkeypatch, plugins, name):
    (tmp_path / "hsi_trap").mkdir()
    for module in ("__init__", "deep"):
        (tmp_path / "hsi_trap" / f"{module}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    text = (
        f"{plugins}nodes:\n- {{name: d, class_name: CU3SDataNode}}\n"
        f"- {{name: x, class_name: '{name}', hparams: {{module: hsi_trap}}}}\n"
    )
    with pytest.raises(ConfigError, match=r"no node class|have not allowed"):
        read(text)
    assert not [m for m in set(sys.modules) - before if "hsi_trap" in m]


def test_weights_that_hold_code_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = chain(RXGlobal(name="rx")).save(tmp_path / "p.yaml")
    torch.save({"state_dict": {"rx": {"mu": Trap()}}}, path.with_suffix(".pt"))
    with pytest.raises(ConfigError, match="holds more than tensors"):
        Pipeline.from_yaml(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("path", "version", "gate"),
    [
        ("cuvis_ai.node.deciders", "0.15.2", 0.5),
        ("cuvis_ai.node.deciders", "0.16.4", 0.5),
        ("cuvis_ai.node.deciders", "0.17.0", None),
        ("cuvis_ai.node.deciders", "0.19.3", None),
        ("cuvis_ai.node.deciders", "", None),
        ("cuvis_ai.deciders.two_stage_decider", "", 0.5),
        ("cuvis_ai.deciders.two_stage_decider", "0.19.3", None),
    ],
)
def test_a_gate_that_is_left_out_means_what_the_version_meant(path, version, gate):
    from hsi_batch.documents import read_yaml
    from hsi_batch.pipeline.build import build
    from hsi_batch.pipeline.graph import Graph

    text = f"""\
nodes:
- {{name: data, class_name: cuvis_ai.node.data.CU3SDataNode}}
- {{name: rx, class_name: cuvis_ai.node.anomaly.rx_detector.RXGlobal}}
- {{name: two, class_name: {path}.TwoStageBinaryDecider, hparams: HPARAMS}}
connections:
- {{source: data.outputs.cube, target: rx.inputs.data}}
- {{source: rx.outputs.scores, target: two.inputs.logits}}
metadata: {{name: x, cuvis_ai_version: "{version}"}}
"""
    for hparams, expected in (("{}", gate), ("{image_threshold: 3.0}", 3.0)):
        graph = Graph()
        build(read_yaml("p.yaml", text=text.replace("HPARAMS", hparams)), graph)
        assert graph.nodes["two"].image_threshold == expected
