"""Nodes of other packages that are fitted by an ordered stream of frames."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
import torch
import xarray as xr
from counting import counting
from recordings import write_npz

from hsi_batch.archive import open_archive
from hsi_batch.documents import read_yaml
from hsi_batch.errors import DataError, PipelineError
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.pipeline.schedule import Job, schedule
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit

MODULE = '''
"""Knows nothing of hsi_batch."""
import torch
from torch import nn


class Spec:
    def __init__(self, dtype, shape):
        self.dtype, self.shape = dtype, shape


CUBE = Spec(torch.float32, (-1, -1, -1, -1))


class Streamed(nn.Module):
    INPUT_SPECS = {"data": CUBE}
    OUTPUT_SPECS = {"centred": CUBE}
    requires_initial_fit = True
    scope = "pixel"

    def __init__(self, how="mean"):
        super().__init__()
        self.how = how
        self._statistically_initialized = False
        self.register_buffer("mean", torch.zeros(0))
        #: First value and shape of each frame, in the order in which they came.
        self.register_buffer("seen", torch.zeros(0, 5, dtype=torch.float64))

    def statistical_initialization(self, input_stream):
        assert not self.training
        if self.how == "grows":
            self.register_buffer("more", torch.zeros(1))
        total, count, seen = 0, 0, []
        for given in input_stream:
            assert set(given) == {"data"}
            cube = given["data"]
            if self.how == "raise" and cube.shape[1] == 40:
                raise RuntimeError("cannot go on")
            assert cube.dtype == torch.float32
            seen.append([float(torch.nan_to_num(cube)[0, 0, 0, 0]), *cube.shape])
            pixels = cube.reshape(-1, cube.shape[-1]).double()
            if self.how == "nanmean":
                pixels = pixels[~torch.isnan(pixels).any(dim=1)]
            total, count = total + pixels.sum(dim=0), count + len(pixels)
        self.mean = (total / count).float()
        self.seen = torch.tensor(seen, dtype=torch.float64)
        self._statistically_initialized = True

    def forward(self, data):
        return {"centred": data - self.mean}
'''
FRAMES, LINES, WIDTH, CHANNELS = 3, 40, 20, 4


@pytest.fixture
def package(tmp_path, client, monkeypatch):
    """A package that this process and the workers can import."""
    name = f"hsi_streams_{abs(hash(str(tmp_path))) % 10**8}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("HSI_BATCH_PLUGINS", name)
    folder = str(tmp_path / "lib")
    client.run(lambda: sys.path.insert(0, folder))
    yield name
    client.run(lambda: sys.path.remove(folder))
    del sys.modules[name]


def cubes():
    rng = np.random.default_rng(0)
    shape = (FRAMES, LINES, WIDTH, CHANNELS)
    return {f"s{i}": rng.integers(1, 4000, shape).astype(np.uint16) for i in (1, 2, 10)}


def converted(folder, client, **changed):
    for name, cube in {**cubes(), **changed}.items():
        write_npz(folder / "in" / f"{name}.npz", cube)
    convert(folder / "in", folder / "a.zarr", block_lines=16, nodata=0, client=client)
    return open_archive(folder / "a.zarr")


@pytest.fixture(scope="module")
def archive(tmp_path_factory, client):
    return converted(tmp_path_factory.mktemp("streams"), client)


def graph(package, how="mean"):
    text = f"""
    plugins: [{package}]
    nodes:
      data: CU3SDataNode
      norm: MinMaxNormalizer
      mean: {{class_name: {package}.Streamed, hparams: {{how: {how}}}}}
      rx: {{class_name: RXGlobal, hparams: {{eps: 0.0}}}}
    connections:
    - [data.cube, norm.data]
    - [norm.normalized, mean.data]
    - [mean.centred, rx.data]
    """
    return Pipeline.from_document(read_yaml("p.yaml", text=textwrap.dedent(text)))


def expected(frames):
    flat = np.concatenate([cube.reshape(-1, CHANNELS) for cube in frames]).astype(np.float64)
    # The normalizer has one range for all channels.
    low, high = flat.min(), flat.max()
    return ((flat - low) / (high - low)).mean(axis=0)


def test_frames_come_in_order_and_once(archive, package, client, tmp_path):
    pipeline = graph(package)
    plan = fit(pipeline, archive, client=client, dry_run=True)
    # The stream waits for the normalizer, whose extrema are stored, and RX for the stream.
    assert (plan.passes, plan.blocks) == (2, 2 * 9 * 3)
    assert "mean: an ordered stream of frames on one worker, pass 1" in str(plan.plan)
    with counting(client, archive.path) as counts:
        result = fit(pipeline, archive, client=client)
    assert (result.passes, set(counts.values())) == (2, {2})
    module = pipeline.nodes["mean"].module
    every = [cube[i] for cube in cubes().values() for i in range(FRAMES)]
    np.testing.assert_allclose(module.mean, expected(every), rtol=1e-5)
    # Sessions in natural order, frames ascending: each begins with its own first pixel.
    low, high = float(np.min(every)), float(np.max(every))
    first = [(frame[0, 0, 0] - low) / (high - low) for frame in every]
    np.testing.assert_allclose(module.seen[:, 0], first, rtol=1e-5)
    assert module.seen[:, 1:].tolist() == [[1, LINES, WIDTH, CHANNELS]] * len(every)
    assert module._statistically_initialized
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    for name, buffer in module.state_dict().items():
        assert torch.equal(buffer, again.nodes["mean"].module.state_dict()[name])
    assert again.fitted
    # As in cuvis-ai, a fit fits it again, whatever weights it brought.
    again.nodes["mean"].module.mean += 1
    fit(again, archive, frames="s2[1:3]", client=client)
    part = expected([cubes()["s2"][1], cubes()["s2"][2]])
    np.testing.assert_allclose(again.nodes["mean"].module.mean, part, rtol=1e-5)


def test_lines_of_a_frame(archive, package, client):
    pipeline = graph(package)
    fit(pipeline, archive, frames="s1[0][y=8:30]", client=client)
    part = cubes()["s1"][0, 8:30]
    np.testing.assert_allclose(pipeline.nodes["mean"].module.mean, expected([part]), rtol=1e-5)
    assert pipeline.nodes["mean"].module.seen[:, 1:].tolist() == [[1, 22, WIDTH, CHANNELS]]


def test_one_stream_per_background(archive, package, client):
    pipeline = graph(package)
    result = fit(pipeline, archive, background="session", client=client)
    assert result.passes == 2
    for name, cube in cubes().items():
        own = pipeline.for_group(name).nodes["mean"].module
        np.testing.assert_allclose(own.mean, expected([cube]), rtol=1e-5)


def test_frames_that_cannot_be_read_are_left_out(package, client, tmp_path):
    own = converted(tmp_path, client)
    (own.path / "s2" / "cube" / "c.1.0.0.0").unlink()
    pipeline = graph(package)
    result = fit(pipeline, own, client=client)
    assert {(f.key.session, f.key.frame) for f in result.failures} == {("s2", 1)}
    assert len(pipeline.nodes["mean"].module.seen) == 3 * FRAMES - 1


def test_pixels_that_do_not_count_are_nan(package, client, tmp_path):
    holes = cubes()["s2"]
    holes[1, 5, 7] = 0
    own = converted(tmp_path, client, s2=holes)
    with pytest.raises(DataError, match=r"holds NaN in mean after its fit.* in 1 of 9 frames"):
        fit(graph(package), own, client=client)
    pipeline = graph(package, "nanmean")
    fit(pipeline, own, client=client)
    every = [cube[i] for cube in {**cubes(), "s2": holes}.values() for i in range(FRAMES)]
    flat = np.concatenate([frame.reshape(-1, CHANNELS) for frame in every])
    mean = expected([flat[(flat > 0).all(axis=1)]])
    np.testing.assert_allclose(pipeline.nodes["mean"].module.mean, mean, rtol=1e-5)


def test_an_array(package):
    cube = cubes()["s1"]
    pipeline = graph(package)
    result = fit(pipeline, xr.DataArray(cube, dims=("frame", "y", "x", "channel")))
    # Nothing is stored of it: the normalizer takes a pass, too.
    assert result.passes == 3
    np.testing.assert_allclose(pipeline.nodes["mean"].module.mean, expected([cube]), rtol=1e-5)
    assert len(pipeline.nodes["mean"].module.seen) == FRAMES


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("raise", DataError, r"mean \(Streamed\) failed .* RuntimeError: cannot go on"),
        ("grows", PipelineError, r"mean \(Streamed\) holds buffers \['mean', 'more', 'seen'\]"),
    ],
)
def test_errors_name_the_node(archive, package, client, how, error, says):
    with pytest.raises(error, match=says):
        fit(graph(package, how), archive, client=client)


def test_no_frame_at_all(package, client, tmp_path):
    own = converted(tmp_path, client)
    for chunk in own.path.glob("s*/cube/c.*.0.0.0"):
        chunk.unlink()
    with pytest.raises(DataError, match=r"mean \(Streamed\) .* none of 9 could be read.*missing"):
        fit(graph(package), own, client=client)


def test_a_finished_stream_is_not_repeated(archive, package, client, tmp_path):
    def stop(progress):
        if "pass 2" in progress.stage:
            raise KeyboardInterrupt

    keep = tmp_path / "fit"
    with pytest.raises(KeyboardInterrupt):
        fit(graph(package), archive, client=client, keep=keep, observer=stop)
    calm, pipeline = graph(package), graph(package)
    fit(calm, archive, client=client)
    plan = fit(pipeline, archive, client=client, keep=keep, dry_run=True)
    assert (plan.kept, plan.blocks) == (27, 27)
    result = fit(pipeline, archive, client=client, keep=keep)
    assert (result.kept, result.blocks, result.passes) == (27, 27, 2)
    assert pipeline.nodes["mean"].buffer_digest() == calm.nodes["mean"].buffer_digest()
    np.testing.assert_array_equal(
        pipeline.nodes["rx"].state["covariance"], calm.nodes["rx"].state["covariance"]
    )
    assert not keep.exists()


def test_passes_are_shared_as_far_as_can_be():
    nobody = frozenset()
    # Two streams and a node behind each: the passes of the nodes behind them are one.
    jobs = [
        Job("a", (nobody,), alone=True),
        Job("b", (nobody,), alone=True),
        Job("x", (frozenset({"a"}),)),
        Job("y", (frozenset({"b"}), None)),
    ]
    assert schedule(jobs) == {"a": ((1,), 1), "b": ((2,), 2), "x": ((3,), 3), "y": ((3, 0), 3)}
    # A node of several passes, and a stream behind it.
    jobs = [
        Job("k", (None,), more=2),
        Job("s", (frozenset({"k"}),), alone=True),
        Job("z", (nobody,)),
    ]
    assert schedule(jobs) == {"z": ((1,), 1), "k": ((0,), 2), "s": ((3,), 3)}


def test_the_plan_of_a_stream_behind_a_pass(package):
    plan = plan_fit(graph(package))
    assert [(n.name, n.reading) for n in plan.nodes] == [("norm", 1), ("rx", 3)]
    assert [tuple(s) for s in plan.streams] == [("mean", 2)]
    assert str(plan).startswith("3 passes over the pixels")
