"""``restore-pipeline``, ``restore-trainrun`` and ``drift`` as commands."""

import pytest

from hsi_batch.pipeline import Pipeline
from hsi_batch.training.restore import mermaid

TRAINRUN = """name: run
pipeline: {pipeline}
data:
  data_module: archive
  params: {{archive: {archive}, train: a, val: b}}
output_dir: {out}
"""


def test_a_pipeline_is_described(hsi, made, tmp_path):
    done = hsi("restore-pipeline", "--pipeline-path", made.fitted)
    assert done.code == 0
    assert "fitted" in done.out
    assert "takes cube" in done.out
    assert (
        hsi("restore-pipeline", "--pipeline-path", made.pipeline, "--json").json["fitted"] is False
    )
    done = hsi("restore-pipeline", "--pipeline-path", tmp_path / "no.yaml")
    assert done.code == 2


def test_a_pipeline_is_run(hsi, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ("restore-pipeline", "--pipeline-path", made.fitted)
    assert hsi(*run, "--archive", made.archive, "--frames", "a").code == 0
    assert (tmp_path / "fitted_scores.zarr" / "a" / "scores").is_dir()
    done = hsi(
        *run, "--data-module", "archive", "--data-arg", f"archive={made.archive}", "--out", "s"
    )
    assert done.code == 0
    assert (tmp_path / "s" / "b").is_dir()
    for wrong, why in [
        (("--archive", made.archive, "--data-module", "cu3s"), "several sources"),
        (("--data-arg", "a=b"), "needs --data-module"),
        (("--data-module", "npz"), "no data module 'npz'"),
        (("--device", "tpu"), "not one of auto"),
        (("--pipeline-vis-ext", "png"), "is not md"),
        (("--override", "nodes.no.hparams.eps=1"), "no entry 'no'"),
    ]:
        done = hsi(*run, *wrong)
        assert done.code == 2
        assert why in done.err


def test_the_graph_as_a_page(hsi, mine):
    done = hsi("restore-pipeline", "--pipeline-path", mine.fitted, "--pipeline-vis-ext", "md")
    assert done.code == 0
    page = mine.fitted.with_suffix(".md").read_text()
    pipeline = Pipeline.from_yaml(mine.fitted)
    assert page == mermaid(pipeline)
    assert page.count("-->") == len(pipeline.edges)


@pytest.fixture
def trainrun(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text(
        TRAINRUN.format(pipeline=made.pipeline, archive=made.archive, out=tmp_path / "out")
    )
    return path


def test_a_trainrun(hsi, trainrun, tmp_path):
    run = ("restore-trainrun", "--trainrun-path", trainrun, "--json")
    info = hsi(*run).json
    assert info["mode"] == "info"
    assert info["info"]["training"] == "statistical"
    trained = hsi(*run, "--mode", "train").json
    assert trained["fit"]["pixels"] == 1200
    restored = Pipeline.from_yaml(trained["out"])
    assert restored.fitted
    assert trained["out"] == str(
        tmp_path / "out" / "trained_models" / f"{restored.name}_restored.yaml"
    )
    assert trained["test"] is None
    validated = hsi(*run, "--mode", "validate").json
    assert validated["fit"] is None
    assert validated["val"] == trained["val"]
    assert hsi(*run, "--mode", "test").code == 2
    done = hsi(*run, "--mode", "tests")
    assert (done.code, "not one of info" in done.err) == (2, True)
    assert hsi(*run, "--checkpoint-path", "x.ckpt").code == 2


def test_weights_by_name(hsi, trainrun, made):
    run = ("restore-trainrun", "--trainrun-path", trainrun, "--mode", "validate")
    done = hsi(*run, "--weights-path", made.fitted.with_suffix(".pt"), "--json")
    assert done.json["fit"] is None
    done = hsi(*run, "--json")
    assert done.json["fit"]["pixels"] == 1200
    (said,) = (line for line in done.err.splitlines() if line.startswith("warning: "))
    assert "fitted first" in said


def test_drift(hsi, made):
    found = hsi("drift", made.fitted, "--archive", made.archive, "--json").json
    assert [s["session"] for s in found["sessions"]] == ["a", "b"]
    assert found["fitted_on"]["pixel_count"] == 2400
    text = hsi("drift", made.fitted, "--archive", made.archive, "--frames", "b").out
    assert "b: mean moved" in text
    assert "a: mean moved" not in text
