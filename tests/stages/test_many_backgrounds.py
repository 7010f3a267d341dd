"""One background per session, for many sessions, without reading a pixel."""

import numpy as np
import pytest

from hsi_batch.nodes import CU3SDataNode, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit


@pytest.mark.parametrize("sessions", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_background_per_session_takes_no_pass(tmp_path, client, sessions):
    folder = tmp_path / "in"
    folder.mkdir()
    cubes = {}
    for i in range(sessions):
        rng = np.random.default_rng(i)
        cubes[f"s{i:04d}"] = rng.integers(0, 4000, (16, 12, 4)).astype(np.uint16)
        np.savez(folder / f"s{i:04d}.npz", cube=cubes[f"s{i:04d}"])
    convert(folder, tmp_path / "a.zarr", client=client)
    made = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    made.connect((data.outputs.cube, rx.data))
    result = fit(made, tmp_path / "a.zarr", background="session", client=client)
    assert (result.passes, result.blocks, result.groups) == (0, 0, sessions)
    for name in list(cubes)[:: sessions // 4]:
        pixels = cubes[name].reshape(-1, 4).astype(float)
        np.testing.assert_allclose(
            made.for_session(name).nodes["rx"].cov, np.cov(pixels.T), rtol=1e-6
        )
