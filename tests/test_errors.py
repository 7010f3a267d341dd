"""The exception tree, its codes and exit codes are a promise to scripts; they are pinned here."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from pathlib import Path

import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch import errors
from hsi_batch.errors import (
    ConfigError,
    DataError,
    DataWarning,
    HsiBatchError,
    HsiBatchWarning,
    PipelineError,
    Problem,
    SourceError,
    StoreError,
    did_you_mean,
)

#: name: (parent, code, exit code)
TREE = {
    "HsiBatchError": ("Exception", "error", 1),
    "Problem": ("HsiBatchError", "problem", 2),
    "ConfigError": ("HsiBatchError", "config", 2),
    "PipelineError": ("ConfigError", "pipeline", 2),
    "SelectionError": ("ConfigError", "selection", 2),
    "PlanError": ("ConfigError", "plan", 2),
    "SourceError": ("HsiBatchError", "source", 1),
    "SdkMissingError": ("SourceError", "sdk-missing", 2),
    "DataError": ("HsiBatchError", "data", 1),
    "NotFittedError": ("DataError", "not-fitted", 2),
    "StoreError": ("HsiBatchError", "store", 3),
    "StoreInUseError": ("StoreError", "store-in-use", 3),
    "StorageError": ("HsiBatchError", "storage", 3),
    "IncompleteError": ("StoreError", "incomplete", 3),
    "ClusterError": ("HsiBatchError", "cluster", 1),
    "RunInterrupted": ("HsiBatchError", "interrupted", 130),
}


def classes():
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, HsiBatchError)
    }


ALL = sorted(classes().values(), key=lambda cls: cls.__name__)


# --- the tree ---------------------------------------------------------------------------------


def test_the_tree_is_as_pinned():
    found = {
        name: (cls.__base__.__name__, cls.code, cls.exit_code) for name, cls in classes().items()
    }
    assert found == TREE


def test_codes_are_unique():
    assert len({cls.code for cls in ALL}) == len(ALL)


def test_everything_is_exported():
    assert set(errors.__all__) == {*TREE, "DataWarning", "HsiBatchWarning", "did_you_mean"}
    assert issubclass(DataWarning, HsiBatchWarning)
    assert issubclass(HsiBatchWarning, UserWarning)


def test_the_drawing_in_the_docstring_is_the_tree():
    """How far a name is indented gives its parent."""
    drawn, above = {}, {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"^    ([│├└─ ]*)([A-Z]\w+(?:Error|Interrupted))\b", line)
        if match:
            indent = len(match.group(1))
            above = {k: v for k, v in above.items() if k < indent}
            drawn[match.group(2)] = above[max(above)] if above else "Exception"
            above[indent] = match.group(2)
    expected = {name: parent for name, (parent, _, _) in TREE.items() if name != "Problem"}
    assert drawn == expected


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_class_says_what_it_is_for(cls):
    assert cls.__doc__


# --- across workers ---------------------------------------------------------------------------

TEXT = st.text(max_size=20)
PLACES = st.fixed_dictionaries(
    {},
    optional={
        "path": TEXT,
        "session": TEXT,
        "frame": st.integers(0, 99),
        "line": st.integers(1, 99),
        "hint": TEXT,
    },
)


@given(st.sampled_from(ALL), TEXT, PLACES, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_every_class_pickles_with_all_its_fields(cls, message, where, protocol):
    error = cls(message, **where)
    error.add_note("seen on worker 3")
    if issubclass(cls, ConfigError):
        error.problems = (Problem("a", line=3), Problem("b", path="x.yaml", hint="Do."))
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(again) is cls
        assert again.args == (message,)
        assert str(again) == str(error)
        assert again.__notes__ == ["seen on worker 3"]
        fields = {k: v for k, v in vars(again).items() if k != "problems"}
        assert fields == {k: v for k, v in vars(error).items() if k != "problems"}
        if issubclass(cls, ConfigError):
            assert [vars(p) for p in again.problems] == [vars(p) for p in error.problems]
            assert all(type(p) is Problem for p in again.problems)


class OwnError(SourceError):
    """A plugin's error with a field and a constructor of its own."""

    def __init__(self, volts):
        super().__init__(f"{volts} volts", path="a.raw")
        self.volts = volts


