"""The compiled visits around the product of a quadratic score, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.statistics.whitened import shifted, squared_norms


@pytest.mark.parametrize("kind", ["float32", "float64"])
@given(
    st.sampled_from(["uint8", "int16", "uint16", "uint32", "float32", "float64", ">u2", "bool"]),
    st.integers(0, 40),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
)
def test_they_are_those_of_numpy(kind, dtype, count, channels, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 2, (count, channels * 2)) * rng.integers(0, 127, (count, channels * 2))
    pixels = pixels.astype(dtype)[:, ::2]
    centre = rng.integers(0, 99, channels).astype(kind)
    moved = shifted(pixels, centre)
    assert moved.dtype == kind
    np.testing.assert_array_equal(moved, pixels.astype(kind) - centre)
    offset = rng.normal(size=channels).astype(kind)
    found = squared_norms(moved, offset)
    expected = ((moved + offset).astype(np.float64) ** 2).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12 if kind == "float64" else 3e-6)
    # A pixel's bits do not depend on which others come with it.
    for start in range(0, count, 7):
        part = squared_norms(moved[start : start + 3].copy(), offset)
        np.testing.assert_array_equal(part, found[start : start + 3])


def test_what_is_not_a_number_stays_so():
    moved = shifted(np.array([[np.nan, 1], [np.inf, 0]]), np.zeros(2))
    assert np.isnan(squared_norms(moved, np.zeros(2))[0])
    assert squared_norms(moved, np.zeros(2))[1] == np.inf
