"""Pictures of the report: what is on them, and colours that can be read on any background."""

import re

import numpy as np
import pytest

from hsi_batch.stages.pictures import histogram_picture, roc_picture, score_picture
from hsi_batch.statistics import FloatHistogram, RocCurve, roc_curve


def scores(*values):
    column = np.array(values, dtype=np.float32).reshape(-1, 1)
    return FloatHistogram.zero(1, 2**14).update(column)


NONE = scores()
LABELS = re.compile(r'<g id="text_\d+">.*?(?=<g id="|</svg>)', re.DOTALL)


def labels(svg):
    """Texts of an SVG: each with its words (a comment before the glyphs) and its colour."""
    found = []
    for text in LABELS.findall(svg):
        words = re.search(r"<!-- (.*?) -->", text)
        colour = re.search(r"fill: (#[0-9a-f]{6})", text)
        found.append((words and words.group(1), colour and colour.group(1)))
    return found


@pytest.mark.parametrize(
    "values", [(2.0, 2.5, 3.0, 4.5, 7.0), (1e-3, 1.0, 1e6), (-3.0, -1.0), (1e30, 3e30)]
)
def test_every_text_has_the_colour_that_both_modes_show(values):
    svg = histogram_picture(scores(*np.repeat(values, 3)), NONE, NONE)
    found = labels(svg)
    assert len(found) > 6
    assert {colour for _, colour in found} == {"#5b6470"}
    curve = roc_curve(scores(1, 2, 3, 4), scores(3, 4, 5, 6))
    assert isinstance(curve, RocCurve)
    assert {colour for _, colour in labels(roc_picture(curve))} == {"#5b6470"}


def bars(svg):
    """Corners of the outlines that are drawn with a fill."""
    return [len(d.split("L")) for d in re.findall(r'<path d="([^"]*)"[^>]*opacity: 0.75', svg)]


def test_infinite_scores_are_counted_beside_the_histogram_of_the_others():
    plain = histogram_picture(scores(2, 3, 4, 4), NONE, NONE)
    endless = histogram_picture(scores(2, 3, 4, 4, np.inf, np.inf, -np.inf), NONE, NONE)
    assert bars(endless) == bars(plain)
    assert bars(plain)[0] > 80
    words = [text for text, _ in labels(endless)]
    assert "score (3 pixels with infinite scores not shown)" in words
    assert "score" in [text for text, _ in labels(plain)]


def test_classes_with_infinite_scores_only():
    background, target = scores(1, 2, 2), scores(np.inf)
    everything = background.merge(target)
    # Each class that is shown has its outline, and its colour in the legend.
    assert len(bars(histogram_picture(everything, background, scores(2, 3)))) == 4
    assert len(bars(histogram_picture(everything, background, target))) == 2
    assert len(bars(histogram_picture(everything, target, background))) == 2


def test_no_finite_score():
    assert histogram_picture(scores(np.inf, np.inf), NONE, NONE) is None


def test_infinite_scores_are_the_brightest_of_a_map():
    values = np.array([[1.0, 10.0, np.inf, np.nan]])
    image = score_picture(values, np.inf, np.inf)[0].astype(int)
    assert image[3].tolist() == [128, 128, 128]
    brightness = image[:3].sum(axis=1)
    assert brightness[0] < brightness[1] == brightness[2]
    assert (score_picture(values[:, 2:], 1.0, np.inf)[0, 1] == 128).all()