def test_subclasses_with_constructors_of_their_own_pickle():
    again = pickle.loads(pickle.dumps(OwnError(7)))
    assert (type(again), again.volts, str(again)) == (OwnError, 7, "a.raw: 7 volts")


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({}, "It broke."),
        ({"hint": "Mend it."}, "It broke. Mend it."),
        ({"path": "a.hdr"}, "a.hdr: It broke."),
        ({"path": "a.hdr", "line": 12}, "a.hdr:12: It broke."),
        ({"line": 12}, "line 12: It broke."),
        ({"session": "s", "frame": 0}, "session s, frame 0: It broke."),
        (
            {"path": "a", "line": 1, "session": "s", "frame": 3, "hint": "Mend it."},
            "a:1, session s, frame 3: It broke. Mend it.",
        ),
    ],
)
def test_messages_say_where_and_what_to_do(where, text):
    error = StoreError("It broke.", **where)
    assert str(error) == text
    assert error.message == "It broke."
    for name in ("path", "session", "frame", "line", "hint"):
        assert getattr(error, name) == where.get(name)


def test_paths_may_be_path_objects(tmp_path):
    error = SourceError("no.", path=tmp_path)
    assert error.path == str(tmp_path)


def test_frame_zero_is_a_frame():
    assert SourceError("x", frame=0).where == "frame 0"


# --- several problems at once -----------------------------------------------------------------


def test_one_problem_is_shown_without_a_list():
    only = Problem("key 'a' is missing.", path="w.yaml", line=3, hint="Add it.")
    error = ConfigError.collect([only])
    assert str(error) == "w.yaml:3: key 'a' is missing. Add it."
    assert error.problems == (only,)


def test_one_problem_keeps_its_session_and_frame():
    error = ConfigError.collect([Problem("odd.", session="s", frame=2)], path="w.yaml")
    assert str(error) == "w.yaml, session s, frame 2: odd."


def test_one_problem_without_a_file_gets_that_of_the_whole():
    assert str(ConfigError.collect([Problem("odd.", line=2)], path="w.yaml")) == "w.yaml:2: odd."
    inner = Problem("odd.", path="inner.yaml")
    assert ConfigError.collect([inner], path="w.yaml").path == "inner.yaml"


def test_all_problems_are_listed():
    problems = [Problem("one.", path="w.yaml", line=3), Problem("two.", hint="Mend it.")]
    error = PipelineError.collect(problems, path="w.yaml")
    assert type(error) is PipelineError
    assert str(error) == "w.yaml: 2 problems:\n  - w.yaml:3: one.\n  - two. Mend it."
    assert error.problems == tuple(problems)


def test_a_config_error_has_no_problems_unless_told():
    assert ConfigError("no.").problems == ()
    assert str(ConfigError("no.", path="x")) == "x: no."


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("RXGlobl", ["RXGlobal", "RXPerBatch"], " Did you mean 'RXGlobal'?"),
        ("pixles", {"pixels": 1, "frames": 2}, " Did you mean 'pixels'?"),
        ("zzz", ["pixels"], ""),
        ("a", [], ""),
        ("12", [12, 13], " Did you mean '12'?"),
    ],
)
def test_did_you_mean(name, known, expected):
    assert did_you_mean(name, known) == expected


def test_handlers_catch_by_what_they_can_do():
    with pytest.raises(ConfigError):
        raise PipelineError("x")
    with pytest.raises(DataError):
        raise errors.NotFittedError("x")
    with pytest.raises(StoreError):
        raise errors.IncompleteError("x")


def test_all_warnings_of_ours_are_of_our_kind():
    # The command line shows no others.
    for path in Path(errors.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "warnings.warn":
                kinds = [ast.unparse(argument) for argument in call.args[1:]]
                assert kinds in (["HsiBatchWarning"], ["DataWarning"]), f"{path}:{call.lineno}"
