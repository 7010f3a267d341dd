"""Blocks cover a session exactly once; their keys are immutable, sortable and printable."""

from __future__ import annotations

import dataclasses
import pickle
import random

import numpy as np
import pytest
from archive_helpers import keys_of
from hypothesis import assume, given
from hypothesis import strategies as st

from hsi_batch.archive import BlockKey, Geometry
from hsi_batch.archive.layout import FrameBlocks
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.selection import select
from hsi_batch.errors import ConfigError

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
DTYPES = st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"])
SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 9000), st.integers(1, 300))


@st.composite
def block_keys(draw, names=NAMES):
    start = draw(st.integers(0, 10**6))
    return BlockKey(
        draw(names), draw(st.integers(0, 10**6)), start, start + draw(st.integers(1, 9))
    )


@st.composite
def geometries(draw, shapes=SHAPES):
    """Any geometry that can be asked for: default, whole frames, or a power of two of leaves."""
    shape = draw(shapes)
    free = Geometry.choose(1, shape, "uint8")
    lines = draw(
        st.sampled_from([None, "frame"]) | st.integers(0, 9).map(lambda n: free.leaf_lines << n)
    )
    return Geometry.choose(draw(st.integers(1, 5)), shape, draw(DTYPES), lines)


# --- keys ---------------------------------------------------------------------------------------


@given(block_keys())
def test_a_printed_key_is_a_selector_of_exactly_that_block(key):
    chosen = select(str(key), {key.session: (key.frame + 1, key.stop + 1), "other": (1, 1)})
    assert [BlockKey(s, f, *lines) for s, f, lines in chosen] == [key]


@given(block_keys())
def test_keys_survive_json_and_pickle(key):
    record = BlockRecord(key, "done", "d")
    assert BlockRecord.from_json(record.to_json()).key == key
    assert pickle.loads(pickle.dumps(key)) == key
    assert hash(pickle.loads(pickle.dumps(key))) == hash(key)


@given(st.lists(block_keys(st.sampled_from(["a", "a1", "b"])), max_size=12))
def test_keys_sort_by_session_frame_and_line(keys):
    plain = sorted((k.session, k.frame, k.start, k.stop) for k in keys)
    assert [(k.session, k.frame, k.start, k.stop) for k in sorted(keys)] == plain


@pytest.mark.parametrize("name", ["session", "frame", "start", "stop", "new"])
def test_keys_cannot_be_changed(name):
    key = BlockKey("a", 0, 0, 8)
    # Where there are slots, a new name is a TypeError.
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        setattr(key, name, 1)
    assert key == BlockKey("a", 0, 0, 8)


# --- geometry -----------------------------------------------------------------------------------


@given(geometries())
def test_blocks_cover_every_line_exactly_once_and_in_order(geometry):
    height = geometry.shape[0]
    covered = [(k.frame, y) for k in geometry.keys("s") for y in range(k.start, k.stop)]
    assert covered == [(f, y) for f in range(geometry.frames) for y in range(height)]


@given(geometries())
def test_blocks_are_counted_and_numbered_as_they_are_listed(geometry):
    keys = list(geometry.keys("s"))
    assert keys == keys_of((geometry.frames, geometry.shape[0]), geometry.lines) == sorted(keys)
    assert len(keys) == geometry.blocks == geometry.frames * geometry.blocks_per_frame
    assert [geometry.index(key) for key in keys] == list(range(len(keys)))
    assert sum(map(geometry.bytes_of, keys)) == geometry.frames * geometry.frame_bytes
    assert max(map(geometry.bytes_of, keys)) == geometry.block_bytes


@given(
    st.tuples(st.integers(1, 20_000), st.integers(1, 3000), st.integers(1, 400)),
    DTYPES,
)
def test_blocks_are_8_to_16_megabytes_where_frames_allow(shape, dtype):
    geometry = Geometry.choose(1, shape, dtype)
    line = shape[1] * shape[2] * np.dtype(dtype).itemsize
    if geometry.frame_bytes <= 16 * 2**20:
        assert geometry.lines == shape[0]
    elif geometry.leaf_lines * line <= 8 * 2**20:
        assert 8 * 2**20 <= geometry.block_bytes <= 16 * 2**20
    else:
        # A leaf is the least: it is what floating-point work is counted on.
        assert geometry.lines == min(geometry.leaf_lines, shape[0])


