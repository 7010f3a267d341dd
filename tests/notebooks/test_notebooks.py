"""The notebooks: kept without outputs, and run from the first cell to the last."""

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from commands import Marked, files_below
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
_LINK = re.compile(r"\]\(([^)#\s:]+)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all of them, as beside the files: the archive is made once."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_kept_clean(path):
    notebook = json.loads(path.read_text())
    nbformat.validate(nbformat.from_dict(notebook))
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["cells"][0]["cell_type"] == "markdown"
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        else:
            for link in _LINK.findall("".join(cell["source"])):
                assert (path.parent / link).exists(), link


def test_all_are_here():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path, folder, monkeypatch):
    marked = Marked()
    for name, value in marked.env.items():
        monkeypatch.setenv(name, value)
    programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(programs))
    before = files_below(ROOT / "notebooks")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=200,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    kept = os.environ.get("HSI_BATCH_NOTEBOOKS")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, Path(kept) / path.name)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            # No warning, no log line, no error of a command.
            assert output.get("name") != "stderr", output.text
            text = output.get("text", "")
            assert "Traceback" not in text
            assert "rror:" not in text
    assert files_below(ROOT / "notebooks") == before
    # This process bears the mark itself only in os.environ, not in what it was started with.
    assert not marked.wait()
