"""Workers stay within base + 3 blocks (+ 4 frames where the SDK delivers frames)."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cluster_helpers import kill_a_worker
from graphs import chain, rx_statistical
from recordings import write_cu3s, write_npz
from simulated_cuvis import Hole

from hsi_batch.archive import open_archive
from hsi_batch.archive.layout import Geometry
from hsi_batch.cli.plans import fit_plan_text
from hsi_batch.cluster import connect
from hsi_batch.errors import PlanError
from hsi_batch.nodes import PercentileNormalizer
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

#: Noise of measuring resident memory: libraries' pages, Python objects of the engine.
SLACK = 6e6


def sparse_envi(path: Path, lines, samples, bands, interleave, *, busy=12) -> Path:
    """A recording that is mostly holes, with noise in a few places all over the frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_suffix(".raw")
    with data.open("wb") as file:
        file.truncate(lines * samples * bands * 2)
    shape, axes = {
        "bil": ((lines, bands, samples), (0, 2, 1)),
        "bip": ((lines, samples, bands), (0, 1, 2)),
        "bsq": ((bands, lines, samples), (1, 2, 0)),
    }[interleave]
    cube = np.memmap(data, dtype="<u2", mode="r+", shape=shape).transpose(axes)
    rng = np.random.default_rng(1)
    base = rng.integers(500, 3000, bands)
    for start in np.linspace(0, lines - 16, busy).astype(int):
        cube[start : start + 16] = base + rng.integers(0, 200, (16, samples, bands))
    del cube
    path.write_text(
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\n"
        f"data type = 12\ninterleave = {interleave}\nbyte order = 0\n"
    )
    return path


def above_base(result):
    return result.memory.peak - result.memory.base


def run(source, folder, *, frames=0, workers=2):
    """Convert, fit and score, each on fresh workers; checks the bound of each."""
    archive = folder / "a.zarr"
    with connect(workers=workers) as client:
        result = convert(source, archive, client=client)
    assert result.failed == 0
    session = open_archive(archive).session(next(iter(open_archive(archive))))
    block = session.geometry.block_bytes
    bound = 3 * block if not frames else frames * session.geometry.frame_bytes
    assert above_base(result) <= bound + SLACK, (str(result), block)
    pipeline = rx_statistical()
    with connect(workers=workers) as client:
        fitted = fit(pipeline, archive, client=client)
        assert fitted.passes == 1
        assert above_base(fitted) <= 3 * block + SLACK, (str(fitted), block)
        # Torch takes about 270 MB of it, numba and its kernel of exact sums 130 MB.
        assert 200e6 < fitted.memory.base < 600e6
    with connect(workers=workers) as client:
        scored = score(pipeline, archive, folder / "s.zarr", client=client)
    assert scored.failed == 0
    assert above_base(scored) <= 3 * block + SLACK, (str(scored), block)
    return session


def test_a_few_hundred_megabytes(tmp_path):
    """The always-on variant of the tests below."""
    session = run(sparse_envi(tmp_path / "s.hdr", 2400, 1000, 61, "bil"), tmp_path)
    assert session.geometry.blocks > 15


