"""Score maps, histograms and curves against numpy and scikit-learn; overview, weights, drift."""

import numpy as np
import pytest
import xarray as xr
from counting import counting
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from plot_helpers import NAMES, NM, pixels_of, textbook
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

import hsi_batch as hb
from hsi_batch.errors import ConfigError, StoreError
from hsi_batch.plots import score_images
from hsi_batch.plots.planes import Planes


def labelled(made):
    """Scores and labels of all labelled, valid pixels."""
    scores, truth = [], []
    for name in NAMES:
        values = xr.open_zarr(made.scored.store, group=name).scores.values
        label = made.archive[name].label.values
        counts = (label >= 0) & np.isfinite(values)
        scores.append(values[counts])
        truth.append(label[counts] > 0)
    return np.concatenate(scores), np.concatenate(truth)


def enclosed(contours, shape):
    """Pixels whose centre is inside of the lines (even-odd rule)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    points = np.column_stack([x.ravel(), y.ravel()])
    inside = np.zeros(len(points), dtype=bool)
    for path in contours.get_paths():
        for polygon in path.to_polygons():
            inside ^= type(path)(polygon).contains_points(points)
    return inside.reshape(shape)


def test_a_score_map_with_labels_and_decisions(made):
    with counting(made.client, made.archive.path) as cubes:
        ax = hb.plots.score_map(made.scored, "s1", labels=made.archive)
    assert not cubes
    maps = xr.open_zarr(made.scored.store, group="s1").load()
    shown = ax.images[0].get_array()
    values = maps.scores.values[0]
    np.testing.assert_array_equal(shown.mask, np.isnan(values))
    assert shown.mask.sum() == 5
    np.testing.assert_allclose(shown.compressed(), values[~np.isnan(values)])
    norm = ax.images[0].norm
    assert isinstance(norm, LogNorm)
    assert norm.vmax == pytest.approx(np.nanmax(values))
    assert norm.vmin == pytest.approx(np.nanmedian(values) / 4)
    truth, decided = ax.collections
    np.testing.assert_array_equal(
        enclosed(truth, values.shape), made.archive["s1"].label.values[0] > 0
    )
    np.testing.assert_array_equal(enclosed(decided, values.shape), maps.decisions.values[0] == 1)
    assert [t.get_text() for t in ax.get_legend().texts] == ["labelled", "decided"]
    assert ax.get_xlim() == (-0.5, 29.5)
    assert ax.get_ylim() == (43.5, -0.5)


@given(arrays(bool, st.tuples(st.integers(2, 7), st.integers(2, 7))))
def test_outlines_enclose_what_they_stand_for(inside):
    ax = Figure().subplots()
    rows, columns = inside.shape
    planes = Planes(inside, inside, (-0.5, columns - 0.5, rows - 0.5, -0.5))
    shown = score_images._outline(ax, inside, planes, "red", "labelled")
    assert len(shown) == len(ax.collections) == inside.any()
    if inside.any():
        # Also at the border, around holes, and where pixels touch at a corner.
        np.testing.assert_array_equal(enclosed(ax.collections[0], inside.shape), inside)


def test_negative_scores_have_a_linear_scale():
    values = np.array([[-1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    image = hb.plots.score_map(xr.Dataset({"scores": (("y", "x"), values)})).images[0]
    assert type(image.norm) is Normalize
    assert (image.norm.vmin, image.norm.vmax) == (-1.0, 5.0)
    assert image.get_array().mask.sum() == 1


def test_a_score_map_says_why_not(made):
    for asked, why in (
        ((made.scored,), "no session was named; there are 3"),
        ((made.scored, "s9"), "'s9' was not scored; there are 3"),
        ((made.scored, "s0", 4), "no frame 4; there are 1"),
        ((xr.Dataset({"other": ("x", [1])}),), "no scores here, but other"),
    ):
        with pytest.raises(ConfigError, match=f"(?i){why}"):
            hb.plots.score_map(*asked)


def test_the_histogram_and_its_threshold(made):
    with counting(made.client, made.scored.store, "scores") as read:
        ax = hb.plots.score_histogram(made.scored, made.pipeline)
    assert not read
    scores, truth = labelled(made)
    background, target = (patch.get_data() for patch in ax.patches)
    for found, values in ((background, scores[~truth]), (target, scores[truth])):
        heights, _ = np.histogram(values.astype(np.float64), found.edges)
        np.testing.assert_array_equal(found.values, heights)
        assert found.values.sum() == len(values)
    (line,) = ax.lines
    threshold = line.get_xdata()[0]
    decided = np.concatenate(
        [xr.open_zarr(made.scored.store, group=n).decisions.values.ravel() for n in NAMES]
    )
    everything = np.concatenate(
        [xr.open_zarr(made.scored.store, group=n).scores.values.ravel() for n in NAMES]
    )
    np.testing.assert_array_equal(decided == 1, everything >= threshold)
    assert line.get_label().startswith("threshold of decider ")
    memory = hb.plots.score_histogram(everything, {"a": 3.0, "b": 4.0})
    assert memory.patches[0].get_data().values.sum() == np.isfinite(everything).sum()
    assert [each.get_xdata()[0] for each in memory.lines] == [3.0, 4.0]


def test_curves_against_scikit_learn(made):
    scores, truth = labelled(made)
    ax = hb.plots.roc(made.scored, label="mine")
    line = ax.lines[0]
    area = np.trapezoid(line.get_ydata(), line.get_xdata())
    expected = roc_auc_score(truth, scores)
    # False alarms begin at 1e-6 on the logarithmic axis; steps are drawn, ties are not.
    assert area == pytest.approx(expected, abs=1e-4)
    assert line.get_label() == f"mine: AUC {expected:.4f}"
    hb.plots.roc(made.scored.store, ax=ax)
    assert len(ax.lines) == 2
    assert ax.lines[0].get_color() != ax.lines[1].get_color()

    ax = hb.plots.precision_recall(made.scored)
    precision, recall, _ = precision_recall_curve(truth, scores)
    found = np.column_stack([ax.lines[0].get_xdata(), ax.lines[0].get_ydata()])[1:]
    # Theirs ends with recall 0, which no threshold has.
    np.testing.assert_allclose(found, np.column_stack([recall, precision])[:-1][::-1])
    assert f"{average_precision_score(truth, scores):.4f}" in ax.lines[0].get_label()
    assert ax.lines[1].get_ydata()[0] == pytest.approx(truth.mean())


def test_curves_need_labels(made, tmp_path):
    with pytest.raises(ConfigError, match="0 pixels are labelled"):
        hb.plots.roc(hb.plots.curves.Evaluation())
    with pytest.raises(StoreError):
        hb.plots.precision_recall(tmp_path / "none.zarr")


def test_weights_of_channels(made):
    ax = hb.plots.channel_weights(made.pipeline)
    line, marks = ax.lines
    # What the node does to a spectrum of ones.
    import torch

    ones = torch.ones(1, 1, 1, 8)
    weights = made.pipeline.nodes["selector"](data=ones)["selected"][0, 0, 0].numpy()
    np.testing.assert_allclose(line.get_ydata(), weights, rtol=1e-6)
    np.testing.assert_array_equal(line.get_xdata(), NM)
    np.testing.assert_array_equal(marks.get_xdata(), NM[np.sort(np.argsort(-weights)[:3])])
    spectrum = ax.figure.axes[1].lines[0]
    np.testing.assert_allclose(
        spectrum.get_ydata(), pixels_of(made.archive, ["s0", "s1"]).mean(axis=0)
    )
    with pytest.raises(ConfigError, match=r"'rx' has no weights of channels.*: selector"):
        hb.plots.channel_weights(made.pipeline, "rx")


def test_drift_over_time(made):
    with counting(made.client, made.archive.path) as counts:
        ax = hb.plots.drift(made.pipeline, made.archive)
        growth = hb.plots.drift(made.pipeline, made.archive, value="inflation")
    assert not counts
    base = pixels_of(made.archive, ["s0", "s1"])
    expected = {}
    for name in NAMES:
        values = pixels_of(made.archive, [name])
        expected[name] = textbook(base.mean(0), np.cov(base.T), values.mean(0), np.cov(values.T))
    in_time = ["s1", "s2", "s0"]
    days = ax.lines[0].get_xdata().astype("datetime64[D]").astype(str)
    assert list(days) == ["2026-06-10", "2026-06-15", "2026-06-20"]
    shifts = [expected[name][0] for name in in_time]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), shifts, rtol=1e-6)
    np.testing.assert_allclose(
        growth.lines[0].get_ydata(), [expected[name][1] for name in in_time], rtol=1e-6
    )
    with pytest.raises(ConfigError, match="value 'shft'"):
        hb.plots.drift(made.pipeline, made.archive, value="shft")


def test_the_overview_of_an_archive(made):
    with counting(made.client, made.archive.path) as counts:
        frames, states, speeds = hb.plots.archive_overview(made.archive)
    assert not counts
    assert [t.get_text() for t in frames.get_yticklabels()] == list(NAMES)
    assert [patch.get_width() for patch in frames.patches] == [1, 1, 1]
    assert [patch.get_width() for patch in states.patches] == [3, 0, 0]
    flagged = 100 * 5 / (3 * 44 * 30)
    assert f"{flagged:.2g} % of the pixels flagged" in states.get_title()
    names = [t.get_text() for t in speeds.get_yticklabels()]
    assert sum(int(name.splitlines()[1].split()[0]) for name in names) == made.converted.blocks
    assert all(patch.get_width() > 0 for patch in speeds.patches)


def test_many_sessions_are_gathered():
    import pandas as pd
    from matplotlib import pyplot as plt

    from hsi_batch.plots.overview import _frames

    count = 50
    catalog = pd.DataFrame(
        {
            "session": [f"s{i:02d}" for i in range(count)],
            "frames": np.arange(count) + 3,
            "labelled_frames": 1,
            "failed_frames": 2,
        }
    )
    _, ax = plt.subplots()
    _frames(ax, catalog)
    assert len(ax.get_yticklabels()) == 31
    assert sum(patch.get_width() for patch in ax.patches) == catalog["frames"].sum()
    assert ax.get_yticklabels()[-1].get_text() == "20 more"
