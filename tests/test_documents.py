"""YAML with line numbers: every mistake is found, at its line, and all of them at once."""

from __future__ import annotations

import datetime as dt
import math
import pickle
from typing import Literal

import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hsi_batch import documents
from hsi_batch.documents import Document, read_yaml, set_value
from hsi_batch.errors import ConfigError
from hsi_batch.validation import validate


def parsed(text, **kwargs):
    return read_yaml("w.yaml", text=text, **kwargs)


def value(text, **kwargs):
    return parsed(f"a: {text}", **kwargs).data["a"]


def refused(text, **kwargs):
    with pytest.raises(ConfigError) as caught:
        parsed(text, **kwargs)
    assert caught.value.path == "w.yaml"
    return caught.value


# --- plain values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-6", 1e-6),
        ("1E6", 1e6),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("-.5e2", -50.0),
        ("1.", 1.0),
        ("+1.0", 1.0),
        ("1_000.5", 1000.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("0", 0),
        ("-12", -12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0b101", 5),
        ("yes", True),
        ("no", False),
        ("on", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1e-6'", "1e-6"),
        ('"yes"', "yes"),
        ("!!str 12", "12"),
        ("!!float 3", 3.0),
        ("!!int '3'", 3),
    ],
)
def test_values_are_what_people_mean(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "2026-01-31 12:00:00",
        "12:30",
        "12:00:00",
        "10:20",
        "190:20:30.15",
        "010",
        "007",
        "0o17",
        "-x",
        ".",
        "1.2.3",
        "1e",
        "e5",
        "1-5",
        "=",
        "<<",
        "glob:field_*",
    ],
)
def test_names_times_and_ranges_stay_text(text):
    assert value(text) == text


def test_not_a_number_is_a_number():
    assert math.isnan(value(".nan"))


@given(st.floats(allow_nan=False))
def test_every_float_that_python_prints_is_read(number):
    assert value(repr(number).replace("inf", ".inf")) == number


@given(st.integers())
def test_every_integer_is_read(number):
    assert value(str(number)) == number
    assert type(value(str(number))) is int


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=12,
)


def locations(data, at=()):
    yield at
    if isinstance(data, (dict, list)):
        for key, entry in data.items() if isinstance(data, dict) else enumerate(data):
            yield from locations(entry, (*at, key))


@given(TREES)
def test_what_yaml_writes_comes_back_with_a_line_for_every_entry(data):
    document = parsed(yaml.safe_dump(data))
    assert document.data == data
    if data is not None:
        assert set(document.lines) == set(locations(data))


def test_lines_are_those_of_the_keys():
    document = parsed("# note\nnodes:\n  - name: a\n\n    eps: 1\n  - {name: b,\n     eps: 2}\n")
    assert document.lines == {
        (): 2,
        ("nodes",): 2,
        ("nodes", 0): 3,
        ("nodes", 0, "name"): 3,
        ("nodes", 0, "eps"): 5,
        ("nodes", 1): 6,
        ("nodes", 1, "name"): 6,
        ("nodes", 1, "eps"): 7,
    }
    assert document.line(("nodes", 1, "eps")) == 7
    assert document.line(["nodes", 0, "eps", "deeper", 3]) == 5
    assert document.line(("nodes", 9)) == 2
    assert document.line(("nothing",)) == 2
    problem = document.problem("odd.", ("nodes", 0, "eps"))
    assert str(problem) == "w.yaml:5: odd."


def test_a_document_without_entries_has_no_lines():
    assert parsed("").data is None
    assert parsed("# nothing\n").line(("a",)) is None
    assert str(parsed("").problem("odd.")) == "w.yaml: odd."


def test_keys_are_text():
    assert parsed("1: a\nyes: b\nnull: c\n2026-01-01: d").data == {
        "1": "a",
        "yes": "b",
        "null": "c",
        "2026-01-01": "d",
    }


