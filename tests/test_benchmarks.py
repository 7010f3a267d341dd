"""The harness of the benchmarks: what is wrong is not timed, bars are judged the right way."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speed.cubes import cube, exact_moments
from benchmarks.speed.harness import Contest, Line
from benchmarks.speed.report import write
from hsi_batch.statistics import IntegerMoments


def fine(_result):
    pass


def wrong(result):
    assert result == 0, f"{result} is not 0"


def test_a_wrong_result_is_no_speed():
    contest = Contest(1.0, 2)
    contest.add("ours", lambda: sum(range(2000)), fine)
    contest.add("good", lambda: sum(range(20_000)), fine)
    contest.add("bad", lambda: 1, wrong)
    good, bad = contest.lines("f", "w", "ours", [("good", 2.0), ("bad", 2.0)], "x/s")
    assert good.ratio > 2
    assert good.met
    assert bad.theirs == 0
    assert "1 is not 0" in bad.note
    assert bad.met is None


def test_wrong_results_of_ours_meet_no_bar():
    contest = Contest(1.0, 1)
    contest.add("ours", lambda: 1, wrong)
    contest.add("peer", lambda: 0, wrong)
    (line,) = contest.lines("f", "w", "ours", [("peer", 1.0)], "x/s")
    assert line.met is False
    assert line.note.startswith("WRONG")


def test_they_take_turns():
    order = []
    contest = Contest(1.0, 3)
    for name in "abc":
        contest.add(name, lambda name=name: order.append(name), fine)
    contest.run()
    assert "".join(order) == "abc" + "abc" + "cba" + "abc"


@pytest.mark.parametrize(
    ("ratio", "bar", "most", "met"),
    [
        (2.0, 2.0, False, True),
        (1.9, 2.0, False, False),
        (1.9, 2.0, True, True),
        (9, None, True, None),
    ],
)
def test_bars(ratio, bar, most, met):
    line = Line("f", "w", "p", 1, 1, "s", ratio, None, bar, most)
    assert line.met is met


def test_the_page_says_what_was_met(tmp_path):
    lines = [
        Line("One", "w", "p", 1, 2, "GB/s", 0.5, None, 0.9),
        Line("Two", "v", "q", 1, 2, "s", 0.5, 0.6, 0.9, True),
    ]
    write(lines, {"date": "2026-01-01", "processor": "x"}, tmp_path / "p.md", "make bench")
    text = (tmp_path / "p.md").read_text()
    assert "| w | p | 1 GB/s | 2 GB/s | 0.5 |  | at least 0.9 | **miss** |" in text
    assert "| v | q | 1 s | 2 s | 0.5 | 0.6 | at most 0.9 | pass |" in text
    assert "* **processor**: x" in text
    assert "## One" in text


@pytest.mark.parametrize("hard", [False, True])
def test_the_reference_of_integers_is_another_route(hard):
    frame = cube(7, 11, 5, 3, hard=hard)
    pixels = frame.reshape(-1, 5)
    count, total, products = exact_moments(pixels)
    plain = pixels.astype(object)
    assert (products == plain.T @ plain).all()
    found = IntegerMoments.zero(5).update(pixels)
    assert (found.count, list(found.total)) == (count, total)
    assert np.array_equal(cube(7, 11, 5, 3, hard=hard), frame)
    assert pixels.max() < (65535 if hard else 4095)
