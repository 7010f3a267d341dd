"""Spectra, images and matrices: what is drawn against numpy, and what is read."""

import numpy as np
import pytest
import xarray as xr
import zarr
from counting import counting
from matplotlib.colors import to_rgba
from plot_helpers import NM, pixels_of

import hsi_batch as hb
from hsi_batch.errors import ConfigError


def band_of(collection):
    """Lower and upper border of a filled band, by channel."""
    vertices = collection.get_paths()[0].vertices
    low = [vertices[np.isclose(vertices[:, 0], nm), 1].min() for nm in NM]
    high = [vertices[np.isclose(vertices[:, 0], nm), 1].max() for nm in NM]
    return np.array(low), np.array(high)


def test_spectra_of_an_archive_read_no_pixel(made):
    with counting(made.client, made.archive.path) as counts:
        ax = hb.plots.spectra(made.archive, percentiles=(10,), extremes=True)
    assert not counts
    pixels = pixels_of(made.archive)
    mean, smallest, largest = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(mean.get_xdata(), NM)
    np.testing.assert_array_equal(smallest.get_ydata(), pixels.min(axis=0))
    np.testing.assert_array_equal(largest.get_ydata(), pixels.max(axis=0))
    assert mean.get_label() == f"3 frames of 3 sessions: mean of {len(pixels):,} pixels"
    assert ax.get_xlabel() == "wavelength (nm)"
    # The sample as it is stored, its flagged spectra left out.
    root = zarr.open_group(made.archive.path, mode="r")
    sample = np.concatenate([root[f"{name}/sample"][0] for name in ("s0", "s1", "s2")])
    sample = sample[(sample > 0).any(axis=1)]
    low, high = band_of(ax.collections[0])
    np.testing.assert_allclose([low, high], np.percentile(sample, [10, 90], axis=0))
    assert f"of {len(sample):,} spectra" in ax.collections[0].get_label()


def test_spectra_of_labelled_pixels_have_deviations(made):
    ax = hb.plots.spectra(made.archive, "s0", pixels="labelled-normal")
    session = made.archive["s0"].load()
    pixels = session.cube.values[session.label.values == 0].astype(np.float64)
    low, high = band_of(ax.collections[0])
    expected = pixels.mean(axis=0), pixels.std(axis=0, ddof=1)
    np.testing.assert_allclose((low + high) / 2, expected[0])
    np.testing.assert_allclose((high - low) / 2, expected[1])
    assert ax.collections[0].get_label() == "± 1 standard deviation"


def test_spectra_of_a_session_and_of_a_fit(made):
    ax = hb.plots.spectra(made.archive["s1"], percentiles=(5,), label="one")
    pixels = pixels_of(made.archive, ["s1"])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), pixels.mean(axis=0))
    np.testing.assert_allclose(
        band_of(ax.collections[0]), np.percentile(pixels, [5, 95], axis=0), rtol=1e-12
    )
    again = hb.plots.spectra(made.pipeline, ax=ax)
    assert again is ax
    both = pixels_of(made.archive, ["s0", "s1"])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), both.mean(axis=0))
    assert ax.lines[0].get_color() != ax.lines[1].get_color()


@pytest.mark.parametrize(
    ("data", "given", "why"),
    [
        ("archive", {"frames": "s0[0][y=0:8]"}, "keeps no statistics"),
        ("session", {"frames": "s0"}, "choose from an archive"),
        ("number", {}, "is no cube"),
        ("unfitted", {}, "not known what the pipeline"),
    ],
)
def test_spectra_say_why_not(made, data, given, why):
    held = {
        "archive": made.archive,
        "session": made.archive["s0"],
        "number": xr.DataArray(np.zeros((2, 2))),
        "unfitted": hb.Pipeline("p"),
    }
    with pytest.raises(ConfigError, match=why):
        hb.plots.spectra(held[data], **given)


def test_false_color(made):
    session = made.archive["s1"].load()
    ax = hb.plots.false_color(session)
    image = ax.images[0].get_array()
    cube = session.cube.values[0].astype(np.float64)
    valid = session.quality.values[0] == 0
    assert (~valid).sum() == 5
    for plane, nm in enumerate((650, 550, 450)):
        channel = np.argmin(np.abs(NM - nm))
        low, high = np.percentile(cube[..., channel][valid], [2, 98])
        expected = np.floor(np.clip((cube[..., channel] - low) / (high - low), 0, 1) * 255)
        assert np.abs(image[..., plane][valid] - expected[valid]).max() <= 1
    assert (image[~valid] == 128).all()
    assert "each from 2 % to 98 %" in ax.get_title()
    assert ax.get_title().startswith("s1, frame 0")
    assert ax.images[0].get_extent() == [-0.5, 29.5, 43.5, -0.5]