# --- mistakes of YAML -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "this is not YAML"),
        ("a: 1\n b: 2\n", 2, "this is not YAML"),
        ("a: 1\n\tb: 2\n", 2, "this is not YAML"),
        ("a:\n  - x\n  y: 1\n", 3, "this is not YAML"),
        ("a: 'x\n", 2, "this is not YAML"),
        ("a: 1\nb: *nobody\n", 2, "undefined alias"),
        ("a: %x\n", 1, "this is not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: 1\nb: 2\na: 3\n", 3, "key 'a' stands twice"),
        ("n:\n  - x: 1\n    'x': 2\n", 3, "key 'x' stands twice"),
        ("a: 1\nb: {1: 2, '1': 3}\n", 2, "key '1' stands twice"),
        ("a: 1\nb:\n  ? [x]\n  : 1\n", 3, "keys must be plain text"),
        ("a: 1\nb: !!python/name:os.system x\n", 2, "tag:yaml.org,2002:python/name:os.system"),
        ("a: 1\nb: !!python/tuple [1]\n", 2, "is not allowed here"),
        ("a: 1\nb: !include other.yaml\n", 2, "the tag '!include' is not allowed here"),
        ("a: 1\nb: !thing {c: 1}\n", 2, "the tag '!thing' is not allowed here"),
        ("a: 1\nb: !!set {c}\n", 2, "is not allowed here"),
        ("a: 1\nb: !!timestamp 2026-01-01\n", 2, "is not allowed here"),
        ("a: 1\nb: !!binary aGFsbG8=\n", 2, "is not allowed here"),
        ("a: 1\nb: !!int x\n", 2, "'x' cannot be read as int"),
        ("a: 1\nb: !!int ''\n", 2, "'' cannot be read as int"),
        ("a: 1\nb: !!bool maybe\n", 2, "'maybe' cannot be read as bool"),
        ("a: 1\nb: !!float abc\n", 2, "'abc' cannot be read as float"),
        ("a: 1\nb: 0x_\n", 2, "'0x_' cannot be read as int"),
    ],
)
def test_mistakes_are_reported_at_their_line(text, line, part):
    error = refused(text)
    assert part in str(error)
    assert error.line == line
    assert str(error).startswith(f"w.yaml:{line}: ")


def test_what_the_parser_found_is_passed_on():
    assert str(refused("a: 1\n b: 2\n")) == (
        "w.yaml:2: this is not YAML: mapping values are not allowed here."
        " Check indentation, colons and quotes near this line."
    )


def test_characters_that_cannot_be_printed_are_refused():
    assert "this is not YAML" in str(refused("a: \x00\n"))


def test_all_mistakes_are_reported_at_once():
    error = refused("a: 1\na: 2\nb: !x 1\nc: {d: 1, d: 2}\ne: [!y [1]]\nf: !!int z\n")
    assert [(p.path, p.line) for p in error.problems] == [("w.yaml", n) for n in (2, 3, 4, 5, 6)]
    assert str(error).startswith(
        "w.yaml: 5 problems:\n  - w.yaml:2: key 'a' stands twice. Remove one of them.\n"
    )


def test_integers_of_very_many_digits_are_a_problem_not_a_crash():
    assert "cannot be read as int" in str(refused("a: " + "9" * 5000))


# --- attacks ----------------------------------------------------------------------------------


def test_aliases_are_copies():
    document = parsed("a: &x {b: [1]}\nc: *x\n")
    assert document.data == {"a": {"b": [1]}, "c": {"b": [1]}}
    assert document.data["a"]["b"] is not document.data["c"]["b"]


def test_a_bomb_of_aliases_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 200000 entries" in str(refused("\n".join(lines)))


