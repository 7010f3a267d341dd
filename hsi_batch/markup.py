"""HTML for notebooks: cards of facts and tables, in the colours of the page they are shown on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

__all__ = ["Card", "Raw", "Shown", "card", "fold", "table"]

#: Rows of a table: of more, the first and the last are shown.
_ROWS = 20
#: Colours and fonts are those of the page; lines are the text's colour, thinned.
_STYLE = """<style>
.hsi-batch-card{color:inherit;line-height:1.4;max-width:100%;overflow-x:auto}
.hsi-batch-card table{border-collapse:collapse;margin:.3em 0 .5em;font-size:.92em;
 background:none;color:inherit}
.hsi-batch-card tr,.hsi-batch-card tr:hover{background:none!important}
.hsi-batch-card th,.hsi-batch-card td{padding:.15em .8em .15em 0;text-align:left!important;
 vertical-align:top;border:0;border-bottom:1px solid
 color-mix(in srgb,currentColor 18%,transparent);color:inherit;font-weight:normal;
 max-width:60em;overflow-wrap:break-word}
.hsi-batch-card th{opacity:.72;white-space:nowrap}
.hsi-batch-card td:first-child{white-space:nowrap}
.hsi-batch-card td.n{text-align:right!important;
 font-variant-numeric:tabular-nums;white-space:nowrap}
.hsi-batch-card svg{color:inherit;background:none;display:block;margin:.4em 0}
.hsi-batch-card summary{cursor:pointer;opacity:.8}
.hsi-batch-card pre{white-space:pre-wrap;background:none;color:inherit;margin:.3em 0}
</style>"""


class Raw(str):
    """HTML that is complete in itself, made of parts that were escaped."""

    __slots__ = ()


class Card(Protocol):
    """What shows itself in a notebook."""

    def _repr_html_(self) -> str: ...


def card(title: str, head: str, *parts: Raw | None) -> str:
    """A title, a line beside it, and what stands below; texts are escaped here.

    Examples
    --------
    >>> "<b>Archive</b> a&lt;b" in card("Archive", "a<b")
    True
    """
    body = "".join(part for part in parts if part)
    return (
        f"{_STYLE}<div class='hsi-batch-card'><div><b>{escape(title)}</b> {escape(head)}</div>"
        f"{body}</div>"
    )


def table(
    rows: Iterable[Sequence[object]], head: Sequence[str] | None = None, rest: str = "rows"
) -> Raw | None:
    """A table; None without rows. Of many rows the first and the last are shown.

    Below a head, numbers stand to the right. Without one, the first cell of a row is what the
    others are.

    Examples
    --------
    >>> str(table([("passes", 1)]))
    '<table><tr><th>passes</th><td>1</td></tr></table>'
    """
    held = list(rows)
    if not held:
        return None
    top = "" if head is None else "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = [f"<tr>{top}</tr>"] if head is not None else []
    hidden = len(held) - _ROWS
    for number, row in enumerate(held):
        if hidden > 0 and _ROWS // 2 <= number < _ROWS // 2 + hidden:
            if number == _ROWS // 2:
                more = f"… {hidden} more {escape(rest)}"
                lines.append(f"<tr><td colspan='{len(row)}'>{more}</td></tr>")
            continue
        first = "" if head is not None else f"<th>{escape(str(row[0]))}</th>"
        cells = row if head is not None else row[1:]
        lines.append(
            f"<tr>{first}{''.join(_cell(value, head is not None) for value in cells)}</tr>"
        )
    return Raw(f"<table>{''.join(lines)}</table>")


def _cell(value: object, right: bool) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{'' if value is None else escape(str(value))}</td>"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return f"<td class='n'>{text}</td>" if right else f"<td>{text}</td>"


def fold(title: str, content: str | Raw | None) -> Raw | None:
    """Content behind a line that opens it; None without any."""
    if not content:
        return None
    inside = content if isinstance(content, Raw) else f"<pre>{escape(content)}</pre>"
    return Raw(f"<details><summary>{escape(title)}</summary>{inside}</details>")


class Shown:
    """A result that shows itself: in text by its ``str``, in notebooks as a card.

    Nothing is read or computed by it.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def _repr_html_(self) -> str:
        head, *_ = str(self).splitlines() or [""]
        return card(type(self).__name__, head, *self._parts())

    def _parts(self) -> Iterable[Raw | None]:
        return ()
