"""``check`` and ``schema``: any file, all its mistakes at once, with lines."""

from __future__ import annotations

import shutil

import jsonschema
import pytest
import yaml

from hsi_batch.workflow import shipped

SHIPPED = sorted(shipped().rglob("*.yaml"))
KIND_OF_FOLDER = {"pipelines": "pipeline", "trainruns": "trainrun"}

TEN = """\
metadata: {name: broken, titel: x}            #! unknown key 'metadata.titel'
nodes:
- {name: data, class_name: CU3SDataNode}
- name: norm
  class_name: MinMaxNormaliser                #! Did you mean 'MinMaxNormalizer'?
- name: rx
  class_name: RXGlobal
  hparams:
    eps: -1                                   #! eps -1.0 must not be negative
- name: pca
  class_name: TrainablePCA
  hparams:
    n_component: 3                            #! has no parameter 'n_component'
    whiten: !!bool perhaps                    #! 'perhaps' cannot be read as bool
    eps: 1
    eps: 2                                    #! key 'eps' stands twice
- name: unit
  class_name: PerPixelUnitNorm
- name: last                                  #! nothing is connected to the input last.logits
  class_name: BinaryDecider
connections:
- {source: data.outputs.cub, target: unit.inputs.data}         #! Did you mean 'cube'?
- {source: unit.outputs.normalized, target: nowhere.inputs.x}  #! there is no node 'nowhere'
outputs: {}                                   #! unknown key 'outputs'
"""

TEN_OF_A_WORKFLOW = """\
archive: [a.zarr]                             #! archive: a text was expected, not a list
sources:
  paths: [in]
  block_lines: lots                           #! a whole number or 'frame' was expected, not 'lots'
  nodata: none                                #! sources.nodata: a number was expected, not 'none'
  annotation: sibling                         #! Did you mean 'annotations'?
pipeline: [p.yaml]                            #! a text or a mapping of keys was expected
fit:
  pixels: normal                              #! fit.pixels: pixels 'normal' is not one of
  out: f.yaml
  out: g.yaml                                 #! key 'out' stands twice
score: s.zarr                                 #! score: a mapping of keys was expected
cluster: {workers: 0}                         #! greater than or equal to 1 (found 0)
report: ${NOT_SET_ANYWHERE}                   #! NOT_SET_ANYWHERE is not set
"""

TEN_OF_A_CLUSTER = """\
type: locl                                    #! Did you mean 'local'? Types are local, existing
worker: 2                                     #! unknown key 'worker'. Did you mean 'workers'?
workers: 0                                    #! greater than or equal to 1 (found 0)
memory: huge                                  #! write a size such as 4 GiB (found 'huge')
memory: 4 GiB                                 #! key 'memory' stands twice
scratch: [a]                                  #! scratch: a text was expected, not a list
dashboard: perhaps                            #! true or false was expected, not 'perhaps'
address: 5                                    #! unknown key 'address'. Known here: dashboard,
timeout: -1                                   #! unknown key 'timeout'
scheduler_file: ${NOT_SET_ANYWHERE}           #! NOT_SET_ANYWHERE is not set
"""


def marked(text):
    """Lines that end with ``#! part of a message``."""
    lines = enumerate(text.splitlines(), 1)
    return [(n, line.split("#! ")[1]) for n, line in lines if "#! " in line]


@pytest.mark.parametrize(
    ("kind", "text"),
    [("pipeline", TEN), ("workflow", TEN_OF_A_WORKFLOW), ("cluster", TEN_OF_A_CLUSTER)],
)
def test_a_file_with_ten_mistakes_is_told_ten_with_lines(hsi, tmp_path, kind, text):
    path = tmp_path / "ten.yaml"
    path.write_text(text)
    expected = marked(text)
    assert len(expected) == 10
    done = hsi("check", path)
    assert (done.code, done.err) == (2, "")
    *said, last = done.out.splitlines()
    assert last == f"{path}: {kind}, 10 problems"
    assert len(said) == 10
    for (line, part), words in zip(expected, said, strict=True):
        assert words.startswith(f"{path}:{line}: ")
        assert part in words
    (found,) = hsi("check", path, "--json").json["files"]
    assert [p["line"] for p in found["problems"]] == [line for line, _ in expected]
    # A run says the same.
    archive = ("--archive", tmp_path / "a.zarr")
    run = {
        "pipeline": lambda: hsi("fit", path, *archive, "--out", tmp_path / "f.yaml"),
        "workflow": lambda: hsi("run", path),
        "cluster": lambda: hsi("convert", tmp_path, *archive, "--cluster", path),
    }[kind]()
    assert run.code == 2
    assert [words.removeprefix("  - ") for words in run.err.splitlines()[1:]] == said


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_file_is_good(hsi, path):
    done = hsi("check", path)
    assert (done.code, done.err) == (0, "")
    kind = KIND_OF_FOLDER.get(path.parent.name, "workflow")
    assert done.out.startswith(f"{path}: {kind}, ")
    assert done.out.endswith(": good\n")


