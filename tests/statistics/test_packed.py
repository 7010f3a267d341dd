"""Packed triangles, row by row."""

from __future__ import annotations

import numpy as np
import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hsi_batch.statistics.packed import channels_of, pack, packed_size, triangle, unpack


@given(st.integers(0, 8), st.sampled_from(["int64", "float64", "float32"]), st.data())
def test_a_symmetric_matrix_comes_back(channels, dtype, data):
    square = (channels, channels)
    matrix = data.draw(npst.arrays(dtype, square, elements=st.integers(-99, 99)))
    symmetric = np.triu(matrix) + np.triu(matrix, 1).T
    packed = pack(symmetric)
    assert packed.tolist() == [symmetric[i, j] for i in range(channels) for j in range(i, channels)]
    assert packed.shape == (packed_size(channels),)
    assert np.array_equal(unpack(packed), symmetric)
    assert packed.dtype == unpack(packed).dtype == dtype


@given(st.integers(0, 100_000))
def test_sizes_invert(channels):
    assert packed_size(channels) == sum(range(channels + 1)) if channels < 99 else True
    assert channels_of(packed_size(channels)) == channels


@given(st.integers(0, 5000))
def test_only_sizes_of_triangles_are_accepted(size):
    triangles = {k * (k + 1) // 2 for k in range(101)}
    if size in triangles:
        assert packed_size(channels_of(size)) == size
    else:
        with pytest.raises(ValueError, match=f"{size} is not the size of a packed triangle"):
            channels_of(size)


def test_only_the_upper_triangle_is_read():
    matrix = np.array([[1, 2], [99, 3]])
    assert pack(matrix).tolist() == [1, 2, 3]
    assert unpack(pack(matrix)).tolist() == [[1, 2], [2, 3]]
    rows, columns = triangle(3)
    assert rows.tolist() == [0, 0, 0, 1, 1, 2]
    assert columns.tolist() == [0, 1, 2, 1, 2, 2]
