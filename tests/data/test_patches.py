"""Patches: where they lie, what they hold, and how often the archive is read for them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import write_npz

import hsi_batch as hb
from hsi_batch.archive.session import Session
from hsi_batch.data.batches import frame_batch
from hsi_batch.data.patches import PatchPlan, frame_patches

LINES, SAMPLES, BLOCK = 90, 11, 16
PLACES = np.arange(LINES * SAMPLES).reshape(LINES, SAMPLES)
MASK = (PLACES % 7 == 0).astype(np.uint8)


@pytest.fixture(scope="module")
def session(tmp_path_factory, client):
    """Two frames of six blocks; a pixel holds its place, its frame, and something."""
    here = tmp_path_factory.mktemp("patches")
    cube = np.empty((2, LINES, SAMPLES, 3), np.float32)
    cube[..., 0] = PLACES
    cube[..., 1] = np.arange(2)[:, None, None]
    cube[..., 2] = PLACES**2
    cube[:, 5:7, 3, 2] = np.nan
    write_npz(here / "s.npz", cube, mask=np.stack([MASK, MASK]))
    hb.convert(here / "s.npz", here / "a.zarr", block_lines=BLOCK, client=client)
    return hb.open_archive(here / "a.zarr").session("s")


def same_pixels(batch, frame):
    """Every image holds neighbouring pixels, each with the label and flag of its place."""
    cube, mask, valid = (batch[key].numpy() for key in ("cube", "mask", "valid"))
    for image, labels, good in zip(cube, mask, valid, strict=True):
        places = image[..., 0].astype(int)
        y, x = divmod(int(places[0, 0]), SAMPLES)
        tall, wide = places.shape
        np.testing.assert_array_equal(places, PLACES[y : y + tall, x : x + wide])
        assert (image[..., 1] == frame).all()
        np.testing.assert_array_equal(labels, MASK.ravel()[places])
        flagged = np.isin(places, PLACES[5:7, 3])
        np.testing.assert_array_equal(good, ~flagged)
        np.testing.assert_array_equal(image[~flagged, 2], places[~flagged] ** 2)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 100), st.integers(1, 14)),
    count=st.integers(1, 6),
    frame=st.integers(0, 1),
    lines=st.none() | st.tuples(st.integers(0, 40), st.integers(41, LINES)),
    balance=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_patches_hold_the_pixels_of_their_place(session, size, count, frame, lines, balance, seed):
    plan = PatchPlan(size, count, balance)
    rng = np.random.default_rng(seed)
    batch = frame_patches(session, frame, lines, plan, rng)
    first, last = lines or (0, LINES)
    tall, wide = min(size[0], last - first), min(size[1], SAMPLES)
    assert batch["cube"].shape == (count, tall, wide, 3)
    same_pixels(batch, frame)
    rows = batch["cube"][..., 0].numpy().astype(int) // SAMPLES
    assert first <= rows.min() <= rows.max() < last
    held = (batch["mask"].numpy() > 0).any(axis=(1, 2)).sum()
    assert held >= round((balance or 0.0) * count)
    assert batch["mesu_index"].tolist() == [frame] * count
    assert batch["stem"] == ["s"] * count
    again = frame_patches(session, frame, lines, plan, np.random.default_rng(seed))
    np.testing.assert_array_equal(again["cube"].numpy(), batch["cube"].numpy())


@pytest.mark.parametrize("lines", [None, (0, LINES), (3, 5), (16, 32), (7, 90)])
def test_a_frame_is_its_lines(session, lines):
    batch = frame_batch(session, 1, lines)
    first, last = lines or (0, LINES)
    assert batch["cube"].shape == (1, last - first, SAMPLES, 3)
    assert batch["cube"][0, 0, 0, 0] == first * SAMPLES
    same_pixels(batch, 1)


def test_a_block_is_read_once_however_many_patches_it_holds(session, monkeypatch):
    asked = []
    real = Session.read

    def read(self, frame, start, stop, **options):
        asked.append((start, stop))
        return real(self, frame, start, stop, **options)

    monkeypatch.setattr(Session, "read", read)
    frame_patches(session, 0, None, PatchPlan((20, 5), 12), np.random.default_rng(3))
    assert asked == sorted(set(asked))
    assert len(asked) > 3
    asked.clear()
    frame_patches(session, 0, (0, 16), PatchPlan((2, 2), 12), np.random.default_rng(3))
    assert asked == [(0, 16)]
