"""Conditions compare columns with constants; everything else is refused and never run."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.archive.where import matches
from hsi_batch.errors import SelectionError

ROW = {"sensor": "FX17", "frames": 3, "megabytes": 2.5, "mode": None, "nan": float("nan")}
COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMBERS = st.integers(-5, 5) | st.floats(-5, 5)


@st.composite
def conditions(draw, depth=3):
    """Text and what it means for ``ROW``."""
    kind = draw(st.sampled_from(["compare"] if depth == 0 else ["compare", "not", "and", "or"]))
    if kind == "not":
        text, value = draw(conditions(depth - 1))
        return f"not ({text})", not value
    if kind in ("and", "or"):
        left, a = draw(conditions(depth - 1))
        right, b = draw(conditions(depth - 1))
        return f"({left}) {kind} ({right})", (a and b) if kind == "and" else (a or b)
    column, constant = draw(st.sampled_from(["frames", "megabytes"])), draw(NUMBERS)
    sign = draw(st.sampled_from(sorted(COMPARE)))
    if draw(st.booleans()):
        return f"{column} {sign} {constant!r}", COMPARE[sign](ROW[column], constant)
    return f"{constant!r} {sign} {column}", COMPARE[sign](constant, ROW[column])


@given(conditions())
def test_conditions_mean_what_they_mean_in_python(condition):
    text, value = condition
    assert matches(text, ROW) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('sensor == "FX17"', True),
        ("sensor in ('FX10', 'FX17')", True),
        ("sensor not in ['FX10']", True),
        ("'X1' in sensor", True),
        ("1 < frames <= 3", True),
        ("1 < frames < 3", False),
        ("frames > -1", True),
        ("mode == None", True),
        ("mode != None", False),
        ("mode is None", True),
        ("sensor is not None", True),
        ("nan == nan", False),
        # What has no value, or one of another kind, compares to nothing.
        ("mode > 3", False),
        ("'x' in mode", False),
        ("sensor > 3", False),
        ("frames in 3", False),
        ("frames > 1 or mode > 3", True),
        ("mode > 3 or frames > 1", True),
        ("not mode > 3", True),
        ("nan is None", True),
        ("frames is not None", True),
        ("frames is 3", True),
        ("sensor == '\\d'", False),
    ],
)
def test_examples(text, value):
    assert matches(text, ROW) is value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch injected')",
        "open('injected', 'w')",
        "sensor.__class__",
        "sensor.startswith('F')",
        "().__class__.__bases__[0]",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "f'{sensor}'",
        "sensor['a']",
        "frames + 1 > 2",
        "'a' * 10**9 == sensor",
        "2 ** 2 ** 99 > frames",
        "(frames := 3) > 2",
        "frames if frames else frames",
        "{1: 2}",
        "{1, 2}",
        "...",
        "b'x' == sensor",
        "1j == frames",
        "~frames == 1",
        "-sensor == 1",
        "*frames, 1",
        "await frames",
        "yield",
        # Not even where the left side decides.
        "frames > 9 and open('injected', 'w')",
        "frames < 9 or sensor.upper() == 'X'",
    ],
)
def test_anything_but_comparisons_is_refused_and_not_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SelectionError, match=r"is not allowed in the condition|cannot be read"):
        matches(text, ROW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "frames >",
        "frames = 3",
        "frames > 1; frames < 2",
        "import os",
        "frames\0",
        "\ud800",
        "(" * 300 + ")" * 300,
        "not " * 3000 + "frames",
        "frames == " + "9" * 5000,
    ],
)
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(SelectionError, match=r"cannot be read"):
        matches(text, ROW)


@pytest.mark.parametrize(
    "text", ["frmes > 1", "frames > 9 and frmes > 1", "frames < 9 or frmes > 1", "mode > 1 > frmes"]
)
def test_a_column_that_does_not_exist_is_named_with_the_nearest(text):
    with pytest.raises(SelectionError, match=r"no column 'frmes'\. Did you mean 'frames'\?") as e:
        matches(text, ROW)
    assert "It has sensor, frames, megabytes, mode, nan." in str(e.value)


@given(st.text(max_size=40) | st.text("sensor frames()<>=!'\"andotri[],.-+*0123", max_size=40))
def test_any_text_gives_a_truth_value_or_a_selection_error(text):
    try:
        value = matches(text, ROW)
    except SelectionError as error:
        value = str(error)
    assert value in (True, False) or "the condition" in value or "no column" in value
