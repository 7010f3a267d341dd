"""The xarray engines: lazy, no more read than asked for, the same in every process."""

import io
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from readers.envi_files import bytes_read, random_cube, write_envi

from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.readers import handles
from hsi_batch.readers.engines import LazyCube
from hsi_batch.readers.handles import SourceHandle

CUBE = random_cube((12, 6, 5), "u2")


def save(path, cube, how="lines", **arrays):
    if how == "frame":
        cube = np.asfortranarray(cube)
    (np.savez_compressed if how == "sequential" else np.savez)(path, cube=cube, **arrays)
    return str(path)


def open_envi(folder, cube=CUBE, chunks=None, **extra):
    return xr.open_dataset(write_envi(folder, cube, **extra), engine="envi_hsi", chunks=chunks)


# --- what is in the dataset ---------------------------------------------------------------------


def test_a_dataset(tmp_path):
    extra = {"wavelength": "{0.4, 0.5, 0.6, 0.7, 0.8}", "wavelength_units": "um"}
    extra |= {"fwhm": "{0.01, 0.01, 0.01, 0.01, 0.01}", "bbl": "{1, 1, 0, 1, 1}"}
    extra |= {"data_ignore_value": "0", "reflectance_scale_factor": "1e4", "sensor_type": "FX17"}
    with open_envi(tmp_path, **extra) as dataset:
        assert dict(dataset.sizes) == {"frame": 1, "y": 12, "x": 6, "channel": 5}
        assert set(dataset.coords) == {"wavelength", "fwhm", "good_band"}
        np.testing.assert_allclose(dataset.wavelength, [400, 500, 600, 700, 800])
        assert dataset.wavelength.attrs["units"] == dataset.fwhm.attrs["units"] == "nm"
        assert dataset.good_band.values.tolist() == [True, True, False, True, True]
        assert dataset.cube.dtype == np.uint16
        assert np.array_equal(dataset.cube[0], CUBE)
        attrs = json.loads(json.dumps(dataset.attrs))
    assert attrs == dataset.attrs
    assert attrs["metadata"]["sensor type"] == attrs["sensor"] == "FX17"
    expected = {
        "reader": "envi",
        "quantity": "reflectance",
        "scale": 1e-4,
        "offset": 0,
        "nodata": 0,
    }
    assert expected.items() <= attrs.items()
    assert not {"mode", "saturation"} & set(attrs)


def test_nothing_is_invented(tmp_path):
    with open_envi(tmp_path) as dataset:
        assert not dataset.coords
        assert not {"sensor", "nodata", "quantity"} & set(dataset.attrs)


def test_npz_with_several_frames(tmp_path):
    cubes = random_cube((3, 4, 3, 2), "f4")
    path = save(tmp_path / "a.npz", cubes, wavelengths=[500, 600])
    with xr.open_dataset(path, engine="npz_hsi") as dataset:
        assert dataset.cube.dims == ("frame", "y", "x", "channel")
        assert np.array_equal(dataset.cube, cubes)
        assert dataset.swap_dims(channel="wavelength").sel(wavelength=600).cube.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        ("cube", {"wavelength"}),
        (["wavelength"], {"cube"}),
        (("cube", "wavelength", "other"), set()),
        ([], {"cube", "wavelength"}),
    ],
)
def test_dropped_variables(tmp_path, dropped, left):
    path = save(tmp_path / "a.npz", CUBE, wavelengths=[1, 2, 3, 4, 5])
    with xr.open_dataset(path, engine="npz_hsi", drop_variables=dropped) as dataset:
        assert set(dataset.variables) == left


# --- which engine -------------------------------------------------------------------------------


def test_the_engine_is_guessed(tmp_path):
    header = write_envi(tmp_path, CUBE, name="UPPER")
    Path(header).rename(tmp_path / "UPPER.HDR")
    for path in (
        write_envi(tmp_path, CUBE),
        tmp_path / "UPPER.HDR",
        save(tmp_path / "a.npz", CUBE),
    ):
        with xr.open_dataset(path) as dataset:
            assert np.array_equal(dataset.cube[0], CUBE)


