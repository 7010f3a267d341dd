"""Hypothesis strategies of pixels, masks and ways to cut work up, and references to compare with.

The references use Python integers, fractions and long doubles, never the package.

Profiles: ``quick`` by default, ``ci`` with more examples: ``HYPOTHESIS_PROFILE=ci pytest``.
"""

from __future__ import annotations

import os
from fractions import Fraction
from functools import reduce
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

__all__ = [
    "DTYPES",
    "FLOAT_DTYPES",
    "exact_covariance",
    "exact_mean",
    "exact_products",
    "exact_scatter",
    "float_pixels",
    "groupings",
    "integer_pixels",
    "masks",
    "merged_in_groups",
    "seeded_pixels",
    "splits",
]

_COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("quick", max_examples=30, **_COMMON)
settings.register_profile("ci", max_examples=400, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

#: Dtypes whose sums are exact.
DTYPES = ("uint8", "int8", "uint16", "int16")
FLOAT_DTYPES = ("float32", "float64")

CHANNELS = st.integers(1, 4)
FEW = st.integers(0, 24)
SOME = st.integers(1, 24)
MANY = st.integers(0, 3000)


def _values(dtype):
    info = np.iinfo(dtype)
    extremes = sorted({info.min, info.min + 1, 0, 1, info.max - 1, info.max})
    return st.sampled_from(extremes) | st.integers(info.min, info.max)


@st.composite
def integer_pixels(draw, dtypes=DTYPES, channels=CHANNELS, count=FEW):
    """``(n, C)`` integers of an exact dtype, extremes favoured; also no pixel at all."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = (draw(count), draw(channels))
    return draw(npst.arrays(dtype, shape, elements=_values(dtype)))


@st.composite
def float_pixels(draw, dtypes=FLOAT_DTYPES, channels=CHANNELS, count=SOME, ratio=1e6):
    """``(n, C)`` finite floats: per channel an offset, up to ``ratio`` times a spread around it."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    n, c = draw(count), draw(channels)
    unit = draw(npst.arrays(np.float64, (n, c), elements=st.floats(-1, 1, width=32)))
    spread = np.array([10.0 ** draw(st.integers(-6, 6)) for _ in range(c)])
    times = np.array([draw(st.sampled_from([0.0, 1.0, -30.0, 1e3, ratio])) for _ in range(c)])
    return ((unit + times) * spread).astype(dtype)


@st.composite
def seeded_pixels(draw, dtypes=DTYPES, channels=CHANNELS, count=MANY):
    """Many ``(n, C)`` integers or floats from a seed: full range, extremes only, or 30000 +- 5."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = (draw(count), draw(channels))
    if dtype.kind == "f":
        offset = draw(st.sampled_from([0.0, 1.0, 30000.0]))
        return rng.normal(offset, 5.0, shape).astype(dtype)
    info = np.iinfo(dtype)
    match draw(st.sampled_from(["range", "extremes", "narrow"])):
        case "range":
            return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        case "extremes":
            return rng.choice(np.array([info.min, info.max], dtype=dtype), shape)
        case _:
            middle = min(30000, info.max - 40)
            return np.clip(rng.normal(middle, 5.0, shape).round(), info.min, info.max).astype(dtype)


@st.composite
def masks(draw, shape):
    """Boolean arrays: nothing, everything, or anything."""
    kind = draw(st.sampled_from(["none", "all", "some", "some"]))
    if kind == "some":
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        return rng.random(shape) < draw(st.floats(0.05, 0.95))
    return np.full(shape, kind == "all")


@st.composite
def splits(draw, size, most=6):
    """Slices that cut ``size`` into consecutive parts, empty ones too, in any order."""
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=most)))
    edges = [0, *cuts, size]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    return draw(st.permutations(parts))


@st.composite
def groupings(draw, size):
    """An order in which ``size`` items are merged pair by pair: a list of pairs of positions.

    Each step takes two items out of the list and appends their union.
    """
    pairs = []
    for left in range(size, 1, -1):
        first = draw(st.integers(0, left - 1))
        second = draw(st.integers(0, left - 2))
        pairs.append((first, second))
    return pairs


def merged_in_groups(parts, pairs):
    """Merge parts in the order that :func:`groupings` drew."""
    pool = list(parts)
    for first, second in pairs:
        a = pool.pop(first)
        b = pool.pop(second)
        pool.append(a.merge(b))
    (whole,) = pool
    return whole


def exact_products(pixels):
    """``sum x`` and packed upper triangle of ``sum x x^T`` as Python integers."""
    rows = [[int(v) for v in pixel] for pixel in pixels]
    channels = pixels.shape[1]
    total = [sum(row[i] for row in rows) for i in range(channels)]
    products = [
        sum(row[i] * row[j] for row in rows) for i in range(channels) for j in range(i, channels)
    ]
    return total, products


def _fractions(pixels):
    convert = int if pixels.dtype.kind in "iu" else float
    return [[Fraction(convert(v)) for v in pixel] for pixel in pixels]


def exact_mean(pixels):
    """Mean per channel as fractions."""
    rows = _fractions(pixels)
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def exact_scatter(pixels):
    """``sum (x - mean)(x - mean)^T`` as a list of lists of fractions, by two passes."""
    mean = exact_mean(pixels)
    centred = [[v - m for v, m in zip(row, mean, strict=True)] for row in _fractions(pixels)]
    channels = range(pixels.shape[1])
    return [
        [
            reduce(lambda s, row, i=i, j=j: s + row[i] * row[j], centred, Fraction(0))
            for j in channels
        ]
        for i in channels
    ]


def exact_covariance(pixels, ddof=1):
    """Sample covariance, correctly rounded to float64."""
    divisor = len(pixels) - ddof
    return np.array([[float(v / divisor) for v in row] for row in exact_scatter(pixels)])
