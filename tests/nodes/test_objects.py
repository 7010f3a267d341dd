"""Objects of masks and frames, against flood fills in plain Python and numbers of scikit-image."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, run
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import DataWarning, PipelineError
from hsi_batch.nodes import BlobDetector, ChannelAxis, ShapeMorphology
from hsi_batch.nodes.components import connected, otsu_above
from hsi_batch.pipeline import Pipeline

MASK = np.array(
    [
        [0, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 0, 1, 1],
        [0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 0],
    ]
)
# By skimage.measure.regionprops 0.26 of label(MASK, connectivity=2).
EIGHT = [
    [5, 0.8, 0.8, 4.0, 1.3856406460551023, 0.9380831519646858, -0.7853981633974483, 9],
    [6, 13 / 6, 31 / 6, 3.1269438398822857, 2.309401076758503, 0.674199862463242, np.pi / 4, 9],
    [4, 4.75, 3.5, 4.680205767201096, 1.046744465787899, 0.9746687158738291, 1.2634648508338138, 8],
]


def flooded(mask, eight):
    labels, last = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        last += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
            if not inside or not mask[y, x] or labels[y, x]:
                continue
            labels[y, x] = last
            todo += [
                (y + i, x + j)
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
                if (i, j) != (0, 0) and (eight or i * j == 0)
            ]
    return labels


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.8), st.booleans())
def test_regions_are_those_of_a_flood_fill(seed, share, eight):
    mask = np.random.default_rng(seed).random((11, 14)) < share
    np.testing.assert_array_equal(connected(mask, 8 if eight else 4), flooded(mask, eight))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_otsu_splits_where_the_classes_differ_most(seed, count):
    values = np.random.default_rng(seed).beta(0.5, 0.5, count)
    step = np.minimum((values * 256).astype(int), 255)

    def between(t):
        low, high = step[step <= t], step[step > t]
        return low.size * high.size * (low.mean() - high.mean()) ** 2

    chosen = otsu_above(values)
    splits = [t for t in range(256) if 0 < (step <= t).sum() < step.size]
    assert chosen.any() == bool(splits)
    if splits:
        best = max(between(t) for t in splits)
        assert between(step[~chosen].max()) == pytest.approx(best, rel=1e-9)
        assert step[chosen].min() > step[~chosen].max()


def test_shapes_are_those_of_scikit_image():
    frames = torch.from_numpy(np.stack([MASK, 3 * MASK[::-1].copy(), 0 * MASK])).to(torch.int32)
    out = ShapeMorphology(max_objects=5)(mask=frames)
    table = out["properties"].numpy()
    np.testing.assert_allclose(table[0, :3], EIGHT, rtol=1e-6)
    assert out["valid"].sum(dim=1).tolist() == [3, 3, 0]
    assert not table[0, 3:].any()
    assert not table[2].any()
    # Upside down: other order and orientation, the same shapes.
    same = [0, 3, 4, 5, 7]
    np.testing.assert_allclose(table[1, 2::-1][:, same], table[0, :3][:, same], rtol=1e-6)
    four = ShapeMorphology(["orientation", "area", "eccentricity"], connectivity=4)(mask=frames)
    rows = four["properties"][0, :4].numpy()
    np.testing.assert_allclose(rows[2], [0, 1, 0])
    np.testing.assert_allclose(rows[3], [np.pi / 2, 3, 1], rtol=1e-6)
    np.testing.assert_array_equal(four["identity_mask"][0], flooded(MASK, eight=False))


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_shapes_of_numbered_masks(seed):
    labels = np.random.default_rng(seed).choice([-1, 0, 0, 4, 9, 2], (9, 12))
    out = ShapeMorphology(binarize=False)(mask=torch.from_numpy(labels[None]).to(torch.int32))
    identity = out["identity_mask"][0].numpy()
    found = [n for n in dict.fromkeys(labels.ravel().tolist()) if n > 0]
    for row, number in enumerate(found):
        np.testing.assert_array_equal(identity == row + 1, labels == number)
        places = np.argwhere(labels == number)
        spread = np.linalg.eigvalsh(np.cov(places.T, ddof=0)) if len(places) > 1 else np.zeros(2)
        minor, major = 4 * np.sqrt(np.maximum(spread, 0))
        expected = [len(places), *places.mean(axis=0), major, minor]
        np.testing.assert_allclose(
            out["properties"][0, row, :5].numpy(), expected, rtol=1e-5, atol=1e-5
        )
    assert int(out["valid"].sum()) == len(found)


def scene():
    """Three discs of other brightness, a speck, a line, a dark spot, a pixel that is no number."""
    y, x = np.mgrid[:40, :50]
    discs = [((10, 12), 5, 900.0), ((28, 20), 7, 800.0), ((15, 40), 4, 950.0)]
    cube = np.random.default_rng(5).normal(100.0, 5.0, (40, 50, 4))
    truth = np.zeros((40, 50), int)
    for number, ((cy, cx), radius, value) in enumerate(discs, 1):
        inside = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        cube[inside] = value
        truth[inside] = number
    cube[35, 45] = 900.0
    cube[10, 18:36] = 900.0
    cube[28, 20] = 100.0
    cube[2, 2] = np.nan
    return cube.astype(np.float32), truth


def test_blobs_are_found_in_every_frame():
    cube, truth = scene()
    # Discs of pixels have tips that an opening by a square takes away.
    frames = np.stack([cube, cube[:, ::-1], np.full_like(cube, 7.0)])
    out = BlobDetector()(cube=torch.from_numpy(frames.copy()))
    assert out["count"].tolist() == [3, 3, 0]
    order = {1: 1, 2: 3, 3: 2}
    mask = out["mask"][0].numpy()
    for number, row in order.items():
        got, whole = mask == row, truth == number
        assert (got & whole).sum() / (got | whole).sum() > 0.85
        y, x = np.nonzero(got)
        np.testing.assert_allclose(out["centroids"][0, row - 1], [x.mean(), y.mean()], rtol=1e-5)
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert out["bboxes"][0, row - 1].tolist() == box
    assert mask[28, 20] == 3, "closed"
    assert not mask[35, 45]
    assert not mask[2, 2]
    np.testing.assert_array_equal(out["mask"][1].numpy()[:, ::-1] > 0, mask > 0)


def test_which_blobs_are_kept():
    cube, _ = scene()
    frames = torch.from_numpy(cube[None].copy())
    areas = np.bincount(BlobDetector()(cube=frames)["mask"].numpy().ravel())[1:]
    first, smallest, largest = areas
    for arguments, kept in (
        ({"min_area": int(smallest) + 1}, [first, largest]),
        ({"max_area": int(first)}, [first, smallest]),
        ({"keep_largest": 1}, [largest]),
        ({"keep_largest": 9}, areas),
        ({"threshold_method": "fixed", "threshold": 0.9}, [first, smallest]),
        ({"threshold_method": "quantile", "threshold": 0.5, "min_area": 1900}, []),
    ):
        mask = BlobDetector(**arguments)(cube=frames)["mask"].numpy()
        np.testing.assert_array_equal(np.bincount(mask.ravel())[1:], kept, err_msg=str(arguments))
    wide = BlobDetector(opening_kernel=0, closing_kernel=0, min_area=1)(cube=frames)
    assert wide["count"].item() == 4, "one disc with the line, two discs, the speck"
    np.testing.assert_array_equal(wide["mask"][0] > 0, np.nan_to_num(cube[..., 0]) > 400)


def test_brightness():
    cube = torch.zeros(1, 9, 9, 3)
    cube[..., 0], cube[..., 1], cube[..., 2] = 1.0, 3.0, 1.0
    cube[0, 2:5, 2:5, 2] = 2.9
    cube[0, 6:9, 6:9, 1] = 9.0
    centres = {
        name: BlobDetector(name, index_wavelengths=(810, 600))(
            cube=cube, wavelengths=np.array([500, 610, 800], np.int32)
        )["centroids"][0].tolist()
        for name in ("max", "index")
    }
    assert centres == {"max": [[7.0, 7.0]], "index": [[3.0, 3.0]]}


def test_a_frame_in_blocks_and_saved(tmp_path):
    cube, _ = scene()
    cube = np.nan_to_num(cube)
    pipeline = chain(BlobDetector(keep_largest=2, name="blobs"), ShapeMorphology(name="shapes"))
    pipeline.save(tmp_path / "blobs.yaml")
    whole = BlobDetector(keep_largest=2)(cube=torch.from_numpy(cube[None]))["mask"][0]
    for each in (pipeline, Pipeline.from_yaml(tmp_path / "blobs.yaml")):
        each.resolve(ChannelAxis(4))
        got = run(each, "shapes.identity_mask", cube=cube, block=1)
        np.testing.assert_array_equal(got[..., 0], whole)


def test_what_is_refused_and_warned_about():
    for node, arguments, text in (
        (BlobDetector, {"brightness": "sum"}, "brightness 'sum'"),
        (BlobDetector, {"brightness": "index"}, "index_wavelengths None"),
        (BlobDetector, {"threshold_method": "best"}, "threshold_method 'best'"),
        (BlobDetector, {"threshold": 1.5}, "threshold 1.5"),
        (BlobDetector, {"min_area": 9, "max_area": 8}, "max_area 8"),
        (BlobDetector, {"keep_largest": 0}, "keep_largest 0"),
        (BlobDetector, {"connectivity": 6}, "connectivity 6"),
        (ShapeMorphology, {"connectivity": 6}, "connectivity 6"),
        (ShapeMorphology, {"properties": ["aera"]}, "Did you mean 'area'"),
        (ShapeMorphology, {"properties": []}, "at least one"),
        (ShapeMorphology, {"max_objects": 0}, "max_objects 0"),
    ):
        with pytest.raises(PipelineError, match=text):
            node(**arguments)
    with pytest.raises(PipelineError, match="blobs needs wavelengths"):
        chain(BlobDetector("index", index_wavelengths=(1, 2), name="blobs")).resolve(ChannelAxis(3))
    mask = torch.from_numpy(MASK[None]).to(torch.int32)
    with pytest.warns(DataWarning, match="more objects in a frame than max_objects 2"):
        out = ShapeMorphology(max_objects=2)(mask=mask)
    assert out["identity_mask"].max() == 2
