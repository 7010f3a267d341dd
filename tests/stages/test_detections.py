"""Detections and exports: regions across blocks, places on the ground, other tools' readings."""

import json

import numpy as np
import pandas as pd
import pytest
import zarr
from readers.envi_files import write_envi

from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.store import SCORES, create_root
from hsi_batch.errors import ConfigError
from hsi_batch.readers.envi import EnviSource
from hsi_batch.readers.geography import Geography
from hsi_batch.stages.convert import convert
from hsi_batch.stages.detections import find_detections
from hsi_batch.stages.export import export

LINES, SAMPLES = 96, 40
UTM = "{UTM, 1.000, 1.000, 500000.0, 5400000.0, 2.0, 2.0, 33, North, WGS-84, units=Meters}"


@pytest.fixture(scope="module", name="stores")
def stores_fixture(tmp_path_factory, client):
    """An archive of two sessions, one on the ground, and scores of it with known regions."""
    folder = tmp_path_factory.mktemp("detections")
    rng = np.random.default_rng(1)
    cube = rng.integers(0, 4000, (LINES, SAMPLES, 3)).astype(np.uint16)
    write_envi(folder, cube, name="here", map_info=UTM)
    write_envi(folder, cube, name="nowhere")
    convert(folder, folder / "a.zarr", client=client)
    root = create_root(folder / "s.zarr", SCORES, {"archive": str(folder / "a.zarr")})
    scores = rng.random((1, LINES, SAMPLES)).astype(np.float32)
    flags = np.zeros((1, LINES, SAMPLES), dtype=np.uint8)
    flags[0, 30:66, 5:9] = 1  # over three blocks of 32 lines
    flags[0, 10, 20] = flags[0, 11, 21] = 1  # touch at a corner
    flags[0, 90:92, 30:33] = 1
    flags[0, 0, 39] = 255  # invalid
    scores[0, 40, 6] = 9.5
    for name in ("here", "nowhere"):
        group = root.create_group(name, attributes={"digest": "x", "complete": True})
        for output, values in (("scores", scores), ("decisions", flags)):
            array = group.create_array(output, data=values, chunks=(1, 32, SAMPLES))
            array.attrs["name"] = output
    consolidate(root)
    return folder, scores, flags


def test_a_region_across_blocks_is_one_detection(stores, client):
    folder, scores, _ = stores
    found = find_detections(folder / "s.zarr", client=client)
    table = found.table[found.table.session == "here"]
    assert table[["y0", "x0", "y1", "x1", "area"]].to_numpy().tolist() == [
        [10, 20, 12, 22, 2],
        [30, 5, 66, 9, 144],
        [90, 30, 92, 33, 6],
    ]
    assert table.id.tolist() == [0, 1, 2]
    big = table.iloc[1]
    assert (big.max_score, big.peak_y, big.peak_x) == (9.5, 40, 6)
    np.testing.assert_allclose(big.mean_score, scores[0, 30:66, 5:9].mean(), rtol=1e-6)
    assert (big.labelled, big["class"]) == (-1, "anomaly")
    assert (big.map_x, big.map_y) == (500000 + 2 * 7.0, 5400000 - 2 * 48.0)
    assert big.crs == "EPSG:32633"
    assert np.isnan(found.table[found.table.session == "nowhere"].map_x).all()
    larger = find_detections(folder / "s.zarr", min_area=3, client=client)
    assert len(larger.table) == 4
    peaks = find_detections(folder / "s.zarr", threshold=9.0, client=client)
    assert peaks.table.area.tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_parquet_and_coco(stores, tmp_path, client):
    folder, _, flags = stores
    result = export(folder / "s.zarr", "parquet", tmp_path, client=client)
    assert len(pd.read_parquet(result.files[0])) == result.detections == 6
    export(folder / "s.zarr", "coco", tmp_path, client=client)
    from pycocotools.coco import COCO

    coco = COCO(str(tmp_path / "detections.json"))
    masks = np.zeros((LINES, SAMPLES), dtype=int)
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[1])):
        masks += coco.annToMask(annotation)
        assert annotation["area"] == coco.annToMask(annotation).sum()
    np.testing.assert_array_equal(masks, flags[0] == 1)
    assert json.loads((tmp_path / "detections.json").read_text())["images"][0]["session"] == "here"


