"""Fitting and applying to labelled arrays, as in a notebook."""

import pickle

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from graphs import rx_per_frame, rx_statistical, selector
from recordings import scene, write_npz

import hsi_batch as hb
from hsi_batch.errors import NotFittedError, PlanError
from hsi_batch.pipeline.cache import pack
from hsi_batch.stages.convert import convert

NM = np.arange(8) * 20.0 + 450


@pytest.fixture(scope="module", params=["uint16", "float32"])
def archive(request, client, tmp_path_factory):
    """One session of three frames in blocks of 16 lines."""
    folder = tmp_path_factory.mktemp("arrays")
    cubes = np.stack([scene(i, lines=70, dtype=request.param)[0] for i in range(3)])
    write_npz(folder / "s.npz", cubes, wavelength=NM)
    convert(folder / "s.npz", folder / "a.zarr", block_lines=16, client=client)
    return hb.open_archive(folder / "a.zarr")


def states(pipeline):
    return {
        f"{name}.{key}": np.asarray(value)
        for name, node in pipeline.nodes.items()
        for key, value in {**node.state, **node.state_dict()}.items()
    }


def same(a, b, *, loosely=()):
    left, right = states(a), states(b)
    assert left.keys() == right.keys()
    assert left
    for key, value in left.items():
        if loosely and key.startswith(loosely):
            np.testing.assert_allclose(value, right[key], rtol=1e-6, err_msg=key)
            continue
        np.testing.assert_array_equal(value, right[key], key)


@pytest.mark.parametrize(
    ("graph", "chunks"),
    [
        (rx_statistical, None),
        (rx_statistical, {"y": 7, "channel": 3}),
        (selector, {"frame": 2, "x": 11}),
    ],
)
def test_an_array_fits_as_the_archive_does(archive, client, graph, chunks):
    expected, found = graph(), graph()
    result = hb.fit(expected, archive, client=client)
    cube = archive["s"].cube.load()
    again = hb.fit(found, cube if chunks is None else cube.chunk(chunks))
    assert again.pixels == result.pixels == cube[..., 0].size
    assert (again.frames, again.sessions) == (3, 1)
    same(found, expected)


def test_one_frame_without_a_frame_dimension(archive, client):
    expected, found = rx_statistical(), rx_statistical()
    hb.fit(expected, archive, frames="s[1]", client=client)
    assert hb.fit(found, archive["s"].cube[1]).frames == 1
    # Other sampled spectra may choose another precision for the scores, which the bias is from.
    same(found, expected, loosely=("logit",))


def test_other_dimensions_are_refused_in_words(archive):
    cube = archive["s"].cube
    for wrong in (cube.transpose("channel", "frame", "y", "x"), cube.rename(channel="band")):
        for call in (lambda c=wrong: hb.fit(rx_statistical(), c), lambda c=wrong: apply(c)):
            with pytest.raises(PlanError, match=r"expected \(frame, y, x, channel\).*transpose"):
                call()


def apply(cube):
    pipeline = rx_statistical()
    hb.fit(pipeline, cube if "channel" in cube.dims and cube.dims[-1] == "channel" else small())
    return pipeline.apply(cube)


def small():
    return xr.DataArray(scene(0)[0], dims=("y", "x", "channel"))


@pytest.mark.parametrize("graph", [rx_statistical, rx_per_frame])
def test_apply_gives_the_stored_bits(archive, client, tmp_path, graph):
    pipeline = graph()
    hb.fit(pipeline, archive, client=client)
    hb.score(pipeline, archive, tmp_path / "s.zarr", client=client)
    stored = xr.open_zarr(tmp_path / "s.zarr", group="s", consolidated=False)
    cube = archive["s"].cube
    for chunks in ({}, {"y": 7, "x": 4, "channel": 3}, {"frame": 3, "y": -1}):
        lazy = pipeline.apply(cube.chunk(chunks), ("scores", "decisions"))
        assert isinstance(lazy.scores.data, da.Array)
        for name, dtype in (("scores", np.float32), ("decisions", np.uint8)):
            assert (lazy[name].dtype, lazy[name].dims) == (dtype, ("frame", "y", "x"))
            np.testing.assert_array_equal(lazy[name].values, stored[name].values)
    one = pipeline.apply(cube[2].load())
    assert one.dims == ("y", "x")
    np.testing.assert_array_equal(one.values, stored.scores[2].values)


