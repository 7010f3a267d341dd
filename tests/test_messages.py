"""Every error says what to do: by a hint, or by a text that tells what would be right.

All places of the package that make an error of ours are looked at.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hsi_batch import errors

ROOT = Path(errors.__file__).parent
ERRORS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.HsiBatchError)
}
#: Words that name what would be right.
RIGHT = re.compile(
    r"\bmust(?: not)? (?:be|hold|have|lie|differ|ascend|give|say|come)\b"
    r"|\bis not one of\b|\bis not (?:'|within|between|above|a number|\(|of the form)"
    r"|\b(?:was|were|is|are) (?:expected|needed)\b|; expected\b|\bneeds\b|\bbelongs? to\b"
    r"|(?:^|[;:.,(] ?|\band )(?:give|write|set|install|name|choose|check|connect|use|take|join|"
    r"remove|run|make|leave|export|unset|put|say|add|fit|score|convert)\b",
    re.IGNORECASE,
)


def made(path):
    """Calls that make an error of ours, with the literal text of the message."""
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        name = call.func.id if isinstance(call.func, ast.Name) else name
        if name in ERRORS:
            yield (
                call,
                "".join(
                    part.value
                    for part in ast.walk(call.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ),
            )


def actionable(call, text):
    hinted = any(key.arg in ("hint", None) for key in call.keywords)
    passed_on = not isinstance(call.args[0], (ast.Constant, ast.JoinedStr, ast.BinOp))
    return hinted or passed_on or RIGHT.search(text) is not None


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.stem)
def test_every_error_says_what_to_do(path):
    wrong = [
        f"{path.name}:{call.lineno}: {text}"
        for call, text in made(path)
        if not actionable(call, text)
    ]
    assert not wrong, "give a hint, or say what would be right:\n" + "\n".join(wrong)
