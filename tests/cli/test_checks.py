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


def marked(text):
    """Lines that end with ``#! part of a message``."""
    lines = enumerate(text.splitlines(), 1)
    return [(n, line.split("#! ")[1]) for n, line in lines if "#! " in line]


def test_a_file_with_ten_mistakes_is_told_ten_with_lines(hsi, tmp_path):
    path = tmp_path / "ten.yaml"
    path.write_text(TEN)
    expected = marked(TEN)
    assert len(expected) == 10
    done = hsi("check", path)
    assert (done.code, done.err) == (2, "")
    *said, last = done.out.splitlines()
    assert last == f"{path}: pipeline, 10 problems"
    assert len(said) == 10
    for (line, part), text in zip(expected, said, strict=True):
        assert text.startswith(f"{path}:{line}: ")
        assert part in text
    (found,) = hsi("check", path, "--json").json["files"]
    assert [p["line"] for p in found["problems"]] == [line for line, _ in expected]
    # A run says the same.
    run = hsi("fit", path, "--archive", tmp_path / "a.zarr", "--out", tmp_path / "f.yaml")
    assert run.code == 2
    assert [text.removeprefix("  - ") for text in run.err.splitlines()[1:]] == said


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
    assert "unknown key 'nodes'" in hsi("check", short, "--kind", "cluster").out


WORKFLOW = """\
archive: a.zarr
sourcs: [x]                                   #! Did you mean 'sources'?
pipeline: p.yaml
fit: {out: f.yaml, pixels: normal}            #! fit.pixels: input should be 'valid' or
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


def test_wrong_kinds(hsi, tmp_path):
    assert hsi("schema", "pipline").code == 2
    shutil.copy(SHIPPED[0], tmp_path / "x.yaml")
    assert hsi("check", tmp_path / "x.yaml", "--kind", "x").code == 2
    assert hsi("check").code == 2
