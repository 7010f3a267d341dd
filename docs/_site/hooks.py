"""What mkdocs asks while it builds: pages made from the code, links that leave the documents."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import api
import commands
import library
import schemas
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import notebooks

ROOT = Path(__file__).parent.parent.parent
#: Pages that lie beside the documents, by their names in the site.
ROOTED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
#: Pages that a run of benchmarks writes; a checkout may be without.
OPTIONAL = ("performance.md", "false_alarms.md")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take what is not here out of the navigation, and put the notebooks into it."""
    assert config.nav is not None
    config.nav = _with(config.nav, Path(config.docs_dir))
    return config


def _with(nav: list[Any], docs: Path) -> list[Any]:
    kept: list[Any] = []
    for entry in nav:
        if not isinstance(entry, dict):
            kept.append(entry)
            continue
        ((title, value),) = entry.items()
        if isinstance(value, list):
            value = _with(value, docs)
            if title == "Tutorials":
                value += [{title: page} for page, (title, _) in notebooks.pages(ROOT).items()]
        elif value in OPTIONAL and not (docs / value).exists():
            continue
        kept.append({title: value})
    return kept


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, the command line and the notebooks."""
    made = {
        "reference/commands.md": commands.page(),
        "reference/yaml.md": schemas.page(),
        "reference/nodes.md": library.page(),
        **api.pages(),
        **{page: text for page, (_, text) in notebooks.pages(ROOT).items()},
    }
    made |= {page: (ROOT / name).read_text() for page, name in ROOTED.items()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links of the site, or into plain names."""
    source, docs = page.file.src_uri, Path(config.docs_dir)
    home = (docs / source).parent
    if source in ROOTED:
        home = ROOT
    elif source.startswith("tutorials/"):
        home = ROOT / "notebooks"

    def mended(found: re.Match[str]) -> str:
        mark, text, target, anchor = found.groups()
        goal = (home / target).resolve()
        if re.match(r"\w+:", target) or (home.is_relative_to(docs) and goal.is_relative_to(docs)):
            return found[0]
        there = _in_site(goal, docs)
        if there is not None:
            path = posixpath.relpath(there, posixpath.dirname(source) or ".")
            return f"{mark}[{text}]({path}{anchor or ''})"
        if not goal.exists():
            return found[0]
        return text if text.startswith("`") else f"`{goal.relative_to(ROOT).as_posix()}`"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(p if p.startswith("```") else _LINK.sub(mended, p) for p in parts)


def _in_site(goal: Path, docs: Path) -> str | None:
    """Name of the page that stands for a file of the repository."""
    if goal.is_relative_to(docs):
        return goal.relative_to(docs).as_posix()
    if goal.suffix == ".ipynb" and goal.parent == ROOT / "notebooks":
        return f"tutorials/{goal.stem}.md"
    return next((page for page, path in ROOTED.items() if goal == ROOT / path), None)
