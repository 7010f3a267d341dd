"""The same pixels through npz, ENVI and the real cuvis wrapper give the same archive."""

import numpy as np
import pytest
import xarray as xr
from recordings import scene, write_cu3s, write_envi, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.stages.convert import convert

ARRAYS = (
    "cube",
    "label",
    "moments",
    "moments_normal",
    "extrema",
    "extrema_normal",
    "sample",
    "checksum",
)


def three_routes(folder, cube, mask, wavelength):
    write_npz(folder / "npz" / "s.npz", cube, wavelength=wavelength, mask=mask)
    for interleave in ("bil", "bip", "bsq"):
        write_envi(
            folder / interleave / "s.hdr",
            cube,
            wavelength=wavelength,
            mask=mask,
            interleave=interleave,
        )
    write_cu3s(
        folder / "cu3s" / "s.cu3s",
        [cube],
        masks=[mask],
        wavelength=None if wavelength is None else [int(w) for w in wavelength],
    )
    return ("npz", "bil", "bip", "bsq", "cu3s")


def assert_same(folder, routes, client):
    for route in routes:
        result = convert(folder / route, folder / f"{route}.zarr", client=client)
        assert result.failed == 0, result.broken
    first, *others = (xr.open_zarr(folder / f"{route}.zarr", group="s").load() for route in routes)
    for route, other in zip(routes[1:], others, strict=True):
        for name in ARRAYS:
            assert first[name].dtype == other[name].dtype, (route, name)
            np.testing.assert_array_equal(first[name].values, other[name].values, f"{route} {name}")
        assert ("wavelength" in first.coords) == ("wavelength" in other.coords)
        if "wavelength" in first.coords:
            np.testing.assert_array_equal(first.wavelength, other.wavelength)
    chunks = []
    for route in routes:
        cube = folder / f"{route}.zarr" / "s" / "cube"
        chunks.append({p.name: p.read_bytes() for p in cube.glob("c.*")})
    assert all(chunk == chunks[0] for chunk in chunks[1:])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_synthetic_scenes(tmp_path, client, dtype):
    cube, mask = scene(5, lines=60, samples=50, dtype=dtype, scale=100)
    nm = np.arange(8) * 20.0 + 450
    assert_same(tmp_path, three_routes(tmp_path, cube, mask, nm), client)


@pytest.mark.parametrize(
    "name", ["abu-airport-1", "abu-airport-3", "hydice-urban", "envi-lhdata-100"]
)
def test_real_scenes(tmp_path, client, shared_data, name):
    with np.load(shared_data / f"{name}.npz") as file:
        cube, mask = file["cube"], file["mask"]
    if cube.dtype == np.int16:
        # The SDK has no signed integers; its float32 holds them exactly.
        cube = cube.astype(np.float32)
    assert_same(tmp_path, three_routes(tmp_path, cube, mask, None), client)


def test_the_shared_envi_recording_equals_its_npz(tmp_path, client, shared_data):
    convert(
        [shared_data / "envi" / "LHData.hdr", shared_data / "envi-lhdata-100.npz"],
        tmp_path / "a.zarr",
        client=client,
    )
    archive = open_archive(tmp_path / "a.zarr")
    first, second = (archive[name] for name in sorted(archive))
    np.testing.assert_array_equal(first.cube.values, second.cube.values)
    np.testing.assert_array_equal(first.label.values, second.label.values)
    np.testing.assert_allclose(first.wavelength, second.wavelength)
