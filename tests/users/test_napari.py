"""Archives and scores in napari: what its reader makes of them, and the real one if it is there.

napari and Qt are an environment of their own (``make napari-test``), named by HSI_BATCH_NAPARI.
"""

import json
import os
import subprocess
import textwrap

import dask.array as da
import numpy as np
import pytest
import zarr
from recordings import scene, write_npz

from hsi_batch.stages.convert import convert

SCRIPT = """
import json, sys
import numpy as np
from napari.components import ViewerModel
from napari.plugins import _initialize_plugins

_initialize_plugins()
model = ViewerModel()
model.open(sys.argv[1], plugin="napari")
(layer,) = model.layers
model.dims.set_point(0, 0)
# Channels are the last axis: lines are looked at, as napari shows the last two.
model.dims.order = (0, 3, 1, 2)
model.dims.set_point(3, 5)
layer.refresh()
found = np.asarray(layer._slice.image.raw)
print(json.dumps({"shape": layer.data.shape, "lazy": type(layer.data).__module__,
                  "plane": found.tolist()}))
"""


@pytest.fixture
def archive(tmp_path, client):
    cube = scene(0)[0]
    write_npz(tmp_path / "in" / "s.npz", cube)
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    return tmp_path / "a.zarr", cube


def test_what_naparis_reader_reads(archive):
    path, cube = archive
    # napari 0.9 opens a folder below a .zarr by these two calls.
    opened = zarr.open(str(path / "s" / "cube"), mode="r")
    assert isinstance(opened, zarr.Array)
    lazy = da.from_zarr(opened)
    assert lazy.chunks[0] == (1,)
    np.testing.assert_array_equal(lazy.compute()[0], cube)


@pytest.mark.skipif("HSI_BATCH_NAPARI" not in os.environ, reason="run by make napari-test")
def test_the_real_napari(archive):
    path, cube = archive
    done = subprocess.run(
        [os.environ["HSI_BATCH_NAPARI"], "-c", textwrap.dedent(SCRIPT), str(path / "s" / "cube")],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["shape"] == [1, *cube.shape]
    assert found["lazy"].startswith("dask")
    np.testing.assert_array_equal(found["plane"], cube[:, :, 5])
