"""Kernels of integer sums are exact at the extremes of their dtypes and for any number of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import DTYPES, exact_products, integer_pixels, seeded_pixels

from hsi_batch.statistics import kernels
from hsi_batch.statistics.kernels import IntegerSums, sums, sums_float64
from hsi_batch.statistics.packed import pack, unpack
from hsi_batch.statistics.pair_products import pair_products

KERNELS = [sums_float64, pair_products]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)


@pytest.fixture
def registry():
    before = dict(kernels._kernels)
    yield
    kernels._kernels.clear()
    kernels._kernels.update(before)


def in_int64(pixels):
    """The reference: whole numbers of 64 bits throughout."""
    wide, info = pixels.astype(np.int64), np.iinfo(pixels.dtype)
    return IntegerSums(
        wide.sum(axis=0),
        pack(wide.T @ wide),
        pixels.min(axis=0, initial=info.max),
        pixels.max(axis=0, initial=info.min),
    )


def assert_same(found, expected):
    for part, reference in zip(found, expected, strict=True):
        assert part.dtype == reference.dtype.newbyteorder("=")
        assert np.array_equal(part, reference)


@each_kernel
@given(integer_pixels())
def test_products_equal_integer_arithmetic(kernel, pixels):
    found = kernel(pixels)
    total, products = exact_products(pixels)
    assert found.products.dtype == found.total.dtype == np.int64
    assert found.total.tolist() == total
    assert found.products.tolist() == products


@each_kernel
@given(seeded_pixels(count=st.sampled_from([0, 1, 2, 127, 128, 129, 4095, 4097, 10_000])))
def test_sums_and_extrema_over_groups_of_rows(kernel, pixels):
    assert_same(kernel(pixels), in_int64(pixels))


@st.composite
def wide_pixels(draw):
    """As of a sensor: any number of channels, a level per channel, some spread, some outliers."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    info = np.iinfo(dtype)
    count, channels = draw(st.integers(0, 300)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    level = rng.integers(info.min, info.max, channels, endpoint=True)
    # Around the limits of the products of 8 to 64 pairs, and of 16-bit differences.
    spread = draw(st.sampled_from([0, 1, 2895, 2896, 4095, 4096, 11585, 11586, 32767, 65535]))
    values = level + rng.integers(-spread, spread, (count, channels), endpoint=True)
    pixels = np.clip(values, info.min, info.max).astype(dtype)
    for _ in range(draw(st.integers(0, 3)) if count else 0):
        place = rng.integers(count), rng.integers(channels)
        pixels[place] = draw(st.sampled_from([info.min, info.max]))
    return pixels


@given(wide_pixels())
def test_compiled_sums_of_many_channels(pixels):
    assert_same(pair_products(pixels), in_int64(pixels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ends", ["low", "high", "both"])
def test_compiled_sums_of_the_ends_of_the_range(dtype, ends):
    info = np.iinfo(dtype)
    pixels = np.full((257, 33), info.min if ends == "low" else info.max, dtype=dtype)
    if ends == "both":
        pixels[::2] = info.min
    assert_same(pair_products(pixels), in_int64(pixels))


@each_kernel
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_beyond_2_to_the_53_are_exact(dtype, kernel):
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
    assert kernel(pixels).products.tolist() == expected


@each_kernel
def test_layouts_and_byte_orders_are_all_the_same(kernel):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65535, (5000, 6), dtype=np.uint16, endpoint=True)
    expected = in_int64(pixels)
    for view in (pixels, np.asfortranarray(pixels), pixels[::-1], pixels.astype(">u2")):
        assert_same(kernel(view), expected)
    assert_same(kernel(pixels[:, ::2]), in_int64(pixels[:, ::2]))


# --- the registry -----------------------------------------------------------------------------


def narrow(kind):
    def kernel(pixels):
        few = pixels.astype(kind)
        return in_int64(pixels)._replace(products=pack((few.T @ few).astype(np.int64)))

    return kernel


def off_by_one(pixels):
    found = sums_float64(pixels)
    found.products[-1] += 1
    return found


def blind_to_signs(pixels):
    return sums_float64(pixels.view(f"u{pixels.itemsize}"))


def no_extrema(pixels):
    found = sums_float64(pixels)
    return found._replace(low=found.high)


@pytest.mark.parametrize(
    "kernel", [narrow(np.int32), narrow(np.float32), off_by_one, blind_to_signs, no_extrema]
)
def test_a_kernel_that_is_not_exact_is_refused(registry, kernel):
    with pytest.raises(ValueError, match="is not exact for"):
        kernels.register("wrong", kernel)
    assert kernels.kernel_name() == "pairs"
    assert "wrong" not in kernels._kernels


def test_the_kernel_registered_last_is_used(registry):
    calls = []

    def counting(pixels):
        calls.append(pixels.shape)
        return in_int64(pixels)

    kernels.register("int64", counting)
    assert kernels.kernel_name() == "int64"
    calls.clear()
    pixels = np.array([[1, 2]], dtype=np.int8)
    assert unpack(sums(pixels).products).tolist() == [[1, 2], [2, 4]]
    assert calls == [(1, 2)]
    kernels.register("other", in_int64)
    kernels.register("int64", in_int64)
    assert kernels.kernel_name() == "int64"
    assert list(kernels._kernels) == ["other", "int64"]


def test_what_cannot_be_compiled_is_summed_in_float64(monkeypatch, caplog):
    monkeypatch.setattr("hsi_batch.statistics.pair_products.pair_products", off_by_one)
    kernels._compiled.cache_clear()
    try:
        assert kernels.kernel_name() == "float64"
        assert "not used (ValueError" in caplog.text
        pixels = np.array([[1, 2]], dtype=np.uint16)
        assert_same(sums(pixels), in_int64(pixels))
    finally:
        kernels._compiled.cache_clear()


def test_the_kernels_in_use_pass_their_check():
    for kernel in (sums, *KERNELS, in_int64):
        kernels.check(kernel)
