"""Pipeline files: both forms, both dialects, and mistakes that are reported all at once."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from graph_helpers import chain, fit, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes import (
    AnomalyDataNode,
    BandpassByWavelength,
    ChannelAxis,
    MinMaxNormalizer,
    QuantileBinaryDecider,
    RXGlobal,
    SoftChannelSelector,
    TrainablePCA,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.config import PipelineMetadata
from hsi_batch.pipeline.dialects import set_entry

WORKFLOWS = Path(__file__).parents[2] / "workflows" / "pipelines"


def read(text, path="p.yaml"):
    return Pipeline.from_document(read_yaml(path, text=text))


RELEASED = """\
metadata:
  name: RX_demo
  description: a test
  created: '2026-01-01'
  tags: [a, b]
  author: someone
  cuvis_ai_version: 0.18.6
plugins: [cuvis_ai_builtin]
nodes:
- name: data
  class_name: cuvis_ai.node.data.LentilsAnomalyDataNode
  hparams: {normal_class_ids: [0, 1]}
- name: norm
  class_name: cuvis_ai.node.normalization.MinMaxNormalizer
  hparams: {eps: 1.0e-06, use_running_stats: true}
- name: rx
  class_name: cuvis_ai.node.anomaly.rx_detector.RXGlobal
  hparams: {num_channels: 61, eps: 1e-6, cache_inverse: true}
connections:
- source: data.outputs.cube
  target: norm.inputs.data
- source: norm.outputs.normalized
  target: rx.inputs.data
"""


def test_the_released_form_with_paths_of_the_family():
    pipeline = read(RELEASED)
    assert pipeline.name == pipeline.metadata.name == "RX_demo"
    assert pipeline.metadata.tags == ["a", "b"]
    assert pipeline.lenient
    assert pipeline.nodes["data"].normal_class_ids == (0, 1)
    assert pipeline.nodes["rx"].eps == 1e-6
    assert [str(e) for e in pipeline.edges] == [
        "data.cube -> norm.data",
        "norm.normalized -> rx.data",
    ]


SHORT = """\
nodes:
  data:
    type: CU3SDataNode
  bandpass:
    type: BandpassByWavelength
    config: {min_wavelength_nm: 500}
  pca: {type: TrainablePCA, config: {n_components: 3, num_channels: 61}}
  scorer: {type: RXGlobal, config: {num_channels: 61}}
  logit: {type: ScoreToLogit, config:}
  decider: BinaryDecider
connections:
  - [data.cube, bandpass.data]
  - [bandpass.output, pca.data]
  - [pca.output, scorer.data]
  - [scorer.scores, logit.scores]
  - [logit.output, decider.scores]
