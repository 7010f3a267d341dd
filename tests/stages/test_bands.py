"""Bands and physical values: every option without a pass, and what the nodes see is right."""

import numpy as np
import pytest
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.errors import ConfigError
from hsi_batch.nodes import CU3SDataNode, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.bands import kept_by
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.mask import mask
from hsi_batch.stages.score import score

LINES, SAMPLES, BANDS = 24, 20, 8
NM = np.array([400, 700, 1000, 1360, 1400, 1600, 1850, 2200], dtype=float)


def pipeline(eps=1e-4):
    made = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=eps)
    made.connect((data.outputs.cube, rx.data))
    return made


def distances(pixels, eps=1e-4):
    flat = pixels.reshape(-1, pixels.shape[-1]).astype(float)
    centred = flat - flat.mean(0)
    covariance = centred.T @ centred / (len(flat) - 1) + eps * np.eye(flat.shape[1])
    values = np.einsum("ij,ij->i", centred, np.linalg.solve(covariance, centred.T).T)
    return values.reshape(pixels.shape[:-1])


@pytest.fixture(scope="module", name="cube")
def cube_fixture():
    rng = np.random.default_rng(5)
    cube = rng.integers(500, 4000, (LINES, SAMPLES, BANDS)).astype(np.int16)
    cube[..., 4] = 7  # a zeroed water band
    return cube


@pytest.fixture(scope="module", name="archive")
def archive_fixture(cube, tmp_path_factory, client):
    folder = tmp_path_factory.mktemp("bands")
    fields = {
        "wavelength": "{" + ", ".join(f"{nm / 1000:g}" for nm in NM) + "}",
        "wavelength_units": "Micrometers",
        "reflectance_scale_factor": 10000,
    }
    write_envi(folder, cube, name="scene", bbl="{1, 1, 0, 1, 1, 1, 1, 1}", **fields)
    loose = cube.astype(np.float32) / 10000
    loose[..., 2] = np.nan
    write_envi(folder, loose, name="loose", bbl="{1, 1, 0, 1, 1, 1, 1, 1}",
               **{**fields, "reflectance_scale_factor": None})  # fmt: skip
    write_envi(folder, cube, name="nameless", wavelength="{1,2,3,4,5,6,7,8}",
               wavelength_units="Unknown")  # fmt: skip
    result = convert(folder, folder / "a.zarr", client=client)
    assert not result.failed
    return folder / "a.zarr"


def scored(made, archive, name, folder, client):
    score(made, archive, folder / "s.zarr", frames=name, client=client)
    import xarray as xr

    return xr.open_zarr(folder / "s.zarr", group=name).scores[0].values


CASES = {
    "default": ({"exclude_bands": "constant"}, [0, 1, 3, 5, 6, 7], 1e-4),
    "all": ({"bands": "all", "exclude_bands": "constant"}, [0, 1, 2, 3, 5, 6, 7], 1e-4),
    "water": ({"exclude_bands": "water"}, [0, 1, 5, 7], 1e-4),
    "nm": ({"exclude_bands": "1350-1450,1800-1950nm"}, [0, 1, 5, 7], 1e-4),
    "um": ({"bands": "0.4-1.1,2.2um"}, [0, 1, 2, 7], 1e-4),
    "numbers": ({"bands": "0,5-7"}, [0, 5, 6, 7], 1e-4),
    "raw": ({"raw_values": True, "exclude_bands": "4"}, [0, 1, 3, 5, 6, 7], 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_each_choice_takes_no_pass_and_gives_the_distances_of_its_bands(
    cube, archive, tmp_path, client, case
):
    options, channels, scale = CASES[case]
    made = pipeline()
    result = fit(made, archive, frames="scene", client=client, **options)
    assert result.passes == 0
    seen = made.nodes["rx"].axes["data"]
    np.testing.assert_allclose(seen.wavelength, NM[channels])
    expected = distances(cube[..., channels] * scale)
    made.save(tmp_path / "fitted.yaml")
    again = Pipeline.from_yaml(tmp_path / "fitted.yaml")
    found = scored(again, archive, "scene", tmp_path, client)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    lazy = again.apply(open_archive(archive)["scene"].cube).values[0]
    np.testing.assert_array_equal(lazy, found)


def test_a_bad_band_that_is_no_number_spoils_nothing(cube, archive, tmp_path, client):
    made = pipeline()
    result = fit(made, archive, frames="loose", exclude_bands="constant", client=client)
    assert (result.passes, result.pixels) == (0, LINES * SAMPLES)
    expected = distances(cube[..., [0, 1, 3, 5, 6, 7]].astype(np.float32) / np.float32(10000))
    found = scored(made, archive, "loose", tmp_path, client)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_an_array_is_fitted_as_its_session(archive, client):
    made, other = pipeline(), pipeline()
    fit(made, archive, frames="scene", exclude_bands="1360-1400nm", client=client)
    fit(other, open_archive(archive)["scene"].cube, exclude_bands="1360-1400nm", client=client)
    assert made.nodes["data"].hparams == other.nodes["data"].hparams
    assert made.nodes["data"].hparams == {"channels": "0-1,5-7", "scale": 1e-4}
    np.testing.assert_allclose(made.nodes["rx"].cov, other.nodes["rx"].cov, rtol=1e-6)


def test_a_batch_in_memory_is_seen_as_stored_ones_are(cube, archive, client):
    import torch

    made = pipeline()
    fit(made, archive, frames="scene", exclude_bands="constant", client=client)
    batch = {"cube": torch.from_numpy(cube.astype(np.int32))[None]}
    found = next(v for ref, v in made.forward(batch).items() if ref.port == "scores")
    expected = distances(cube[..., [0, 1, 3, 5, 6, 7]] * 1e-4)
    np.testing.assert_allclose(found[0, ..., 0].numpy(), expected, rtol=2e-3)


def test_other_numbers_than_those_of_the_fit_are_not_scored(archive, tmp_path, client):
    made = pipeline()
    fit(made, archive, frames="scene", exclude_bands="constant", client=client)
    with pytest.raises(ConfigError, match=r"session loose differs in quantity.*convert these"):
        scored(made, archive, "loose", tmp_path, client)


@pytest.mark.parametrize(
    ("frames", "options", "said"),
    [
        ("scene", {"bands": "god"}, "450-900nm"),
        ("scene", {"exclude_bands": "1350-1450"}, "with their unit: 1350-1450nm"),
        ("scene", {"exclude_bands": "900-400nm"}, "lower end first"),
        ("scene", {"exclude_bands": "0-7"}, "no band is left of 8"),
        ("nameless", {"exclude_bands": "water"}, "none in known units.*wavelength units"),
        ("nameless", {"bands": "400-900nm"}, "none in known units.*by number"),
        ("scene[0][y=0:9]", {"exclude_bands": "constant"}, "whole frames"),
    ],
)
def test_wrong_bands_are_refused_with_the_remedy(archive, client, frames, options, said):
    with pytest.raises(ConfigError, match=said):
        fit(pipeline(), archive, frames=frames, client=client, **options)


def test_wavelengths_in_unknown_units_are_none(archive, client):
    with pytest.raises(ConfigError, match=r"no wavelengths in known units.*band\(12\)"):
        mask(archive, "m", "b(800) > 1", frames="nameless", client=client)
    assert "wavelength" not in open_archive(archive)["nameless"]


def test_a_unit_holds_for_the_ranges_before_it():
    from hsi_batch.nodes import ChannelAxis

    assert kept_by("400,1000-1400nm", ChannelAxis.of(NM)).tolist() == [1, 0, 1, 1, 1, 0, 0, 0]
