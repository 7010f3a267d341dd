"""What README and docs show works as it is written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from recordings import scene, write_envi

from hsi_batch.cli.main import app
from hsi_batch.documents import read_yaml
from hsi_batch.pipeline import Pipeline
from hsi_batch.workflow import shipped

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NM = np.arange(8) * 20.0 + 450
NAV = (ROOT / "mkdocs.yml").read_text()
#: Pages that are made while the documents are built.
GENERATED = ("reference/", "changelog.md", "contributing.md")
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def blocks(language):
    found = []
    for page in PAGES:
        for kind, text in _BLOCK.findall(page.read_text()):
            if kind == language:
                found.append(pytest.param(text, id=f"{page.stem}-{len(found)}"))
    return found


def commands():
    return list(typer.main.get_command(app).commands)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for i in range(2):
        cube, mask = scene(i)
        path = tmp_path / "recordings" / f"scene_{i:03d}.hdr"
        write_envi(path, cube, wavelength=NM, mask=mask)
    shutil.copytree(shipped(), tmp_path / "workflows")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme(hsi, folder):
    readme = PAGES[0].read_text()
    lines = [line for line in readme.splitlines() if line.startswith("$ hsi-batch ")]
    # What is submitted is run by tests/slurm.
    submitted = [line for line in lines if line.split()[2] == "submit"]
    assert (len(lines), len(submitted)) == (6, 1)
    for line in lines:
        if line in submitted:
            continue
        done = hsi(*line.split()[2:])
        assert done.code == 0, done.err
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_script_of_the_readme(client, folder):
    (block,) = (p.values[0] for p in blocks("python") if "hb.convert" in p.values[0])
    space = {}
    exec(compile(block, "README.md", "exec"), space)
    assert space["result"].passes == 1
    assert space["scores"].shape[-1] == 1 or space["scores"].ndim == 3


@pytest.mark.parametrize("text", blocks("python"))
def test_python_is_python(text):
    compile(text, "docs", "exec")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_what_is_read(text):
    document = read_yaml("docs.yaml", text=text)
    keys = set(document.data) if isinstance(document.data, dict) else set()
    # Graphs of other packages are run by the pages that write these.
    if "connections" in keys and "plugins" not in keys:
        Pipeline.from_document(document)


def test_every_command_that_is_named_exists():
    for page in PAGES:
        for name in re.findall(r"hsi-batch ([a-z][a-z-]*)", page.read_text()):
            assert name in commands(), (page.name, name)


def test_links_lead_somewhere():
    for page in PAGES:
        for target, anchor in _LINK.findall(page.read_text()):
            if target.startswith("http"):
                continue
            if target.startswith(GENERATED):
                # Their names and anchors are checked as the documents are built.
                assert target in NAV, (page.name, target)
                continue
            goal = (page.parent / target).resolve() if target else page
            assert goal.exists(), (page.name, target)
            if anchor:
                heads = re.findall(r"^#+ (.*)$", goal.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}
                assert anchor in slugs, (page.name, target, anchor)


def test_the_workflow_blocks_name_keys_that_exist():
    text = next(p.values[0] for p in blocks("yaml") if p.values[0].startswith("fit: {"))
    assert set(yaml.safe_load(text)["fit"]) <= {"out", "background", "fallback"}