def noisy_npz(path: Path, frames, shape) -> Path:
    """The same noisy frame again and again, of a size that cannot be made in memory."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1,), "<u2"))
    header["shape"] = (frames, *shape)
    rng = np.random.default_rng(0)
    noise = rng.integers(500, 3000, shape[-1]) + rng.integers(0, 200, shape)
    frame = noise.astype("<u2").tobytes()
    with (
        zipfile.ZipFile(path, "w", allowZip64=True) as archive,
        archive.open("cube.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(frames):
            member.write(frame)
    return path


def test_noise_and_short_last_blocks(tmp_path):
    """Chunks that hardly shrink, and one of each frame that has to be filled up."""
    session = run(noisy_npz(tmp_path / "s.npz", 5, (1000, 1000, 61)), tmp_path)
    assert session.geometry.shape[0] % session.geometry.lines


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["bip", "npz", "cu3s"])
def test_two_gigabytes(tmp_path, simulated_cuvis, kind):
    shape = (1000, 1000, 61)
    if kind == "cu3s":
        rng = np.random.default_rng(0)
        noisy = (rng.integers(500, 3000, 61) + rng.integers(0, 200, shape)).astype(np.uint16)
        frames = [noisy, *(Hole(shape) for _ in range(16))]
        source = write_cu3s(tmp_path / "s.cu3s", frames)
        assert source.stat().st_size > 2e9
        run(source, tmp_path, frames=4)
    elif kind == "npz":
        source = noisy_npz(tmp_path / "s.npz", 17, shape)
        run(source, tmp_path)
    else:
        run(sparse_envi(tmp_path / "s.hdr", 17000, 1000, 61, "bip", busy=900), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("interleave", ["bil", "bsq"])
def test_one_frame_of_twenty_gigabytes(tmp_path, interleave):
    lines, samples, bands = 50_000, 1000, 200
    source = sparse_envi(tmp_path / "s.hdr", lines, samples, bands, interleave, busy=40)
    assert source.with_suffix(".raw").stat().st_size == 20_000_000_000
    archive = tmp_path / "a.zarr"
    busy: dict[str, set] = {}
    with connect(workers=2) as client:
        killed = []

        def watch(progress):
            working = {w for w, tasks in client.processing().items() if tasks}
            busy.setdefault(progress.stage, set()).update(working)
            if progress.stage == "convert" and progress.done > progress.total / 2 and not killed:
                killed.append(kill_a_worker(client))

        result = convert(source, archive, client=client, observer=watch)
        assert killed
        assert result.failed == 0
        assert len(busy["convert"]) >= 2
        # Work that was done twice shows as blocks beyond those there are.
        session = open_archive(archive).session("s")
        assert result.blocks == session.geometry.blocks
        assert above_base(result) <= 3 * session.geometry.block_bytes + SLACK, str(result)
    pipeline = rx_statistical()
    with connect(workers=2) as client:
        fitted = fit(pipeline, archive, client=client, observer=watch_workers(client, busy, "fit"))
        assert above_base(fitted) <= 3 * session.geometry.block_bytes + SLACK, str(fitted)
    with connect(workers=2) as client:
        observer = watch_workers(client, busy, "score")
        scored = score(pipeline, archive, tmp_path / "s.zarr", client=client, observer=observer)
        assert scored.failed == 0
        assert above_base(scored) <= 3 * session.geometry.block_bytes + SLACK, str(scored)
    assert len(busy["fit"]) == 2
    assert len(busy["score"]) == 2
    shutil.rmtree(archive)


def watch_workers(client, busy, name):
    def observe(_progress):
        working = {w for w, tasks in client.processing().items() if tasks}
        busy.setdefault(name, set()).update(working)

    return observe


def test_what_cannot_fit_is_refused_before_any_work(tmp_path, simulated_cuvis):
    from hsi_batch.cluster import LocalConfig

    source = write_cu3s(tmp_path / "s.cu3s", [Hole((2000, 2000, 61)) for _ in range(2)])
    config = LocalConfig(workers=1, memory=600_000_000)
    with connect(config) as client, pytest.raises(PlanError, match="a worker may take 600 MB"):
        convert(source, tmp_path / "a.zarr", client=client)
    assert not (tmp_path / "a.zarr").exists()


def percentiles():
    return chain(
        PercentileNormalizer(
            name="norm", norm_mode="statistical", statistical_fit="pooled", fit_subsample=1
        )
    )


def small_frames(folder, bands, frames=24):
    rng = np.random.default_rng(0)
    return write_npz(
        folder / "s.npz", rng.integers(0, 60_000, (frames, 16, 16, bands)).astype(np.uint16)
    )


def test_histograms_are_counted(tmp_path, client):
    """Half a megabyte per channel each, several at once: seen, planned, and printed."""
    archive = tmp_path / "a.zarr"
    convert(small_frames(tmp_path, 61), archive, client=client)
    one = 61 * 65536 * 8
    plan = fit(percentiles(), archive, client=client, dry_run=True)
    assert plan.worker_bytes >= 3 * one
    assert f"{plan.worker_bytes / 1e6:.1f} MB)" in fit_plan_text(plan)
    result = fit(percentiles(), archive, client=client)
    assert one <= above_base(result) <= plan.worker_bytes + SLACK, (str(result), plan.worker_bytes)
    # Moments of the same channels are small.
    assert fit(rx_statistical(), archive, client=client, dry_run=True).worker_bytes < 3e6


def test_histograms_that_cannot_fit_are_refused(tmp_path, client):
    from hsi_batch.cluster import LocalConfig

    archive = tmp_path / "a.zarr"
    convert(small_frames(tmp_path, 200, frames=2), archive, client=client)
    with (
        connect(LocalConfig(workers=1, memory=800_000_000)) as other,
        pytest.raises(
            PlanError, match=r"MB for statistics\), but a worker may take 800 MB"
        ) as caught,
    ):
        fit(percentiles(), archive, client=other)
    assert "0.5 MB per channel" in caught.value.hint


def test_block_height_is_chosen_for_8_to_16_megabytes():
    for shape in ((5000, 1000, 61), (100, 20_000, 30), (90_000, 320, 224), (512, 640, 480)):
        geometry = Geometry.choose(1, shape, "uint16")
        assert 8e6 / 1.01 <= geometry.block_bytes <= 16 * 2**20
