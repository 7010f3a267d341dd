"""Selectors choose what they say, in natural order, or are refused with advice."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from archive_helpers import cube_of, make_archive
from hypothesis import example, given
from hypothesis import strategies as st

from hsi_batch.archive import open_archive
from hsi_batch.archive.selection import select
from hsi_batch.errors import SelectionError

#: Frames and lines of each session.
SESSIONS = {"scan_10": (3, 20), "scan_9": (12, 20), "lentils_a": (1, 8000), "b.1-x": (2, 5)}
ORDER = ["b.1-x", "lentils_a", "scan_9", "scan_10"]
CATALOG = {
    name: {"session": name, "frames": frames, "sensor": "FX17" if "scan" in name else None}
    for name, (frames, _) in SESSIONS.items()
}
NAMES = st.sampled_from(sorted(SESSIONS))


def chosen(text, **options):
    return list(select(text, SESSIONS, catalog=CATALOG, **options))


def attempt(text):
    """The selection and None, or None and what the error says."""
    try:
        return chosen(text), None
    except SelectionError as error:
        return None, str(error)


def pixels(selection):
    """The lines that are chosen, one by one."""
    return {
        (session, frame, y)
        for session, frame, lines in selection
        for y in range(*(lines or (0, SESSIONS[session][1])))
    }


def whole(*names, frames=None):
    return [(n, f, None) for n in ORDER if n in names for f in frames or range(SESSIONS[n][0])]


# --- each selector ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, whole(*SESSIONS)),
        ("", whole(*SESSIONS)),
        ([], whole(*SESSIONS)),
        ("scan_9", whole("scan_9")),
        ("scan_9[0:10]", whole("scan_9", frames=range(10))),
        ("scan_9[3]", whole("scan_9", frames=[3])),
        ("scan_9[-1]", whole("scan_9", frames=[11])),
        ("scan_9[::5]", whole("scan_9", frames=[0, 5, 10])),
        ("scan_9[10:99]", whole("scan_9", frames=[10, 11])),
        ("scan_9[ 1 : 3 ]", whole("scan_9", frames=[1, 2])),
        ("lentils_a[0][y=0:5000]", [("lentils_a", 0, (0, 5000))]),
        ("lentils_a[0][y=-5:]", [("lentils_a", 0, (7995, 8000))]),
        ("lentils_a[0][y=7]", [("lentils_a", 0, (7, 8))]),
        ("lentils_a[0][y=0:8000]", whole("lentils_a")),
        ("b.1-x[y=1:3]", [("b.1-x", 0, (1, 3)), ("b.1-x", 1, (1, 3))]),
        ("glob:scan_*", whole("scan_9", "scan_10")),
        ("glob:scan_*[0]", whole("scan_9", "scan_10", frames=[0])),
        ("glob:*", whole(*SESSIONS)),
        ("where:'sensor==\"FX17\"'", whole("scan_9", "scan_10")),
        ("where:frames > 2", whole("scan_9", "scan_10")),
        ('where:\'session in ("scan_9", "b.1-x")\'', whole("scan_9", "b.1-x")),
        ("scan_10,lentils_a", whole("scan_10", "lentils_a")),
        (["scan_10", "lentils_a"], whole("scan_10", "lentils_a")),
        (" scan_10 , ,lentils_a,", whole("scan_10", "lentils_a")),
        ("glob:scan_*,!scan_9", whole("scan_10")),
        ("!scan_9", whole("scan_10", "lentils_a", "b.1-x")),
        ("!glob:scan_*,!b.1-x", whole("lentils_a")),
        ("! where:'sensor==\"FX17\"'", whole("lentils_a", "b.1-x")),
        (
            "!scan_9,scan_9[0]",
            [*whole("b.1-x", "lentils_a"), ("scan_9", 0, None), *whole("scan_10")],
        ),
    ],
)
def test_a_selector_chooses_what_it_says(text, expected):
    assert chosen(text) == expected


def test_a_file_holds_a_term_per_line(tmp_path):
    listed = tmp_path / "train.txt"
    listed.write_text("# a comment\n\n  scan_9[0:2]\nwhere:'frames == 3'\r\n!scan_10[1]\n")
    frames = [("scan_9", 0, None), ("scan_9", 1, None), ("scan_10", 0, None), ("scan_10", 2, None)]
    assert chosen(f"@{listed}") == frames
    assert chosen(f"b.1-x[0],@{listed}") == [("b.1-x", 0, None), *frames]


def test_a_file_of_windows_is_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfscan_9\r\n")
    assert chosen(f"@{tmp_path}/a.txt") == whole("scan_9")


def test_what_a_file_lists_can_be_taken_away(tmp_path):
    (tmp_path / "bad.txt").write_text("scan_9\nglob:b*\n")
    assert chosen(f"!@{tmp_path}/bad.txt") == whole("lentils_a", "scan_10")
    assert chosen(f"glob:scan*,!@{tmp_path}/bad.txt") == whole("scan_10")


def test_frames_that_failed_are_left_out():
    failed = {"scan_10": [1], "lentils_a": [0]}
    kept = select("glob:*,!scan_9,!b.1-x", SESSIONS, failed=failed)
    assert list(kept) == [("scan_10", 0, None), ("scan_10", 2, None)]
    assert kept.whole == {"scan_10"}
    with pytest.raises(SelectionError, match="holds no frame"):
        select("lentils_a", SESSIONS, failed=failed)


# --- the algebra --------------------------------------------------------------------------------

TERMS = st.one_of(
    NAMES,
    st.builds("{}[{}:{}]".format, NAMES, st.just(0) | st.just(""), st.integers(1, 14)),
    st.builds("{}[{}]".format, NAMES, st.integers(0, 0) | st.just(-1)),
    st.sampled_from(["glob:scan_*", "glob:*a*", "where:frames>1", "where:'sensor==\"FX17\"'"]),
)


@given(st.lists(TERMS, min_size=1, max_size=5), TERMS, st.randoms(use_true_random=False))
def test_joining_is_the_union_and_minus_takes_away(terms, away, random):
    parts = [pixels(chosen(term)) for term in terms]
    together = set().union(*parts)
    for order in (terms, random.sample(terms, len(terms))):
        assert pixels(chosen(",".join(order))) == together
        assert chosen(order) == chosen(",".join(order))
    left = together - pixels(chosen(away))
    if left:
        assert pixels(chosen([*terms, f"!{away}"])) == left
    else:
        with pytest.raises(SelectionError, match="holds no frame"):
            chosen([*terms, f"!{away}"])


@given(st.lists(TERMS, min_size=1, max_size=5))
def test_order_is_natural_and_every_frame_comes_once(terms):
    found = select(terms, SESSIONS, catalog=CATALOG)
    frames = [(session, frame) for session, frame, _ in found]
    assert frames == sorted(set(frames), key=lambda at: (ORDER.index(at[0]), at[1]))
    assert len(found) == len(frames)
    assert found.sessions == tuple(n for n in ORDER if any(n == s for s, _ in frames))
    full = {n for n in found.sessions if sum(s == n for s, _ in frames) == SESSIONS[n][0]}
    assert found.whole == full


SPANS = st.tuples(st.integers(0, 19), st.integers(1, 20)).filter(lambda span: span[0] < span[1])


@given(st.lists(SPANS, min_size=1, max_size=4), st.booleans())
@example([(0, 10), (12, 20)], False)
@example([(0, 10), (10, 20)], False)
@example([(0, 10)], True)
def test_lines_of_one_frame_are_joined_or_refused_but_never_lost(spans, with_whole):
    terms = ["scan_9[0]"] * with_whole + [f"scan_9[0][y={a}:{b}]" for a, b in spans]
    union = {y for a, b in spans for y in range(a, b)} | set(range(20 * with_whole))
    found, error = attempt(terms)
    if error is not None:
        assert "several runs of lines" in error
        # Joined one after the other, so a gap may be closed too late.
        assert len(spans) > 1
        return
    assert pixels(found) == {("scan_9", 0, y) for y in union}


@given(SPANS, SPANS)
@example((0, 20), (5, 10))
@example((0, 20), (0, 10))
def test_lines_are_taken_away_or_refused(span, away):
    terms = ["scan_10[0]", "scan_9[0][y={}:{}]".format(*span), "!scan_9[0][y={}:{}]".format(*away)]
    left = set(range(*span)) - set(range(*away))
    found, error = attempt(terms)
    if error is not None:
        assert "several runs of lines" in error
        assert min(left) < away[0]
        assert max(left) >= away[1]
        return
    assert {y for s, _, y in pixels(found) if s == "scan_9"} == left


def test_two_runs_of_lines_that_touch_are_one():
    assert chosen("scan_9[0][y=0:10],scan_9[0][y=10:20]") == whole("scan_9", frames=[0])
    with pytest.raises(SelectionError, match=r"'scan_9\[0\]\[y=12:20\]'.*several runs of lines"):
        chosen("scan_9[0][y=0:10],scan_9[0][y=12:20]")


# --- places in the fixed tree -------------------------------------------------------------------


def test_whole_sessions_are_counted_as_stored_and_others_by_position():
    found = select("scan_9[4:8],scan_10", SESSIONS)
    assert found.place("scan_10", 2, 3) == ((1, 2), (2, 3))
    assert found.place("scan_9", 6, 12) == ((0, 2), (2, 4))


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scan_11", r"there is no session 'scan_11'\. Did you mean 'scan_10'\?"),
        ("lentil_a", r"Did you mean 'lentils_a'\?"),
        ("!scan_8", r"there is no session 'scan_8'\. Did you mean 'scan_9'\?"),
        ("glob:train_*", "no session matches 'glob:train_\\*'"),
        ("scan_9[12]", r"'12' in 'scan_9\[12\]' is outside 0\.\.11"),
        ("scan_9[-13]", r"outside 0\.\.11"),
        ("scan_9[5:5]", r"selects nothing of 0\.\.11"),
        ("scan_9[8:2]", "selects nothing"),
        ("scan_9[5:0:-1]", "selects nothing"),
        ("scan_9[0:5:0]", "'0:5:0' in"),
        ("scan_9[-:3]", "'-:3' in"),
        ("scan_9[:-]", "':-' in"),
        ("scan_9[]", "'' in"),
        ("scan_9[x]", "'x' in 'scan_9\\[x\\]' is not a number or a range"),
        ("scan_9[1.5]", "is not a number"),
        (f"scan_9[{'9' * 5000}]", "in 'scan_9"),
        ("scan_9[0][y=30:40]", r"selects nothing of 0\.\.19"),
        ("scan_9[0][y=0:10:2]", "'0:10:2' in .* lines"),
        ("scan_9[y=0:5][0]", "cannot be read"),
        ("scan_9[0", "cannot be read"),
        ("scan_9]0[", "cannot be read"),
        ('where:\'sensor=="FX17"', "the quote ' in .* is not closed"),
        ("where:sensr=='x'", r"no column 'sensr'\. Did you mean 'sensor'\?"),
        ("where:", "the condition '' cannot be read"),
        ("scan_9,!scan_9", "the selection 'scan_9,!scan_9' holds no frame"),
        ("where:'frames>99'", "no session fulfils 'frames>99'"),
        ("@/no/such/file.txt", "/no/such/file.txt: cannot be read"),
        ("@/", "cannot be read"),
        ("../other", "there is no session"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(text, says):
    with pytest.raises(SelectionError, match=says) as caught:
        chosen(text)
    assert caught.value.exit_code == 2


def test_an_empty_archive_has_nothing_to_select():
    with pytest.raises(SelectionError, match="'of everything' holds no frame"):
        select(None, {})


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SelectionError, match=r"x\.txt: cannot be read"):
        chosen(f"@{tmp_path}/x.txt")


@given(st.text("scan_9[]:=y,!-0123 @'\"gb.*lo", max_size=30))
@example("!")
@example("scan_9[0][y=]")
def test_any_text_is_a_selection_or_a_selection_error(text):
    with tempfile.TemporaryDirectory() as folder:
        found, error = attempt(text.replace("@", f"@{folder}/"))
    assert error or found
    assert error or pixels(found) <= pixels(chosen(None))


# --- of an archive ------------------------------------------------------------------------------


def test_an_archive_selects_from_its_catalog(tmp_path):
    path = Path(tmp_path / "a.zarr")
    cubes = {"s10": cube_of(0, frames=3), "s9": cube_of(1, frames=2), "t": cube_of(2, frames=1)}
    make_archive(path, cubes, failed_frames={"1": "broken"}, sensor="FX17")
    archive = open_archive(path)
    assert list(archive.select("glob:s*")) == [("s9", 0, None), ("s10", 0, None), ("s10", 2, None)]
    assert archive.select("where:'frames == 3 and sensor == \"FX17\"'").sessions == ("s10",)
    assert archive.select("where:'failed_frames == 1 and wavelength_min != 3'").whole == {
        "s9",
        "s10",
        "t",
    }
    with pytest.raises(SelectionError, match=r"no column 'bnds'\. Did you mean 'bands'\?"):
        archive.select("where:'bnds > 3'")
