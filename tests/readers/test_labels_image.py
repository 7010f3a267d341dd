"""Mask images of every kind that annotators save."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hsi_batch.errors import SourceError
from hsi_batch.readers.annotations import open_annotation

SHAPE = (4, 5)
MASK = (np.arange(20).reshape(SHAPE) % 3 == 0).astype("u1")
CLASSES = (np.arange(20).reshape(SHAPE) % 4).astype("u1")


def opened(path, frames=1, shape=SHAPE):
    with open_annotation(str(path), shape=shape, frames=frames) as annotation:
        return annotation.classes, [annotation.labels(f, 0, shape[0]) for f in range(frames)]


def saved(folder, image, name="a_gt.png"):
    image.save(folder / name)
    return folder / name


def palette(values):
    image = Image.fromarray(values.astype("u1"), "L").convert("P")
    image.putdata(values.reshape(-1).tolist())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype("u1").tobytes())
    return image


def rgb(colours):
    return Image.fromarray(np.asarray(colours, "u1"))


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.integers(0, 255), min_size=20, max_size=20),
    suffix=st.sampled_from([".png", ".bmp", ".tif", ".tiff"]),
    depth=st.sampled_from(["u1", "u2"]),
)
def test_any_grey_image(tmp_path_factory, values, suffix, depth):
    array = np.array(values, depth).reshape(SHAPE)
    if depth == "u2" and suffix == ".bmp":
        suffix = ".png"
    path = saved(tmp_path_factory.mktemp("image"), Image.fromarray(array), f"a{suffix}")
    classes, (found,) = opened(path)
    several = len(set(values) - {0}) > 1
    assert np.array_equal(found, array if several else array > 0)
    assert found.dtype == np.int16
    assert set(classes) == ({0, *values} if several else {0, 1})


@pytest.mark.parametrize(
    ("make", "suffix", "expected"),
    [
        (lambda: Image.fromarray(MASK * 255).convert("1"), ".png", MASK),
        (lambda: Image.fromarray(MASK * 255).convert("1"), ".bmp", MASK),
        (lambda: Image.fromarray(MASK * 255).convert("1"), ".tif", MASK),
        (lambda: Image.fromarray(MASK * 255), ".png", MASK),
        (lambda: palette(MASK), ".png", MASK),
        (lambda: palette(CLASSES), ".png", CLASSES),
        (lambda: palette(CLASSES * 60), ".bmp", CLASSES * 60),
        (lambda: Image.fromarray(MASK.astype("u2") * 65535), ".png", MASK),
        (
            lambda: Image.fromarray(CLASSES.astype("u2") * 10000),
            ".tif",
            CLASSES.astype(int) * 10000,
        ),
        (lambda: Image.fromarray(CLASSES.astype("i4")), ".tif", CLASSES),
        (lambda: Image.fromarray(CLASSES.astype("f4")), ".tif", CLASSES),
        (lambda: rgb(MASK[..., None] * np.array([255, 0, 0])), ".png", MASK),
        (lambda: rgb(MASK[..., None] * np.array([0, 0, 9])), ".bmp", MASK),
        (lambda: rgb(np.dstack([MASK * 0 + 7] * 3 + [MASK * 255])), ".png", MASK),
        (
            lambda: Image.merge("LA", [Image.fromarray(MASK * 0 + 7), Image.fromarray(MASK * 255)]),
            ".png",
            MASK,
        ),
        (lambda: Image.new("L", SHAPE[::-1], 255), ".png", MASK * 0 + 1),
        (lambda: Image.new("RGB", SHAPE[::-1]), ".png", MASK * 0),
    ],
)
def test_kinds_of_images(tmp_path, make, suffix, expected):
    classes, (found,) = opened(saved(tmp_path, make(), f"a_gt{suffix}"))
    assert np.array_equal(found, expected)
    assert set(np.unique(found)) - {0} <= set(classes)
    if set(np.unique(expected)) <= {0, 1}:
        assert classes == {0: "background", 1: "anomaly"}


def test_one_page_for_each_frame(tmp_path):
    pages = [Image.fromarray(MASK * (i + 1)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    _, found = opened(tmp_path / "a.tif", frames=3)
    assert np.array_equal(found, [MASK, MASK * 2, MASK * 3])
    with open_annotation(str(tmp_path / "a.tif"), shape=SHAPE, frames=3) as annotation:
        assert np.array_equal(annotation.labels(2, 1, 3), (MASK * 3)[1:3])


def test_a_single_page_for_several_frames(tmp_path):
    path = saved(tmp_path, Image.fromarray(MASK))
    with pytest.raises(SourceError, match=r"it has 1 page\(s\), the recording has 3 frames. Use a"):
        opened(path, frames=3)


def test_several_colours(tmp_path):
    colours = np.zeros((*SHAPE, 3), "u1")
    colours[0], colours[1] = (255, 0, 0), (0, 255, 0)
    path = saved(tmp_path, rgb(colours))
    with pytest.raises(SourceError, match=r"2 colours besides black \(#00ff00, #ff0000\).*palette"):
        opened(path)


def test_another_size(tmp_path):
    path = saved(tmp_path, Image.fromarray(MASK.T))
    with pytest.raises(SourceError, match=r"it has 5 lines x 4 samples, the frame has 4 x 5"):
        opened(path)


def test_a_value_that_is_too_large(tmp_path):
    path = saved(tmp_path, Image.fromarray(CLASSES.astype("u2") * 20000), "a.tif")
    with pytest.raises(SourceError, match=r"it has values 20000 to 60000; classes are 0 to 32767"):
        opened(path)


def test_negative_values(tmp_path):
    path = saved(tmp_path, Image.fromarray(CLASSES.astype("i4") - 2), "a.tif")
    with pytest.raises(SourceError, match=r"it has values -2 to 1"):
        opened(path)


def test_fractions(tmp_path):
    path = saved(tmp_path, Image.fromarray(CLASSES.astype("f4") / 2), "a.tif")
    with pytest.raises(SourceError, match=r"its pixels are of kind 'F'"):
        opened(path)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_grey_levels_would_be_stretched(tmp_path, bits):
    # Pillow does not write these; a PNG with 2 or 4 bits is put together by hand.
    import struct
    import zlib

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    row = bytes(1 + -(-5 * bits // 8))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, bits, 0, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    with pytest.raises(SourceError, match=r"grey with 2 or 4 bits. Save it with 8 bits"):
        opened(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_not_a_picture(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(SourceError, match=r"a.png: the picture cannot be read"):
        opened(tmp_path / "a.png")


def test_a_picture_that_is_cut_off(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80)).astype("u1")
    path = saved(tmp_path, Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SourceError, match=r"the picture cannot be read"):
        opened(path, shape=(80, 80))


def test_a_missing_picture(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: .*No such file"):
        opened(tmp_path / "a.png")


def test_long_line_scans_are_no_attack(tmp_path):
    shape = (200_000, 500)  # beyond Pillow's limit for pictures that it trusts
    limit = Image.MAX_IMAGE_PIXELS
    assert shape[0] * shape[1] > limit
    path = saved(tmp_path, Image.new("1", shape[::-1]))
    with open_annotation(str(path), shape=shape, frames=1) as annotation:
        assert annotation.labels(0, 5, 7).shape == (2, 500)
    assert limit == Image.MAX_IMAGE_PIXELS