"""


def test_the_short_form_of_the_seed_pages():
    pipeline = read(SHORT)
    assert pipeline.lenient
    assert [str(e) for e in pipeline.edges] == [
        "data.cube -> bandpass.data",
        "bandpass.filtered -> pca.data",
        "pca.projected -> scorer.data",
        "scorer.scores -> logit.scores",
        "logit.logits -> decider.logits",
    ]
    with pytest.warns(UserWarning, match="declares num_channels 61, but") as caught:
        pipeline.resolve(ChannelAxis.of([400, 500, 600, 700]))
    assert [str(w.message).split(" (")[0] for w in caught] == [
        "pca declares num_channels 61, but 3 channels reach it",
        "scorer declares num_channels 61, but 3 channels reach it",
    ]
    assert pipeline.nodes["scorer"].hparams["num_channels"] == 3


def test_the_training_settings_of_the_short_form_are_ignored_with_a_warning():
    text = "trainer:\n  type: StatisticalTrainer\n  max_steps: 1000\n" + SHORT
    with pytest.warns(UserWarning, match=r"p\.yaml:1: `trainer` is ignored"):
        assert len(read(text).nodes) == 6
    with pytest.raises(ConfigError, match="unknown key 'trainer'"):
        read("trainer: {}\n" + RELEASED)


def test_stray_parameters_are_errors_in_the_short_form():
    with pytest.raises(PipelineError) as caught:
        read(SHORT.replace("n_components: 3", "n_componets: 3").replace("_nm: 500", ": 500"))
    found = [(p.line, p.message) for p in caught.value.problems]
    text = "TrainablePCA has no parameter 'n_componets'. Did you mean 'n_components'?"
    assert (7, text) in found
    assert any(line == 6 and "has no parameter 'min_wavelength'" in said for line, said in found)
    # What is left of cuvis-ai in it makes it a file of cuvis-ai.
    foreign = SHORT.replace("BinaryDecider", "cuvis_ai.deciders.binary_decider.BinaryDecider")
    with pytest.warns(UserWarning, match="TrainablePCA has no parameter 'seed'; it is ignored"):
        read(foreign.replace("n_components: 3", "n_components: 3, seed: 1"))


def settled(text, *assignments):
    document = read_yaml("p.yaml", text=text)
    for assignment in assignments:
        document = set_entry(document, assignment)
    return Pipeline.from_document(document)


def test_settings_reach_the_parameters_of_every_dialect():
    short = settled(
        SHORT,
        "nodes.pca.hparams.n_components=2",
        "nodes.scorer.config.eps=0.5",
        "nodes.logit.class_name=RXLogitHead",
        "nodes.decider.hparams.threshold=0.25",
    )
    assert short.nodes["pca"].hparams["n_components"] == 2
    assert short.nodes["pca"].hparams["num_channels"] == 61
    assert short.nodes["scorer"].eps == 0.5
    assert short.nodes["decider"].hparams["threshold"] == 0.25
    assert settled(RELEASED, "nodes.rx.hparams.eps=0.5").nodes["rx"].eps == 0.5
    old = RELEASED.replace("class_name", "class").replace("hparams", "params")
    assert settled(old, "nodes.rx.hparams.eps=0.5").nodes["rx"].eps == 0.5


@pytest.mark.parametrize("text", [SHORT.replace("scorer", "rx"), RELEASED])
def test_settings_of_what_is_not_there(text):
    with pytest.raises(ConfigError, match=r"'rxx'\. Did you mean 'rx'\?"):
        settled(text, "nodes.rxx.hparams.eps=1")
    if text != RELEASED:
        with pytest.raises(PipelineError, match=r"'esp'\. Did you mean 'eps'") as caught:
            settled(text, "nodes.rx.hparams.esp=1")
        assert caught.value.line == 8


def test_stray_parameters_warn_in_files_of_cuvis_ai():
    text = RELEASED.replace("use_running_stats: true", "hidden: 128, name: null")
    with pytest.warns(UserWarning, match="is ignored") as caught:
        pipeline = read(text)
    # A null name is what cuvis-ai writes where nothing was said.
    assert [str(w.message) for w in caught] == [
        "p.yaml:15: MinMaxNormalizer has no parameter 'hidden'; it is ignored."
    ]
    assert pipeline.nodes["norm"].hparams == {"eps": 1e-6, "use_running_stats": True}


def test_stray_parameters_are_errors_in_ours():
    text = re.sub(r"cuvis_ai\.[\w.]*\.", "", RELEASED).replace(
        "use_running_stats", "use_running_stat"
    )
    with pytest.raises(
        PipelineError,
        match=r"p\.yaml:15: MinMaxNormalizer has no parameter 'use_running_stat'\. Did you mean "
        r"'use_running_stats'\?",
    ):
        read(text)


def test_ours_is_strict_about_channels():
    pipeline = read(re.sub(r"cuvis_ai\.[\w.]*\.", "", RELEASED))
    assert not pipeline.lenient
    with pytest.raises(ConfigError, match="rx declares num_channels 61, but 4 channels reach it"):
        pipeline.resolve(ChannelAxis(4))


# --- mistakes -----------------------------------------------------------------------------------


def complaints(text):
    """What a file is told, as (line, message)."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [(p.line, p.message) for p in caught.value.problems]


