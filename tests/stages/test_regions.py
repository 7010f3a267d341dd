"""Connected regions, against scipy on the whole frame, however it was cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from hsi_batch.stages.regions import Runs, regions_of, runs_of

FLAGS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.bool_, shape)
)


@given(FLAGS, st.integers(1, 5), st.integers(0, 2**32))
def test_regions_are_those_of_the_whole_frame(flags, height, seed):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(flags.size).reshape(flags.shape) + 1.0
    marks = rng.random(flags.shape) < 0.5
    cut = range(0, len(flags), height)
    parts = [runs_of(*(a[y : y + height] for a in (flags, scores, marks)), y) for y in cut]
    found = regions_of(Runs.join(parts), flags.shape[1]).columns
    labels, count = ndimage.label(flags, structure=np.ones((3, 3)))
    index = np.arange(1, count + 1)
    assert len(found["area"]) == count
    if not count:
        return
    boxes = ndimage.find_objects(labels)
    known = {
        "y0": [b[0].start for b in boxes],
        "y1": [b[0].stop for b in boxes],
        "x0": [b[1].start for b in boxes],
        "x1": [b[1].stop for b in boxes],
        "area": ndimage.sum_labels(flags, labels, index),
        "max_score": ndimage.maximum(scores, labels, index),
        "mean_score": ndimage.mean(scores, labels, index),
        "labelled": ndimage.sum_labels(marks & flags, labels, index),
    }
    peaks = ndimage.maximum_position(scores, labels, index)
    centres = ndimage.center_of_mass(flags, labels, index)
    known |= {"peak_y": [p[0] for p in peaks], "peak_x": [p[1] for p in peaks]}
    known |= {"centre_y": [c[0] for c in centres], "centre_x": [c[1] for c in centres]}
    pairs = sorted(zip(known["area"], known["max_score"], strict=True))
    assert pairs == sorted(zip(found["area"], found["max_score"], strict=True))
    by_peak, by_mine = np.argsort(known["max_score"]), np.argsort(found["max_score"])
    for name, values in known.items():
        np.testing.assert_allclose(found[name][by_mine], np.asarray(values)[by_peak], err_msg=name)


def test_no_flags_no_regions():
    flags = np.zeros((3, 4), dtype=bool)
    assert len(regions_of(runs_of(flags, None, None, 0), 4)) == 0