def test_only_envi_headers_are_guessed(tmp_path):
    engine = xr.backends.list_engines()["envi_hsi"]
    for content, guess in ((b"ENVI\n", True), (b"\xef\xbb\xbfENVI", True), (b"NROWS 5", False)):
        (tmp_path / "a.hdr").write_bytes(content)
        assert engine.guess_can_open(str(tmp_path / "a.hdr")) == guess
    assert not engine.guess_can_open(tmp_path / "missing.hdr")
    assert not engine.guess_can_open(tmp_path / "a.npz")
    assert not engine.guess_can_open(5)


def test_engines_are_listed():
    engines = xr.backends.list_engines()
    for name, suffix in (("cu3s", "cu3s"), ("envi_hsi", "hdr"), ("npz_hsi", "npz")):
        assert "hsi_batch" in repr(engines[name])
        if suffix != "hdr":
            assert engines[name].guess_can_open(f"a.{suffix.upper()}")


def test_what_an_engine_refuses(tmp_path):
    path = save(tmp_path / "a.npz", CUBE)
    with pytest.raises(ConfigError, match=r"opens .hdr files; this is '.npz'. Name the file"):
        xr.open_dataset(path, engine="envi_hsi")
    with pytest.raises(ConfigError, match=r"opens files by name; it was given a BytesIO"):
        xr.open_dataset(io.BytesIO(b""), engine="npz_hsi")
    with pytest.raises(TypeError, match="mode"):
        xr.open_dataset(path, engine="npz_hsi", mode="Raw")
    with pytest.raises(SourceError, match="no such file"):
        xr.open_dataset(tmp_path / "b.npz", engine="npz_hsi")


# --- indexing -----------------------------------------------------------------------------------


def indexers(size):
    whole = st.integers(-size, size - 1)
    return st.one_of(
        whole,
        # xarray itself fails on an empty slice that runs backwards.
        st.slices(size).filter(lambda s: (s.step or 1) > 0 or len(range(*s.indices(size)))),
        st.lists(whole, max_size=5).map(lambda v: np.array(v, int)),
    )


keys = st.tuples(indexers(3), indexers(12), indexers(6), indexers(5))


@settings(deadline=None, max_examples=200)
@given(keys, st.sampled_from(["lines", "sequential", "frame"]))
def test_any_outer_index(tmp_path_factory, key, how):
    cubes = random_cube((3, 12, 6, 5), "u2", 4)
    path = tmp_path_factory.getbasetemp() / f"outer-{how}.npz"
    if not path.exists():
        save(path, cubes, how)
    with xr.open_dataset(path, engine="npz_hsi") as dataset:
        dims = dataset.cube.dims
        expected = xr.DataArray(cubes, dims=dims)[key]
        found = dataset.cube[key]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
        if 0 not in expected.shape:  # an index on what is still lazy
            turned = xr.DataArray(cubes, dims=dims)[:, ::-1][key]
            np.testing.assert_array_equal(dataset.cube[:, ::-1][key], turned)


@pytest.mark.parametrize("how", ["lines", "sequential", "frame"])
def test_pointwise_and_boolean_indexing(tmp_path, how):
    cubes = random_cube((3, 12, 6, 5), "u2")
    with xr.open_dataset(save(tmp_path / "a.npz", cubes, how), engine="npz_hsi") as dataset:
        points = {"frame": [2, 0, 2], "y": [11, 3, 0], "x": [0, 5, 2]}
        pointwise = {dim: xr.DataArray(values, dims="point") for dim, values in points.items()}
        assert np.array_equal(dataset.cube.isel(pointwise), cubes[tuple(points.values())])
        chosen = np.arange(12) % 3 == 0
        assert np.array_equal(dataset.cube[:, chosen], cubes[:, chosen])


def test_lines_in_any_order_and_more_than_once(tmp_path):
    # xarray sorts indexers before it asks; others may not.
    handle = SourceHandle(save(tmp_path / "a.npz", CUBE, "sequential"))
    lines, channels = np.array([7, 3, 7, 4, 0]), np.array([4, 1, 1])
    found = LazyCube(handle, handle.info)._read((0, lines, slice(None, None, -2), channels))
    handle.close()
    assert np.array_equal(found, CUBE[lines][:, ::-2][:, :, channels])


