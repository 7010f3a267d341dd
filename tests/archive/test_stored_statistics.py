"""Statistics that conversion stores are those of the pixels, for any selection of frames."""

from __future__ import annotations

import numpy as np
import pytest
from archive_helpers import cube_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pixel_strategies import exact_products
from recordings import write_npz

from hsi_batch.archive import open_archive
from hsi_batch.archive.selection import select
from hsi_batch.archive.stored import (
    has_statistics,
    sampled_frames,
    stored_frame_statistic,
    stored_sample,
    stored_statistic,
)
from hsi_batch.stages.convert import convert
from hsi_batch.statistics import Extrema

#: Name: shape and dtype. Blocks of `wide` have rows of their own, others share one.
RECORDINGS = {
    "wide": ((3, 40, 60, 4), "uint16"),
    "wide_signed": ((2, 40, 60, 4), "int16"),
    "small": ((5, 8, 6, 4), "uint8"),
    "tiny_signed": ((3, 4, 5, 4), "int8"),
    "wide_float": ((3, 40, 60, 4), "float32"),
    "small_float": ((4, 8, 6, 4), "float64"),
}
INTEGERS = [name for name, (_, dtype) in RECORDINGS.items() if "int" in dtype]


@pytest.fixture(scope="module")
def converted(tmp_path_factory, client):
    """The archive's sessions, their cubes, and their labels."""
    folder = tmp_path_factory.mktemp("stored")
    cubes, masks = {}, {}
    for seed, (name, (shape, dtype)) in enumerate(RECORDINGS.items()):
        cubes[name] = cube_of(seed, *shape, dtype=dtype)
        masks[name] = np.random.default_rng(seed).random(shape[:3]) < 0.2
        write_npz(folder / "in" / f"{name}.npz", cubes[name], mask=masks[name].astype(np.uint8))
    result = convert(folder / "in", folder / "a.zarr", block_lines=16, client=client)
    assert result.failed == 0
    archive = open_archive(folder / "a.zarr")
    return {name: archive.session(name) for name in cubes}, cubes, masks


def chosen(converted, text):
    sessions = converted[0]
    known = {n: (s.geometry.frames, s.geometry.shape[0]) for n, s in sessions.items()}
    selection = select(text, known)
    pixels = [converted[1][n][f].reshape(-1, 4) for n, f, _ in selection]
    counted = [~converted[2][n][f].reshape(-1) for n, f, _ in selection]
    return selection, np.concatenate(pixels), np.concatenate(counted)


def rounding(pixels):
    return 1e-12 * len(pixels) * float(np.abs(pixels.astype(np.float64)).max()) ** 2


def assert_moments(found, pixels):
    assert found.count == len(pixels)
    if pixels.dtype.kind in "iu":
        total, products = exact_products(pixels)
        row = [int(v) for v in found.row]
        assert row == [len(pixels), *total, *products]
    plain = pixels.astype(np.float64)
    centred = plain - plain.mean(axis=0)
    assert np.allclose(found.mean, plain.mean(axis=0), rtol=1e-12)
    assert np.allclose(found.scatter, centred.T @ centred, rtol=1e-9, atol=rounding(pixels))


@pytest.mark.parametrize("pixels", ["valid", "labelled-normal"])
@pytest.mark.parametrize("name", RECORDINGS)
def test_statistics_of_a_session_are_those_of_its_pixels(converted, name, pixels):
    selection, values, normal = chosen(converted, name)
    if pixels == "labelled-normal":
        values = values[normal]
    sessions = converted[0]
    assert (sessions[name].geometry.row_frames is None) == name.startswith("wide")
    for kind in ("moments", "extrema"):
        assert has_statistics(sessions, selection, kind, pixels)
    assert_moments(stored_statistic(sessions, selection, "moments", pixels), values)
    extrema = stored_statistic(sessions, selection, "extrema", pixels)
    assert extrema.minimum.tolist() == values.min(axis=0).tolist()
    assert extrema.maximum.tolist() == values.max(axis=0).tolist()
    assert extrema.minimum.dtype == values.dtype


@st.composite
def selections(draw, names):
    """Whole sessions, and frames of those whose blocks have rows of their own."""
    terms = []
    for name in draw(st.lists(st.sampled_from(names), min_size=1, unique=True)):
        frames = RECORDINGS[name][0][0]
        kept = draw(st.lists(st.integers(0, frames - 1), min_size=1, unique=True))
        terms += [f"{name}[{f}]" for f in kept] if name.startswith("wide") else [name]
    return terms


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(selections(INTEGERS))
def test_any_selection_of_integer_frames_is_exact(converted, terms):
    selection, values, normal = chosen(converted, terms)
    for pixels, counted in (("valid", values), ("labelled-normal", values[normal])):
        assert has_statistics(converted[0], selection, "moments", pixels)
        found = stored_statistic(converted[0], selection, "moments", pixels)
        # int64 holds all of them: the sums of different dtypes are the same integers.
        total, products = exact_products(counted.astype(np.int64))
        assert [int(v) for v in found.row] == [len(counted), *total, *products]


@settings(max_examples=25)
@given(selections(["wide_float", "small_float"]))
def test_any_selection_of_float_frames_is_right_to_rounding(converted, terms):
    selection, values, _ = chosen(converted, terms)
    assert_moments(stored_statistic(converted[0], selection, "moments", "valid"), values)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_frame_has_its_own_statistic_or_none(converted, name):
    session = converted[0][name]
    for frame in range(session.geometry.frames):
        found = stored_frame_statistic(session, frame, "moments", "valid")
        if name.startswith("wide"):
            assert_moments(found, converted[1][name][frame].reshape(-1, 4))
        else:
            assert found is None


@pytest.mark.parametrize(
    ("text", "kind", "there"),
    [
        ("wide[1]", "moments", True),
        ("wide[1][y=0:16]", "moments", False),
        ("wide,wide_float[0]", "extrema", True),
        ("small", "moments", True),
        ("small[0:4]", "moments", False),
        ("wide", "histogram", False),
    ],
)
def test_what_would_need_the_pixels_is_said_to_need_them(converted, text, kind, there):
    selection, _, _ = chosen(converted, text)
    assert has_statistics(converted[0], selection, kind, "valid") is there


def test_an_extremum_of_nothing_is_the_identity(converted):
    selection, values, _ = chosen(converted, "wide")
    nothing = Extrema.empty(4, "uint16")
    found = stored_statistic(converted[0], selection, "extrema", "valid").merge(nothing)
    assert found.minimum.tolist() == values.min(axis=0).tolist()


def test_samples_are_spectra_of_the_frames(converted):
    for name in RECORDINGS:
        selection, _, _ = chosen(converted, name)
        session = converted[0][name]
        assert sampled_frames(selection) == [(n, f) for n, f, _ in selection]
        sample = stored_sample(converted[0], selection)
        geometry = session.geometry
        expected = [
            converted[1][name][f].reshape(-1, 4)[geometry.picks(0, geometry.shape[0])]
            for f in range(geometry.frames)
        ]
        assert np.array_equal(sample, np.concatenate(expected))
