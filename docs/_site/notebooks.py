"""Notebooks as pages: their text and their code."""

from __future__ import annotations

import json
import re
from pathlib import Path

__all__ = ["pages"]


def pages(root: Path) -> dict[str, tuple[str, str]]:
    """Title and Markdown of each notebook, by the name of its page."""
    found = sorted((root / "notebooks").glob("*.ipynb"))
    return {f"tutorials/{path.stem}.md": _page(path) for path in found}


def _page(path: Path) -> tuple[str, str]:
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    whole = "\n\n".join(parts)
    heading = re.search(r"^# (.*)$", whole, re.MULTILINE)
    title = heading[1] if heading else path.stem
    said = f"The notebook `notebooks/{path.name}`, without its pictures: run it in Jupyter."
    after = heading.end() if heading else 0
    return title, f"{whole[:after]}\n\n{said}\n{whole[after:]}"