def test_more_lines_than_a_block(tmp_path):
    cube = random_cube((700, 500, 50), "u2")  # 35 MB
    with open_envi(tmp_path, cube) as dataset:
        assert np.array_equal(dataset.cube[0, :, 3, 7], cube[:, 3, 7])
        assert np.array_equal(dataset.cube[0, ::-1, ::99, 4:6], cube[::-1, ::99, 4:6])
        assert np.array_equal(dataset.cube[0, 100:690], cube[100:690])


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ((0, slice(70, 80)), 10),
        ((0, 70), 1),
        ((slice(None), slice(70, 80), 3, [1, 2]), 10),
        ((0, [150, 3, 150]), 2),
        ((0, slice(0, 200, 50)), 4),
        ((0, slice(0, 0)), 0),
    ],
)
def test_no_more_lines_are_read_than_needed(tmp_path, key, lines):
    with open_envi(tmp_path, random_cube((200, 50, 40), "u2"), interleave="bil") as dataset:
        before = bytes_read()
        dataset.cube[key].load()
        count = bytes_read() - before
    assert lines * 50 * 40 * 2 <= count < lines * 50 * 40 * 2 + 2000


def test_opening_reads_no_pixels(tmp_path):
    header = write_envi(tmp_path, random_cube((2000, 50, 40), "u2"))
    with xr.open_dataset(header, engine="envi_hsi"):
        pass
    before = bytes_read()
    with xr.open_dataset(header, engine="envi_hsi", chunks={}) as dataset:
        dataset.cube[0, 5:9].mean("x")
        assert bytes_read() - before < 100_000  # of 8 MB


# --- dask ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((12, 6, 5), (12,)),
        ((400, 500, 50), (200, 200)),  # 20 MB
        ((700, 500, 50), (234, 234, 232)),  # 35 MB
        ((3, 1000, 9000), (1, 1, 1)),  # 18 MB a line
    ],
)
def test_chunks_are_blocks_of_whole_lines(tmp_path, shape, chunks):
    lines, samples, bands = shape
    header = write_envi(
        tmp_path, np.zeros((1, 1, 1), "u2"), lines=lines, samples=samples, bands=bands
    )
    with (tmp_path / "scene.raw").open("r+b") as file:
        file.truncate(lines * samples * bands * 2)
    with xr.open_dataset(header, engine="envi_hsi", chunks={}) as dataset:
        assert dataset.cube.chunks == ((1,), chunks, (samples,), (bands,))


@pytest.mark.parametrize("how", ["sequential", "frame"])
def test_chunks_are_whole_frames_where_lines_cannot_be_had(tmp_path, how):
    path = save(tmp_path / "a.npz", np.zeros((2, 400, 500, 50), "u2"), how)  # 20 MB a frame
    with xr.open_dataset(path, engine="npz_hsi", chunks={}) as dataset:
        assert dataset.cube.chunks == ((1, 1), (400,), (500,), (50,))


@pytest.mark.parametrize("how", ["lines", "sequential", "frame"])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_dask_computes_the_same(tmp_path, how, scheduler):
    cubes = random_cube((3, 12, 6, 5), "u2")
    path = save(tmp_path / "a.npz", cubes, how)
    with xr.open_dataset(path, engine="npz_hsi", chunks={"y": 5}) as dataset:
        total = dataset.cube.astype("u8").sum().compute(scheduler=scheduler)
        assert total == cubes.astype("u8").sum()
        assert np.array_equal(dataset.cube.compute(scheduler=scheduler), cubes)


def test_a_round_trip_through_zarr(tmp_path):
    with open_envi(tmp_path, chunks={}, bbl="{1, 1, 0, 1, 1}") as dataset:
        dataset.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
        with xr.open_zarr(tmp_path / "a.zarr", consolidated=False) as stored:
            assert stored.identical(dataset)