def test_many_files_of_all_kinds(hsi, tmp_path, cluster_file):
    short = tmp_path / "short.yaml"
    short.write_text(
        "nodes: {data: CU3SDataNode, rx: RXGlobal}\nconnections: [[data.cube, rx.data]]\n"
    )
    local = tmp_path / "local.yaml"
    local.write_text("workers: 2\n")
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text(
        "nodes:\n- {name: d, class: cuvis_ai.node.data.CU3SDataNode, params: {old: 1}}\n"
    )
    files = [short, local, foreign, cluster_file, SHIPPED[0]]
    done = hsi("check", *files, "--json")
    assert done.code == 0
    found = done.json["files"]
    assert [each["kind"] for each in found] == [
        "pipeline",
        "cluster",
        "pipeline",
        "cluster",
        "workflow" if SHIPPED[0].parent.name != "pipelines" else "pipeline",
    ]
    assert found[2]["warnings"] == [
        f"{foreign}:2: CU3SDataNode has no parameter 'old'; it is ignored."
    ]
    text = hsi("check", *files).out
    assert f"warning: {foreign}:2: CU3SDataNode has no parameter 'old'" in text
    # One bad file makes the code 2, and the others are told too.
    bad = tmp_path / "bad.yaml"
    bad.write_text("type: locl\nworker: 2\n")
    done = hsi("check", short, bad, tmp_path / "none.yaml", "--quiet")
    assert done.code == 2
    assert f"{bad}:1: type: there is no cluster type 'locl'. Did you mean 'local'?" in done.out
    assert f"{bad}:2: unknown key 'worker'. Did you mean 'workers'?" in done.out
    assert "none.yaml: there is no such file" in done.out
    assert str(short) not in done.out
    # What a file is may be said.
    said = hsi("check", short, "--kind", "cluster").out
    assert f"{short}: this is a pipeline; another kind of file was expected." in said


WORKFLOW = """\
archive: a.zarr
sourcs: [x]                                   #! Did you mean 'sources'?
pipeline: p.yaml
fit: {out: f.yaml, pixels: normal}            #! fit.pixels: pixels 'normal' is not one of
score: {output: [scores]}                     #! unknown key 'score.output'
cluster: {type: existing}                     #! give either `address` or `scheduler_file`
report: ${NOT_SET_ANYWHERE}                   #! NOT_SET_ANYWHERE is not set
"""


def test_a_workflow_is_checked_with_all_it_refers_to(hsi, tmp_path):
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    (tmp_path / "p.yaml").write_text("nodes:\n  data: CU3SDataNode\n  rx: RXGlobl\n")
    done = hsi("check", tmp_path / "w.yaml")
    assert done.code == 2
    for line, part in marked(WORKFLOW):
        said = [text for text in done.out.splitlines() if f"w.yaml:{line}: " in text]
        assert any(part in text for text in said), (line, part)
    assert "w.yaml:5: key 'score.out' is missing" in done.out
    assert "p.yaml:3: there is no node class 'RXGlobl'" in done.out
    assert done.out.count("\n") == len(marked(WORKFLOW)) + 3


def test_one_parameter_of_several_types_is_one_mistake(hsi, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "nodes:\n- {name: data, class_name: CU3SDataNode}\n- name: sam\n"
        "  class_name: MatchedFilter\n  hparams:\n    targets: 7\n    names: 5\n"
        "connections:\n- {source: data.outputs.cube, target: sam.inputs.data}\n"
    )
    done = hsi("check", path)
    lines = [text.split(": ")[0] for text in done.out.splitlines()]
    assert lines == [f"{path}:6", f"{path}:7", str(path)], done.out


