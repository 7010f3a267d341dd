"""Scripts without a ``__main__`` guard and notebooks, with workers that start by themselves."""

import os
import subprocess
import sys

import nbformat
import pytest
from commands import Marked
from nbclient import NotebookClient
from recordings import scene, write_envi

RECIPE = """
import hsi_batch as hb
from hsi_batch.workflow import shipped

result = hb.convert("in", "a.zarr")
pipeline = hb.Pipeline.from_yaml(shipped() / "pipelines" / "rx_statistical.yaml")
archive = hb.open_archive("a.zarr")
fitted = hb.fit(pipeline, archive)
pipeline.save("fitted.yaml")
scored = hb.score(pipeline, archive, "s.zarr")
lazy = pipeline.apply(archive["s0"].cube)
print(len(archive), result.failed, fitted.pixels, scored.blocks, lazy.dtype)
print(scored.metrics["auc"])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for i in range(2):
        cube, mask = scene(i)
        write_envi(tmp_path / "in" / f"s{i}.hdr", cube, mask=mask)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(text):
    counts, auc = text.split("\n")[:2]
    assert counts == "2 0 2400 2 float32"
    assert 0.5 < float(auc) <= 1


def test_an_unguarded_script(folder):
    (folder / "script.py").write_text(RECIPE)
    marked = Marked()
    done = subprocess.run(
        [sys.executable, "script.py"],
        env={**os.environ, **marked.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    check(done.stdout)
    assert not marked.wait()
    assert {p.name for p in folder.iterdir()} == {
        "in",
        "script.py",
        "a.zarr",
        "a.zarr.hsi-batch",
        "fitted.yaml",
        "fitted.pt",
        "s.zarr",
        "s.zarr.hsi-batch",
    }


def test_a_notebook(folder, monkeypatch):
    marked = Marked()
    for name, value in marked.env.items():
        monkeypatch.setenv(name, value)
    *setup, last = RECIPE.strip().split("\n\n")
    cells = [nbformat.v4.new_code_cell(text) for text in (*setup, last, "archive")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    check("".join(o.text for o in outputs if o.output_type == "stream"))
    shown = outputs[-1].data
    assert "2 sessions, 2 frames" in shown["text/plain"]
    assert "<table" in shown["text/html"]
    # This process bears the mark itself only in os.environ, not in what it was started with.
    assert not marked.wait()