# --- processes, threads, files ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lines", "sequential", "frame"])
def test_a_pickle_is_small_and_reads_the_same(tmp_path, how):
    cubes = random_cube((2, 120, 60, 5), "u2")
    path = save(tmp_path / "a.npz", cubes, how)
    with xr.open_dataset(path, engine="npz_hsi") as dataset:
        dataset.cube[1, 3:5].load()
        content = pickle.dumps(dataset)
    assert len(content) < 5000
    copy = pickle.loads(content)
    assert np.array_equal(copy.cube[1, 3:7], cubes[1, 3:7])
    copy.close()


def test_another_process_reads_a_pickle(tmp_path):
    with open_envi(tmp_path) as dataset:
        (tmp_path / "a.pickle").write_bytes(pickle.dumps(dataset.cube))
    code = "import pickle, sys; print(int(pickle.load(open(sys.argv[1], 'rb')).sum()))"
    command = [sys.executable, "-c", code, str(tmp_path / "a.pickle")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) == CUBE.sum()


@pytest.mark.parametrize("how", ["lines", "sequential", "frame"])
def test_threads_share_a_dataset(tmp_path, how):
    cubes = random_cube((2, 40, 6, 5), "u2")
    path = save(tmp_path / "a.npz", cubes, how)
    places = [(f, y) for y in range(40) for f in (0, 1)]
    with xr.open_dataset(path, engine="npz_hsi") as dataset, ThreadPoolExecutor(8) as pool:
        for place, line in zip(
            places, pool.map(lambda place: dataset.cube[place].values, places), strict=True
        ):
            assert np.array_equal(line, cubes[place])


def open_files(folder):
    links = (link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return [str(path) for path in links if path.is_relative_to(folder)]


def test_closing_the_dataset_closes_the_file(tmp_path):
    dataset = open_envi(tmp_path)
    dataset.cube[0, 0].load()
    assert open_files(tmp_path)
    dataset.close()
    assert not open_files(tmp_path)
    assert np.array_equal(dataset.cube[0], CUBE)  # and reading opens it again
    dataset.close()


def test_a_forgotten_dataset_closes_its_file(tmp_path):
    dataset = open_envi(tmp_path)
    assert open_files(tmp_path)
    del dataset
    assert not open_files(tmp_path)


def test_only_so_many_files_are_open(tmp_path):
    limit = handles._FILES.limit
    paths = [save(tmp_path / f"{i}.npz", CUBE + i) for i in range(limit + 6)]
    datasets = [xr.open_dataset(path, engine="npz_hsi") for path in paths]
    for _ in range(2):
        for i, dataset in enumerate(datasets):
            assert np.array_equal(dataset.cube[0, 2], CUBE[2] + i)
    assert len(open_files(tmp_path)) == limit
    for dataset in datasets:
        dataset.close()
    assert not open_files(tmp_path)


def test_a_file_that_is_being_read_is_not_closed_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(handles._FILES, "limit", 1)
    cubes = [random_cube((300, 200, 50), "u2", i) for i in range(4)]
    opened = [
        SourceHandle(save(tmp_path / f"{i}.npz", cube, "sequential"))
        for i, cube in enumerate(cubes)
    ]
    start = threading.Barrier(4)

    def read(handle):
        start.wait()
        return [handle.read(0, 0, 300).sum() for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, opened))
    assert found == [[cube.sum()] * 4 for cube in cubes]
    for handle in opened:
        handle.close()


def test_a_recording_that_changed(tmp_path):
    path = save(tmp_path / "a.npz", CUBE)
    with xr.open_dataset(path, engine="npz_hsi") as dataset:
        dataset.close()
        save(path, CUBE[:5])
        with pytest.raises(SourceError, match=r"not what it was .*: it has 1 frames of 5 x 6 x 5"):
            dataset.cube.load()


def test_an_error_while_reading_is_not_the_end(tmp_path):
    path = Path(save(tmp_path / "a.npz", np.zeros((400, 60, 50), "u2"), "sequential"))
    sound = path.read_bytes()
    broken = bytearray(sound)
    broken[900:950] = b"\xff" * 50
    path.write_bytes(broken)
    with xr.open_dataset(path, engine="npz_hsi") as dataset:
        with pytest.raises(SourceError, match="cannot be decompressed"):
            dataset.cube.load()
        path.write_bytes(sound)
        dataset.close()
        assert not dataset.cube.values.any()