def test_the_pipeline_is_in_the_graph_once():
    rng = np.random.default_rng(0)
    pipeline = rx_statistical()
    data = rng.normal(size=(64, 64, 200)).astype(np.float32)
    hb.fit(pipeline, xr.DataArray(data, dims=("y", "x", "channel")))
    many = xr.DataArray(
        da.zeros((40, 4000, 64, 200), dtype=np.float32, chunks=(1, 500, 64, 200)),
        dims=("frame", "y", "x", "channel"),
    )
    size = len(pickle.dumps(pack(pipeline)))
    assert size > 300_000
    lazy = pipeline.apply(many).data
    assert lazy.npartitions >= 40
    assert len(pickle.dumps(dict(lazy.__dask_graph__()))) < 2 * size


def test_a_frame_that_must_be_seen_whole_is_bounded(archive, client):
    pipeline = rx_per_frame()
    hb.fit(pipeline, archive, client=client)
    huge = da.zeros((300_000, 500, 8), dtype=np.float32, chunks=(1000, 500, 8))
    cube = xr.DataArray(huge, dims=("y", "x", "channel"), coords={"wavelength": ("channel", NM)})
    with pytest.raises(PlanError, match=r"must see a frame whole.*4.5 GiB.*hb.score"):
        pipeline.apply(cube)
    by_pixel = rx_statistical()
    hb.fit(by_pixel, archive, client=client)
    assert by_pixel.apply(cube).shape == (300_000, 500)


def test_not_fitted(archive):
    with pytest.raises(NotFittedError, match=r"Call hb\.fit first"):
        rx_statistical().apply(archive["s"].cube)


def test_invalid_pixels(client, tmp_path):
    cube = scene(3, dtype="float32")[0]
    cube[3, 4, 1], cube[7] = np.nan, -1
    array = xr.DataArray(cube, dims=("y", "x", "channel"), attrs={"nodata": -1})
    pipeline = rx_statistical()
    assert hb.fit(pipeline, array).pixels == cube[..., 0].size - 31
    found = pipeline.apply(array, ("scores", "decisions"))
    bad = np.zeros(cube.shape[:2], bool)
    bad[3, 4], bad[7] = True, True
    np.testing.assert_array_equal(np.isnan(found.scores), bad)
    np.testing.assert_array_equal(found.decisions == 255, bad)
    # A mask of the user's wins.
    mask = array[..., 0].copy(data=~bad)
    mask[0] = False
    assert np.isnan(pipeline.apply(array, valid=mask)[0]).all()


def test_arrays_without_names_of_dimensions(archive, client):
    pipeline = rx_statistical()
    cube = archive["s"].cube.load()
    for call in (pipeline.apply, lambda array: hb.fit(pipeline, array)):
        if call == pipeline.apply:
            hb.fit(pipeline, archive, client=client)
        with pytest.raises(
            PlanError, match=r"the cube is a numpy\.ndarray; an xarray\.DataArray"
        ) as e:
            call(cube.values)
        assert 'Wrap it: xarray.DataArray(array, dims=("y", "x", "channel")).' in str(e.value)
        with pytest.raises(PlanError, match=r"the cube is a xarray\.Dataset; .* dataset\.cube"):
            call(archive["s"])
        with pytest.raises(PlanError, match=r"is a dask\.Array"):
            call(da.asarray(cube.values))
    with pytest.raises(PlanError, match=r"`valid` is a numpy\.ndarray"):
        pipeline.apply(cube, valid=np.ones(cube.shape[:3], dtype=bool))
