"""Labels as ENVI classes and regions, as polygons on the ground, and without their borders."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from spectral.io import envi

from hsi_batch.errors import SourceError
from hsi_batch.readers.annotations import open_annotation
from hsi_batch.readers.geography import Geography
from hsi_batch.readers.labels_border import without_borders

SHAPE = (12, 20)
#: Two metres a pixel, rotated by thirty degrees.
TURN = np.radians(30)
GROUND = Geography(
    (
        500_000.0,
        2 * np.cos(TURN),
        2 * np.sin(TURN),
        5_400_000.0,
        2 * np.sin(TURN),
        -2 * np.cos(TURN),
    ),
    "EPSG:32633",
)


def raster(path, shape=SHAPE, frames=1, **options):
    with open_annotation(str(path), shape=shape, frames=frames, **options) as annotation:
        return annotation.labels(0, 0, shape[0]), annotation.classes


@given(
    hnp.arrays(
        np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 2)
    ),
    st.integers(0, 3),
)
def test_borders_are_what_a_loop_finds(labels, width):
    expected = labels.copy()
    for y, x in np.ndindex(labels.shape):
        near = labels[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        if (near != labels[y, x]).any():
            expected[y, x] = -1
    np.testing.assert_array_equal(without_borders(labels, width), expected)


def test_an_envi_classification_as_the_spectral_package_writes_it(tmp_path):
    classes = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)
    names = ["Unclassified", "stone", "background", "wood"]
    envi.save_classification(str(tmp_path / "c.hdr"), classes, class_names=names)
    found, named = raster(tmp_path / "c.hdr")
    np.testing.assert_array_equal(found, np.array([-1, 1, 0, 3])[classes])
    assert named == {0: "background", 1: "stone", 3: "wood"}
    envi.save_classification(str(tmp_path / "d.hdr"), classes, class_names=["soil", "a", "b", "c"])
    found, named = raster(tmp_path / "d.hdr")
    # A class that has the number of background gets another one.
    np.testing.assert_array_equal(found, np.array([4, 1, 2, 3])[classes])
    assert named[4] == "soil"
    np.testing.assert_array_equal(
        raster(tmp_path / "c.hdr", rest="background")[0], np.array([0, 1, 0, 3])[classes]
    )
    for shape, frames, said in (((9, 9), 1, "12 lines x 20 samples"), (SHAPE, 2, r"2 frame\(s\)")):
        with pytest.raises(SourceError, match=said):
            raster(tmp_path / "c.hdr", shape, frames)


ROIS = """; ENVI Output of ROIs (5.3) [Thu Mar 01 14:36:58 2018]
; Number of ROIs: 2
; File Dimension: 20 x 12
;
; ROI name: stone
; ROI rgb value: {255, 0, 0}
; ROI npts: 3
;
; ROI name: Normal
; ROI rgb value: {0, 255, 0}
; ROI npts: 2
;   ID    X    Y       Map X       Map Y        Lat       Lon  B1
     1    1    1   500000.00  5400000.00    48.7500   15.0000  17
     2   20   12   500000.00  5400000.00    48.7500   15.0000  17
     3    5    7   500000.00  5400000.00    48.7500   15.0000  17

     1    6    7   500000.00  5400000.00    48.7500   15.0000  17
     2    7    7   500000.00  5400000.00    48.7500   15.0000  17
"""


def test_regions_as_text_count_from_one(tmp_path):
    (tmp_path / "r.txt").write_text(ROIS)
    found, named = raster(tmp_path / "r.txt")
    expected = np.full(SHAPE, -1)
    expected[[0, 11, 6], [0, 19, 4]] = 1
    expected[6, 5:7] = 0
    np.testing.assert_array_equal(found, expected)
    assert named == {0: "background", 1: "stone"}
    for change, said in (
        (("20 x 12", "21 x 12"), "frame has 20 x 12"),
        (("     3    5", "     3   21"), "X 21, Y 7 is outside"),
        (("npts: 3", "npts: 4"), "lists 5"),
        (("ID    X    Y ", "ID           "), "without the columns X and Y"),
        (("    1    1   5", "  1.5    1   5"), "'1.5' is no whole number"),
    ):
        (tmp_path / "w.txt").write_text(ROIS.replace(*change, 1))
        with pytest.raises(SourceError, match=said):
            raster(tmp_path / "w.txt")
    (tmp_path / "b.roi").write_bytes(b"\x00\x01ENVI binary")
    with pytest.raises(SourceError, match=r"no regions that can be read.*as XML"):
        raster(tmp_path / "b.roi")


def ring(points):
    return " ".join(f"{x} {y}" for x, y in points)


def xml(system, ring):
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<RegionsOfInterest version="1.1">
  <Region name="belt" color="255,0,0"><GeometryDef><CoordSysStr>{system}</CoordSysStr>
    <Polygon><Exterior><LinearRing><Coordinates>{ring}</Coordinates></LinearRing></Exterior>
    </Polygon></GeometryDef></Region>
</RegionsOfInterest>"""


