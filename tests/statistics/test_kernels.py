"""Gram kernels are exact at the extremes of their dtypes and for any number of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import DTYPES, exact_products, integer_pixels, seeded_pixels

from hsi_batch.statistics import kernels
from hsi_batch.statistics.kernels import gram, gram_float64


@pytest.fixture
def registry():
    before = dict(kernels._kernels)
    yield
    kernels._kernels.clear()
    kernels._kernels.update(before)


@given(integer_pixels())
def test_products_equal_integer_arithmetic(pixels):
    product = gram_float64(pixels)
    channels = pixels.shape[1]
    assert product.dtype == np.int64
    assert product.shape == (channels, channels)
    assert np.array_equal(product, product.T)
    assert product[np.triu_indices(channels)].tolist() == exact_products(pixels)[1]


@given(seeded_pixels(count=st.sampled_from([1, 4095, 4096, 4097, 8192, 10_000])))
def test_products_over_groups_of_rows(pixels):
    wide = pixels.astype(np.int64)
    assert np.array_equal(gram_float64(pixels), wide.T @ wide)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_beyond_2_to_the_53_are_exact(dtype):
    """Each group of rows has an odd sum of squares, so one lost bit in any of them shows."""
    info = np.iinfo(dtype)
    a, c = (info.min or info.max), info.max
    b = a + 1 if a < 0 else a - 1
    rows = 3 * 2**21 + 5
    pixels = np.full((rows, 2), [a, c], dtype=dtype)
    pixels[:: kernels._ROWS, 0] = b
    changed = len(pixels[:: kernels._ROWS])
    same = rows - changed
    expected = [same * a * a + changed * b * b, (same * a + changed * b) * c, rows * c * c]
    if dtype == "uint16":
        assert expected[0] > 2**53
    product = gram_float64(pixels)
    assert [int(product[0, 0]), int(product[0, 1]), int(product[1, 1])] == expected
    assert product[1, 0] == product[0, 1]


def test_no_rows_have_zero_products():
    product = gram_float64(np.zeros((0, 3), dtype=np.uint16))
    assert product.dtype == np.int64
    assert product.tolist() == [[0] * 3] * 3


def test_layouts_and_byte_orders_are_all_the_same():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65535, (5000, 6), dtype=np.uint16, endpoint=True)
    reference = pixels.astype(np.int64).T @ pixels.astype(np.int64)
    for view in (pixels, np.asfortranarray(pixels), pixels[::-1], pixels.astype(">u2")):
        assert np.array_equal(gram(view), reference)
    assert np.array_equal(gram(pixels[:, ::2]), reference[::2, ::2])


# --- the registry -----------------------------------------------------------------------------


def in_int32(pixels):
    narrow = pixels.astype(np.int32)
    return (narrow.T @ narrow).astype(np.int64)


def in_float32(pixels):
    narrow = pixels.astype(np.float32)
    return (narrow.T @ narrow).astype(np.int64)


def off_by_one(pixels):
    product = gram_float64(pixels)
    product[-1, -1] += 1
    return product


def blind_to_signs(pixels):
    return gram_float64(pixels.view(f"u{pixels.itemsize}"))


def upper_only(pixels):
    return np.triu(gram_float64(pixels))


def in_int64(pixels):
    wide = pixels.astype(np.int64)
    return wide.T @ wide


@pytest.mark.parametrize(
    "kernel",
    [in_int32, in_float32, off_by_one, blind_to_signs, upper_only],
    ids=lambda k: k.__name__,
)
def test_a_kernel_that_is_not_exact_is_refused(registry, kernel):
    with pytest.raises(ValueError, match="is not exact for"):
        kernels.register("wrong", kernel)
    assert kernels.kernel_name() == "float64"
    assert "wrong" not in kernels._kernels


def test_the_kernel_registered_last_is_used(registry):
    assert kernels.kernel_name() == "float64"
    calls = []

    def counting(pixels):
        calls.append(pixels.shape)
        return in_int64(pixels)

    kernels.register("int64", counting)
    assert kernels.kernel_name() == "int64"
    calls.clear()
    pixels = np.array([[1, 2]], dtype=np.int8)
    assert gram(pixels).tolist() == [[1, 2], [2, 4]]
    assert calls == [(1, 2)]
    kernels.register("other", in_int64)
    kernels.register("int64", in_int64)
    assert kernels.kernel_name() == "int64"
    assert list(kernels._kernels) == ["float64", "other", "int64"]


def test_the_kernels_in_use_pass_their_check():
    kernels.check(gram)
    kernels.check(gram_float64)
    kernels.check(in_int64)