@given(SHAPES, st.integers(1, 400))
def test_a_height_is_taken_as_asked_for_or_refused(shape, lines):
    leaf = Geometry.choose(1, shape, "uint8").leaf_lines
    fits = lines >= shape[0] or (lines % leaf == 0 and lines & (lines - 1) == 0)
    if fits:
        assert Geometry.choose(1, shape, "uint8", lines).lines == min(lines, shape[0])
    else:
        with pytest.raises(ConfigError, match=f"blocks of {lines} lines do not fit"):
            Geometry.choose(1, shape, "uint8", lines)


def test_a_refused_height_names_the_heights_that_fit():
    with pytest.raises(ConfigError, match=r"possible are 16, 32, 64, \.\.\. or 'frame'"):
        Geometry.choose(1, (100, 50, 3), "uint8", 24)


@pytest.mark.parametrize("lines", [0, -16])
def test_a_height_below_one_is_refused(lines):
    with pytest.raises(ConfigError, match=f"blocks of {lines} lines"):
        Geometry.choose(1, (100, 50, 3), "uint8", lines)


# --- samples and rows ---------------------------------------------------------------------------


@given(geometries())
def test_samples_do_not_depend_on_the_blocks(geometry):
    width = geometry.shape[1]
    whole = geometry.picks(0, geometry.shape[0])
    by_block = np.concatenate([geometry.picks(a, b) + a * width for a, b in geometry.ranges()])
    assert by_block.tolist() == whole.tolist()
    assert len(whole) == geometry.leaves * geometry.picks_per_leaf
    assert whole[0] >= 0
    assert whole[-1] < geometry.shape[0] * width
    assert (np.diff(whole) >= 0).all()


@given(geometries(), st.integers(1, 5000))
def test_statistics_are_below_a_twentieth_of_the_pixels(geometry, frames):
    geometry = dataclasses.replace(geometry, frames=frames)
    row = geometry.terms * 8 + 2 * geometry.shape[2] * geometry.item_bytes
    if geometry.row_frames is None:
        assert geometry.rows == geometry.blocks
        assert 20 * row <= geometry.block_bytes
    else:
        shared = geometry.row_frames
        assert 20 * row > geometry.block_bytes
        assert shared & (shared - 1) == 0
        assert geometry.rows == -(-frames // shared)
        # Either one row for all, or so many frames that sums might not fit if it were more.
        assert shared >= frames or 2 * shared * np.prod(geometry.shape[:2]) > 2**30


@given(geometries())
def test_every_term_of_the_moments_has_its_place(geometry):
    channels = geometry.shape[2]
    assert geometry.terms == 1 + channels + sum(range(1, channels + 1))


@given(geometries())
def test_a_shuffled_session_is_put_in_order_by_sorting(geometry):
    keys = list(geometry.keys("s"))
    assume(len(keys) > 1)
    shuffled = random.Random(0).sample(keys, len(keys))
    assert sorted(shuffled) == keys


@given(geometries(), st.data())
def test_blocks_of_frames_are_made_when_they_are_asked_for(geometry, data):
    numbers = range(geometry.frames)
    frames = data.draw(st.sampled_from([numbers, numbers[:1], tuple(numbers[::2])]))
    held = FrameBlocks("s", frames, tuple(geometry.ranges()))
    plain = [key for key in geometry.keys("s") if key.frame in frames]
    assert list(held) == plain
    assert len(held) == len(plain)
    assert [held[i] for i in range(-len(plain), len(plain))] == plain + plain
    assert held[1:4] == plain[1:4]
    with pytest.raises(IndexError):
        held[len(plain)]