def test_geopackage_read_by_gdal(stores, tmp_path, client):
    import pyogrio
    import shapely

    folder, _, _ = stores
    with pytest.warns(UserWarning, match="nowhere: nothing says where on the ground"):
        result = export(folder / "s.zarr", "gpkg", tmp_path, client=client)
    assert "not georeferenced" in str(result)
    meta, _, shapes, _ = pyogrio.raw.read(result.files[0], layer="detections")
    assert meta["crs"] == "EPSG:32633"
    areas = [shapely.from_wkb(shape).area for shape in shapes]
    assert areas == [4.0 * n for n in (2, 144, 6)]
    assert shapely.from_wkb(shapes[1]).bounds == (500010, 5400000 - 132, 500018, 5400000 - 60)
    assert "mean_score" in meta["fields"]
    meta, _, shapes, _ = pyogrio.raw.read(result.files[0], layer="pixels")
    assert shapely.from_wkb(shapes[1]).bounds == (5, -66, 9, -30)


def meridian(northing):
    """Latitude of a northing on the central meridian of UTM: the arc of WGS84, integrated."""
    from scipy.integrate import quad
    from scipy.optimize import brentq

    a, flat = 6378137.0, 1 / 298.257223563
    square = flat * (2 - flat)

    def arc(latitude):
        end = np.radians(latitude)
        return quad(lambda p: a * (1 - square) / (1 - square * np.sin(p) ** 2) ** 1.5, 0, end)[0]

    return brentq(lambda latitude: 0.9996 * arc(latitude) - northing, 0, 84, xtol=1e-10)


def test_geotiff_read_by_rasterio(stores, tmp_path, client):
    import pyproj
    import rasterio

    folder, scores, flags = stores
    with pytest.warns(UserWarning, match="nowhere: nothing says"):
        result = export(folder / "s.zarr", "geotiff", tmp_path)
    assert len(result.files) == 4
    with rasterio.open(tmp_path / "here_scores.tif") as file:
        np.testing.assert_array_equal(file.read(1), scores[0])
        assert np.isnan(file.nodata)
        assert (file.crs, file.descriptions) == ("EPSG:32633", ("scores",))
        assert file.transform @ (0, 0) == (500000, 5400000)
        assert file.transform @ (SAMPLES, LINES) == (500080, 5400000 - 192)
        there = pyproj.Transformer.from_crs(file.crs, 4326, always_xy=True)
        longitude, latitude = there.transform(*(file.transform @ (0, 0)))
        assert (round(longitude, 9), round(latitude, 7)) == (15.0, round(meridian(5400000), 7))
    with rasterio.open(tmp_path / "here_decisions.tif") as file:
        np.testing.assert_array_equal(file.read(1), flags[0])
        assert file.nodata == 255


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_large_maps_have_overviews(tmp_path):
    import rasterio

    root = create_root(tmp_path / "s.zarr", SCORES, {})
    group = root.create_group("s", attributes={"digest": "x", "complete": True})
    values = np.random.default_rng(0).random((1, 1300, 700)).astype(np.float32)
    group.create_array("scores", data=values, chunks=(1, 100, 700))
    with pytest.warns(UserWarning, match="nothing says"):
        export(tmp_path / "s.zarr", "geotiff", tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "s_scores.tif") as file:
        np.testing.assert_array_equal(file.read(1), values[0])
        assert file.overviews(1)
        assert file.profile["tiled"]
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_a_lookup_table_puts_scores_onto_its_grid(stores, tmp_path):
    import rasterio

    folder, scores, _ = stores
    rng = np.random.default_rng(3)
    table = np.stack(
        [rng.integers(0, SAMPLES + 1, (50, 60)), rng.integers(0, LINES + 1, (50, 60))], axis=-1
    ).astype(np.int32)
    table[rng.random((50, 60)) < 0.3] *= -1
    info = "{Geographic Lat/Lon, 1, 1, 15.0, 48.0, 0.001, 0.001, WGS-84, units=Degrees}"
    glt = write_envi(tmp_path, table, name="scene_glt", map_info=info)
    export(folder / "s.zarr", "geotiff", tmp_path / "o", outputs=["scores"], ortho=glt)
    with rasterio.open(tmp_path / "o" / "nowhere_scores.tif") as file:
        found = file.read(1)
        assert file.crs == "EPSG:4326"
        np.testing.assert_allclose(file.transform @ (60, 50), (15.06, 47.95))
    for (y, x), value in np.ndenumerate(found):
        column, line = np.abs(table[y, x])
        known = scores[0, line - 1, column - 1] if column and line else np.nan
        np.testing.assert_equal(value, known)
    table[0, 0] = (SAMPLES + 5, 1)
    wrong = write_envi(tmp_path, table, name="wrong", map_info=info)
    with pytest.raises(ConfigError, match="lookup table of this recording"):
        export(folder / "s.zarr", "geotiff", tmp_path / "o", ortho=wrong)


