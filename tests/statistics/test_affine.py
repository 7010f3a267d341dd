"""Affine maps of statistics against the statistics of mapped pixels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pixel_strategies import integer_pixels

from hsi_batch.statistics import Affine, Extrema, FloatMoments, Moments

# Small dyadic numbers: products and sums of a few are exact, so bits can be compared.
DYADIC = st.integers(-64, 64).map(lambda v: v / 8)
SOME = st.integers(1, 12)


def numbers(shape):
    return npst.arrays(np.float64, shape, elements=DYADIC)


@st.composite
def mixing(draw, inputs=None, outputs=None):
    """Any matrix, also with zero rows and columns."""
    inputs = draw(st.integers(1, 4)) if inputs is None else inputs
    outputs = draw(st.integers(1, 4)) if outputs is None else outputs
    return Affine(draw(numbers((outputs, inputs))), draw(numbers(outputs)))


@st.composite
def monomial(draw, inputs=None, outputs=None):
    """At most one entry per row: sources repeated or unused, factors negative or zero."""
    inputs = draw(st.integers(1, 4)) if inputs is None else inputs
    outputs = draw(st.integers(1, 4)) if outputs is None else outputs
    matrix = np.zeros((outputs, inputs))
    for row in matrix:
        row[draw(st.integers(0, inputs - 1))] = draw(DYADIC)
    return Affine(matrix, draw(numbers(outputs)))


def maps(**kwargs):
    return mixing(**kwargs) | monomial(**kwargs)


def mapped(affine, pixels):
    """Apply by the definition, entry by entry."""
    return np.array(
        [
            [
                sum(a * float(v) for a, v in zip(row, pixel, strict=True)) + b
                for row, b in zip(affine.matrix.tolist(), affine.offset.tolist(), strict=True)
            ]
            for pixel in pixels
        ]
    ).reshape(len(pixels), affine.outputs)


@st.composite
def maps_and_pixels(draw, kind=maps, count=SOME):
    pixels = draw(integer_pixels(("uint8", "int16"), count=count))
    return draw(kind(inputs=pixels.shape[1])), pixels


# --- pixels -----------------------------------------------------------------------------------


@given(maps_and_pixels(count=st.integers(0, 12)))
def test_pixels_are_mapped_by_the_definition(drawn):
    affine, pixels = drawn
    result = affine(pixels)
    assert result.dtype == np.float64
    assert np.array_equal(result, mapped(affine, pixels))


def test_mapping_leaves_the_pixels_alone():
    pixels = np.array([[1.0, 2.0]])
    for affine in (Affine.scaling([2.0, 3.0], [1.0, 1.0]), Affine([[1.0, 1.0]], [5.0])):
        affine(pixels)
        assert pixels.tolist() == [[1.0, 2.0]]


@given(data=st.data(), pixels=integer_pixels(("int16",), count=st.integers(1, 8)))
def test_composition_is_one_map_after_the_other(data, pixels):
    inner = data.draw(maps(inputs=pixels.shape[1]))
    outer = data.draw(maps(inputs=inner.outputs))
    composed = outer.after(inner)
    assert (composed.inputs, composed.outputs) == (inner.inputs, outer.outputs)
    assert np.array_equal(composed.matrix, outer.matrix @ inner.matrix)
    assert np.array_equal(composed.offset, outer.matrix @ inner.offset + outer.offset)
    assert np.array_equal(composed(pixels), outer(inner(pixels)))


@given(data=st.data(), first=maps())
def test_composition_is_associative_with_identity(data, first):
    second = data.draw(maps(inputs=first.outputs))
    third = data.draw(maps(inputs=second.outputs))
    left, right = third.after(second).after(first), third.after(second.after(first))
    assert np.array_equal(left.matrix, right.matrix)
    assert np.array_equal(left.offset, right.offset)
    before, after = Affine.identity(first.inputs), Affine.identity(first.outputs)
    for same in (first.after(before), after.after(first)):
        assert np.array_equal(same.matrix, first.matrix)
        assert np.array_equal(same.offset, first.offset)


# --- statistics -------------------------------------------------------------------------------


@given(maps_and_pixels())
def test_moments_follow(drawn):
    affine, pixels = drawn
    through = affine.moments(Moments.empty(affine.inputs, pixels.dtype).update(pixels))
    direct = FloatMoments.zero(affine.outputs).update(mapped(affine, pixels))
    assert isinstance(through, FloatMoments)
    assert through.count == len(pixels)
    size = np.abs(affine.matrix) @ np.abs(pixels.astype(float)).max(axis=0) + np.abs(affine.offset)
    assert np.all(np.abs(through.mean - direct.mean) <= 1e-14 * size)
    bound = 1e-12 * len(pixels) * np.outer(size, size)
    assert np.all(np.abs(through.scatter - direct.scatter) <= bound)


@given(maps_and_pixels(kind=monomial, count=st.just(8)))
def test_maps_without_mixing_give_exact_moments(drawn):
    """Of 8 pixels means are dyadic, so nothing is rounded."""
    affine, pixels = drawn
    through = affine.moments(Moments.empty(affine.inputs, pixels.dtype).update(pixels))
    direct = FloatMoments.zero(affine.outputs).update(mapped(affine, pixels))
    assert np.array_equal(through.mean, direct.mean)
    assert np.array_equal(through.scatter, direct.scatter)


@given(maps_and_pixels(kind=monomial))
def test_extrema_follow_maps_that_do_not_mix(drawn):
    affine, pixels = drawn
    through = affine.extrema(Extrema.empty(affine.inputs, pixels.dtype).update(pixels))
    direct = mapped(affine, pixels)
    assert through.count == len(pixels)
    assert through.minimum.dtype == np.float64
    assert np.array_equal(through.minimum, direct.min(axis=0))
    assert np.array_equal(through.maximum, direct.max(axis=0))


def test_extrema_do_not_follow_maps_that_mix():
    with pytest.raises(ValueError, match="mixes channels"):
        Affine([[1.0, 1.0]], [0.0]).extrema(Extrema.empty(2, "uint8"))


@given(maps())
def test_no_pixels_stay_no_pixels(affine):
    moments = affine.moments(Moments.empty(affine.inputs, "uint16"))
    assert moments == FloatMoments.zero(affine.outputs)
    if affine.monomial is not None:
        extrema = affine.extrema(Extrema.empty(affine.inputs, "uint16"))
        assert extrema == Extrema.empty(affine.outputs, "float64")


@given(data=st.data(), drawn=maps_and_pixels())
def test_statistics_follow_a_composition_step_by_step(data, drawn):
    inner, pixels = drawn
    outer = data.draw(maps(inputs=inner.outputs))
    moments = Moments.empty(inner.inputs, pixels.dtype).update(pixels)
    steps, once = outer.moments(inner.moments(moments)), outer.after(inner).moments(moments)
    scale = max(float(np.abs(once.scatter).max()), float(np.abs(steps.scatter).max()), 1.0)
    inside = float(np.abs(moments.scatter).max()) * 4**4 * 64**2
    assert np.allclose(steps.mean, once.mean, rtol=1e-12, atol=1e-9)
    assert np.allclose(steps.scatter, once.scatter, rtol=0, atol=1e-13 * max(scale, inside))


# --- kinds of maps ----------------------------------------------------------------------------


@given(npst.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=DYADIC))
def test_a_map_is_monomial_if_no_row_has_two_entries(matrix):
    affine = Affine(matrix, np.zeros(len(matrix)))
    if any(sum(v != 0 for v in row) > 1 for row in matrix.tolist()):
        assert affine.monomial is None
        assert "mixing" in repr(affine)
        return
    source, factor = affine.monomial
    rebuilt = np.zeros_like(matrix)
    rebuilt[np.arange(len(matrix)), source] = factor
    assert np.array_equal(rebuilt, matrix)
    assert "monomial" in repr(affine)


def test_rows_of_zeros_negative_factors_and_repeated_sources_are_monomial():
    affine = Affine([[0, 0, 0], [0, -2, 0], [0, 3, 0]], [5, 1, 0])
    source, factor = affine.monomial
    assert factor.tolist() == [0, -2, 3]
    assert source[1:].tolist() == [1, 1]
    pixels = np.array([[9, 1, 9], [9, 4, 9]], dtype=np.uint8)
    extrema = affine.extrema(Extrema.empty(3, "uint8").update(pixels))
    assert extrema.minimum.tolist() == [5, -7, 3]
    assert extrema.maximum.tolist() == [5, -1, 12]
    moments = affine.moments(Moments.empty(3, "uint8").update(pixels))
    assert moments.mean.tolist() == [5, -4, 7.5]
    assert moments.scatter.tolist() == [[0, 0, 0], [0, 18, -27], [0, -27, 40.5]]


def test_ready_made_maps():
    pixels = np.array([[1, 2, 3]], dtype=np.uint8)
    assert Affine.identity(3)(pixels).tolist() == [[1, 2, 3]]
    assert Affine.scaling([2, 0, -1], [0, 7, 1])(pixels).tolist() == [[2, 7, -2]]
    assert Affine.selection([2, 0, 2], 3)(pixels).tolist() == [[3, 1, 3]]
    selected = Affine.selection([2, 0], 3)
    assert (selected.inputs, selected.outputs) == (3, 2)
    assert repr(selected) == "Affine(3 -> 2, monomial)"


# --- mistakes, and the disk -------------------------------------------------------------------


def test_matrix_and_offset_must_fit():
    for matrix, offset in (([[1.0]], [1.0, 2.0]), ([1.0], [1.0]), ([[1.0, 2.0]], 1.0)):
        with pytest.raises(ValueError, match="do not fit"):
            Affine(matrix, offset)


@pytest.mark.parametrize("affine", [Affine.identity(2), Affine([[1.0, 1.0]], [0.0])])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_numbers_of_channels_are_refused(affine, channels):
    expected = f"a map of 2 channels cannot take {channels}"
    with pytest.raises(ValueError, match=expected):
        affine(np.ones((4, channels)))
    with pytest.raises(ValueError, match=expected):
        affine.moments(FloatMoments.zero(channels))
    with pytest.raises(ValueError, match=expected):
        affine.extrema(Extrema.empty(channels, "uint8"))
    with pytest.raises(ValueError, match=expected):
        affine.after(Affine.identity(channels))


@given(maps())
def test_arrays_and_pickles_come_back(affine):
    _ = affine.monomial
    for copy in (Affine.from_arrays(affine.to_arrays()), pickle.loads(pickle.dumps(affine))):
        assert np.array_equal(copy.matrix, affine.matrix)
        assert np.array_equal(copy.offset, affine.offset)
        assert repr(copy) == repr(affine)
