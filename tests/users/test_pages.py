"""What the pages of docs/ show is run, page by page, block after block, and says what is shown."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from given import renewed

import hsi_batch as hb

ROOT = Path(__file__).parent.parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
#: A block with its language, the file that it stands for, the reason for which it is not run.
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n+)?"
    r'```(?P<kind>\w*)(?: title="(?P<file>[\w.]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^\$? ?hsi-batch", re.MULTILINE)
RUN = ("python", "console")
#: Blocks that may stay unrun; more need a better reason than one comment.
MOST_UNRUN = 16


def runnable(page):
    return [
        found
        for found in _BLOCK.finditer(page.read_text())
        if (found["kind"] in RUN or found["file"]) and not found["why"]
    ]


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem) for page in DOCS if runnable(page)]
)
def test_what_a_page_shows_works(hsi, client, given_place, tmp_path, monkeypatch, page):
    monkeypatch.chdir(renewed(given_place))
    # Workers must be able to import what a page writes, too.
    monkeypatch.syspath_prepend(str(given_place))
    client.run(exec, f"import sys; sys.path.insert(0, {str(given_place)!r})")
    monkeypatch.setenv("HSI_BATCH_CACHE", str(tmp_path / "cache"))
    space = {
        "hb": hb,
        "np": np,
        "archive": hb.open_archive("archive.zarr"),
        "pipeline": hb.Pipeline.from_yaml("fitted.yaml"),
    }
    for found in runnable(page):
        if found["file"]:
            Path(found["file"]).write_text(found["text"])
        elif found["kind"] == "python":
            exec(compile(found["text"], str(page), "exec"), space)
        else:
            run_console(hsi, found["text"])


def run_console(hsi, text):
    """Run the commands of a block; what is shown below one must be in what it says."""
    shown: list[str] = []
    said = ""
    for line in [*text.splitlines(), "$ "]:
        if not line.startswith("$ "):
            shown.append(line)
            continue
        for expected in filter(str.strip, shown):
            assert re.search(pattern(expected), said), f"{expected!r} is not in\n{said}"
        shown = []
        words = shlex.split(line[2:], comments=True)
        if words:
            assert words[0] == "hsi-batch", line
            done = hsi(*words[1:])
            assert done.code == 0, (line, done.err)
            said = done.out + done.err


def pattern(line):
    """A line of a transcript; numbers may be others, and spaces as many as there are."""
    parts = re.split(r"(\d[\d.]*(?:e[+-]?\d+)?|\.\.\.|\s+)", line.strip())
    return "".join(
        r"[\d.e+-]+"
        if re.match(r"\d", part)
        else r".*"
        if part == "..."
        else r"\s+"
        if part.isspace()
        else re.escape(part)
        for part in parts
    )


def test_the_comparison_of_transcripts_can_fail(hsi, given_place, monkeypatch):
    monkeypatch.chdir(renewed(given_place))
    run_console(hsi, "$ hsi-batch ls archive.zarr\nscene_007  1\n")
    for wrong in ("scene_x", "$ hsi-batch ls nothing.zarr"):
        with pytest.raises(AssertionError):
            run_console(hsi, f"$ hsi-batch ls archive.zarr\n{wrong}\n")


def test_few_blocks_are_not_run_and_each_says_why():
    reasons = []
    for page in DOCS:
        for found in _BLOCK.finditer(page.read_text()):
            if found["kind"] in (*RUN, "sh") and found["why"]:
                reasons.append((page.name, found["why"]))
            assert found["kind"] != "sh" or found["why"], f"{page.name}: a script that is not run"
            untyped = found["kind"] == "" and re.search(_COMMAND, found["text"])
            assert not untyped, f"{page.name}: a block of commands without `console`"
    assert len(reasons) <= MOST_UNRUN, reasons
    assert all(len(why) > 8 for _, why in reasons)


def test_python_blocks_end_without_loose_names():
    """Every block at least parses, whether it is run or not."""
    for page in [*DOCS, ROOT / "README.md"]:
        for found in _BLOCK.finditer(page.read_text()):
            if found["kind"] == "python":
                ast.parse(found["text"])


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    nav = set(re.findall(r"([\w/]+\.md)\s*$", text[text.index("\nnav:") :], re.MULTILINE))
    for page in DOCS:
        assert page.name in nav, f"{page.name} is not in the navigation of mkdocs.yml"