def test_bands(made):
    session = made.archive["s1"].load()
    ax = hb.plots.band(session, nm=500)
    channel = int(np.argmin(np.abs(NM - 500)))
    valid = session.quality.values[0] == 0
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown[valid], session.cube.values[0, ..., channel][valid])
    assert np.isnan(shown[~valid]).all()
    assert ax.get_title() == f"s1, frame 0: channel {channel} ({NM[channel]:g} nm)"
    drawn = hb.plots.bands(session, [0, 5])
    np.testing.assert_array_equal(
        np.ma.filled(drawn[1].images[0].get_array(), np.nan)[valid],
        session.cube.values[0, ..., 5][valid],
    )
    given = hb.plots.bands(session, 2, axes=drawn)
    assert list(given) == list(drawn)
    for wrong in ({"channel": 8}, {"frame": 1}, {"channel": 1, "nm": 500.0}):
        with pytest.raises(ConfigError):
            hb.plots.band(session, **wrong)
    with pytest.raises(ConfigError, match="2 axes were given, 3"):
        hb.plots.bands(session, 3, axes=drawn)


def test_long_frames_are_thinned_and_stay_in_place():
    cube = xr.DataArray(np.arange(4500 * 2 * 3).reshape(4500, 2, 3), dims=["y", "x", "channel"])
    image = hb.plots.band(cube, 0).images[0]
    np.testing.assert_array_equal(image.get_array(), cube.values[::3, :, 0])
    assert image.get_extent() == [-0.5, 1.5, 4499.5, -0.5]


def test_values_are_physical(made):
    session = made.archive["s0"].assign_attrs(scale=1e-4, offset=-0.5, quantity="reflectance")
    ax = hb.plots.band(session, 2)
    expected = session.cube.values[0, ..., 2] * 1e-4 - 0.5
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    assert ax.images[0].colorbar.ax.get_ylabel() == "reflectance"
    line = hb.plots.spectra(session).lines[0]
    mean = pixels_of(made.archive, ["s0"]).mean(axis=0)
    np.testing.assert_allclose(line.get_ydata(), mean * 1e-4 - 0.5)


def test_matrices_and_eigenvalues(made):
    pixels = pixels_of(made.archive)
    with counting(made.client, made.archive.path) as counts:
        ax = hb.plots.covariance(made.archive)
        correlation = hb.plots.correlation(made.archive)
        spectrum = hb.plots.eigen_spectrum(made.archive)
        hb.plots.eigen_spectrum(made.pipeline, ax=spectrum)
        node = hb.plots.covariance(made.pipeline, node="rx")
    assert not counts
    np.testing.assert_allclose(ax.collections[0].get_array(), np.cov(pixels.T), rtol=1e-9)
    np.testing.assert_allclose(
        correlation.collections[0].get_array(), np.corrcoef(pixels.T), atol=1e-12
    )
    values = np.linalg.eigvalsh(np.cov(pixels.T))[::-1]
    np.testing.assert_allclose(spectrum.lines[0].get_ydata(), values, rtol=1e-7)
    said = spectrum.get_legend().texts[0].get_text()
    assert said.endswith(f"rank 8 of 8, condition {values[0] / values[-1]:.3g}")
    assert len(spectrum.lines) == 2
    assert spectrum.lines[0].get_color() != spectrum.lines[1].get_color()
    # What RX sees: scaled to 0..1 by one range of all channels, and weighted.
    fitted = pixels_of(made.archive, ["s0", "s1"])
    scaled = (fitted - fitted.min()) / np.ptp(fitted)
    weights = made.pipeline.nodes["selector"].get_selection_weights().numpy().astype(np.float64)
    np.testing.assert_allclose(
        node.collections[0].get_array(), np.cov((scaled * weights).T), rtol=1e-5
    )
    with pytest.raises(ConfigError, match=r"norm.*has no covariance; nodes that have one: .*rx"):
        hb.plots.covariance(made.pipeline, node="norm")


def test_a_lost_dimension_is_marked():
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(20, 20, 4))
    cube[..., 3] = cube[..., 0] + cube[..., 1]
    ax = hb.plots.eigen_spectrum(xr.DataArray(cube, dims=["y", "x", "channel"]))
    assert "rank 3 of 4" in ax.get_legend().texts[0].get_text()
    assert ax.lines[1].get_xdata() == [3.5, 3.5]
    assert to_rgba(ax.lines[1].get_color()) == to_rgba(ax.lines[0].get_color())
