"""Sensors that differ a little, and targets in other units than the data."""

import numpy as np
import pytest
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.errors import ConfigError
from hsi_batch.nodes import CEM, CU3SDataNode, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.score import score

BANDS = 6
NM = np.linspace(500, 550, BANDS)


def pipeline():
    made = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    made.connect((data.outputs.cube, rx.data))
    return made


def write(folder, name, nm, sensor, seed, **fields):
    cube = np.random.default_rng(seed).integers(100, 4000, (20, 16, BANDS)).astype(np.uint16)
    units = {"wavelength": "{" + ", ".join(f"{x:.3f}" for x in nm) + "}", "wavelength_units": "nm"}
    write_envi(folder, cube, name=name, **units, sensor_type=sensor, **fields)


@pytest.fixture(scope="module", name="archive")
def archive_fixture(tmp_path_factory, client):
    folder = tmp_path_factory.mktemp("sensors")
    write(folder, "a1", NM, "FX10", 1)
    write(folder, "a2", NM, "FX10", 2)
    write(folder, "b1", NM + 0.4, "FX10e", 3)
    write(folder, "far", NM + 4, "other", 4)
    write(folder, "refl", NM, "FX10", 5, reflectance_scale_factor=10000)
    convert(folder, folder / "a.zarr", client=client)
    return folder / "a.zarr"


def test_beyond_the_tolerance_sessions_are_grouped_with_the_ways_out(archive, client):
    with pytest.raises(ConfigError) as error:
        fit(pipeline(), archive, frames="a1,a2,b1", client=client)
    said = str(error.value)
    assert "wavelengths differ by up to 0.4 nm, the tolerance is 0.01 nm" in said
    assert "a1, a2 (6 channels, uint16, 500..550 nm, FX10)" in said
    for way in (
        "--background sensor",
        "--wavelength-tolerance 0.4",
        "SpectralResample",
        "--frames",
    ):
        assert way in said
    with pytest.raises(ConfigError, match=r"up to 4 nm") as error:
        fit(pipeline(), archive, frames="a1,far", background="sensor", client=client)
    assert "--background" not in str(error.value)


def test_a_tolerance_counts_them_as_equal_and_says_so(archive, tmp_path, client):
    made = pipeline()
    result = fit(made, archive, frames="a1,a2,b1", wavelength_tolerance=0.5, client=client)
    assert result.passes == 0
    assert "up to 0.4 nm apart count as equal" in str(result)
    made.save(tmp_path / "p.yaml")
    again = Pipeline.from_yaml(tmp_path / "p.yaml")
    assert score(again, archive, tmp_path / "s.zarr", frames="b1", client=client).blocks == 1
    strict = pipeline()
    fit(strict, archive, frames="a1,a2", client=client)
    with pytest.raises(ConfigError, match="does not have the channels"):
        score(strict, archive, tmp_path / "t.zarr", frames="b1", client=client)
    with pytest.raises(ConfigError, match="must be 0 or more"):
        fit(pipeline(), archive, frames="a1", wavelength_tolerance=-1, client=client)


@pytest.mark.parametrize("by", ["sensor", "session"])
def test_backgrounds_of_sensors_are_those_of_fits_by_themselves(archive, tmp_path, client, by):
    source = tmp_path / "rx.yaml"
    pipeline().save(source)
    source.with_suffix(".pt").unlink(missing_ok=True)
    options = {"background": by, "client": client}
    result = fit_file(source, archive, tmp_path / "f.yaml", frames="a1,a2,b1", **options)
    assert (result.passes, result.groups) == (0, 2 if by == "sensor" else 3)
    again = fit_file(source, archive, tmp_path / "f.yaml", frames="a1,a2,b1", **options)
    assert again.up_to_date
    made = Pipeline.from_yaml(tmp_path / "f.yaml")
    score(made, archive, tmp_path / "s.zarr", frames="a1,a2,b1", client=client)
    alone = pipeline()
    fit(alone, archive, frames="b1", client=client)
    score(alone, archive, tmp_path / "alone.zarr", frames="b1", client=client)
    import zarr

    found, known = (zarr.open_group(tmp_path / s)["b1/scores"][:] for s in ("s.zarr", "alone.zarr"))
    np.testing.assert_array_equal(found, known)
    cube = open_archive(archive)["b1"].cube
    group = "FX10e" if by == "sensor" else "b1"
    np.testing.assert_array_equal(made.apply(cube, group=group).values, known)


def matched(library):
    made = Pipeline("cem")
    data, cem = CU3SDataNode(name="data"), CEM(name="cem", library=str(library))
    made.connect((data.outputs.cube, cem.data))
    return made


def test_targets_in_reflectance_are_not_looked_for_in_counts(archive, tmp_path, client):
    library = tmp_path / "targets.csv"
    rows = "\n".join(f"{nm:g},{0.1 + 0.01 * i}" for i, nm in enumerate(NM))
    library.write_text(f"# quantity: reflectance\nwavelength,grass\n{rows}\n")
    found = fit(matched(library), archive, frames="refl", client=client)
    assert found.passes == 0
    with pytest.raises(ConfigError, match=r"nodes see stored values.*--physical-values"):
        fit(matched(library), archive, frames="refl", raw_values=True, client=client)
    write(tmp_path, "counts", NM, "FX10", 6, data_units="DN")
    convert(tmp_path / "counts.hdr", tmp_path / "c.zarr", client=client)
    with pytest.raises(ConfigError, match=r"recordings hold dn.*--white"):
        fit(matched(library), tmp_path / "c.zarr", client=client)