def test_a_bomb_of_aliases_under_one_key_is_refused():
    """The same key twice gives no new entry, but each would be expanded."""
    lines = ["a0: &a0 {k: 1, k: 1}"]
    lines += [f"a{n}: &a{n} {{k: *a{n - 1}, k: *a{n - 1}}}" for n in range(1, 45)]
    error = refused("\n".join(lines))
    assert "key 'k' stands twice" in str(error)
    assert len(error.problems) < 2000


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&a [*a, *a, *a]", "&a {b: *a}"])
def test_an_alias_of_itself_is_refused(text):
    assert "nested deeper than 50 levels" in str(refused(text))


@pytest.mark.parametrize("depth", [60, 500, 5000])
def test_deep_nesting_is_refused(depth):
    assert "nested deeper than 50 levels" in str(refused("[" * depth + "]" * depth))


def test_nesting_up_to_the_limit_is_read():
    data = parsed("[" * 51 + "]" * 51).data
    for _ in range(50):
        (data,) = data
    assert data == []
    refused("[" * 52 + "]" * 52)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    with pytest.raises(ConfigError, match="larger than 16 MiB") as caught:
        read_yaml(path)
    assert caught.value.path == str(path)


# --- files ------------------------------------------------------------------------------------


def test_files_are_read_as_utf8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "a.yaml"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + "größe: 3\r\n".encode())
        document = read_yaml(path)
        assert document.data == {"größe": 3}
        assert document.path == str(path)


def test_files_that_cannot_be_read_are_configuration_errors(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("größe: 1".encode("latin-1"))
    for name, text in {
        "none.yaml": "there is no such file",
        ".": "this is a folder",
        "latin.yaml": "cannot be read",
        "latin.yaml/x": "cannot be read",
    }.items():
        path = str(tmp_path / name)
        with pytest.raises(ConfigError, match=text) as caught:
            read_yaml(path)
        assert caught.value.path == path
        assert caught.value.exit_code == 2


# --- variables --------------------------------------------------------------------------------


@pytest.fixture
def variable(monkeypatch):
    def put(text):
        monkeypatch.setenv("HSI_TEST_VARIABLE", text)

    monkeypatch.delenv("HSI_TEST_VARIABLE", raising=False)
    return put


def replaced(text):
    return value(text, variables=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("12", 12),
        ("1e-3", 1e-3),
        ("true", True),
        ("null", None),
        ("", ""),
        ("2026-01-01", "2026-01-01"),
        ("/data/x y", "/data/x y"),
        ("*.cu3s", "*.cu3s"),
        ("a: b", "a: b"),
        ("[1, 2]", "[1, 2]"),
        ("{a: 1}", "{a: 1}"),
        ("x # y", "x # y"),
        ("'x", "'x"),
        ("!!int x", "!!int x"),
        ("@x", "@x"),
        ("a\nb: c", "a\nb: c"),
        ("${HOME}", "${HOME}"),
    ],
)
def test_a_variable_is_one_value_whatever_it_holds(variable, content, expected):
    variable(content)
    found = replaced("${HSI_TEST_VARIABLE}")
    assert found == expected
    assert type(found) is type(expected)
    assert replaced("'${HSI_TEST_VARIABLE}'") == content


def test_variables_stand_inside_values_and_lists(variable):
    variable("7")
    assert replaced("x${HSI_TEST_VARIABLE}y${HSI_TEST_VARIABLE}") == "x7y7"
    assert replaced("[1, '${HSI_TEST_VARIABLE}', {b: '${HSI_TEST_VARIABLE}0'}]") == [
        1,
        "7",
        {"b": "70"},
    ]
    assert replaced("${HSI_TEST_VARIABLE}0") == 70


def test_defaults_stand_in_for_variables_that_are_not_set(variable):
    assert replaced("${HSI_TEST_VARIABLE:-8}") == 8
    assert replaced("${HSI_TEST_VARIABLE:-/a b:c}") == "/a b:c"
    assert replaced("${HSI_TEST_VARIABLE:-}") == ""
    variable("9")
    assert replaced("${HSI_TEST_VARIABLE:-8}") == 9
    variable("")
    assert replaced("${HSI_TEST_VARIABLE:-8}") == ""


