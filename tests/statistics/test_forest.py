"""The fixed tree: any grouping and order of arrival gives the result of the full tree."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import groupings, merged_in_groups, seeded_pixels

from hsi_batch.statistics import Bundle, FloatMoments, Forest


class Word(str):
    """Text that remembers how it was merged."""

    __slots__ = ()

    def merge(self, other):
        return Word(f"({self}{other})")


def joined(left, right):
    if left is None or right is None:
        return right if left is None else left
    return Word(f"({left}{right})")


def full_tree(leaves, start=0, level=None):
    """Merge leaves (None: missing) by the definition: halves of a power of two, recursively."""
    if level is None:
        level = (len(leaves) - 1).bit_length()
    if start >= len(leaves):
        return None
    if level == 0:
        return leaves[start]
    half = 1 << (level - 1)
    return joined(full_tree(leaves, start, level - 1), full_tree(leaves, start + half, level - 1))


def letter(*index):
    return Word("<" + ".".join(map(str, index)) + ">")


@st.composite
def grouped_forests(draw, parts):
    """Single parts ``(path, value, level)`` thrown into a few forests in any order."""
    order = draw(st.permutations(parts))
    bins = draw(st.integers(1, max(len(parts), 1)))
    forests = [Forest() for _ in range(bins)]
    for path, value, level in order:
        which = draw(st.integers(0, bins - 1))
        forests[which] = forests[which].merge(Forest.of(path, value, level))
    return merged_in_groups(forests, draw(groupings(bins)))


# --- the tree ---------------------------------------------------------------------------------


@given(data=st.data(), size=st.integers(1, 33))
def test_any_arrival_gives_the_full_tree_with_missing_parts_as_identity(data, size):
    present = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    leaves = [letter(i) if there else None for i, there in enumerate(present)]
    parts = [(((i, size),), leaf, 0) for i, leaf in enumerate(leaves) if leaf is not None]
    forest = data.draw(grouped_forests(parts))
    assert forest.result() == full_tree(leaves)


@given(
    data=st.data(), sizes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=5), max_size=5)
)
def test_nested_paths_give_nested_trees(data, sizes):
    parts, sessions = [], []
    for s, frames in enumerate(sizes):
        per_frame = []
        for f, leaves in enumerate(frames):
            here = [letter(s, f, k) if data.draw(st.booleans()) else None for k in range(leaves)]
            for k, leaf in enumerate(here):
                if leaf is not None:
                    path = ((s, len(sizes)), (f, len(frames)), (k, leaves))
                    parts.append((path, leaf, 0))
            per_frame.append(full_tree(here))
        sessions.append(full_tree(per_frame))
    expected = full_tree(sessions) if sessions else None
    assert data.draw(grouped_forests(parts)).result() == expected


@given(data=st.data(), size=st.integers(1, 40))
def test_parts_may_be_whole_subtrees(data, size):
    leaves = [letter(i) for i in range(size)]
    parts, start = [], 0
    while start < size:
        fitting = [k for k in range(7) if start % (1 << k) == 0 and start + (1 << k) <= size]
        level = data.draw(st.sampled_from(fitting))
        if data.draw(st.integers(0, 4)):
            value = full_tree(leaves[: start + (1 << level)], start, level)
            parts.append((((start >> level, size),), value, level))
        else:
            leaves[start : start + (1 << level)] = [None] * (1 << level)
        start += 1 << level
    assert data.draw(grouped_forests(parts)).result() == full_tree(leaves)


def test_frames_given_whole_stand_beside_frames_in_leaves():
    whole = Forest.of(((0, 2),), Word("A"))
    leaves = Forest.of(((1, 2), (1, 2)), Word("c")).merge(Forest.of(((1, 2), (0, 2)), Word("b")))
    assert leaves.merge(whole).result() == "(A(bc))"
    assert len(leaves.merge(whole)) == 1


def test_no_parts_have_no_result():
    assert Forest().result() is None
    assert len(Forest()) == 0
    assert Forest().merge(Forest()).result() is None


@given(data=st.data(), size=st.integers(1, 300))
def test_a_contiguous_range_holds_few_parts(data, size):
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    forest = Forest()
    for i in range(start, stop):
        forest = forest.merge(Forest.of(((i, size),), Counted(1)))
    assert len(forest) <= 2 * size.bit_length()
    assert forest.result() == Counted(stop - start)
    if (start, stop) == (0, size):
        assert len(forest) == 1


class Counted(int):
    """A count that merges by adding."""

    __slots__ = ()

    def merge(self, other):
        return Counted(self + other)


@given(data=st.data(), size=st.integers(1, 12))
def test_merging_forests_is_a_commutative_monoid(data, size):
    def forest(chosen):
        merged = Forest()
        for i in chosen:
            merged = merged.merge(Forest.of(((i, size),), letter(i)))
        return merged

    where = [data.draw(st.sampled_from("abc")) for _ in range(size)]
    a, b, c = (forest([i for i in range(size) if where[i] == name]) for name in "abc")
    assert a.merge(b).merge(c).parts == a.merge(b.merge(c)).parts
    assert a.merge(b).parts == b.merge(a).parts
    assert a.merge(Forest()).parts == a.parts == Forest().merge(a).parts


def test_merging_leaves_its_operands_alone():
    a, b = Forest.of(((0, 2),), Word("a")), Forest.of(((1, 2),), Word("b"))
    a.merge(b)
    assert a.result() == "a"
    assert b.result() == "b"
    a.merge(b).result()
    assert len(a.merge(b)) == 1


def test_asking_for_a_result_changes_nothing():
    forest = Forest.of(((0, 5),), Word("a")).merge(Forest.of(((4, 5),), Word("e")))
    assert forest.result() == forest.result() == "(ae)"
    assert forest.merge(Forest.of(((1, 5),), Word("b"))).result() == "((ab)e)"


# --- mistakes of the caller -------------------------------------------------------------------


def whole_of(size, leave_out=()):
    forest = Forest()
    for i in range(size):
        if i not in leave_out:
            forest = forest.merge(Forest.of(((i, size),), letter(i)))
    return forest


@given(size=st.integers(1, 17), data=st.data())
def test_a_part_that_comes_twice_is_refused(size, data):
    twice = data.draw(st.integers(0, size - 1))
    missing = data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1)) - {twice}
    forest, again = whole_of(size, missing), Forest.of(((twice, size),), letter("again"))
    with pytest.raises(ValueError, match="is there twice"):
        forest.merge(again).result()
    with pytest.raises(ValueError, match="is there twice"):
        again.merge(forest).result()


def test_a_part_that_still_stands_alone_is_refused_at_once():
    part = Forest.of(((3, 10),), Word("d"))
    with pytest.raises(ValueError, match="is there twice"):
        part.merge(part)


def test_a_leaf_of_a_frame_that_came_whole_is_refused():
    frame = Forest.of(((1, 3),), Word("frame"))
    leaf = Forest.of(((1, 3), (0, 4)), Word("leaf"))
    for forest in (frame.merge(leaf), leaf.merge(frame)):
        with pytest.raises(ValueError, match="is there twice"):
            forest.result()


def test_parts_of_different_trees_are_refused():
    with pytest.raises(ValueError, match="of another tree"):
        Forest.of(((0, 1),), Word("a")).merge(Forest.of(((0, 2),), Word("b"))).result()


# --- on the way between workers ---------------------------------------------------------------


@given(size=st.integers(0, 9), data=st.data())
def test_forests_pickle(size, data):
    missing = data.draw(st.sets(st.integers(0, 8)))
    forest = whole_of(size, missing)
    copy = pickle.loads(pickle.dumps(forest))
    assert copy.parts == forest.parts
    assert copy.result() == forest.result()
    more = Forest.of(((size, size + 1),), letter("more"))
    assert len(copy.merge(more)) == len(forest) + 1


@given(data=st.data(), pixels=seeded_pixels(dtypes=("float32",), count=st.integers(5, 200)))
def test_float_moments_have_the_same_bits_in_any_grouping(data, pixels):
    size = data.draw(st.integers(1, 20))
    pieces = np.array_split(pixels, size)
    identity = FloatMoments.zero(pixels.shape[1])
    parts = [(((i, size),), identity.update(piece), 0) for i, piece in enumerate(pieces)]
    forest = Forest()
    for path, value, level in parts:
        forest = forest.merge(Forest.of(path, value, level))
    reference = forest.result()
    result = data.draw(grouped_forests(parts)).result()
    for name, array in reference.to_arrays().items():
        assert array.tobytes() == result.to_arrays()[name].tobytes()


# --- bundles ----------------------------------------------------------------------------------


@given(data=st.data())
def test_bundles_merge_name_by_name(data):
    drawn = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9))
    counts = [data.draw(drawn) for _ in range(3)]
    a, b, c = (Bundle({k: Counted(v) for k, v in d.items()}) for d in counts)
    total = Counter()
    for d in counts:
        total.update(d)
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(b).merge(a)):
        assert dict(merged) == dict(total)
    assert dict(a.merge(Bundle())) == dict(a) == dict(Bundle().merge(a))
    assert dict(a) == counts[0]


def test_bundles_are_mappings_that_pickle_and_stand_in_forests():
    a = Bundle({"x": Word("x0"), "y": Word("y0")})
    b = Bundle({"x": Word("x1")})
    assert list(a) == ["x", "y"]
    assert len(a) == 2
    assert "z" not in a
    copy = pickle.loads(pickle.dumps(a))
    forest = Forest.of(((1, 2),), b).merge(Forest.of(((0, 2),), copy))
    assert dict(forest.result()) == {"x": "(x0x1)", "y": "y0"}
