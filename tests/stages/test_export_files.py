"""ENVI, PNG and tables: what other tools read of them, and how GDAL sees where they are."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import zarr
from graphs import chain
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from readers.envi_files import write_envi as write_recording

from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.store import SCORES, create_root
from hsi_batch.errors import ConfigError, StoreError
from hsi_batch.nodes import MinMaxNormalizer, QuantileBinaryDecider, RXGlobal
from hsi_batch.readers.envi_fields import EnviFields
from hsi_batch.readers.geography import Geography, geography_of
from hsi_batch.stages.convert import convert
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.stages.export import export
from hsi_batch.stages.export_envi import map_info
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

LINES, SAMPLES, BANDS = 70, 24, 6
NM = np.arange(BANDS) * 50.0 + 400
UTM = "{UTM, 1.000, 1.000, 500000.0, 5400000.0, 2.0, 2.0, 33, North, WGS-84, units=Meters}"
OUTPUTS = ("scores", "decisions", "norm.normalized")


@pytest.fixture(scope="module")
def stores(tmp_path_factory, client):
    """Scores, decisions and a cube of two sessions, one of them on the ground."""
    folder = tmp_path_factory.mktemp("exports")
    rng = np.random.default_rng(1)
    for name, info in (("here", {"map_info": UTM}), ("nowhere", {})):
        cube = rng.integers(1, 4000, (LINES, SAMPLES, BANDS)).astype(np.uint16)
        cube[3, 4] = 0
        nm = f"{{{', '.join(f'{v:g}' for v in NM)}}}"
        fields = {"wavelength": nm, "wavelength_units": "Nanometers", **info}
        write_recording(folder, cube, name=name, **fields)
    convert(folder, folder / "a.zarr", nodata=0, client=client)
    pipeline = chain(
        MinMaxNormalizer(name="norm"),
        RXGlobal(name="rx", eps=0.0),
        QuantileBinaryDecider(name="decider", quantile=0.98),
    )
    fit(pipeline, folder / "a.zarr", client=client)
    score(pipeline, folder / "a.zarr", folder / "s.zarr", outputs=OUTPUTS, client=client)
    return folder / "s.zarr", zarr.open_group(folder / "s.zarr", mode="r")


@pytest.mark.filterwarnings("ignore:Image data contains NaN values")
@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_envi_read_by_gdal_and_by_spectral(stores, tmp_path, interleave):
    import rasterio
    from spectral import open_image

    path, root = stores
    with pytest.warns(UserWarning, match="nowhere: nothing says where on the ground"):
        result = export(path, "envi", tmp_path, interleave=interleave)
    assert len(result.files) == 6
    for name in ("here", "nowhere"):
        for output in OUTPUTS:
            stored = root[name][output][0]
            header = tmp_path / f"{name}_{output}.hdr"
            image = open_image(str(header))
            values = np.asarray(image.load(dtype=stored.dtype)).reshape(stored.shape)
            np.testing.assert_array_equal(values, stored)
            assert image.metadata["interleave"] == interleave
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(header.with_suffix(".img"), driver="ENVI") as file:
                    planes = file.read()
                    placed = (file.crs, file.transform @ (0, 0), file.transform @ (24, 70))
                    nothing = file.nodata
            assert planes.dtype == stored.dtype
            flat = stored if stored.ndim == 3 else stored[..., None]
            np.testing.assert_array_equal(np.moveaxis(planes, 0, -1), flat)
            assert np.isnan(nothing) if stored.dtype.kind == "f" else nothing == 255
            if name == "here":
                assert placed == ("EPSG:32633", (500000, 5400000), (500048, 5399860))
            else:
                assert placed[0] is None
    cube = open_image(str(tmp_path / "here_norm.normalized.hdr"))
    assert cube.bands.centers == NM.tolist()
    assert cube.bands.band_unit == "Nanometers"
    assert "wavelength" not in (tmp_path / "here_scores.hdr").read_text()
    assert {file.suffix for file in tmp_path.iterdir()} == {".hdr", ".img"}


@given(
    st.tuples(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7)),
    st.tuples(st.floats(1e-4, 1e4), st.floats(1e-4, 1e4)),
    st.floats(-180, 180),
    st.sampled_from(["EPSG:32633", "EPSG:32701", "EPSG:4326", "PROJCS[a,b]", None]),
)
def test_a_place_survives_the_header(corner, size, degrees, crs):
    turn = np.radians(degrees)
    across, down = np.cos(turn) * size[0], -np.sin(turn) * size[0]
    rise, fall = -np.sin(turn) * size[1], -np.cos(turn) * size[1]
    place = Geography((corner[0], across, down, corner[1], rise, fall), crs)
    fields = map_info(place)
    assert fields is not None
    texts = {k: v.strip("{}") if isinstance(v, str) else v for k, v in fields.items()}
    again = geography_of(EnviFields("x.hdr", texts, {}))
    scale = max(size)
    np.testing.assert_allclose(again.transform, place.transform, rtol=1e-9, atol=1e-9 * scale)
    assert again.crs == crs


@given(st.floats(0.01, 10), st.booleans())
def test_what_a_header_cannot_say_is_not_said(shear, mirrored):
    if mirrored:
        assert map_info(Geography((0.0, 1.0, 0.0, 0.0, 0.0, 1.0))) is None
    assume(shear > 0)
    assert map_info(Geography((0.0, 1.0, shear, 0.0, 0.0, -1.0))) is None


def test_png_of_scores_and_of_classes(stores, tmp_path):
    path, root = stores
    export(path, "png", tmp_path)
    evaluation = load_evaluation(path)
    low, high = evaluation.scores.quantile([0.001, 0.9999])[:, 0]
    said = json.loads((tmp_path / "png.json").read_text())
    assert set(said) == {f"{n}_{o}.png" for n in ("here", "nowhere") for o in OUTPUTS[:2]}
    for name in ("here", "nowhere"):
        stored = root[name]["scores"][0]
        with Image.open(tmp_path / f"{name}_scores.png") as picture:
            assert float(picture.text["hsi_batch:low"]) == low
            grey = np.asarray(picture).astype(float)
        assert (said[f"{name}_scores.png"]["low"], said[f"{name}_scores.png"]["high"]) == (
            low,
            high,
        )
        np.testing.assert_array_equal(grey == 0, np.isnan(stored))
        assert grey[3, 4] == 0
        back = low + (grey - 1) / 65534 * (high - low)
        within = (stored >= low) & (stored <= high)
        np.testing.assert_allclose(back[within], stored[within], atol=(high - low) / 65534)
        assert set(grey[stored > high]) <= {65535.0}
        decided = root[name]["decisions"][0]
        with Image.open(tmp_path / f"{name}_decisions.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), decided)
            colours = np.asarray(picture.convert("RGB"))
        assert {tuple(c) for c in colours[decided == 1]} == {(220, 60, 50)}
        assert {tuple(c) for c in colours[decided == 255]} == {(128, 128, 128)}
    export(path, "png", tmp_path / "b", outputs=["scores"], limits=(0.0, 100.0))
    grey = np.asarray(Image.open(tmp_path / "b" / "here_scores.png")).astype(float)
    stored = root["here"]["scores"][0]
    usual = stored < 100
    np.testing.assert_allclose((grey[usual] - 1) / 655.34, stored[usual], atol=1e-2)


def test_png_of_class_numbers(tmp_path):
    root = create_root(tmp_path / "s.zarr", SCORES, {})
    group = root.create_group("s", attributes={"digest": "x", "complete": True})
    numbers = np.array([[[-1, 0, 1], [2, 250, 254]]], dtype=np.int32)
    group.create_array("classes", data=numbers, chunks=(1, 2, 3))
    consolidate(root)
    export(tmp_path / "s.zarr", "png", tmp_path / "o")
    found = np.asarray(Image.open(tmp_path / "o" / "s_classes.png"))
    assert found.tolist() == [[255, 0, 1], [2, 250, 254]]
    group["classes"][0, 0, 0] = 255
    with pytest.raises(ConfigError, match="room for 254"):
        export(tmp_path / "s.zarr", "png", tmp_path / "o")
    with pytest.raises(StoreError, match="summary of the scores is missing"):
        export(tmp_path / "s.zarr", "csv", tmp_path / "o")


def test_tables_of_frames_and_sessions(stores, tmp_path, client):
    path, root = stores
    result = export(path, "csv", tmp_path)
    frames, sessions = (pd.read_csv(file) for file in result.files)
    assert frames["session"].tolist() == sessions["session"].tolist() == ["here", "nowhere"]
    for name, best in zip(frames["session"], frames["score_max"], strict=True):
        assert best == pytest.approx(np.nanmax(root[name]["scores"][:]), rel=1e-7)
    assert sessions["valid"].tolist() == [LINES * SAMPLES - 1] * 2
    assert sessions["flagged"].tolist() == [
        int((root[n]["decisions"][:] == 1).sum()) for n in ("here", "nowhere")
    ]
    result = export(path, "parquet", tmp_path, client=client)
    assert [file.rpartition("/")[2] for file in result.files] == [
        "detections.parquet",
        "frames.parquet",
        "sessions.parquet",
    ]
    pd.testing.assert_frame_equal(pd.read_parquet(result.files[2]), sessions, check_dtype=False)


def test_wrong_uses(stores, tmp_path):
    path, _ = stores
    with pytest.raises(ConfigError, match="not one of bsq, bil, bip"):
        export(path, "envi", tmp_path, interleave="bqs")
    with pytest.raises(ConfigError, match=r"no map 'norm\.normalized' of one channel"):
        export(path, "png", tmp_path, outputs=["norm.normalized"])
    with pytest.raises(ConfigError, match=r"There are decisions, norm\.normalized, scores"):
        export(path, "envi", tmp_path, outputs=["score"])
    with pytest.raises(ConfigError, match="does not rise"):
        export(path, "png", tmp_path, limits=(2.0, 1.0))