def test_variables_that_are_missing_are_all_reported(variable):
    text = "a: ${HSI_TEST_VARIABLE}\nb:\n  - 1\n  - '${HSI_TEST_VARIABLE}/${HSI_TEST_OTHER}'\n"
    error = refused(text, variables=True)
    assert [p.line for p in error.problems] == [1, 4, 4]
    assert "HSI_TEST_VARIABLE is not set (write ${HSI_TEST_VARIABLE:-default}" in str(error)
    assert "HSI_TEST_OTHER" in str(error)


def test_variables_are_left_alone_unless_asked_for(variable):
    variable("7")
    assert value("${HSI_TEST_VARIABLE}") == "${HSI_TEST_VARIABLE}"
    assert replaced("${not a name} $HSI_TEST_VARIABLE") == "${not a name} $HSI_TEST_VARIABLE"
    assert parsed("${HSI_TEST_VARIABLE}: 1", variables=True).data == {"${HSI_TEST_VARIABLE}": 1}


# --- set_value --------------------------------------------------------------------------------

START = """
fit: {pixels: valid}
nodes:
  - name: rx
    eps: 1
  - name: scale
    params: {low: 0}
numbers: [1, 2, [3]]
"""


@pytest.mark.parametrize(
    ("assignment", "path", "expected"),
    [
        ("fit.pixels=all", ["fit", "pixels"], "all"),
        ("fit.new=1e-3", ["fit", "new"], 1e-3),
        ("new=true", ["new"], True),
        ("a.b.c=x", ["a", "b", "c"], "x"),
        ("fit=", ["fit"], None),
        ("fit.pixels={a: [1]}", ["fit", "pixels"], {"a": [1]}),
        ("fit.pixels=a=b", ["fit", "pixels"], "a=b"),
        ("fit.pixels.deep=1", ["fit", "pixels", "deep"], 1),
        ("nodes.0.eps=5", ["nodes", 0, "eps"], 5),
        ("nodes.scale.params.low=-1", ["nodes", 1, "params", "low"], -1),
        ("nodes.rx.new.deep=1", ["nodes", 0, "new", "deep"], 1),
        ("nodes.1={name: x}", ["nodes", 1], {"name": "x"}),
        ("numbers.1=7", ["numbers", 1], 7),
        ("numbers.2.0=7", ["numbers", 2, 0], 7),
        ("numbers.0.a=7", ["numbers", 0, "a"], 7),
    ],
)
def test_values_are_set_by_key_index_and_name(assignment, path, expected):
    document = parsed(START)
    changed = set_value(document, assignment)
    found = changed.data
    for part in path:
        found = found[part]
    assert found == expected
    assert document.data == parsed(START).data, "the document given is left alone"
    assert (changed.lines, changed.path) == (document.lines, document.path)
    before, after = dict(document.data), dict(changed.data)
    before.pop(path[0], None)
    after.pop(path[0], None)
    assert before == after, "nothing else is changed"


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("fit.pixels", "is not of the form a.b=value"),
        ("=3", "is not of the form a.b=value"),
        ("", "is not of the form a.b=value"),
        ("nodes.2.eps=1", "nodes has no entry '2'"),
        ("nodes.-1.eps=1", "nodes has no entry '-1'"),
        ("nodes.rxx.eps=1", "nodes has no entry 'rxx'"),
        ("nodes.²=1", "nodes has no entry '²'"),
        ("numbers.2.1=1", "numbers.2 has no entry '1'"),
        ("numbers.x=1", "numbers has no entry 'x'"),
        ("fit.pixels=[1", "this is not YAML"),
    ],
)
def test_assignments_that_cannot_be_made_are_refused(assignment, text):
    with pytest.raises(ConfigError) as caught:
        set_value(parsed(START), assignment)
    assert text in str(caught.value)


def test_values_can_be_set_in_an_empty_file():
    assert set_value(parsed(""), "a.b=1").data == {"a": {"b": 1}}