def marked(text):
    """Lines that end with ``#! part of a message``; several parts are separated by ``|``."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        _, mark, parts = line.partition("#! ")
        found += [(number, part) for part in parts.split("|")] if mark else []
    return found


MANY = """\
metadata:
  name: broken
  titel: x                                    #! unknown key 'metadata.titel'
nodes:
- name: data
  class_name: CU3SDataNod                     #! no node class 'CU3SDataNod'. Did you mean 'CU3SDataNode'?
- name: source
  class_name: CU3SDataNode
- name: norm
  class_name: MinMaxNormalizer
  hparam: {eps: 1}                            #! unknown key 'nodes.2.hparam'. Did you mean 'hparams'?
- name: rx
  class_name: RXGlobal
  hparams:
    eps: -1                                   #! eps -1.0 must not be negative
    num_channels: 4
- name: pca
  class_name: TrainablePCA
  hparams:
    n_component: 3                            #! has no parameter 'n_component'. Did you mean 'n_components'?
    whiten: sometimes                         #! TrainablePCA: whiten: true or false was expected, not 'sometimes'
- name: norm                                  #! there are two nodes 'norm'
  class_name: MinMaxNormalizer
- name: a.b                                   #! the name 'a.b' holds a dot
  class_name: MinMaxNormalizer
- class_name: MinMaxNormalizer                #! key 'nodes.7.name' is missing
- name: selector                              #! SoftChannelSelector needs the parameter 'n_select'
  class_name: SoftChannelSelector
- name: lonely                                #! nothing is connected to the input lonely.data
  class_name: RXPerBatch
- name: c1
  class_name: MinMaxNormalizer
- name: c2
  class_name: MinMaxNormalizer
- name: sink
  class_name: PerPixelUnitNorm
connections:
- {source: source.outputs.cub, target: norm.inputs.data}      #! no output 'cub'; it has cube, mask, wavelengths, mesu_index. Did you mean 'cube'?
- {source: norm.outputs.normalized, target: rxx.inputs.data}  #! there is no node 'rxx'
- {source: norm.inputs.data, target: c1.inputs.data}          #! is not an output; write node.outputs.port
- {source: c1.outputs.normalized, target: c2.inputs.data}
- {source: c2.outputs.normalized, target: c1.inputs.data}     #! closes the cycle c2 -> c1 -> c2
- {source: source.outputs.cube, target: sink.inputs.data}
- {source: c1.outputs.normalized, target: sink.inputs.data}   #! sink.data is written twice, by source.cube and by c1.normalized
- {source: source.outputs.mask, target: c1.inputs.data}       #! source.mask gives torch.int32, c1.data takes torch.float32
- {source: source.outputs.cube}                               #! key 'connections.8.target' is missing
- {source: data.outputs.cube, target: rx.inputs.data}
- {sorce: c1.outputs.normalized, target: c1.inputs.x}         #! unknown key 'connections.10.sorce'. Did you mean 'source'?|key 'connections.10.source' is missing
outputs: {}                                   #! unknown key 'outputs'
"""  # noqa: E501


def test_a_file_full_of_mistakes_is_told_all_of_them_with_lines():
    expected = marked(MANY)
    found = complaints(MANY)
    assert len(expected) >= 20
    for line, part in expected:
        assert any(at == line and part in text for at, text in found), (line, part, found)
    assert len(found) == len(expected), found
    assert [line for line, _ in found] == sorted(line for line, _ in found)


def test_the_error_is_one_text():
    with pytest.raises(PipelineError) as caught:
        read(MANY, "broken.yaml")
    text = str(caught.value)
    assert text.startswith(
        f"broken.yaml: {len(caught.value.problems)} problems:\n  - broken.yaml:3:"
    )
    assert caught.value.exit_code == 2


BROKEN_SHORT = """\
nodes:
  data: CU3SDataNode
  norm:
    type: MinMaxNormaliser                    #! Did you mean 'MinMaxNormalizer'?
  rx:
    type: RXGlobal
    config:
      eps: small                              #! RXGlobal: eps: a number was expected, not 'small'
  pca:
    typ: TrainablePCA                         #! unknown key 'nodes.3.typ'
  unit: PerPixelUnitNorm
