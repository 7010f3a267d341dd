"""Labels: where they are found, and that a recording gets the ones that were drawn."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image
from readers.envi_files import random_cube, shared_data, write_envi

from hsi_batch.errors import SourceError
from hsi_batch.readers.annotations import find_annotation, open_annotation

SHAPE = (4, 5)


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")


def found(folder, recording):
    path = find_annotation(str(folder / recording))
    return None if path is None else os.path.relpath(path, folder)


# --- finding ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "scan_gt.png",
        "scanGt.bmp",
        "scan-MASK.tif",
        "scan.mask.tiff",
        "scan_label.png",
        "scan labels.PNG",
        "scan_groundtruth.png",
        "scan_ground_truth.png",
        "scan_annotation.png",
        "scanAnnotations.png",
    ],
)
def test_mask_images_are_found(tmp_path, name):
    touch(tmp_path, "scan.hdr", "scan.raw", name, "other_gt.png")
    assert found(tmp_path, "scan.hdr") == name
    assert found(tmp_path, "scan.cu3s") == name


@pytest.mark.parametrize(
    "name", ["scan.png", "scan_1_gt.png", "scangt1.png", "scan_gt.jpg", "Scan_gt.png", "gt.png"]
)
def test_other_images_are_not(tmp_path, name):
    touch(tmp_path, "scan.hdr", name)
    assert found(tmp_path, "scan.hdr") is None


def test_header_named_after_its_data_file(tmp_path):
    touch(tmp_path, "scan.raw.hdr", "scan.raw", "scan_gt.png")
    assert found(tmp_path, "scan.raw.hdr") == "scan_gt.png"
    assert found(tmp_path, "scan.raw.cu3s") is None


def test_several_mask_images_are_an_error(tmp_path):
    touch(tmp_path, "scan.hdr", "scan_gt.png", "scan_mask.png")
    with pytest.raises(SourceError, match=r"several mask images .*: scan_gt.png, scan_mask.png"):
        find_annotation(str(tmp_path / "scan.hdr"))


def test_coco_goes_before_images(tmp_path):
    touch(tmp_path, "scan.hdr", "scan_gt.png")
    (tmp_path / "scan.json").write_text('{"images": [], "annotations": []}')
    assert found(tmp_path, "scan.hdr") == "scan.json"


@pytest.mark.parametrize("text", ['{"exposure": 5}', "[1, 2]", "not json", ""])
def test_other_json_files_are_passed_over(tmp_path, text):
    (tmp_path / "scan.json").write_text(text)
    assert found(tmp_path, "scan.hdr") is None


def test_broken_coco_is_not_passed_over(tmp_path):
    (tmp_path / "scan.json").write_text('{"images": [')
    assert found(tmp_path, "scan.hdr") == "scan.json"


@pytest.mark.parametrize("key", ["mask", "class_mask"])
def test_labels_inside_the_npz(tmp_path, key):
    np.savez(tmp_path / "a.npz", cube=np.zeros((4, 5, 2)), **{key: np.zeros(SHAPE, "u1")})
    np.savez(tmp_path / "b.npz", cube=np.zeros((4, 5, 2)))
    touch(tmp_path, "c.npz")
    assert found(tmp_path, "a.npz") == "a.npz"
    assert found(tmp_path, "b.npz") is None
    assert found(tmp_path, "c.npz") is None


def test_an_image_goes_before_what_is_inside_the_npz(tmp_path):
    np.savez(tmp_path / "a.npz", cube=np.zeros((4, 5, 2)), mask=np.zeros(SHAPE, "u1"))
    touch(tmp_path, "a_gt.png")
    assert found(tmp_path, "a.npz") == "a_gt.png"


@pytest.mark.parametrize("settled", [False, True])
def test_files_that_come_and_go(tmp_path, settled):
    now = time.time()

    def touched():
        # Either long enough ago for the listing to be kept, or within one tick of a coarse clock.
        at = now - 60 - len(list(tmp_path.iterdir())) if settled else now
        os.utime(tmp_path, (at, at))

    touched()
    assert found(tmp_path, "scan.hdr") is None
    touch(tmp_path, "scan_gt.png")
    touched()
    assert found(tmp_path, "scan.hdr") == "scan_gt.png"
    (tmp_path / "scan_gt.png").unlink()
    touch(tmp_path, "scan_mask.png", "other.txt")
    touched()
    assert found(tmp_path, "scan.hdr") == "scan_mask.png"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match=r"gone: the folder cannot be searched .*: No such file"):
        find_annotation(str(tmp_path / "gone" / "scan.hdr"))


# --- the annotation -----------------------------------------------------------------------------


def npz(folder, **arrays):
    np.savez(folder / "a.npz", cube=np.zeros((*SHAPE, 2), "u2"), **arrays)
    return str(folder / "a.npz")


def test_labels_by_lines(tmp_path):
    mask = np.arange(20).reshape(SHAPE) % 3
    path = npz(tmp_path, mask=mask)
    with open_annotation(path, shape=SHAPE, frames=1) as annotation:
        assert annotation.path == path
        assert annotation.files == (path,)
        lines = annotation.labels(0, 1, 3)
        assert lines.dtype == np.int16
        assert np.array_equal(lines, mask[1:3])
        lines[:] = 9  # the caller's own
        assert np.array_equal(annotation.labels(0, 0, 4), mask)
        assert annotation.labels(0, 2, 2).shape == (0, 5)
        with pytest.raises(IndexError, match="the frame has lines 0:4"):
            annotation.labels(0, 0, 5)
        with pytest.raises(IndexError, match="frame 1 asked for; the recording has 1"):
            annotation.labels(1, 0, 4)


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_kinds_that_are_not_known(tmp_path, name):
    with pytest.raises(SourceError, match=r"not a known kind of annotation. Known are .json"):
        open_annotation(str(tmp_path / name), shape=SHAPE, frames=1)


def test_the_digest_follows_the_labels(tmp_path):
    def digest(mask, **other):
        with open_annotation(npz(tmp_path, mask=mask, **other), shape=SHAPE, frames=1) as opened:
            return opened.digest

    zero = np.zeros(SHAPE, "u1")
    one = zero.copy()
    one[0, 0] = 1
    assert digest(zero) == digest(zero, source="elsewhere")
    assert digest(zero) != digest(one)
    assert len(digest(one)) == 64


def test_real_mask_equals_its_npz():
    folder = shared_data()
    path = find_annotation(str(folder / "envi" / "LHData.hdr"))
    assert path == str(folder / "envi" / "LHDataGt.bmp")
    inside = str(folder / "envi-lhdata-100.npz")
    assert find_annotation(inside) == inside
    with (
        open_annotation(path, shape=(100, 100), frames=1) as image,
        open_annotation(inside, shape=(100, 100), frames=1) as array,
    ):
        assert np.array_equal(image.labels(0, 0, 100), array.labels(0, 0, 100))
        assert image.labels(0, 0, 100).sum() == 32
        assert image.classes == array.classes == {0: "background", 1: "anomaly"}


def test_beside_an_envi_cube(tmp_path):
    header = write_envi(tmp_path, random_cube((*SHAPE, 3), "u2"))
    coco = {"images": [{"id": 0}], "annotations": [], "categories": []}
    (tmp_path / "scene.json").write_text(json.dumps(coco))
    Image.new("L", (5, 4)).save(tmp_path / "scene_gt.png")
    with open_annotation(find_annotation(header), shape=SHAPE, frames=1) as annotation:
        assert annotation.path.endswith("scene.json")
        assert not annotation.labels(0, 0, 4).any()


# --- masks inside npz files ---------------------------------------------------------------------


def labels(folder, shape=SHAPE, frames=1, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(folder / "a.npz", **arrays)
    with open_annotation(str(folder / "a.npz"), shape=shape, frames=frames) as annotation:
        return annotation.classes, [annotation.labels(f, 0, shape[0]) for f in range(frames)]


MASK = np.arange(20).reshape(SHAPE) % 2


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">i2", "u8", "f4", ">f8"])
def test_types_of_masks(tmp_path, dtype):
    classes, (found,) = labels(tmp_path, mask=MASK.astype(dtype))
    assert classes == {0: "background", 1: "anomaly"}
    assert np.array_equal(found, MASK)
    assert found.dtype == np.int16


def test_values_are_the_classes(tmp_path):
    classes, (found,) = labels(tmp_path, mask=MASK * 7)
    assert classes == {0: "background", 7: "class 7"}
    assert np.array_equal(found, MASK * 7)


def test_255_is_true(tmp_path):
    classes, (found,) = labels(tmp_path, mask=(MASK * 255).astype("u1"))
    assert classes == {0: "background", 1: "anomaly"}
    assert np.array_equal(found, MASK)
    classes, (found,) = labels(tmp_path, mask=(MASK * 255 + MASK[::-1]).astype("u1"))
    assert 255 in classes
    assert found.max() > 1


def test_class_mask_is_used_if_it_says_anything(tmp_path):
    assert np.array_equal(labels(tmp_path, mask=MASK, class_mask=MASK * 3)[1][0], MASK * 3)
    assert np.array_equal(labels(tmp_path, mask=MASK, class_mask=MASK * 0)[1][0], MASK)
    assert np.array_equal(labels(tmp_path, mask=MASK * 0, class_mask=MASK)[1][0], MASK)
    assert np.array_equal(labels(tmp_path, class_mask=MASK * 0)[1][0], MASK * 0)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_of_several_frames(tmp_path, compressed, order):
    mask = np.asarray(np.random.default_rng(0).integers(0, 4, (3, *SHAPE)), ">i4", order=order)
    _, found = labels(tmp_path, frames=3, compressed=compressed, mask=mask)
    assert np.array_equal(found, mask)
    with open_annotation(str(tmp_path / "a.npz"), shape=SHAPE, frames=3) as annotation:
        for frame in (2, 0, 1, 1):
            assert np.array_equal(annotation.labels(frame, 1, 3), mask[frame, 1:3])


@pytest.mark.parametrize(
    ("mask", "frames", "words"),
    [
        (np.zeros((5, 4), "u1"), 1, r"'mask' has shape \(5, 4\), the recording needs \(4, 5\) or"),
        (np.zeros((4, 5), "u1"), 2, r"'mask' has shape \(4, 5\), the recording needs \(2, 4, 5\)"),
        (np.zeros((4, 5, 1), "u1"), 1, r"'mask' has shape \(4, 5, 1\)"),
        (np.full(SHAPE, -1), 1, "'mask' has values -1 to -1; classes are 0 to 32767"),
        (np.full(SHAPE, 32768), 1, "'mask' has values 32768 to 32768; classes are 0 to 32767"),
        (np.full(SHAPE, 0.5), 1, "'mask' has values that are not whole"),
        (np.full(SHAPE, np.nan), 1, "'mask' has values that are not whole"),
        (np.full(SHAPE, np.inf), 1, "'mask' has values that are not whole"),
        (np.full(SHAPE, "a"), 1, "'mask' is str"),
        (np.full(SHAPE, None), 1, "'mask' is object"),
    ],
)
def test_masks_that_are_refused(tmp_path, mask, frames, words):
    np.savez(tmp_path / "a.npz", mask=mask)
    with pytest.raises(SourceError, match=words) as caught:
        open_annotation(str(tmp_path / "a.npz"), shape=SHAPE, frames=frames)
    assert "a.npz" in str(caught.value)
    assert caught.value.hint


def test_an_npz_file_without_masks(tmp_path):
    np.savez(tmp_path / "a.npz", cube=MASK)
    with pytest.raises(SourceError, match="no 'mask' and no 'class_mask' in it"):
        open_annotation(str(tmp_path / "a.npz"), shape=SHAPE, frames=1)


def test_a_damaged_mask(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz", mask=np.random.default_rng(0).integers(0, 9, (200, 200))
    )
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[15000:15020] = b"\xff" * 20
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SourceError, match="frame 0: lines 0:200 cannot be decompressed"):
        open_annotation(str(tmp_path / "a.npz"), shape=(200, 200), frames=1)