def test_values_can_be_set_in_a_list_but_not_in_a_word():
    assert set_value(parsed("[1, 2]"), "1=3").data == [1, 3]
    for part in ("a", "0"):
        with pytest.raises(ConfigError, match=f"the document has no entry '{part}'"):
            set_value(parsed("word"), f"{part}=1")


@given(st.lists(st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), SCALARS)))
def test_assignments_one_after_the_other(assignments):
    document, expected = parsed("{}"), {}
    for path, scalar in assignments:
        text = yaml.safe_dump(scalar)
        document = set_value(document, f"{'.'.join(path)}={text}")
        holder = expected
        for part in path[:-1]:
            if not isinstance(holder.get(part), dict):
                holder[part] = {}
            holder = holder[part]
        holder[path[-1]] = scalar
    assert document.data == expected


# --- validate ---------------------------------------------------------------------------------


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Node(Strict):
    name: str
    eps: float = 0.0


class Fit(Strict):
    pixels: Literal["valid", "all"] = "valid"
    frames: str | None = None

    @field_validator("frames")
    @classmethod
    def _known(cls, text):
        if text == "odd":
            raise ValueError("Frames must be even")
        if text == "silent":
            raise ValueError
        return text


class Workflow(Strict):
    version: int = 1
    fit: Fit | None = None
    nodes: list[Node] = Field(default_factory=list)
    by_name: dict[str, Node] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self):
        if self.version == 99:
            raise ValueError("Nothing can be done with version 99")
        return self


def rejected(text):
    with pytest.raises(ConfigError) as caught:
        validate(Workflow, parsed(text))
    assert caught.value.path == "w.yaml"
    assert caught.value.exit_code == 2
    return caught.value


def test_a_good_document_becomes_the_model():
    model = validate(Workflow, parsed("fit: {pixels: all}\nnodes: [{name: a, eps: 1e-6}]"))
    assert model == Workflow(fit=Fit(pixels="all"), nodes=[Node(name="a", eps=1e-6)])
    assert validate(Workflow, parsed("")) == Workflow()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "version: 1\nfitt: {}\n",
            "w.yaml:2: unknown key 'fitt'. Did you mean 'fit'?",
        ),
        (
            "fit:\n  pixels: all\n  pixel: x\n",
            "w.yaml:3: unknown key 'fit.pixel'. Did you mean 'pixels'?",
        ),
        (
            "fit:\n  zzzzz: x\n",
            "w.yaml:2: unknown key 'fit.zzzzz'. Known here: frames, pixels.",
        ),
        (
            "nodes:\n  - name: a\n    epps: 1\n",
            "w.yaml:3: unknown key 'nodes.0.epps'. Did you mean 'eps'?",
        ),
        (
            "by_name:\n  rx:\n    name: a\n    nam: 1\n",
            "w.yaml:4: unknown key 'by_name.rx.nam'. Did you mean 'name'?",
        ),
        ("nodes:\n  - eps: 1\n", "w.yaml:2: key 'nodes.0.name' is missing."),
        (
            "nodes:\n  - name: a\n    eps: wide\n",
            "w.yaml:3: nodes.0.eps: a number was expected, not 'wide'.",
        ),
        (
            "version: 1\nfit: {pixels: none}\n",
            "w.yaml:2: fit.pixels: input should be 'valid' or 'all' (found 'none').",
        ),
        ("nodes: 3\n", "w.yaml:1: nodes: a list was expected, not 3."),
        (
            "nodes: {a: 1}\n",
            "w.yaml:1: nodes: a list was expected, not a mapping of keys.",
        ),
        ("fit:\n  frames: odd\n", "w.yaml:2: fit.frames: frames must be even (found 'odd')."),
        ("version:\n", "w.yaml:1: version: a whole number was expected, not nothing."),
        ("\nversion: 99\n", "w.yaml:2: nothing can be done with version 99."),
    ],
)
def test_what_does_not_fit_the_model_is_reported_at_its_line(text, expected):
    assert str(rejected(text)) == expected