BOX = [(3, 2), (9, 2), (9, 7), (3, 7)]


def box():
    expected = np.full(SHAPE, -1)
    expected[2:7, 3:9] = 1
    return expected


def test_regions_as_xml_in_pixels_and_on_the_map(tmp_path):
    (tmp_path / "p.xml").write_text(xml("none", ring(BOX)))
    np.testing.assert_array_equal(raster(tmp_path / "p.xml")[0], box())
    ground = [GROUND.at(x, y) for x, y in BOX]
    (tmp_path / "m.xml").write_text(xml("EPSG:32633", ring(ground)))
    found, named = raster(tmp_path / "m.xml", geography=GROUND)
    np.testing.assert_array_equal(found, box())
    assert named[1] == "belt"
    with pytest.raises(SourceError, match=r"nothing says where on the ground.*map info"):
        raster(tmp_path / "m.xml")
    bomb = xml("none", ring(BOX)).replace("?>", '?><!DOCTYPE x [<!ENTITY a "b">]>', 1)
    (tmp_path / "x.xml").write_text(bomb)
    with pytest.raises(SourceError, match="declares a document type"):
        raster(tmp_path / "x.xml")


def features(points, **properties):
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": properties,
                "geometry": {"type": "Polygon", "coordinates": [[*points, points[0]]]},
            }
        ],
    }


def test_polygons_on_the_ground_in_another_coordinate_system(tmp_path):
    import pyogrio
    import pyproj
    import shapely

    to_degrees = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform
    degrees = [to_degrees(*GROUND.at(x, y)) for x, y in BOX]
    file = tmp_path / "l.geojson"
    file.write_text(json.dumps(features(degrees, label="stone")))
    found, named = raster(file, geography=GROUND)
    np.testing.assert_array_equal(found, box())
    assert named == {0: "background", 1: "stone"}
    pyogrio.raw.write(
        tmp_path / "l.gpkg",
        shapely.to_wkb(np.array([shapely.Polygon(degrees)], dtype=object)),
        [np.array([7])],
        ["class"],
        driver="GPKG",
        geometry_type="Polygon",
        crs="EPSG:4326",
    )
    found, named = raster(tmp_path / "l.gpkg", geography=GROUND)
    np.testing.assert_array_equal(found, np.where(box() == 1, 7, -1))
    assert named[7] == "class 7"
    # What does not lie there is not labelled at all.
    away = GROUND.shifted(1000, 1000)
    assert raster(file, geography=away)[0] is None
    file.with_suffix(".json").write_text(file.read_text())
    assert raster(file.with_suffix(".json"), geography=GROUND)[0] is not None
    for place, said in (
        (None, "nothing says where on the ground"),
        (Geography(GROUND.transform), "the recording does not say which coordinate system"),
    ):
        with pytest.raises(SourceError, match=said):
            raster(file, geography=place)
    file.write_text(json.dumps(features(degrees, label=None)))
    with pytest.raises(SourceError, match=r"feature 0 .* has no class"):
        raster(file, geography=GROUND)


def test_what_is_not_marked_can_be_said_otherwise(tmp_path):
    image = {"id": 0, "height": 12, "width": 20}
    mark = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[3, 2, 9, 2, 9, 7, 3, 7]]}
    document = {"images": [image], "annotations": [mark], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "c.json").write_text(json.dumps(document))
    plain, _ = raster(tmp_path / "c.json")
    assert set(np.unique(plain)) == {0, 1}
    apart, _ = raster(tmp_path / "c.json", rest="unlabelled")
    np.testing.assert_array_equal(apart, np.where(plain == 1, 1, -1))
    bordered, _ = raster(tmp_path / "c.json", ignore_border=1)
    assert np.count_nonzero(bordered == 1) < np.count_nonzero(plain == 1)
    assert (bordered[bordered >= 0] == plain[bordered >= 0]).all()
