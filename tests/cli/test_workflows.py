"""Workflow files: mistakes, settings, paths, the ones that are shipped."""

import json
import shutil

import jsonschema
import pytest
import yaml
from commands import command, files_below
from recordings import scene, write_envi

from hsi_batch.pipeline import Pipeline
from hsi_batch.workflow import read_workflow, shipped

GOOD = """\
archive: out/a.zarr
sources: in
pipeline: rx.yaml
fit: {out: out/fitted.yaml}
score: {out: out/s.zarr}
report: out/r.html
"""


@pytest.fixture
def folder(made, tmp_path):
    """A workflow beside its pipeline and recordings."""
    here = tmp_path / "project"
    shutil.copytree(made.recordings, here / "in")
    shutil.copy(made.pipeline, here)
    (here / "w.yaml").write_text(GOOD)
    return here


def test_a_whole_workflow_from_another_folder(hsi, folder, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = hsi("run", "../project/w.yaml")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == [
        "convert",
        "fit",
        "score",
        "report",
    ]
    assert not list((tmp_path / "elsewhere").iterdir())
    assert {p.name for p in (folder / "out").iterdir()} >= {"a.zarr", "s.zarr", "r.html"}
    before = files_below(folder)
    again = hsi("run", folder / "w.yaml", "--json")
    assert again.code == 0
    assert again.json["convert"]["up_to_date"] == 2
    assert again.json["fit"]["up_to_date"]
    assert again.json["score"]["blocks"] == 0
    assert again.json["report"]["up_to_date"]
    assert files_below(folder) == before
    # Only what a setting changes is done again.
    done = hsi("run", folder / "w.yaml", "--set", "fit.pixels=labelled-normal", "--json")
    assert done.json["convert"]["blocks"] == 0
    assert not done.json["fit"]["up_to_date"]
    assert done.json["score"]["blocks"] == 2
    forced = hsi("run", folder / "w.yaml", "--force", "--json").json
    assert forced["convert"]["blocks"] == forced["score"]["blocks"] == 2


@pytest.mark.parametrize("sources", ["in", "[in]", "{paths: in}", "{paths: [in]}"])
def test_one_path_or_a_list(hsi, folder, sources):
    (folder / "w.yaml").write_text(GOOD.replace("sources: in", f"sources: {sources}"))
    assert read_workflow(folder / "w.yaml")[0].sources.paths == ["in"]
    schema = hsi("schema", "workflow").json
    jsonschema.validate(yaml.safe_load((folder / "w.yaml").read_text()), schema)


def test_a_recording_that_changed(hsi, folder):
    text = GOOD[: GOOD.index("fit:")].replace("sources: in", "sources: [in]")
    (folder / "w.yaml").write_text(text)
    run = ["run", folder / "w.yaml"]
    assert hsi(*run).code == 0
    (folder / "in" / "a.raw").touch()
    touched = hsi(*run)
    assert (touched.code, touched.err) == (0, "")
    for setting in ("--replace", "--set=sources.replace=true"):
        write_envi(folder / "in" / "a.hdr", scene(3 + len(setting))[0])
        done = hsi(*run)
        assert done.code == 1
        assert f"changed: session a: {folder / 'in' / 'a'}" in done.err
        done = hsi(*run, setting)
        assert done.code == 0
        assert "1 session converted, 1 up to date" in done.out
        assert hsi(*run).code == 0
    write_envi(folder / "in" / "a.hdr", scene(9)[0])
    (folder / "w.yaml").write_text(text.replace("sources: [in]", "sources: in"))
    assert hsi(*run, "--set", "sources.replace=true").code == 0


def test_settings_of_a_pipeline_in_the_workflow(hsi, folder):
    inline = (
        "pipeline: {nodes: {data: CU3SDataNode, rx: RXGlobal}, connections: [[data.cube, rx.data]]}"
    )
    (folder / "w.yaml").write_text(GOOD.replace("pipeline: rx.yaml", inline))
    run = ["run", folder / "w.yaml", "--dry-run"]
    assert hsi(*run, "--set", "pipeline.nodes.rx.hparams.eps=0.5").code == 0
    done = hsi(*run, "--set", "pipeline.nodes.rx.hparams.esp=0.5")
    assert done.code == 2
    assert "no parameter 'esp'. Did you mean 'eps'?" in done.err
    assert "there is no node 'rxx'" in hsi(*run, "--set", "pipeline.nodes.rxx.hparams.eps=1").err
    (folder / "w.yaml").write_text(GOOD)
    done = hsi(*run, "--set", "pipeline.nodes.rx.hparams.eps=0.5")
    assert done.code == 2
    assert "the pipeline is in a file of its own, rx.yaml" in done.err


def test_what_failed_is_in_the_exit_code(hsi, folder):
    write_envi(folder / "in" / "cut.hdr", scene(3)[0])
    (folder / "in" / "cut.raw").write_bytes(b"x")
    done = hsi("run", folder / "w.yaml")
    assert done.code == 1
    assert "cut.hdr" in done.err
    assert (folder / "out" / "r.html").exists()
    assert hsi("run", folder / "w.yaml", "--max-failed", "1").code == 0


def test_what_is_done_starts_no_workers(hsi, folder):
    assert hsi("run", folder / "w.yaml").code == 0
    before = files_below(folder)
    # Workers could not be started like this.
    (folder / "w.yaml").write_text(f"{GOOD}cluster: {{scratch: nowhere}}\n")
    # In a process of its own, for workers that are there would be used.
    again = command("run", folder / "w.yaml", "--workers", "1")
    assert again.code == 0
    assert "report: up to date: " in again.out
    before[folder / "w.yaml"] = (folder / "w.yaml").stat().st_mtime_ns
    assert files_below(folder) == before
    forced = command("run", folder / "w.yaml", "--force")
    assert forced.code == 2
    assert "scratch: no folder can be made" in forced.err


WRONG = """\
archiv: a.zarr
sources:
  paths: [in]
  annotation: none
  saturation: high
fit:
  out: f.yaml
  pixel: valid
  frames: a
score: {out: s.zarr, output: [scores]}
"""


def test_all_mistakes_at_once(hsi, folder):
    (folder / "w.yaml").write_text(WRONG)
    before = files_below(folder)
    done = hsi("run", folder / "w.yaml")
    assert (done.code, done.out) == (2, "")
    head, *problems = done.err.splitlines()
    assert "8 problems" in head
    expected = [
        (1, "'archiv'", "Did you mean 'archive'?"),
        (4, "'sources.annotation'", "Did you mean 'annotations'?"),
        (5, "sources.saturation", "'high'"),
        (8, "'fit.pixel'", "Did you mean 'pixels'?"),
        (10, "'score.output'", "Did you mean 'outputs'?"),
        (None, "key 'archive' is missing", ""),
        (6, "`fit` needs a `pipeline`", ""),
        (10, "`score` needs a `pipeline`", ""),
    ]
    assert len(problems) == len(expected)
    for line, *parts in expected:
        place = f"{folder / 'w.yaml'}:{line}: " if line else str(folder / "w.yaml")
        assert any(place in p and all(part in p for part in parts) for p in problems), (line, parts)
    assert files_below(folder) == before


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("archive: a\nfit: {out: f.yaml}\n", 2, "`fit` needs a `pipeline`"),
        ("archive: a\n\nscore: {out: s}\n", 3, "`score` needs a `pipeline`"),
        ("archive: a\nreport: r.html\n", 2, "`report` needs `score`"),
        ("archive: a\nsources: []\n", 2, "sources: at least 1 entry was expected, not 0."),
        ("archive: a\ncluster: {type: slum}\n", 2, "cluster type 'slum'"),
        ("archive: a\nsources: ${NOT_SET}\n", 2, "NOT_SET is not set"),
        ("archive: a\npipeline: nowhere.yaml\n", None, "nowhere.yaml: there is no such file"),
    ],
)
def test_one_mistake(hsi, folder, text, line, says):
    (folder / "w.yaml").write_text(text)
    done = hsi("run", folder / "w.yaml")
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    if line:
        assert f"w.yaml:{line}: " in done.err