def test_a_validator_without_words_is_no_crash():
    assert rejected("fit: {frames: silent}").line == 1


def test_all_that_does_not_fit_is_reported_at_once():
    error = rejected("version: x\nfit:\n  pixles: all\nnodes:\n  - eps: 1\n  - name: [1]\n")
    assert [p.line for p in error.problems] == [1, 3, 5, 6]
    assert str(error).startswith("w.yaml: 4 problems:\n  - w.yaml:1: version: ")
    assert pickle.loads(pickle.dumps(error)).problems[3].line == 6


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[1]", "a list"), ("word", "a single value"), ("3", "a single value")],
)
def test_a_file_that_is_no_mapping_is_refused(text, kind):
    assert f"the file holds {kind}; a mapping of keys was expected" in str(rejected(text))


def test_what_was_set_on_the_command_line_is_reported_near_its_place():
    document = set_value(parsed("version: 1\nfit:\n  pixels: all\n"), "fit.frame=x")
    with pytest.raises(ConfigError) as caught:
        validate(Workflow, document)
    assert str(caught.value) == "w.yaml:2: unknown key 'fit.frame'. Did you mean 'frames'?"


def test_documents_without_a_file_name_only_the_line():
    assert str(Document({"a": 1}, {("a",): 4}).problem("odd.", ("a",))) == "line 4: odd."


def test_the_loader_of_others_is_left_alone():
    assert yaml.safe_load("a: 2026-01-31")["a"] == dt.date(2026, 1, 31)
    assert yaml.safe_load("a: 010")["a"] == 8
    assert documents.read_yaml("x", text="a: 010").data == {"a": "010"}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("nodes: [5]", 1, "nodes.0: a mapping of keys was expected, not 5."),
        (
            "nodes:\n- {name: a, class_name: B}\nconnections:\n- [x, y, z]",
            4,
            "connections.0: a mapping of keys was expected, not a list.",
        ),
        ("nodes: {a: 1}", 1, "nodes: a list was expected, not a mapping of keys."),
        (
            "nodes: [{name: [a], class_name: B}]",
            1,
            "nodes.0.name: a text was expected, not a list.",
        ),
        (
            "nodes: [{name: a, class_name: B, hparams: null}]",
            1,
            "nodes.0.hparams: a mapping of keys was expected, not nothing.",
        ),
    ],
)
def test_wrong_shapes_are_told_in_words_of_yaml(text, line, says):
    from hsi_batch.pipeline.config import PipelineConfig

    with pytest.raises(ConfigError) as caught:
        validate(PipelineConfig, parsed(text))
    assert (caught.value.line, caught.value.message) == (line, says)


# --- merge keys -------------------------------------------------------------------------------


def test_entries_are_taken_over_from_anchors():
    document = parsed(
        """
a: &a {eps: 1, k: 2}
one:
  <<: *a
  eps: 3
list: {<<: [*a, {k: 9, z: 5}], y: 1}
text: {"<<": 4}
"""
    )
    assert document.data["one"] == {"eps": 3, "k": 2}
    assert document.data["list"] == {"eps": 1, "k": 2, "z": 5, "y": 1}
    assert document.data["text"] == {"<<": 4}
    assert (document.line(("one", "eps")), document.line(("one", "k"))) == (5, 2)
    # As the library itself reads it.
    text = "{a: &a {x: 1, y: 2}, b: &b {x: 3}, c: {<<: [*b, *a], z: 4}, d: {y: 0, <<: *a}}"
    assert parsed(text).data == yaml.safe_load(text)


def test_only_mappings_can_be_taken_over():
    assert "'<<' takes over" in refused("a: {<<: 4}").message
    grown = ["a0: &a0 {k: 1}"]
    grown += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 15)]
    assert "entries" in refused("\n".join(grown)).message
