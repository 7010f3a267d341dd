"""Docstrings as Markdown: roles become code, and blocks behind a double colon stay blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Markup", "plain"]

_ROLE = re.compile(r":\w+:`[~.!]?([^`<]*?)(?: <[^`]*>)?`")
_TABLE = re.compile(r"^=+(?: +=+)+\n(.*?)^=+(?: +=+)+$", re.MULTILINE | re.DOTALL)


def plain(text: str) -> str:
    """A docstring without the markup that Markdown does not know."""
    text = _ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", text)
    text = _TABLE.sub(lambda table: f"```text\n{table[1]}```", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class Markup(griffe.Extension):
    """Rewrites every docstring that is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
