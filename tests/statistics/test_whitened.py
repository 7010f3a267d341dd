"""Squared lengths of whitened pixels against numpy in float64, and their bits anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite.binding import get_host_cpu_features

from hsi_batch.statistics.whitened import WhitenedNorms

KINDS = pytest.mark.parametrize("kind", ["float32", "float64"])


def whitening(rng, channels, size, shape):
    matrix = rng.normal(size=(size, channels))
    matrix = {"lower": np.tril, "upper": np.triu, "full": lambda m: m, "none": np.zeros_like}[
        shape
    ](matrix)
    return matrix, rng.integers(0, 99, channels).astype(float), rng.normal(size=size)


@KINDS
@given(
    st.sampled_from(["uint8", "int16", "uint16", "uint32", "float32", "float64", ">u2", "bool"]),
    st.integers(0, 40),
    st.integers(0, 70),
    st.integers(0, 40),
    st.sampled_from(["lower", "upper", "full", "none"]),
    st.integers(0, 2**32 - 1),
)
def test_they_are_those_of_numpy(kind, dtype, count, channels, size, shape, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 2, (count, channels * 2)) * rng.integers(0, 127, (count, channels * 2))
    pixels = pixels.astype(dtype)[:, ::2]
    matrix, centre, offset = whitening(rng, channels, size, shape)
    norms = WhitenedNorms(matrix, centre, offset, kind)
    found = norms(pixels)
    assert found.dtype == np.float64
    terms = (pixels.astype(float) - centre) @ matrix.T
    # Of a sum that cancels, the size of its terms bounds the error.
    sizes = np.abs(pixels.astype(float) - centre) @ np.abs(matrix.T) + np.abs(offset)
    bound = (sizes**2).sum(axis=1) * (1e-13 if kind == "float64" else 3e-5)
    assert np.all(np.abs(found - ((terms + offset) ** 2).sum(axis=1)) <= bound)
    # A pixel's bits do not depend on which others come with it.
    for start in range(0, count, 7):
        part = norms(pixels[start : start + 3].copy())
        np.testing.assert_array_equal(part, found[start : start + 3])


@pytest.mark.parametrize("channels", [16, 61, 164])
def test_half_the_work_for_a_triangle(channels):
    matrix = np.tril(np.ones((channels, channels)))
    full, lower, upper = (
        WhitenedNorms(m, np.zeros(channels), np.zeros(channels)).products
        for m in (np.ones_like(matrix), matrix, matrix.T)
    )
    assert full == channels * -(-channels // 16) * 16
    # Whole vectors of sixteen are multiplied.
    assert max(lower, upper) <= channels * (channels + 48) / 2


@KINDS
def test_what_is_not_a_number_stays_so(kind):
    norms = WhitenedNorms(np.eye(40), np.zeros(40), np.zeros(40), kind)
    pixels = np.zeros((3, 40))
    pixels[0, 5], pixels[1, 39] = np.nan, np.nan
    found = norms(pixels)
    assert np.isnan(found[:2]).all()
    assert found[2] == 0


SCORES = """
import json, numpy as np
from hsi_batch.statistics.whitened import WhitenedNorms
rng = np.random.default_rng(5)
found = []
for kind in ("float32", "float64"):
    for channels in (5, 61, 164):
        matrix = np.tril(rng.normal(size=(channels, channels)))
        norms = WhitenedNorms(matrix, rng.normal(size=channels), rng.normal(size=channels), kind)
        pixels = rng.integers(0, 4095, (50, channels), dtype=np.uint16)
        found += [float(x).hex() for x in norms(pixels)]
print(json.dumps(found))
"""


@pytest.mark.skipif(
    not get_host_cpu_features().get("avx512bw"), reason="this CPU has no wider vectors to compare"
)
def test_cpus_with_shorter_vectors_give_the_same_bits(tmp_path):
    features = ["sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "f16c", "fma", "avx2"]
    short = {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": ",".join(f"+{name}" for name in features),
    }
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", SCORES],
                env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **more},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for more in ({}, short)
    ]
    assert found[0] == found[1]