def test_a_mistake_in_the_pipeline_starts_nothing(hsi, folder):
    text = (folder / "rx.yaml").read_text().replace("class_name: RXGlobal", "class_name: RXGlobl")
    (folder / "rx.yaml").write_text(text)
    done = hsi("run", folder / "w.yaml")
    assert done.code == 2
    line = text.splitlines().index("    class_name: RXGlobl") + 1
    assert f"rx.yaml:{line}: " in done.err
    assert "Did you mean 'RXGlobal'?" in done.err
    assert not (folder / "out").exists()


WRONG_PARTS = """\
archive: out/a.zarr
sources: in
pipeline: rx.yaml
fit:
  out: out/fitted.pt
  pixels: ${NOPE}
score:
  out: out/s.zarr
  outputs:
    - scors
    - decisions
    - data.wavelengths
"""


def test_what_stages_would_refuse_starts_nothing(hsi, folder):
    (folder / "w.yaml").write_text(WRONG_PARTS)
    done = hsi("run", folder / "w.yaml")
    assert (done.code, done.out) == (2, "")
    assert not (folder / "out").exists()
    head, *problems = done.err.splitlines()
    assert "4 problems" in head
    expected = [
        (6, "NOPE is not set"),
        (5, "fit.out: the fitted pipeline is a YAML file"),
        (10, "no output 'scors'. Did you mean 'scores'?"),
        (12, "has no pixels, so it cannot be stored per pixel"),
    ]
    for line, says in expected:
        assert any(f"w.yaml:{line}: " in p and says in p for p in problems), (line, says, problems)


