"""COCO labels, against pycocotools and by hand."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from hsi_batch.errors import SourceError
from hsi_batch.readers.annotations import open_annotation

SHAPE = (6, 5)
SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]
CATEGORIES = [{"id": 1, "name": "stone"}, {"id": 300, "name": "husk"}]


def runs_of(mask):
    """Uncompressed runs, in COCO's order down the columns, counted the plain way."""
    counts, last, count = [], 0, 0
    for value in np.asarray(mask).T.reshape(-1).tolist():
        if value != last:
            counts.append(count)
            last, count = value, 0
        count += 1
    return {"size": list(np.shape(mask)), "counts": [*counts, count]}


def text_of(mask):
    runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def write(folder, annotations=(), images=({"id": 0},), categories=CATEGORIES, **other):
    document = {"images": images, "annotations": annotations, "categories": categories} | other
    path = folder / "a.json"
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return str(path)


def labels(path, frames=1, shape=SHAPE):
    with open_annotation(path, shape=shape, frames=frames) as annotation:
        return [annotation.labels(f, 0, shape[0]) for f in range(frames)]


def mark(segmentation, category=1, image=0, **other):
    return {"image_id": image, "category_id": category, "segmentation": segmentation} | other


masks = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: st.lists(
        st.integers(0, 1), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]
    ).map(lambda values: np.array(values).reshape(shape))
)


@settings(deadline=None)
@given(masks, st.sampled_from([runs_of, text_of]))
def test_any_run_length_mask(tmp_path_factory, mask, encode):
    path = write(tmp_path_factory.mktemp("coco"), [mark(encode(mask), iscrowd=1)])
    (found,) = labels(path, shape=mask.shape)
    assert np.array_equal(found, mask)


def test_a_long_run_length_text(tmp_path):
    mask = np.zeros((700, 900), int)
    mask[100:650, 3] = mask[:, 400:800] = 1
    mask[::7, 850] = 1
    (found,) = labels(write(tmp_path, [mark(text_of(mask))]), shape=mask.shape)
    assert np.array_equal(found, mask)