@pytest.mark.parametrize(
    "info",
    [
        "{UTM, 1, 1, 500000, 5400000, 2, 2, 33, North, WGS-84, units=Meters, rotation=30}",
        "{UTM, 1, 1, 500000, 6400000, 3, 1.5, 21, South, WGS-84, units=Meters}",
        "{UTM, 11.5, 4, 500000, 5400000, 2, 2, 33, North, WGS-84, units=Meters}",
        "{Geographic Lat/Lon, 1, 1, 15, 48, 0.001, 0.001, WGS-84, units=Degrees}",
    ],
)
def test_map_info_is_read_as_gdal_reads_it(tmp_path, info):
    import rasterio

    header = write_envi(tmp_path, np.zeros((4, 5, 2), np.uint16), "bsq", map_info=info)
    with EnviSource(header) as source:
        place = Geography.of_attrs(source.info.geography)
    with rasterio.open(header.replace(".hdr", ".raw"), driver="ENVI") as file:
        np.testing.assert_allclose(place.transform, file.transform.to_gdal(), rtol=1e-12)
        assert rasterio.crs.CRS.from_user_input(place.crs) == file.crs


def test_the_archive_says_where_it_is_and_a_crop_moves_it(stores, tmp_path, client):
    folder, _, _ = stores
    group = zarr.open_group(folder / "a.zarr", mode="r")["here"]
    assert group["cube"].attrs["grid_mapping"] == "spatial_ref"
    assert group["spatial_ref"].attrs["GeoTransform"].split()[:2] == ["500000.0", "2.0"]
    assert group["spatial_ref"].attrs["crs_wkt"] == "EPSG:32633"
    convert(folder / "here.hdr", tmp_path / "c.zarr", crop="3,0,4,0", client=client)
    moved = zarr.open_group(tmp_path / "c.zarr", mode="r")["here"].attrs["geography"]
    assert moved["transform"] == [500008.0, 2.0, 0.0, 5399994.0, 0.0, -2.0]


def test_wrong_uses_are_refused_with_the_remedy(stores, tmp_path, client):
    folder, _, _ = stores
    with pytest.raises(ConfigError, match="Did you mean 'geotiff'"):
        export(folder / "s.zarr", "geotif", tmp_path)
    with pytest.raises(ConfigError, match="--format geotiff only"):
        export(folder / "s.zarr", "coco", tmp_path, ortho="x.hdr")
    with pytest.raises(ConfigError, match="no such lookup table"):
        export(folder / "s.zarr", "geotiff", tmp_path, ortho="x.hdr")
    root = create_root(tmp_path / "bare.zarr", SCORES, {})
    root.create_group("s", attributes={"digest": "x"}).create_array(
        "scores", data=np.zeros((1, 2, 2))
    )
    with pytest.raises(ConfigError, match="or give --threshold"):
        find_detections(tmp_path / "bare.zarr", client=client)
    header = write_envi(tmp_path, np.zeros((4, 5, 2), np.uint16), map_info="{UTM, 1, x}")
    from hsi_batch.errors import SourceError

    with pytest.raises(SourceError, match="delete 'map info'"):
        EnviSource(header)