@pytest.mark.parametrize("kind", ["pipeline", "workflow", "cluster", "trainrun"])
def test_schemas_are_schemas_and_take_what_we_ship(hsi, kind, cluster_file, tmp_path):
    found = hsi("schema", kind).json
    validator = jsonschema.validators.validator_for(found)
    assert validator is jsonschema.Draft202012Validator
    validator.check_schema(found)
    files = {
        "pipeline": [p for p in SHIPPED if p.parent.name == "pipelines"],
        "workflow": [p for p in SHIPPED if p.parent.name not in KIND_OF_FOLDER],
        "trainrun": [p for p in SHIPPED if p.parent.name == "trainruns"],
        "cluster": [cluster_file],
    }[kind]
    assert files
    for path in files:
        validator(found).validate(yaml.safe_load(path.read_text()))
    more = {
        "pipeline": "nodes: {data: CU3SDataNode, rx: {type: RXGlobal, config: {eps: 0}}}\n"
        "connections: [[data.cube, rx.data]]",
        "workflow": "archive: a.zarr\nsources: x",
        "cluster": "memory: 4 GiB\nworkers: 2",
        "trainrun": "name: x\ndata: {params: {cu3s_file_path: x.cu3s}}",
    }[kind]
    validator(found).validate(yaml.safe_load(more))
    with pytest.raises(jsonschema.ValidationError):
        validator(found).validate({**yaml.safe_load(more), "unknown": 1})


def test_a_file_of_another_kind_is_told_in_one_line(hsi, tmp_path):
    pipeline, workflow = shipped() / "pipelines" / "rx_global.yaml", shipped() / "quickstart.yaml"
    weights = tmp_path / "p.pt"
    weights.write_bytes(b"PK\x03\x04\x80\xff")
    for arguments, says in (
        (("graph", workflow), "this is a workflow; a pipeline was expected. hsi-batch run runs"),
        (("graph", workflow), "Its pipeline is pipelines/rx_global.yaml."),
        (("run", pipeline), "this is a pipeline; a workflow was expected. hsi-batch fit fits"),
        (("restore-trainrun", "--trainrun-path", pipeline), "a trainrun was expected"),
        (
            ("graph", weights),
            "cannot be read as text (UTF-8); a YAML file was expected. The weights",
        ),
        (("graph", weights), "are read with its YAML, p.yaml."),
    ):
        done = hsi(*arguments)
        assert (done.code, done.out) == (2, "")
        assert says in done.err
        assert done.err.count("\n") == 1


def test_wrong_kinds(hsi, tmp_path):
    assert hsi("schema", "pipline").code == 2
    shutil.copy(SHIPPED[0], tmp_path / "x.yaml")
    assert hsi("check", tmp_path / "x.yaml", "--kind", "x").code == 2
    assert hsi("check").code == 2


def test_a_trainrun_in_parts_is_no_workflow(hsi, tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("defaults: [_self_]\nname: x\nlost: 1\n")
    done = hsi("check", path)
    assert done.code == 2
    assert "part.yaml: trainrun," in done.out
    assert "archive" not in done.out


@pytest.mark.parametrize(
    ("text", "held"), [("", "nothing"), ("- a\n", "a list"), ("a\n", "a single")]
)
def test_a_file_that_holds_no_keys_is_of_no_kind(hsi, tmp_path, text, held):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    done = hsi("check", path)
    assert done.code == 2
    assert f"holds {held}" in done.out
    assert f"{path}: file, 1 problem" in done.out


def test_a_place_with_too_many_parts_is_counted(hsi, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "nodes: [{name: data, class_name: CU3SDataNode}, {name: rx, class_name: RXGlobal}]\n"
        "connections: [{source: data, target: rx.inputs.data}]\n"
    )
    assert "(found 1 part)" in hsi("check", path).out


def test_a_home_of_nobody_is_a_name_like_others(hsi, tmp_path):
    (tmp_path / "w.yaml").write_text(
        "sources: [in]\narchive: a.zarr\npipeline: ~nobody-here.yaml\n"
    )
    done = hsi("check", tmp_path / "w.yaml")
    assert done.code == 2
    assert "~nobody-here.yaml: there is no such file" in done.out