def test_scoring_without_any_output_starts_nothing(hsi, folder):
    (folder / "rx.yaml").write_text("nodes: {data: CU3SDataNode}\n")
    done = hsi("run", folder / "w.yaml")
    assert done.code == 2
    assert "w.yaml:5: the pipeline has no output `scores` or `decisions`" in done.err
    assert not (folder / "out").exists()


def test_variables_and_settings(hsi, folder, monkeypatch):
    text = GOOD.replace("out/a.zarr", "${PLACE}/a.zarr").replace("in\n", "${GIVEN:-in}\n", 1)
    (folder / "w.yaml").write_text(text)
    monkeypatch.setenv("PLACE", "there")
    plan = hsi("run", folder / "w.yaml", "--dry-run", "--json").json["convert"]
    assert plan["archive"] == str(folder / "there" / "a.zarr")
    assert plan["counts"] == {"new": 2}
    done = ["run", folder / "w.yaml", "--dry-run", "--json"]
    plan = hsi(*done, "--set", "archive=b.zarr", "--set", "sources=in/a.hdr").json["convert"]
    assert plan["archive"] == str(folder / "b.zarr")
    assert [s["session"] for s in plan["sessions"]] == ["a"]
    done = hsi("run", folder / "w.yaml", "--set", "fit.pixel=x")
    assert done.code == 2
    assert "Did you mean 'pixels'?" in done.err


@pytest.mark.parametrize("path", sorted(shipped().glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_workflows(hsi, made, tmp_path, monkeypatch, path):
    shutil.copytree(made.recordings, tmp_path / "recordings")
    for folder in ("pipelines", "trainruns"):
        shutil.copytree(shipped() / folder, tmp_path / folder)
    shutil.copy(path, tmp_path)
    for name in ("RECORDINGS", "RESULTS"):
        monkeypatch.delenv(name, raising=False)
    before = files_below(tmp_path)
    done = hsi("run", tmp_path / path.name, "--dry-run")
    assert done.code == 0
    assert done.out.startswith("convert: 2 new; 2 blocks")
    assert files_below(tmp_path) == before
    config, _ = read_workflow(tmp_path / path.name)
    assert config.score is not None
    assert config.report is not None


#: What does not suit eight channels.
FEWER = {
    "channel_selector": "nodes.selector.hparams.n_select=3",
    "local_rx": "nodes.pca.hparams.n_components=3",
    "pca_residual": "nodes.residual.hparams.n_components=3",
}


@pytest.mark.parametrize(
    "path", sorted((shipped() / "pipelines").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_pipelines(hsi, made, tmp_path, path):
    name = Pipeline.from_yaml(path).name
    assert name
    out = tmp_path / "f.yaml"
    extra = ["--set", FEWER[path.stem]] if path.stem in FEWER else []
    fit = ["fit", path, "--archive", made.archive, "--out", out, *extra]
    assert "2 frames of 2 sessions" in hsi(*fit, "--dry-run").out
    assert not out.exists()
    assert hsi(*fit).code == 0
    asked = ["--output", "pca.projected"] if path.stem == "pca" else []
    score = ["score", out, "--archive", made.archive, "--out", tmp_path / "s.zarr", *asked]
    assert hsi(*score, "--dry-run").code == 0
    assert json.loads(hsi(*score, "--json").out)["blocks"] == 6