connections:
  - [data.cube, norm.data]
  - [data.cube, rx]                           #! 'rx' is not an input; write node.inputs.port (found 1 part)
  - [data.cube, unit.data, rx.data]           #! a connection is a pair [a.output, b.input]; this list has 3 items
  - [data.cubes, unit.data]                   #! Did you mean 'cube'?
"""  # noqa: E501


def test_mistakes_in_the_short_form_have_their_lines():
    expected = [*marked(BROKEN_SHORT), (9, "key 'nodes.3.class_name' is missing")]
    found = complaints(BROKEN_SHORT)
    for line, part in expected:
        assert any(at == line and part in text for at, text in found), (line, part, found)
    assert len(found) == len(expected), found


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("nodes: []\n", 1, "nodes: at least 1 entry was expected, not 0"),
        ("nodes: 3\n", 1, "nodes: a list was expected, not 3"),
        ("connections: []\n", 1, "key 'nodes' is missing"),
        (
            "nodes: {data: CU3SDataNode}\nconnections: 5\n",
            2,
            "connections: a list was expected, not 5",
        ),
        (
            "nodes:\n- name: d\n  class_name: CU3SDataNode\nconnections: 5\n",
            4,
            "connections: a list was",
        ),
        ("nodes:\n- just text\n", 2, "nodes.0: a mapping of keys was expected, not 'just text'"),
        ("nodes: {data: CU3SDataNode}\nplugins: {a: b}\n", 2, "plugins: a list was expected"),
        (
            "nodes: {d: CU3SDataNode, norm: MinMaxNormalizer}\nconnections: [[d.cube, nrom.data]]",
            2,
            "there is no node 'nrom'. Did you mean 'norm'?",
        ),
        ("nodes:\n\n  norm: MinMaxNormalizer\n", 3, "nothing is connected to the input norm.data"),
    ],
)
def test_one_mistake(text, line, part):
    found = complaints(text)
    assert any(at == line and part in message for at, message in found), found


def test_a_missing_data_node_is_a_mistake_of_the_whole():
    text = "nodes:\n- {name: a, class_name: MinMaxNormalizer}\nconnections: []\n"
    (first, none), (second, unfed) = complaints(text)
    assert (first, second) == (1, 2)
    assert none.startswith("the pipeline has 0 data nodes; it needs one. Add one CU3SDataNode")
    assert unfed == "nothing is connected to the input a.data (MinMaxNormalizer needs it)."
    # If the data node may be the one that could not be built, nothing is said of it.
    text = text.replace("connections", "- {name: data, class_name: CU3S}\nconnections")
    assert [line for line, _ in complaints(text)] == [2, 3]


def test_no_file_and_no_mapping(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        Pipeline.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="holds a list; a mapping of keys was expected"):
        read("- a\n")
    with pytest.raises(ConfigError, match="key 'nodes' is missing"):
        read("")


# --- writing ------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from(["uniform", "variance"]),
    st.lists(st.integers(0, 9), max_size=3),
)
def test_what_is_written_is_read_back(eps, share, count, flag, method, classes):
    pipeline = chain(
        BandpassByWavelength(400, 500 + share if flag else None, name="bp"),
        MinMaxNormalizer(eps, use_running_stats=flag, name="n"),
        SoftChannelSelector(count, init_method=method, hard=flag, name="s"),
        TrainablePCA(n_components=count, whiten=flag, name="pca"),
        RXGlobal(eps=np.float64(eps), loading=np.float32(share), cache_inverse=flag, name="rx"),
        QuantileBinaryDecider(share, name="q"),
        source=AnomalyDataNode(tuple(classes), name="data"),
        name="p",
    )
    document = yaml.safe_dump(pipeline.serialize())
    other = read(document)
    assert other.serialize() == pipeline.serialize()
    assert other.edges == pipeline.edges
    for name, node in pipeline.nodes.items():
        assert {k: v for k, v in other.nodes[name].hparams.items() if v is not None} == {
            k: v for k, v in node.hparams.items() if v is not None
        }
    assert not other.lenient


def test_saving_writes_two_files_and_reading_finds_both(tmp_path):
    pipeline = chain(RXGlobal(name="rx", eps=0.0))
    fit(pipeline, scene())
    path = pipeline.save_to_file(
        tmp_path / "deep" / "fitted", metadata={"name": "n", "author": "me"}
    )
    assert path == tmp_path / "deep" / "fitted.yaml"
    assert sorted(p.name for p in path.parent.iterdir()) == ["fitted.pt", "fitted.yaml"]
    assert path.read_text().startswith("# Written by hsi_batch ")
    other = Pipeline.from_yaml(path)
    assert other.fitted
    assert (other.metadata.author, other.name) == ("me", "n")
    assert other.metadata.created.endswith("+00:00")
    assert other.nodes["rx"].num_channels == 5
    assert "num_channels: 5" in path.read_text()


@pytest.mark.parametrize("name", ["a", "a.yaml", "a.yml", "a.YAML", "v1.2"])
def test_names_of_files(tmp_path, name):
    path = chain().save(tmp_path / name)
    expected = name if name.lower().endswith(("yaml", "yml")) else f"{name}.yaml"
    assert path.name == expected
    assert path.with_suffix(".pt").exists()
    metadata = PipelineMetadata(name="other")
    assert chain().save_to_file(path, metadata=metadata) == path
    assert Pipeline.from_yaml(path).name == "other"


def test_an_unfitted_pipeline_states_no_channels(tmp_path):
    pipeline = chain(RXGlobal(name="rx"))
    pipeline.resolve(ChannelAxis(5))
    assert "num_channels" not in pipeline.save(tmp_path / "p").read_text()


def test_numbers_of_numpy_are_written_plainly(tmp_path):
    pipeline = chain(
        BandpassByWavelength(np.int64(450), np.float32(500.5), name="bp"),
        source=AnomalyDataNode(np.array([0, 2]), name="data"),
    )
    other = Pipeline.from_yaml(pipeline.save(tmp_path / "p"))
    assert (other.nodes["bp"].low, other.nodes["bp"].high) == (450.0, 500.5)
    assert other.nodes["data"].normal_class_ids == (0, 2)


def test_what_cannot_be_written_leaves_no_file(tmp_path):
    pipeline = chain(RXGlobal(name="rx"))
    pipeline.nodes["rx"].hparams["eps"] = object()
    with pytest.raises(yaml.YAMLError):
        pipeline.save(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_pipelines_that_come_with_the_package(path):
    pipeline = Pipeline.from_yaml(path)
    fit(pipeline, scene(56, 40, channels=12))
    assert pipeline.fitted


@pytest.mark.parametrize("count", [-3, 0, 2448589934592, 10**30])
def test_channels_that_no_sensor_has_are_a_mistake_with_its_line(count):
    node = f"{{name: z, class_name: ZScoreNormalizerGlobal, hparams: {{num_channels: {count}}}}}"
    with pytest.raises(ConfigError, match=f"num_channels {count} must be a number of cha") as told:
        read(f"nodes:\n- {{name: data, class_name: CU3SDataNode}}\n- {node}\n")
    assert told.value.problems[0].line == 3


def test_sizes_that_no_memory_holds_are_a_mistake():
    sizes = "{in_channels: 60000, hidden: 2000000000}"
    node = f"{{name: svdd, class_name: DeepSVDDProjection, hparams: {sizes}}}"
    with pytest.raises(ConfigError, match="cannot be made with these parameters") as told:
        read(f"nodes:\n- {{name: data, class_name: CU3SDataNode}}\n- {node}\n")
    assert told.value.problems[0].line == 3