points = st.lists(st.floats(-3, 9), min_size=6, max_size=12).map(lambda v: v[: len(v) // 2 * 2])


@settings(deadline=None)
@given(st.lists(points, min_size=1, max_size=3))
def test_any_polygons(tmp_path_factory, polygons):
    with warnings.catch_warnings(action="ignore"):  # its decoder is not ready for NumPy 2
        expected = coco.decode(coco.merge(coco.frPyObjects(polygons, *SHAPE)))
    (found,) = labels(write(tmp_path_factory.mktemp("coco"), [mark(polygons)]))
    assert np.array_equal(found, expected)


def test_a_square(tmp_path):
    (found,) = labels(write(tmp_path, [mark(SQUARE)]))
    expected = np.zeros(SHAPE, int)
    expected[1:3, 1:4] = 1
    assert np.array_equal(found, expected)
    assert found.dtype == np.int16


def test_later_annotations_cover_earlier_ones(tmp_path):
    everything = [[0, 0, 5, 0, 5, 6, 0, 6]]
    (found,) = labels(write(tmp_path, [mark(everything, 300), mark(SQUARE)]))
    assert (found == 1).sum() == 6
    assert (found == 300).sum() == 24
    (found,) = labels(write(tmp_path, [mark(SQUARE), mark(everything, 300)]))
    assert (found == 300).all()


def test_category_zero_is_the_background(tmp_path):
    categories = [{"id": 0, "name": "belt"}, *CATEGORIES]
    path = write(
        tmp_path, [mark([[0, 0, 5, 0, 5, 6, 0, 6]]), mark(SQUARE, 0)], categories=categories
    )
    (found,) = labels(path)
    assert (found == 0).sum() == 6
    with open_annotation(path, shape=SHAPE, frames=1) as annotation:
        assert annotation.classes == {0: "belt", 1: "stone", 300: "husk"}


def test_names_of_classes(tmp_path):
    path = write(tmp_path, categories=[{"id": 2}, {"id": 1, "name": "stone"}])
    with open_annotation(path, shape=SHAPE, frames=1) as annotation:
        assert annotation.classes == {0: "background", 1: "stone", 2: "class 2"}


def test_listed_frames_are_background_and_others_unlabelled(tmp_path):
    path = write(tmp_path, [mark(SQUARE, image=2)], images=[{"id": 2}, {"id": 0}])
    first, second, third, fourth = labels(path, frames=4)
    assert not first.any()
    assert second is None
    assert third.sum() == 6
    assert fourth is None


def test_the_older_key(tmp_path):
    mask = np.eye(*SHAPE, dtype=int)
    old = {"image_id": 0, "category_id": 1, "mask": runs_of(mask)}
    assert np.array_equal(labels(write(tmp_path, [old, old | {"segmentation": []}]))[0], mask)


def test_a_size_of_zero_is_not_said(tmp_path):
    path = write(tmp_path, images=[{"id": 0, "height": 0, "width": None}])
    assert not labels(path)[0].any()
    path = write(tmp_path, images=[{"id": 0, "height": 6, "width": 5}])
    assert not labels(path)[0].any()


def test_the_digest_is_that_of_the_file(tmp_path):
    import hashlib

    path = write(tmp_path)
    with open_annotation(path, shape=SHAPE, frames=1) as annotation:
        assert annotation.digest == hashlib.sha256((tmp_path / "a.json").read_bytes()).hexdigest()
        assert annotation.files == (path,)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"images": [{"id": 0}, {"id": 0}]}, "image id 0 is listed twice"),
        ({"images": [{"id": 1}]}, "image id 1 is not a frame of the recording, which has 1; image"),
        ({"images": [{"id": -1}]}, "image id -1 is not a frame"),
        ({"images": [{"id": "0"}]}, "image id '0' is not a frame"),
        ({"images": [{"id": True}]}, "image id True is not a frame"),
        ({"images": [{}]}, "image id None is not a frame"),
        ({"images": [{"id": 0, "height": 5}]}, "image 0 has height 5, the frame has 6"),
        ({"images": [{"id": 0, "height": 6, "width": 6}]}, "image 0 has width 6, the frame has 5"),
        ({"images": {"id": 0}}, "'images' is not a list of objects"),
        ({"annotations": [5]}, "'annotations' is not a list of objects"),
        ({"annotations": [mark(SQUARE, image=3, id=7)]}, "annotation 7 belongs to image 3, which"),
        ({"annotations": [mark(SQUARE, image=None)]}, "annotation number 0 belongs to image None"),
        ({"annotations": [mark(SQUARE, category=2)]}, "annotation number 0 has category 2, which"),
        ({"categories": [{"id": 32768}]}, "category id 32768 is not a whole number 0 to 32767"),
        ({"categories": [{"id": -1}]}, "category id -1 is not"),
        ({"categories": [{"id": 1.5}]}, "category id 1.5 is not"),
        ({"categories": [{"id": 1}, {"id": 1}]}, "category id 1 is listed twice"),
    ],
)
def test_documents_that_are_refused(tmp_path, document, words):
    path = write(tmp_path, **document)
    with pytest.raises(SourceError) as caught:
        open_annotation(path, shape=SHAPE, frames=1)
    assert words in str(caught.value)
    assert str(caught.value).startswith(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "has no segmentation (only category_id, id, image_id, segmentation)"),
        ([], "has no segmentation"),
        ("text", "has no segmentation"),
        ([[1, 1, 2, 2]], "a polygon is not a list x1, y1, x2, y2, ... of 3 or more points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "a polygon is not a list"),
        ([1, 1, 2, 2, 3, 3], "a polygon is not a list"),
        ([[1, 1, 2, 2, 3, "x"]], "a polygon has a coordinate that is not a finite number"),
        ([[1, 1, 2, 2, 3, float("nan")]], "a polygon has a coordinate that is not a finite"),
        ([[1, 1, 2, 2, 3, 1e9]], "a polygon reaches far outside the frame of 6 x 5"),
        ({"size": [5, 6], "counts": [30]}, "its run-length mask has size [5, 6], the frame [6, 5]"),
        ({"counts": [30]}, "its run-length mask has size None"),
        ({"size": [6, 5], "counts": [29]}, "its run lengths add up to 29, the frame has 30 pixels"),
        ({"size": [6, 5], "counts": [31]}, "its run lengths add up to 31"),
        ({"size": [6, 5], "counts": [31, -1]}, "its run lengths are not whole numbers"),
        ({"size": [6, 5], "counts": [30.0]}, "its run lengths are not whole numbers"),
        ({"size": [6, 5], "counts": 30}, "its run lengths are not whole numbers"),
        ({"size": [6, 5], "counts": ""}, "its run lengths add up to 0"),
        ({"size": [6, 5], "counts": "~"}, "its run-length text is malformed"),
        ({"size": [6, 5], "counts": "\N{SNOWMAN}"}, "its run-length text is malformed"),
        ({"size": [6, 5], "counts": "P" * 40}, "its run-length text is malformed"),
        ({"size": [6, 5], "counts": "P"}, "its run-length text is cut off"),
    ],
)
def test_segmentations_that_are_refused(tmp_path, segmentation, words):
    path = write(tmp_path, [mark(segmentation, id=7)])
    with (
        open_annotation(path, shape=SHAPE, frames=1) as annotation,
        pytest.raises(SourceError) as caught,
    ):
        annotation.labels(0, 0, 6)
    assert words in str(caught.value)
    assert "annotation 7" in str(caught.value)
    assert caught.value.frame == 0


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b'{\n"images": [\n}', 3, "not valid JSON: "),
        (b"[]", None, "it holds a list; expected a COCO object"),
        (b"\xff\xfe\xff", None, "not valid JSON"),
        (b"[" * 100_000, None, "not valid JSON"),
    ],
)
def test_what_is_not_coco(tmp_path, content, line, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_annotation(str(tmp_path / "a.json"), shape=SHAPE, frames=1)
    assert words in str(caught.value)
    assert caught.value.line == line


def test_a_missing_file(tmp_path):
    with pytest.raises(SourceError, match=r"a.json: cannot be read: No such file"):
        open_annotation(str(tmp_path / "a.json"), shape=SHAPE, frames=1)
