"""Positions of pixels and lines, checked by rasterio and pyproj; regions and columns that count."""

import numpy as np
import pytest
import zarr
from commands import command
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.store import SCORES, create_root
from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.readers.positions import find_positions, read_track
from hsi_batch.stages.convert import convert
from hsi_batch.stages.detections import find_detections
from hsi_batch.stages.export import export

LINES, SAMPLES = 120, 40
#: A flight to the north-east: UTM 33 north, 2 m across, 3 m along the track.
ORIGIN, ACROSS, ALONG = np.array([500400.0, 5400000.0]), (1.6, -1.2), (1.8, 2.4)


def utm(x, y):
    """Easting and northing of pixel positions, the corner of the first pixel being (0, 0)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    return tuple(ORIGIN[i] + x * ACROSS[i] + y * ALONG[i] for i in (0, 1))


def degrees(x, y):
    import pyproj

    return pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(*utm(x, y))


def centres():
    y, x = np.mgrid[:LINES, :SAMPLES] + 0.5
    return x, y


@pytest.fixture(scope="module", name="flown")
def flown_fixture(tmp_path_factory, client):
    """Sessions with positions of each kind, and scores with known regions."""
    folder = tmp_path_factory.mktemp("flown")
    rng = np.random.default_rng(1)
    cube = rng.integers(0, 4000, (LINES, SAMPLES, 3)).astype(np.uint16)
    for name in ("degrees", "metres", "track", "nowhere"):
        write_envi(folder, cube, name=name)
    lonlat = np.stack(degrees(*centres()), axis=-1)
    lonlat[0, 0] = -9999.0
    write_envi(folder, lonlat, name="degrees_igm", data_ignore_value=-9999)
    write_envi(
        folder,
        np.stack(utm(*centres()), axis=-1),
        name="metres_igm",
        coordinate_system_string="EPSG:32633",
    )
    lines = np.arange(0, LINES + 20, 20.0)
    lon, lat = degrees(np.full(lines.size, SAMPLES / 2), lines + 0.5)
    rows = zip(lines, lat, lon, (358 + lines / 20) % 360, strict=True)
    (folder / "track_gps.csv").write_text(
        "Line,Latitude (deg),Longitude (deg),Heading,Time\n"
        + "".join(
            f"{a:g},{b:.12f},{c:.12f},{d:g},2024-05-01T10:00:{a / 4:06.3f}Z\n"
            for a, b, c, d in rows
        )
    )
    result = convert(folder, folder / "a.zarr", client=client)
    assert len(result.converted) == 4
    root = create_root(folder / "s.zarr", SCORES, {"archive": str(folder / "a.zarr")})
    scores = rng.random((1, LINES, SAMPLES)).astype(np.float32)
    flags = np.zeros((1, LINES, SAMPLES), dtype=np.uint8)
    flags[0, 30:66, 5:9] = flags[0, 90:92, 30:33] = 1
    for name in ("degrees", "metres", "track", "nowhere"):
        group = root.create_group(name, attributes={"digest": "x", "complete": True})
        for output, values in (("scores", scores), ("decisions", flags)):
            group.create_array(output, data=values, chunks=(1, 32, SAMPLES))
    consolidate(root)
    return folder, scores, flags


@pytest.mark.parametrize("name", ["degrees", "metres"])
def test_longitude_and_latitude_are_coordinates(flown, name):
    folder, _, _ = flown
    dataset = open_archive(folder / "a.zarr")[name]
    lon, lat = degrees(*centres())
    start = 0 if name == "metres" else 1
    for array, known, units in (("lon", lon, "degrees_east"), ("lat", lat, "degrees_north")):
        found = dataset[array]
        assert (found.dims, found.attrs["units"]) == (("y", "x"), units)
        np.testing.assert_allclose(found.values.ravel()[start:], known.ravel()[start:], atol=1e-9)
        assert array in dataset.cube.coords or array in dataset.coords
    if name == "degrees":
        assert np.isnan(dataset.lon.values[0, 0])


def test_positions_of_lines_are_interpolated(flown):
    dataset = open_archive(flown[0] / "a.zarr")["track"]
    lon, lat = degrees(np.full(LINES, SAMPLES / 2), np.arange(LINES) + 0.5)
    assert dataset.lat.dims == ("y",)
    np.testing.assert_allclose(dataset.lon, lon, atol=1e-8)
    np.testing.assert_allclose(dataset.lat, lat, atol=1e-8)
    known = (358 + np.arange(LINES) / 20) % 360
    np.testing.assert_allclose(dataset.heading, known, atol=1e-9)
    start = np.datetime64("2024-05-01T10:00:00").astype("datetime64[s]").astype(float)
    stored = zarr.open_group(flown[0] / "a.zarr", mode="r")["track/line_time"][:]
    np.testing.assert_allclose(stored, start + np.arange(LINES) / 4, atol=1e-6)


def test_detections_have_the_coordinates_of_their_centres(flown, client):
    found = find_detections(flown[0] / "s.zarr", client=client)
    lon, lat = degrees([7.0, 31.5], [48.0, 91.0])
    for name, kind in (("degrees", "pixel"), ("metres", "pixel")):
        mine = found.table[found.table.session == name]
        # A millimetre.
        np.testing.assert_allclose(mine.map_x, lon, atol=1e-8)
        np.testing.assert_allclose(mine.map_y, lat, atol=1e-8)
        assert (mine.crs == "EPSG:4326").all()
        assert (mine.position == kind).all()
    track = found.table[found.table.session == "track"]
    lon, lat = degrees([SAMPLES / 2] * 2, [48.0, 91.0])
    np.testing.assert_allclose(track.map_x, lon, atol=1e-8)
    np.testing.assert_allclose(track.map_y, lat, atol=1e-8)
    assert (track.position == "line").all()
    assert found.table[found.table.session == "nowhere"].map_x.isna().all()
    assert set(found.places) == {"degrees", "metres"}


def test_polygons_of_detections_follow_the_corners_of_pixels(flown, tmp_path, client):
    import pyogrio
    import shapely

    with pytest.warns(UserWarning, match="track and nowhere|nowhere"):
        result = export(flown[0] / "s.zarr", "gpkg", tmp_path, client=client)
    meta, _, shapes, _ = pyogrio.raw.read(result.files[0], layer="detections")
    assert meta["crs"] == "EPSG:4326"
    known = shapely.Polygon(np.column_stack(degrees([5, 9, 9, 5], [30, 30, 66, 66])))
    found = shapely.from_wkb(shapes[0])
    assert found.symmetric_difference(known).area < 1e-6 * known.area


@pytest.mark.parametrize("name", ["degrees", "metres"])
def test_a_map_made_from_positions_holds_the_nearest_pixels(flown, tmp_path, client, name):
    import pyproj
    import rasterio

    folder, scores, _ = flown
    one = tmp_path / "s.zarr"
    root = create_root(one, SCORES, {"archive": str(folder / "a.zarr")})
    group = root.create_group(name, attributes={"digest": "x", "complete": True})
    group.create_array("scores", data=scores, chunks=(1, 32, SAMPLES))
    consolidate(root)
    result = export(one, "geotiff", tmp_path / "maps", ortho="igm", client=client)
    assert result.unplaced == ()
    with rasterio.open(result.files[0]) as file:
        values = file.read(1)
        assert file.crs == rasterio.crs.CRS.from_epsg(4326)
        rows, columns = np.mgrid[: file.height, : file.width]
        lon, lat = rasterio.transform.xy(file.transform, rows.ravel(), columns.ravel())
        bounds = file.bounds
        cell = file.res
    back = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform(lon, lat)
    matrix = np.linalg.inv(np.column_stack([ACROSS, ALONG]))
    x, y = matrix @ (np.stack(back) - ORIGIN[:, None])
    inside = (x > 0.01) & (x < SAMPLES - 0.01) & (y > 0.01) & (y < LINES - 0.01)
    if name == "degrees":
        inside &= ~((x < 1) & (y < 1))
    flat = values.ravel()
    # A cell well within a pixel holds its value; pixels are rectangles, so the nearest is its own.
    expected = scores[0][y[inside].astype(int), x[inside].astype(int)]
    border = (np.abs(x - np.rint(x)) < 0.02) | (np.abs(y - np.rint(y)) < 0.02)
    clear = ~border[inside]
    np.testing.assert_array_equal(flat[inside][clear], expected[clear])
    far = (x < -1) | (x > SAMPLES + 1) | (y < -1) | (y > LINES + 1)
    assert far.any()
    assert np.isnan(flat[far]).all()
    # Corners by an independent route.
    lon, lat = degrees(*centres())
    if name == "degrees":
        lon[0, 0], lat[0, 0] = lon[0, 1], lat[0, 1]
    np.testing.assert_allclose(
        bounds, (lon.min(), lat.min(), lon.max(), lat.max()), atol=1.01 * max(cell)
    )


def test_what_is_on_no_grid_is_told(flown, tmp_path, client):
    with pytest.warns(UserWarning, match=r"--ortho igm"):
        result = export(flown[0] / "s.zarr", "geotiff", tmp_path, client=client)
    assert set(result.unplaced) == {"degrees", "metres", "track", "nowhere"}
    with pytest.raises(ConfigError, match=r"session nowhere has no longitude.*--igm FILE"):
        export(flown[0] / "s.zarr", "geotiff", tmp_path, ortho="igm", client=client)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("degrees", "longitude and latitude of pixels"),
        ("track", "positions of lines (GPS)"),
        ("nowhere", "nothing says where"),
    ],
)
def test_show_says_where_a_session_is(flown, name, said):
    done = command("show", flown[0] / "a.zarr" / name).checked()
    assert said in done.out


def test_positions_follow_a_crop(flown, tmp_path, client):
    folder, _, _ = flown
    sources = [folder / "metres.hdr", folder / "track.hdr"]
    convert(sources, tmp_path / "a.zarr", crop="10,20,3,5", client=client)
    archive = open_archive(tmp_path / "a.zarr")
    lon, lat = (a[10:-20, 3:-5] for a in degrees(*centres()))
    np.testing.assert_allclose(archive["metres"].lon, lon, atol=1e-9)
    np.testing.assert_allclose(archive["metres"].lat, lat, atol=1e-9)
    assert archive["track"].lat.size == LINES - 30
    left = convert(sources, tmp_path / "b.zarr", igm="none", gps="none", client=client)
    assert left.failed == 0
    assert "lon" not in open_archive(tmp_path / "b.zarr")["metres"]


def test_wrong_positions_are_refused_with_the_remedy(tmp_path, client):
    cube = np.zeros((20, 8, 3), np.uint16)
    header = write_envi(tmp_path, cube, name="scan")
    small = write_envi(tmp_path, np.zeros((19, 8, 2)), name="small")
    plain = write_envi(tmp_path, np.full((20, 8, 2), 5e5), name="plain")
    table = tmp_path / "fixes.csv"

    def broken(**options):
        result = convert(header, tmp_path / "a.zarr", client=client, **options)
        return dict(result.broken)[header]

    assert "19 lines x 8 samples x 2 bands" in broken(igm=small)
    assert "Give the IGM of this recording" in broken(igm=small)
    assert "coordinate system string" in broken(igm=plain)
    for text, said in (
        ("line,lat\n0,1\n", "no column of longitudes"),
        ("lat,lon\n1,2\n3,4\n", "2 rows for 20 lines"),
        ("line,lat,lon\n0,99,2\n", "no degrees"),
        ("line,lat,lon\n0,1,2\n0,1,2\n", "twice"),
        ("line,lat,lon\n0,x,2\n", "no number"),
    ):
        table.write_text(text)
        assert said in broken(gps=table)
    table.write_text("line,lat,lon,time\n0,1,2,soon\n")
    with pytest.raises(SourceError, match="neither a number nor a date"):
        read_track(str(table), 20)
    with pytest.raises(ConfigError, match="--igm sibling or none"):
        convert(header, tmp_path / "a.zarr", igm="gone.hdr", client=client)


def test_a_track_goes_the_short_way_and_ends_where_it_ends(tmp_path):
    table = tmp_path / "t.txt"
    table.write_text("line\tlat\tlon\theading\n2\t10\t179.5\t350\n6\t12\t-179.5\t10\n")
    track = read_track(str(table), 9)
    np.testing.assert_allclose(np.abs(track.lon[4]), 180)
    np.testing.assert_allclose(track.lon[[3, 5]], [179.75, -179.75])
    np.testing.assert_allclose(track.heading[4] % 360, 0, atol=1e-9)
    assert np.flatnonzero(np.isnan(track.lat)).tolist() == [0, 1, 7, 8]
    assert find_positions(str(tmp_path / "scan.hdr")) == (None, None)


def test_outside_the_region_nothing_counts(tmp_path, client):
    rng = np.random.default_rng(3)
    cube = rng.integers(0, 4000, (200, 40, 3)).astype(np.uint16)
    header = write_envi(tmp_path, cube, name="belt")
    result = convert(
        header, tmp_path / "a.zarr", roi="x=5:30,y=10:", dead_columns="7,20-21", client=client
    )
    dataset = open_archive(tmp_path / "a.zarr")["belt"]
    outside = np.ones((200, 40), bool)
    outside[10:, 5:30] = False
    dead = np.zeros((200, 40), bool)
    dead[:, [7, 20, 21]] = True
    np.testing.assert_array_equal(dataset.quality[0], 32 * outside + 8 * dead)
    assert "outside_roi" in dataset.quality.attrs["flag_meanings"]
    share = 100 * outside.mean()
    assert f"outside_roi {share:.2f} %" in str(result)
    assert f"dead {100 * dead.mean():.2f} %" in str(result)
    count, total = dataset["columns"][0, :, 0].values, dataset["columns"][1].values
    keep = ~outside & ~dead
    np.testing.assert_array_equal(count, keep.sum(0))
    np.testing.assert_array_equal(total, np.where(keep[..., None], cube, 0).sum(0))
    done = command("show", tmp_path / "a.zarr" / "belt").checked()
    assert f"({share:.2f} %)" in done.out
    again = convert(
        header, tmp_path / "a.zarr", roi="x=5:30,y=10:", dead_columns="7,20-21", client=client
    )
    assert again.up_to_date == 1


def test_a_polygon_bounds_the_region(tmp_path, client):
    header = write_envi(tmp_path, np.ones((60, 60, 2), np.float32), name="field")
    convert(header, tmp_path / "a.zarr", roi="polygon (10,10) (50,10) (10,50)", client=client)
    y, x = np.mgrid[:60, :60]
    inside = (x > 10) & (y > 10) & (x + y < 60)
    found = open_archive(tmp_path / "a.zarr")["field"].quality[0].values == 0
    border = (x == 10) | (y == 10) | (x + y == 60)
    np.testing.assert_array_equal(found[~border], inside[~border])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"roi": "b(800) > 2"}, "hsi-batch mask"),
        ({"roi": "nowhere.png"}, "--roi 100:900"),
        ({"dead_columns": "7,3"}, "--dead-columns 31,47"),
    ],
)
def test_places_that_are_not_understood_are_refused(tmp_path, client, options, said):
    header = write_envi(tmp_path, np.ones((6, 6, 2), np.float32), name="field")
    with pytest.raises(ConfigError, match=said):
        convert(header, tmp_path / "a.zarr", client=client, **options)
    for wrong, told in (({"roi": "90:"}, "no pixel"), ({"dead_columns": "6"}, "0 to 5")):
        result = convert(header, tmp_path / "a.zarr", client=client, **wrong)
        assert told in dict(result.broken)[header]
