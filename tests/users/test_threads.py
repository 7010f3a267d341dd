"""A client that people often have, many threads in this very process, gives the same bytes."""

import numpy as np
import pandas as pd
import pytest
from comparing import assert_same, maps_of, state_of
from distributed import Client
from graphs import pca, rx_per_frame, rx_quantile, rx_statistical
from recordings import scene, write_cu3s, write_envi, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.archive.store import state_folder
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.report import report
from hsi_batch.stages.score import score
from hsi_batch.stages.verify import verify

NM = np.arange(8) * 20.0 + 450


@pytest.fixture(scope="module")
def threads(simulated_cuvis):
    with Client(
        processes=False,
        n_workers=1,
        threads_per_worker=2,
        dashboard_address=":0",
        set_as_default=False,
    ) as client:
        yield client


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Integers: labels, saturated pixels, a missing frame, a file that ends too early."""
    folder = tmp_path_factory.mktemp("in")
    cube, mask = scene(1, lines=90, samples=70)
    write_npz(folder / "labelled.npz", cube, mask=mask, wavelength=NM)
    frames = [scene(seed, lines=40, samples=60)[0] for seed in (2, 3, 4)]
    masks = [scene(seed, lines=40, samples=60)[1] for seed in (2, 3, 4)]
    write_cu3s(
        folder / "gap.cu3s",
        frames,
        masks=masks,
        wavelength=[int(w) for w in NM],
        gaps=(1,),
    )
    odd, _ = scene(5, lines=300, samples=70)
    odd[200:204, 7] = 65535
    odd[10:12] = 0
    extra = "data ignore value = 0\n"
    write_envi(folder / "odd.hdr", odd, interleave="bsq", wavelength=NM, extra=extra)
    short = write_envi(folder / "short.hdr", cube, wavelength=NM).with_suffix(".raw")
    short.write_bytes(short.read_bytes()[:-1000])
    return folder


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floats")
    cube, mask = scene(6, lines=90, samples=70, dtype="float32")
    cube[4, 5, 6], cube[7, 8] = np.nan, np.inf
    write_envi(folder / "a.hdr", cube, interleave="bip", wavelength=NM, mask=mask)
    write_npz(folder / "b.npz", scene(7, lines=33, samples=70, dtype="float32")[0], wavelength=NM)
    return folder


def converted(folder, path, client):
    result = convert(folder, path, client=client, saturation=65535)
    return open_archive(path), result.broken, result.failed


@pytest.mark.parametrize("kind", ["sources", "floats"])
def test_the_whole_way(kind, threads, client, tmp_path, request):
    folder = request.getfixturevalue(kind)
    archives = {}
    for tag, who in (("threads", threads), ("processes", client)):
        archives[tag] = converted(folder, tmp_path / f"{tag}.zarr", who)
    assert archives["threads"][1:] == archives["processes"][1:]
    first, second = (maps_of(tmp_path / f"{tag}.zarr") for tag in archives)
    assert_same(first, second)

    # The quantity of cu3s pixels is known, that of the others is not.
    frames = {"sources": "labelled,odd", "floats": "a,b"}[kind]
    for graph in (rx_statistical, rx_quantile, rx_per_frame, pca):
        found = []
        for tag, who in (("threads", threads), ("processes", client)):
            pipeline = graph()
            fitted = fit(pipeline, archives[tag][0], frames=frames, client=who)
            outputs = ("pca.projected",) if graph is pca else ("rx.scores", "decider.decisions")
            store = tmp_path / f"{tag}-{graph.__name__}.zarr"
            scored = score(
                pipeline, archives[tag][0], store, outputs=outputs, frames=frames, client=who
            )
            assert scored.failed == 0
            summary = pd.read_parquet(state_folder(store) / "summary.parquet")
            content = {"summary": summary.to_json(), "passes": fitted.passes}
            found.append(state_of(pipeline) | maps_of(store) | content)
        assert_same(*found)
    report(tmp_path / "threads-rx_quantile.zarr", tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_damage_is_found(sources, threads, tmp_path):
    archive, _, _ = converted(sources, tmp_path / "a.zarr", threads)
    assert verify(tmp_path / "a.zarr", deep=True, client=threads).damages == ()
    chunk = max((tmp_path / "a.zarr/odd/cube").glob("c.*"), key=lambda p: p.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    (damage,) = verify(tmp_path / "a.zarr", deep=True, client=threads).damages
    assert "odd" in str(damage)
    pipeline = rx_quantile()
    fit(pipeline, archive, frames="labelled", client=threads)
    result = score(pipeline, archive, tmp_path / "s.zarr", frames="labelled,odd", client=threads)
    assert [failure.key.session for failure in result.failures] == ["odd"]
