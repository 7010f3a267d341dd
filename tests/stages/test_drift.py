"""Drift: against textbook formulas in numpy, without reading pixels."""

import numpy as np
import pytest
from counting import counting
from graphs import chain, rx_raw
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import scene, write_npz

import hsi_batch as hb
from hsi_batch.errors import ConfigError
from hsi_batch.nodes import CU3SDataNode, PerPixelUnitNorm, RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.reference import Reference
from hsi_batch.stages.drift import drift, moved


@pytest.fixture(scope="module")
def archive(client, tmp_path_factory):
    here = tmp_path_factory.mktemp("drift")
    for i in range(3):
        cube, _ = scene(7 + (i == 2), lines=64, samples=40)
        later = np.roll(cube, 3, axis=0) if i < 2 else cube + 500
        write_npz(here / "in" / f"s{i}.npz", later.astype(np.uint16), wavelength=np.arange(8) + 500)
    write_npz(here / "in" / "t.npz", scene(1, bands=5)[0])
    hb.convert(here / "in", here / "a.zarr", client=client)
    return hb.open_archive(here / "a.zarr")


def textbook(m0, s0, m1, s1):
    """Mahalanobis shift, Jeffreys divergence of zero-mean Gaussians, growth of the mean score."""
    p0, p1 = np.linalg.inv(s0), np.linalg.inv(s1)
    shift = np.sqrt((m1 - m0) @ p0 @ (m1 - m0))
    divergence = 0.5 * (np.trace(p0 @ s1) + np.trace(p1 @ s0)) - len(m0)
    return shift, divergence, (np.trace(p0 @ s1) + shift**2) / len(m0)


def test_against_the_formulas(archive, client, tmp_path):
    pipeline = rx_raw()
    hb.fit(pipeline, archive, frames="s0", client=client)
    pipeline.save(tmp_path / "f.yaml")
    with counting(client, archive.path) as counts:
        result = drift(tmp_path / "f.yaml", archive.path)
    assert not counts
    pixels = {n: archive[n].cube.values.reshape(-1, 8).astype(float) for n in ("s0", "s1", "s2")}
    base = pixels["s0"].mean(0), np.cov(pixels["s0"].T)
    by_name = {s.session: s for s in result.sessions}
    for name, values in pixels.items():
        new = values.mean(0), np.cov(values.T)
        found = by_name[name].moved
        expected = textbook(*base, *new)
        np.testing.assert_allclose(
            [found.shift, found.divergence, found.inflation], expected, rtol=1e-6, atol=1e-9
        )
        steps = (new[0] - base[0]) / np.sqrt(np.diagonal(base[1]))
        assert found.channel_shift == pytest.approx(
            np.abs(steps).max() * np.sign(steps[found.channel])
        )
        assert by_name[name].wavelength == 500 + found.channel
    assert by_name["s2"].moved.shift > 1 > by_name["s1"].moved.shift
    assert by_name["t"].moved is None
    assert "8 channels against 5" in by_name["t"].reason
    assert result.fitted_on["pixel_count"] == 64 * 40
    assert "mean moved" in str(result)


def test_pipelines_that_are_not_affine_know_it_too(archive, client):
    pipeline = chain(PerPixelUnitNorm(name="u"), RXGlobal(name="rx", eps=1e-9))
    hb.fit(pipeline, archive, frames=["s0", "s1"], client=client)
    (found,) = drift(pipeline, archive, frames="s0").sessions
    assert found.moved.shift < 1e-6


def test_what_was_fitted_elsewhere_is_not_known(archive, client, tmp_path):
    pipeline = Pipeline()
    data, rx = CU3SDataNode(), RXGlobal()
    pipeline.connect(data.cube, rx.data)
    with pytest.raises(ConfigError, match="it is not known what the pipeline"):
        drift(pipeline, archive)
    hb.fit(pipeline, archive["s0"].cube)
    (found,) = drift(pipeline, archive, frames="s0").sessions
    assert found.moved.shift < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_any_invertible_mixing_of_channels_changes_nothing(seed, channels):
    rng = np.random.default_rng(seed)
    square = [rng.normal(size=(channels, channels + 2)) for _ in range(2)]
    s0, s1 = (a @ a.T for a in square)
    m0, m1 = rng.normal(size=(2, channels))
    mix, _ = np.linalg.qr(rng.normal(size=(channels, channels)))
    mix *= rng.uniform(0.5, 2)
    plain = moved(Reference(9, m0, s0), m1, s1)
    mixed = moved(Reference(9, mix @ m0, mix @ s0 @ mix.T), mix @ m1, mix @ s1 @ mix.T)
    for key in ("shift", "divergence", "inflation"):
        assert getattr(mixed, key) == pytest.approx(getattr(plain, key), rel=1e-5, abs=1e-8)


def test_channels_that_were_constant():
    reference = Reference(9, np.zeros(2), np.diag([1.0, 0.0]))
    found = moved(reference, np.array([0.0, 3.0]), np.diag([1.0, 2.0]))
    assert (found.shift, found.channel, found.channel_shift) == (0.0, 1, None)
    assert moved(reference, np.zeros(2), np.zeros((2, 2))).divergence is None
