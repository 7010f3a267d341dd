"""Wavelengths of every column (smile): kept, refused where they do not fit, resampled by column."""

import math

import numpy as np
import pytest
import zarr
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.errors import ConfigError, PlanError
from hsi_batch.nodes import CU3SDataNode, RXGlobal, SpectralResample
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

LINES, SAMPLES, BANDS = 70, 24, 30
NM = np.linspace(500, 790, BANDS)
#: Smile: up to 6 nm at the edges, and another dispersion there.
BENT = NM + 6 * np.linspace(-1, 1, SAMPLES)[:, None] ** 2 * (1 + 0.1 * np.linspace(0, 1, BANDS))
TARGET = [540.0, 600.0, 655.0, 720.0]
FWHM = 18.0


def spectrum(nm):
    return 0.4 + 0.2 * np.sin(nm / 25.0) + 0.1 * np.exp(-(((nm - 660) / 12) ** 2))


def resampled(values, nm):
    """One column, by the formula of the docstring with loops."""
    middles = (nm[:-1] + nm[1:]) / 2
    edges = [2 * nm[0] - middles[0], *middles, 2 * nm[-1] - middles[-1]]
    sigma = FWHM / (2 * math.sqrt(2 * math.log(2)))
    out = []
    for centre in TARGET:
        below = [0.5 * (1 + math.erf((e - centre) / sigma / math.sqrt(2))) for e in edges]
        weights = np.diff(below)
        out.append(values @ weights / weights.sum())
    return np.stack(out, axis=-1)


@pytest.fixture(scope="module", name="made")
def made_fixture(tmp_path_factory, client):
    folder = tmp_path_factory.mktemp("smile")
    rng = np.random.default_rng(1)
    level = rng.uniform(0.5, 1.5, (LINES, 1, 1))
    cube = (level * spectrum(BENT) + rng.normal(0, 1e-3, (LINES, SAMPLES, BANDS))).astype("f4")
    fields = {
        "wavelength": "{" + ",".join(f"{nm:.6f}" for nm in NM) + "}",
        "wavelength_units": "nm",
    }
    write_envi(folder, cube, name="bent", **fields)
    np.savetxt(folder / "map.csv", BENT, delimiter=",", fmt="%.17g")
    convert(
        folder / "bent.hdr", folder / "a.zarr", wavelength_map=folder / "map.csv", client=client
    )
    return folder, cube, fields


def pipeline(*more):
    made = Pipeline("p")
    data, even = CU3SDataNode(name="data"), SpectralResample(TARGET, FWHM, name="even")
    made.connect((data.outputs.cube, even.inputs.cube))
    for node in more:
        made.connect((even.outputs.cube, node.inputs.data))
    return made


def test_each_column_is_resampled_from_its_own_wavelengths(made, tmp_path, client):
    folder, cube, _ = made
    store = folder / "a.zarr"
    dataset = open_archive(store)["bent"]
    assert dataset.wavelength_map.dims == ("x", "channel")
    np.testing.assert_array_equal(dataset.wavelength_map, BENT)
    known = np.stack(
        [resampled(cube[:, x].astype(np.float64), BENT[x]) for x in range(SAMPLES)], axis=1
    )
    result = fit(p := pipeline(RXGlobal(name="rx", eps=0.0)), store, client=client)
    # No map of all pixels is affine, so the statistics are those of a pass.
    assert result.passes == 1
    p.save(tmp_path / "p.yaml")
    again = Pipeline.from_yaml(tmp_path / "p.yaml")
    score(again, store, tmp_path / "s.zarr", outputs=["even.cube", "scores"], client=client)
    found = zarr.open_group(tmp_path / "s.zarr", mode="r")["bent"]
    np.testing.assert_allclose(found["even.cube"][0], known, rtol=1e-6)
    flat = known.reshape(-1, len(TARGET))
    np.testing.assert_allclose(p.nodes["rx"].state["mean"], flat.mean(0), rtol=1e-7)
    lazy = again.apply(dataset.cube).compute()
    np.testing.assert_array_equal(lazy[0], found["scores"][0])
    # Taken for one camera without smile, the columns differ by more than the noise.
    plain = np.stack([resampled(cube[:, x].astype(float), NM) for x in range(SAMPLES)], axis=1)

    def bend(values):
        ratio = values[..., 2] / values[..., 0]
        return np.abs(ratio.mean(0) / ratio.mean() - 1).max()

    assert bend(plain) > 5 * bend(known)


def test_without_stated_wavelengths_they_are_the_mean_of_the_map(made, tmp_path, client):
    _, cube, _ = made
    header = write_envi(tmp_path, cube, name="bare")
    np.save(tmp_path / "map.npy", BENT)
    convert(header, tmp_path / "a.zarr", wavelength_map=tmp_path / "map.npy", client=client)
    found = open_archive(tmp_path / "a.zarr")["bare"]
    np.testing.assert_allclose(found.wavelength, BENT.mean(0), rtol=1e-14)
    envi = write_envi(tmp_path, BENT[None], name="smile", interleave="bip")
    cropped = convert(
        header, tmp_path / "b.zarr", wavelength_map=envi, crop="0,0,2,3", client=client
    )
    assert cropped.failed == 0
    found = open_archive(tmp_path / "b.zarr")["bare"]
    np.testing.assert_array_equal(found.wavelength_map, BENT[2:-3])


def test_maps_that_do_not_fit_are_refused_with_the_remedy(made, tmp_path, client):
    _, cube, fields = made
    header = write_envi(tmp_path, cube, name="bent", **fields)

    def broken(values):
        np.savetxt(tmp_path / "map.txt", values)
        store = tmp_path / "a.zarr"
        result = convert(header, store, wavelength_map=tmp_path / "map.txt", client=client)
        return dict(result.broken)[header]

    assert "23 x 30 values; the recording has 24 columns x 30 bands" in broken(BENT[1:])
    assert "Give the map of this camera, in nm" in broken(BENT / 1000)
    assert "no wavelengths" in broken(np.where(BENT < 600, np.nan, BENT))
    (tmp_path / "map.txt").write_text("no numbers")
    result = convert(
        header, tmp_path / "a.zarr", wavelength_map=tmp_path / "map.txt", client=client
    )
    assert "no table of numbers" in dict(result.broken)[header]
    with pytest.raises(ConfigError, match="no such wavelength map"):
        convert(header, tmp_path / "a.zarr", wavelength_map="gone.csv", client=client)


def test_sessions_of_other_columns_are_refused(made, tmp_path, client):
    folder, cube, fields = made
    write_envi(tmp_path, cube[:, :20], name="narrow", **fields)
    write_envi(tmp_path, cube, name="other", **fields)
    np.savetxt(tmp_path / "map.csv", BENT + 1.0, delimiter=",")
    store = tmp_path / "a.zarr"
    for source, given in (
        (folder / "bent.hdr", folder / "map.csv"),
        (tmp_path / "other.hdr", tmp_path / "map.csv"),
        (tmp_path / "narrow.hdr", None),
    ):
        convert(source, store, wavelength_map=given, client=client)
    with pytest.raises(PlanError, match=r"differ by up to 1 nm"):
        fit(pipeline(RXGlobal()), store, frames="bent,other", client=client)
    with pytest.raises(PlanError, match=r"narrow has lines of 20 columns.*wavelengths of 24"):
        fit(pipeline(RXGlobal()), store, frames="bent,narrow", client=client)
