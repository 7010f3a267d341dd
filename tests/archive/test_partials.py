"""Partial statistics come back bit for bit, or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import float_pixels, integer_pixels

from hsi_batch.archive.partials import load_partial, partials_of, save_partial
from hsi_batch.statistics import Bundle, Extrema, Forest, Moments

PIXELS = integer_pixels(count=st.integers(1, 20)) | float_pixels()


def bundle_of(pixels, places, size=9):
    """Moments and extrema of the same pixels at some places of a tree."""
    channels = pixels.shape[1]
    moments = Moments.empty(channels, pixels.dtype).update(pixels)
    extrema = Extrema.empty(channels, pixels.dtype).update(pixels)
    bundle = Bundle()
    for place in places:
        path = ((place, size),)
        parts = {"moments:0": Forest.of(path, moments), "extrema:0": Forest.of(path, extrema)}
        bundle = bundle.merge(Bundle(parts))
    return bundle


def content(bundle):
    return {
        (name, at): {key: (a.dtype, a.tolist()) for key, a in part.to_arrays().items()}
        for name, forest in bundle.items()
        for at, part in forest.parts.items()
    }


@given(PIXELS, st.lists(st.integers(0, 8), unique=True, max_size=9))
def test_a_bundle_comes_back_bit_for_bit(pixels, places):
    bundle = bundle_of(pixels, places)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "t.npz"
        save_partial(path, bundle)
        found = load_partial(path)
    assert content(found) == content(bundle)
    for name, forest in bundle.items():
        assert found[name].result() == forest.result()


@given(PIXELS, st.lists(st.integers(0, 8), unique=True, min_size=2, max_size=9), st.data())
def test_parts_of_several_files_merge_to_the_whole(pixels, places, data):
    cut = data.draw(st.integers(1, len(places) - 1))
    with tempfile.TemporaryDirectory() as folder:
        merged = Bundle()
        for number, part in enumerate((places[:cut], places[cut:])):
            path = Path(folder) / f"{number}.npz"
            save_partial(path, bundle_of(pixels, part))
            merged = load_partial(path).merge(merged)
    assert content(merged) == content(bundle_of(pixels, places))


def test_what_is_not_there_is_none(tmp_path):
    assert load_partial(tmp_path / "none.npz") is None
    assert load_partial(tmp_path) is None


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("partial") / "t.npz"
    bundle = bundle_of(np.arange(12, dtype=np.uint16).reshape(4, 3), [0, 3])
    save_partial(path, bundle)
    return path, path.read_bytes(), content(bundle)


def test_a_damaged_byte_is_never_a_wrong_number(saved):
    path, whole, expected = saved
    intact = 0
    for at in range(len(whole)):
        raw = bytearray(whole)
        raw[at] ^= 1 << at % 8
        path.write_bytes(raw)
        found = load_partial(path)
        assert found is None or content(found) == expected, at
        intact += found is not None
    # Dates and the like may change; what counts is most of the file.
    assert intact < len(whole) / 2


def test_a_cut_file_is_none(saved):
    path, whole, _ = saved
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert load_partial(path) is None


def test_a_file_of_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "t.npz", index=np.array([{"name": "x"}], dtype=object))
    assert load_partial(tmp_path / "t.npz") is None


def test_partials_lie_beside_the_store(tmp_path):
    folder = partials_of(tmp_path / "a.zarr", "s")
    assert folder == tmp_path / "a.zarr.hsi-batch" / "partials" / "s"
